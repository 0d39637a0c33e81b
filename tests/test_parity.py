"""Every golden case of the released code, in `tests/golden` and in every further set that lies beside the checkout."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import parity

HERE = Path(__file__).resolve().parent
SETS = [HERE / 'golden', *sorted((HERE.parent.parent / 'shared' / 'reference').glob('set_*'))]
GOLDEN = [(folder, name) for folder in SETS for name in parity.cases_in(folder)]


@pytest.mark.parametrize('folder, name', GOLDEN, ids=[f'{folder.name}-{name}' for folder, name in GOLDEN])
def test_agrees(folder, name):
    assert parity.misses(parity.check(folder, name)) == []


def test_golden_set_is_whole():
    assert len(parity.cases_in(HERE / 'golden')) == 9, 'a case is missing from tests/golden'
    assert sum(path.stat().st_size for path in (HERE / 'golden').rglob('*') if path.is_file()) < 9 * 2**20


def test_a_wrong_number_is_seen(tmp_path):
    from safetensors.torch import save_file

    tensors = parity.tensors_of(HERE / 'golden', 'resampler_kv_proj')
    (tmp_path / 'resampler_kv_proj.json').write_bytes((HERE / 'golden' / 'resampler_kv_proj.json').read_bytes())
    for factor, status in ((1, 0), (1.001, 1), (float('nan'), 1)):
        save_file({**tensors, 'y': tensors['y'] * factor}, tmp_path / 'resampler_kv_proj.safetensors')
        done = subprocess.run([sys.executable, HERE / 'parity.py', tmp_path], capture_output=True, text=True)
        assert (done.returncode, 'FAIL' in done.stdout) == (status, status == 1), done.stdout + done.stderr


def test_no_cases(tmp_path):
    done = subprocess.run([sys.executable, HERE / 'parity.py', tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and 'no golden cases' in done.stderr


def test_errors_are_measured():
    a = torch.tensor([3.0, 4.0])
    assert parity.relative_error(a * 1.1, a) == pytest.approx(0.1) and parity.relative_error(a[:1], a) == float('inf')
    assert (
        parity.exact([3, 4], a.long()) == 0
        and parity.exact([3, 5], a.long()) == float('inf')
        and parity.misses([('y', float('nan'))])
    )
