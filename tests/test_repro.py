"Every notebook of nbs/repro runs, as small as it can be; a run that is stopped, or is the second, destroys nothing."

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from seed_story import cli
from seed_story.cli import run
from seed_story.records.parameters import check_parameters, read_parameters
from seed_story.sinks.policies import attention_policy

ROOT = Path(__file__).resolve().parent.parent


def test_every_reproduction_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')  # of each of the two that run at a time
    code = run(['repro', '--all', '--smallest', '--jobs', '2', '--out', str(tmp_path / 'out')])
    told = capsys.readouterr().out
    assert code == 0 and 'FAILED' not in told, told
    assert run(['repro', '--smallest']) == 2 and '--all' in capsys.readouterr().err


@pytest.mark.parametrize('path', sorted((ROOT / 'nbs' / 'repro').glob('*.ipynb')), ids=lambda p: p.stem)
def test_a_notebook_begins_anywhere(path, tmp_path, monkeypatch):
    "Its first cells, as papermill and Jupyter run them: they find the checkout from any folder, and check parameters."
    monkeypatch.chdir(tmp_path)
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == 'code']
    first = next(k for k, c in enumerate(cells) if 'parameters' in c.metadata.get('tags', []))
    names: dict = {}
    exec(cells[first].source, names)
    parameters = {key: value for key, value in names.items() if key != '__builtins__'}
    exec(cells[first + 1].source, names)
    assert Path.cwd() == ROOT and all(names[key] == value for key, value in parameters.items())
    number = next((key for key, value in parameters.items() if type(value) is int), None)
    if number:
        with pytest.raises(ValueError, match=f'{path.stem}, -p {number} is -1; it must be at least'):
            exec(cells[first + 1].source, names | {number: -1})


JUNK = [
    '',
    ' ',
    '0',
    '-1',
    '1.5',
    'nan',
    '1e309',
    '9' * 5000,
    'None',
    'x',
    'dense@',
    '../x',
    '/dev/null',
    '\0',
    '\ud800',
    'a\nb',
]
JUNK += [0, -1, 1.5, float('inf'), 10**30, True, None, [1], {}, b'x', object()]


@pytest.mark.parametrize('name', ['cache_cost', 'chunk_length', 'stream_report'])
def test_any_value_is_taken_or_refused_in_one_line(name):
    path = ROOT / 'nbs' / 'repro' / f'{name}.ipynb'
    readers = dict(policies=cli._policies, policy=attention_policy)
    refused = 0
    for parameter in read_parameters(path):
        for value in JUNK:
            try:
                check_parameters(path, {parameter: value}, ROOT, readers)
            except ValueError as error:
                refused += 1
                assert name in str(error) and parameter in str(error)
                assert '\n' not in str(error) and len(str(error)) < 1000, error
    assert refused > len(JUNK) / 3 * len(read_parameters(path))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    "A checkout with one notebook, which says that it has begun, and then waits as long as it is told."
    folder = tmp_path / 'nbs' / 'repro'
    folder.mkdir(parents=True)
    (tmp_path / 'settings.ini').write_text('')
    sleepy = "import time\nopen('began', 'w').close()\nfor _ in range(10 * seconds): time.sleep(0.1)"
    tagged = new_code_cell('seconds = 0\nout = None\n# least: seconds=0', metadata=dict(tags=['parameters']))
    kernel = dict(kernelspec=dict(name='python3', display_name='python3', language='python'))
    nbformat.write(new_notebook(cells=[tagged, new_code_cell(sleepy)], metadata=kernel), folder / 'sleeps.ipynb')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stopped_or_second_it_destroys_nothing(checkout, capsys):
    assert run(['repro', 'sleeps']) == 0
    whole, began = checkout / 'out' / 'repro' / 'sleeps.ipynb', checkout / 'nbs' / 'repro' / 'began'
    kept = whole.read_bytes()
    words = [sys.executable, '-c', 'from seed_story.cli import main; main()', 'repro', 'sleeps', '-p', 'seconds', '60']
    for number in (signal.SIGTERM, signal.SIGKILL):
        began.unlink()
        first = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | {'PYTHONPATH': str(ROOT)})
        deadline = time.monotonic() + 60
        while not began.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        capsys.readouterr()
        assert run(['repro', 'sleeps']) == 2  # the second, meanwhile
        err = capsys.readouterr().err
        assert err.count('\n') == 1 and f'is being written by process {first.pid}' in err, err
        first.send_signal(number)
        told = first.communicate(timeout=60)[1]
        assert whole.read_bytes() == kept
        if number == signal.SIGTERM:
            assert (first.returncode, told.count('\n')) == (130, 1) and 'interrupted' in told, told
    assert run(['repro', 'sleeps']) == 0 and [p.name for p in whole.parent.iterdir()] == ['sleeps.ipynb']
