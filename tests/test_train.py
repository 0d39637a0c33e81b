"Every training stage from the command line, at toy length, and a book told by what they leave behind."

import json

import pytest

from seed_story.cli import run
from seed_story.story.format import read_stories


def train(stage, store, out, *more):
    code = run(['train', stage, '--store', str(store), '--out', str(out), *map(str, more)])
    assert code == 0, f'{stage} ended with {code}'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A run folder after all stages, two steps each."
    store, out = tmp_path_factory.mktemp('store'), tmp_path_factory.mktemp('run')
    toy = ('--steps', 2, '--batch', 2)
    train('render', store, out, '--stories', 3, '--workers', 1)
    for stage in ('words', 'vae', 'tokenizer', 'oracle'):
        train(stage, store, out, *toy)
    for what in ('features', 'latents'):
        train('encode', store, out, '--what', what)
    for stage in ('detokenizer', 'mllm', 'adapt'):
        train(stage, store, out, *toy)
    train('assemble', store, out)
    return store, out


def test_every_stage_leaves_its_component_and_its_log(trained):
    store, out = trained
    for part in ('vae', 'visual_tokenizer', 'oracle', 'mllm', 'feature_resampler', 'unet'):
        assert list((out / part).glob('*.safetensors')), part
    for name in ('vae', 'visual_tokenizer', 'oracle', 'detokenizer', 'mllm', 'adapt'):
        rows = [json.loads(line) for line in (out / 'logs' / f'{name}.jsonl').read_text().splitlines()]
        assert rows[-1]['step'] == 2 and 0 < rows[-1]['loss'] < 1e4, name
    for file in out.rglob('*.json'):
        assert str(out) not in file.read_text(), f'{file} tells where it was made'


def test_a_book_is_told_by_it(trained, tmp_path):
    assert (
        run(['tell', '--model', str(trained[1]), '--pages', '2', '--steps', '2', '--out', str(tmp_path / 'book')]) == 0
    )
    [story] = read_stories(tmp_path / 'book' / 'story.jsonl', tmp_path / 'book' / 'images')
    assert len(story) == 2 and all(page.text and page.image is not None for page in story)


def test_a_stage_goes_on_from_its_weights_and_under_eviction(trained, tmp_path):
    import shutil
    from seed_story.training.runs import load_component

    store, out = trained
    copy = tmp_path / 'run'
    shutil.copytree(out, copy)
    before = load_component(copy, 'mllm').state_dict()
    train('mllm', store, copy, '--steps', 1, '--batch', 2, '--resume', '--eviction', 'multimodal', '--lr', 1e-5)
    after = load_component(copy, 'mllm').state_dict()
    moved = max(float((after[k].float() - v.float()).abs().max()) for k, v in before.items())
    assert 0 < moved < 0.05, 'one small step from the old weights'


def test_stage_two_streams_from_a_storystream_folder(trained, tmp_path, capsys):
    import shutil
    from seed_story.storyland.world import write_set

    write_set(2, 5, tmp_path / 'set', pages=20, size=(128, 128), workers=1)
    shutil.copytree(trained[1], tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'mllm')
    train('mllm', trained[0], tmp_path / 'run', '--data', tmp_path / 'set', '--steps', 2, '--batch', 3, '--workers', 1)
    assert (tmp_path / 'run' / 'mllm' / 'model.safetensors').is_file()
    assert (
        run(
            [
                'train',
                'mllm',
                '--store',
                str(trained[0]),
                '--out',
                str(tmp_path / 'run'),
                '--data',
                str(tmp_path / 'nowhere'),
                '--steps',
                '1',
            ]
        )
        == 2
    )
    assert 'cannot be read as stories' in capsys.readouterr().err


def test_a_run_is_watched(trained, tmp_path):
    import shutil
    from PIL import Image

    shutil.copytree(trained[1], tmp_path / 'run')
    train(
        'mllm',
        trained[0],
        tmp_path / 'run',
        '--steps',
        2,
        '--batch',
        2,
        '--samples',
        3,
        '--tensorboard',
        tmp_path / 'curves',
    )
    [words] = (tmp_path / 'run' / 'samples').glob('*.txt')
    assert (
        words.name == '00000002.txt'
        and len(words.read_text().split('\n\n')) >= 3
        and Image.open(words.with_suffix('.png')).width > 300
    )
    assert b'mllm/loss' in next((tmp_path / 'curves').iterdir()).read_bytes()


def test_missing_stages_are_named(trained, tmp_path, capsys):
    assert run(['train', 'mllm', '--store', str(trained[0]), '--out', str(tmp_path), '--steps', '1']) == 2
    assert 'seed-story train words' in capsys.readouterr().err
    assert (
        run(
            [
                'train',
                'mllm',
                '--store',
                str(trained[0]),
                '--out',
                str(trained[1]),
                '--steps',
                '1',
                '--eviction',
                'reencode',
            ]
        )
        == 2
    )
    assert 're-encode' in capsys.readouterr().err


def weights(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*.safetensors'))}


@pytest.mark.parametrize(
    'stage, part, more',
    [
        ('mllm', 'mllm', ('--eviction', 'multimodal')),
        ('detokenizer', 'unet', ()),
        ('tokenizer', 'visual_tokenizer', ()),
    ],
)
def test_a_stage_that_is_told_to_stop_goes_on_as_if_nothing_had_been(
    trained, tmp_path, monkeypatch, capsys, stage, part, more
):
    import os
    import shutil
    import signal
    from seed_story.training import loop as training

    store, out = trained
    for name in ('straight', 'stopped'):
        shutil.copytree(out, tmp_path / name)
        shutil.rmtree(tmp_path / name / part)
        shutil.rmtree(tmp_path / name / 'logs')
    options = ('--steps', 7, '--batch', 2, *more)
    train(stage, store, tmp_path / 'straight', *options)
    whole, taken = training._one_step, []

    def interrupted(*args):
        whole(*args)
        taken.append(1)
        if len(taken) in (2, 5):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training, '_one_step', interrupted)
    command = ['train', stage, '--store', str(store), '--out', str(tmp_path / 'stopped'), *map(str, options)]
    for done in (2, 5):
        assert run(command) == 130 and f'stopped after {done} steps' in capsys.readouterr().err
        assert (tmp_path / 'stopped' / 'checkpoints' / stage / 'newest.json').exists()
    assert run([*command[:-1], *command[-1:], '--lr', '0.1']) == 2 and 'lr was' in capsys.readouterr().err, (
        'other options are refused'
    )
    assert run(command) == 0 and len(taken) == 7
    assert (
        weights(tmp_path / 'stopped' / part) == weights(tmp_path / 'straight' / part)
        and not (tmp_path / 'stopped' / 'checkpoints' / stage).exists()
    )
    log = lambda name: [
        {k: v for k, v in json.loads(line).items() if k != 'seconds'}
        for file in sorted((tmp_path / name / 'logs').glob('*.jsonl'))
        for line in file.read_text().splitlines()
    ]
    assert log('stopped') == log('straight') != []


SCRIPT = """
import json, sys
from pathlib import Path
import torch
from seed_story.training.page_store import load_store
from seed_story.training.runs import load_text_tokenizer, several_processes
from seed_story.training.sharding import end_together
from seed_story.training.stages import load_encoded, train_mllm
from seed_story.training.loop import Budget
torch.set_num_threads(1)
accelerator = several_processes()
store, run, out, batch, accumulate = *map(Path, sys.argv[1:4]), int(sys.argv[4]), int(sys.argv[5])
train_mllm(load_store(store, images=False).texts, load_encoded(store / 'features'), load_text_tokenizer(run), out, Budget(steps=3, lr=1e-3, warmup=1), batch=batch, pages=4, sigma=0., feedback=0.,
           accumulate=accumulate, accelerator=accelerator)
end_together(accelerator)
"""


def test_two_processes_and_two_passes_do_what_one_does(trained, tmp_path):
    import os
    import subprocess
    import sys
    from safetensors.torch import load_file

    store, out = trained
    (tmp_path / 'train.py').write_text(SCRIPT)
    several = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--master_port', '29613']
    fsdp = {'ACCELERATE_USE_FSDP': 'true', 'FSDP_VERSION': '2'}
    for name, launch, batch, passes, more in (
        ('one', [sys.executable], 4, 1, {}),
        ('passes', [sys.executable], 2, 2, {}),
        ('processes', several, 2, 1, {}),
        ('shards', several, 2, 1, fsdp),
    ):
        done = subprocess.run(
            [*launch, str(tmp_path / 'train.py'), str(store), str(out), str(tmp_path / name), str(batch), str(passes)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, 'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1', **more},
        )
        assert done.returncode == 0, done.stderr[-2000:]
    read = lambda name: (
        json.loads((tmp_path / name / 'logs' / 'mllm.jsonl').read_text().splitlines()[-1]),
        load_file(tmp_path / name / 'mllm' / 'model.safetensors'),
    )
    row, weights = read('one')
    for name in ('passes', 'processes', 'shards'):
        other, others = read(name)
        assert all(abs(other[k] - row[k]) < 1e-3 * row[k] for k in ('loss', 'lm', 'rec')), (name, other, row)
        assert (
            sum(float((weights[k].float() - others[k].float()).norm() ** 2) for k in weights) ** 0.5
            < 0.01 * sum(float(weights[k].float().norm() ** 2) for k in weights) ** 0.5
        ), name
