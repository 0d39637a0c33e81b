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
    train('render', store, out, '--stories', 3, '--workers', 1, '--pages', '10-14')
    train('words', store, out)
    for stage in ('vae', 'tokenizer', 'oracle'):
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
    train('mllm', store, copy, '--steps', 1, '--batch', 2, '--init-from', '--eviction', 'multimodal', '--lr', 1e-5)
    after = load_component(copy, 'mllm').state_dict()
    moved = max(float((after[k].float() - v.float()).abs().max()) for k, v in before.items())
    assert 0 < moved < 0.05, 'one small step from the old weights'


def test_stage_two_goes_on_from_what_ships_and_is_told_how_many_pages_follow(trained, tmp_path, capsys):
    import shutil
    from seed_story.models.presets import bundled_folder
    from seed_story.training.runs import load_component

    untold = tmp_path / 'untold'  # as what ships, but told nothing
    shutil.copytree(bundled_folder('tiny'), untold)
    config = untold / 'mllm' / 'config.json'
    config.write_text(json.dumps(json.loads(config.read_text()) | dict(page_countdown=False)))
    how = (
        '--steps',
        2,
        '--batch',
        2,
        '--pages',
        5,
        '--long-pages',
        10,
        '--long-share',
        0.5,
        '--eviction',
        'multimodal',
    )
    how += ('--ending-share', 0.3, '--countdown-share', 0.85, '--init-from', untold)
    train('mllm', trained[0], tmp_path / 'run', *how)
    assert sorted(p.name for p in (tmp_path / 'run').iterdir()) == ['checkpoints', 'logs', 'mllm', 'tokenizer']
    made, shipped = (load_component(folder, 'mllm') for folder in (tmp_path / 'run', untold))
    assert made.config.page_countdown and not shipped.config.page_countdown
    moved = [float((a - b).detach().abs().max()) for a, b in zip(made.parameters(), shipped.parameters())]
    assert 0 < max(moved) < 0.1
    words = ['train', 'mllm', '--store', str(trained[0]), '--out', str(tmp_path / 'none'), '--steps', '1']
    assert run([*words, '--pages', '14', '--long-pages', '15', '--init-from', str(trained[1])]) == 2
    assert 'no story of the store has more than 14 pages' in capsys.readouterr().err


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


def test_weights_of_another_run_are_begun_with(trained, tmp_path, capsys):
    "`--init-from` takes the weights of a folder; `--resume` meant that once, and now says so."
    import shutil
    from seed_story.training.runs import load_component

    store, out = trained
    (tmp_path / 'run').mkdir()
    shutil.copytree(out / 'tokenizer', tmp_path / 'run' / 'tokenizer')
    words = ['train', 'mllm', '--store', str(store), '--out', str(tmp_path / 'run'), '--steps', '1', '--batch', '2']
    assert run([*words, '--resume']) == 2
    err = capsys.readouterr().err
    assert 'give --init-from instead' in err and err.count('\n') == 1 and not (tmp_path / 'run' / 'mllm').exists()
    assert run([*words, '--init-from', str(tmp_path / 'nowhere')]) == 2 and 'no such folder' in capsys.readouterr().err
    assert run([*words, '--init-from', str(out), '--lr', '1e-9']) == 0
    before, after = (load_component(folder, 'mllm').state_dict() for folder in (out, tmp_path / 'run'))
    assert max(float((after[k].float() - v.float()).abs().max()) for k, v in before.items()) < 1e-4


@pytest.mark.parametrize('stage', ['vae', 'oracle'])
def test_every_stage_can_begin_with_trained_weights(trained, tmp_path, stage):
    import shutil
    from safetensors.torch import load_file

    store, out = trained
    shutil.copytree(out, tmp_path / 'run')
    [file] = (tmp_path / 'run' / stage).glob('*.safetensors')
    before = load_file(file)
    train(stage, store, tmp_path / 'run', '--steps', 1, '--batch', 2, '--lr', 1e-9, '--init-from')
    after = load_file(file)
    assert all(((after[k].float() - v.float()).abs() <= 0.01 * v.float().abs() + 1e-6).all() for k, v in before.items())
    assert (tmp_path / 'run' / 'logs' / f'{stage}.1.jsonl').is_file(), 'the log of the run before is put aside'


@pytest.mark.parametrize(
    'stage, words, why',
    [
        ('mllm', ['--lr', '1e-4x'], "--lr '1e-4x': it must be a number"),
        ('mllm', ['--steps', 'x'], 'a whole number'),
        ('mllm', ['--steps', '0'], 'at least 1'),
        ('mllm', ['--seconds', '0'], 'greater than 0'),
        ('mllm', ['--batch', '0'], 'at least 1'),
        ('mllm', ['--log-every', '0'], 'at least 1'),
        ('mllm', ['--accumulate', '0'], 'at least 1'),
        ('mllm', ['--stories', '-5'], 'at least 1'),
        ('mllm', ['--seed', '1.5'], 'a whole number'),
        ('mllm', ['--pages', '0'], 'at least 2'),
        ('mllm', ['--set', '5'], "'5' is no change"),
        ('mllm', ['--set', 'num_slots=0'], 'at least 1'),
        ('mllm', ['--set', 'num_slots'], 'write NAME=VALUE'),
        ('mllm', ['--set', 'image_size=x'], 'a whole number'),
        ('mllm', ['--set', 'pages=1'], 'a chunk has 2 to 1,000 pages'),
        ('mllm', ['--set', 'pages=5', '--set', 'pages=6'], 'given twice'),
        ('mllm', ['--set', 'mllm.llm_config.num_hidden_layers=900000000'], 'at most 1,000'),
        ('mllm', ['--seconds', 'nan'], 'a number'),
        ('mllm', ['--lr', '1e308'], 'at most 10'),
        ('mllm', ['--workers', '100000'], 'at most'),
        ('mllm', ['--steps', '5', '--snapshots', '6'], 'after the last of 5 steps'),
        ('mllm', ['--tensorboard', '/dev/null/curves'], 'is a file'),
        ('mllm', ['--init-from', 'x' * 300], 'name too long'),
        ('MLLM', [], 'did you mean mllm'),
        ('mllm', ['--device', 'toaster'], "device 'toaster' cannot be used"),
        ('mllm', ['--device', 'meta'], "device 'meta' cannot be used"),
        ('mllm', ['--device', 'cuda:77'], "device 'cuda:77' cannot be used"),
        ('mllm', ['--lr'], '--lr without a value'),
        ('mllm', ['--bar'], 'no option --bar'),
        ('mllm', ['--watching', '[]'], 'no option --watching'),
        ('mllm', ['--evicton', 'multimodal'], 'did you mean --eviction?'),
        ('vae', ['--eviction', 'multimodal'], 'stage vae has no option --eviction'),
        ('encode', ['--part', '1'], 'K/N'),
        ('encode', ['--part', '3/3'], 'K/N'),
        ('render', ['--stories', '0'], 'at least 1'),
        ('adapt', ['--trainable', 'hole'], 'did you mean whole?'),
        ('pack', ['--source', 'nowhere.jsonl'], 'no such file'),
    ],
)
def test_wrong_options_are_one_line_and_nothing_is_left(tmp_path, capsys, stage, words, why):
    code = run(['train', stage, '--store', str(tmp_path / 's'), '--out', str(tmp_path / 'o'), *words])
    err = capsys.readouterr().err
    assert code == 2 and why in err and err.count('\n') == 1 and not list(tmp_path.iterdir())


def test_folders_named_by_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(['train', 'render', '--store', '5', '--stories', '1', '--workers', '1']) == 0
    assert run(['train', 'words', '--store', '5', '--out', '2024']) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ['2024', '5']


def test_every_stage_lists_its_options(capsys):
    from seed_story.training.options import STAGE_OPTIONS

    for stage, kind in STAGE_OPTIONS.items():
        assert run(['train', stage, '--help']) == 0
        out = capsys.readouterr().out
        assert all(f'--{name.replace("_", "-")}' in out for name in kind.leaves()), stage
    assert run(['train', '--help']) == 0 and 'Stage 2' in capsys.readouterr().out
    assert run(['train', 'cook', '--help']) == 2


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
        pytest.param('mllm', 'mllm', ('--eviction', 'multimodal'), marks=pytest.mark.own),
        pytest.param('detokenizer', 'unet', (), marks=pytest.mark.own),
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
    assert run([*command, '--lr', '0.1']) == 2 and 'lr was' in capsys.readouterr().err, 'other options are refused'
    assert run([*command, '--init-from', str(out)]) == 2 and '--init-from begins a run' in capsys.readouterr().err
    command.append('--resume')  # which says no more than the same command does
    assert run(command) == 0 and len(taken) == 7
    assert (
        weights(tmp_path / 'stopped' / part) == weights(tmp_path / 'straight' / part)
        and not (tmp_path / 'stopped' / 'checkpoints' / stage).exists()
    )

    def log(name):
        return [
            {k: v for k, v in json.loads(line).items() if k != 'seconds'}
            for file in sorted((tmp_path / name / 'logs').glob('*.jsonl'))
            for line in file.read_text().splitlines()
        ]

    assert log('stopped') == log('straight') != []


# --- kills at every step on the disk


def own_files(folder):
    "What a run leaves: its files, the log without the seconds; not the logs of attempts before it, nor its lock."
    found = {}
    for path in sorted(folder.rglob('*')):
        name = path.relative_to(folder).as_posix()
        if path.name.endswith(('.lock', '.1.jsonl', '.2.jsonl')) or path.is_dir():
            continue
        found[name] = path.read_bytes()
        if path.suffix == '.json':
            found[name] = {k: v for k, v in json.loads(found[name]).items() if k not in ('seconds', '_name_or_path')}
        elif path.suffix == '.jsonl':
            rows = map(json.loads, path.read_text().splitlines())
            found[name] = [{k: v for k, v in row.items() if k != 'seconds'} for row in rows]
    return found


def toy_training(out, go_on=False):
    "Two steps of a small module, kept after each; `go_on`: from the weights in `out`, as `--init-from` does."
    import torch
    from seed_story.models.detokenizer import FeatureResampler
    from seed_story.story.files import claim
    from seed_story.training.checkpoints import Checkpoints
    from seed_story.training.loop import Log, Saving, fit, save_module, step_generator
    from seed_story.training.options import Optimisation
    from seed_story.training.stages import with_seed

    torch.set_num_threads(1)
    sizes = dict(dim=8, depth=1, dim_head=4, heads=2, num_queries=2, embedding_dim=4, output1_dim=3, output2_dim=3)
    with claim(out / 'part'):
        model = FeatureResampler.from_pretrained(out / 'part') if go_on else with_seed(0, FeatureResampler, **sizes)

        def step(i, used):
            hidden, pooled = model(torch.randn(2, 3, 4, generator=step_generator('cpu', 0, i)))
            return dict(loss=(hidden**2).mean() + (pooled**2).mean())

        kept = Checkpoints(out / 'checkpoints' / 'part', dict(go_on=go_on))
        saving = Saving(log_every=1, save_seconds=0.0, checkpoints=kept)
        how = Optimisation(steps=2, lr=0.1, ema_decay=0.5)
        fit(
            step,
            [model],
            how,
            Log(out / 'logs' / 'part.jsonl'),
            lambda made: save_module(model, out / 'part', made),
            saving,
        )


@pytest.mark.own
@pytest.mark.filterwarnings('error:.*damaged')  # no checkpoint ever is
@pytest.mark.parametrize('go_on, stride', [(True, 1), (False, 4)], ids=['from its own weights', 'from random ones'])
def test_a_training_that_is_killed_at_any_step_ends_as_if_nothing_had_been(tmp_path, monkeypatch, go_on, stride):
    import os
    import shutil
    from kills import killed_at
    from seed_story.models.detokenizer import FeatureResampler

    monkeypatch.setattr(os, 'fsync', lambda file: None)  # for the power going, not for a kill

    toy_training(tmp_path / 'begin')
    shutil.copytree(tmp_path / 'begin', whole := tmp_path / 'whole')
    toy_training(whole, go_on)
    step = 0
    while True:
        shutil.copytree(tmp_path / 'begin', out := tmp_path / f'{step}')
        killed = killed_at(step, lambda: toy_training(out, go_on))
        there = FeatureResampler.from_pretrained(out / 'part')
        assert all(p.isfinite().all() for p in there.parameters()), 'whole weights at any time'
        if not killed:
            break
        if any(p.is_file() for p in out.glob('checkpoints/*/[!.]*')):  # else it had not begun, or had ended
            toy_training(out, go_on)
            assert own_files(out) == own_files(whole), step
        shutil.rmtree(out)
        step += stride
    assert step > 40


@pytest.mark.own
def test_a_stage_that_is_killed_is_resumed(trained, tmp_path, monkeypatch, capsys):
    "Killed at some steps on the disk, `--resume` ends with the weights of the run that nobody killed."
    import os
    from kills import killed_at

    monkeypatch.setattr(os, 'fsync', lambda file: None)
    often = ('--steps', 2, '--batch', 2, '--save-seconds', 0, '--log-every', 1)
    train('oracle', trained[0], tmp_path / 'whole', *often)
    ends = set()
    for step in (1, 4, 9, 22, 40, 51, 57, 58):
        out = tmp_path / f'{step}'
        words = ['train', 'oracle', '--store', str(trained[0]), '--out', str(out), *map(str, often)]
        assert killed_at(step, lambda: run(words))
        begun = any(p.is_file() for p in out.glob('checkpoints/*/[!.]*'))
        ended = not begun and (out / 'oracle').exists()
        ends.add((begun, ended))
        code = run([*words, '--resume'])
        assert code == (0 if begun else 2), capsys.readouterr().err
        if not begun and not ended:
            assert run(words) == 0
        assert own_files(out) == own_files(tmp_path / 'whole'), step
    assert ends == {(False, False), (True, False), (False, True)}


@pytest.mark.own
def test_a_folder_that_is_being_assembled_stays_whole(trained, tmp_path, monkeypatch):
    import os
    import shutil
    from kills import killed_at
    from seed_story.pipeline.story_pipeline import StoryPipeline

    monkeypatch.setattr(os, 'fsync', lambda file: None)
    for step in range(2, 200, 24):
        shutil.copytree(trained[1], out := tmp_path / f'{step}')
        words = ['train', 'assemble', '--out', str(out)]
        killed = killed_at(step, lambda: run(words))
        StoryPipeline.from_pretrained(out)
        assert run(words) == 0 and own_files(out) == own_files(trained[1]), step
        shutil.rmtree(out)
        if not killed:
            break
    assert step > 40


def test_two_at_once_are_refused(trained, tmp_path, capsys):
    "A component is written by one run at a time; the others of the folder are free."
    from seed_story.story.files import claim

    store, out = trained[0], tmp_path / 'run'
    with claim(out / 'oracle'):
        words = ['--store', str(store), '--out', str(out), '--steps', '1', '--batch', '2']
        assert run(['train', 'oracle', *words]) == 2
        err = capsys.readouterr().err
        assert 'oracle is being written by process' in err and 'another --out' in err and err.count('\n') == 1
        assert not any(out.glob('[!.]*')), 'nothing is left of what was refused'
        assert run(['train', 'vae', *words]) == 0
    assert run(['train', 'oracle', *words]) == 0
    with claim(out / 'feature_resampler'):
        for stage in ('adapt', 'detokenizer', 'assemble'):
            more = ['--out', str(out)] if stage == 'assemble' else words
            assert run(['train', stage, *more]) == 2 and 'is being written' in capsys.readouterr().err


def test_damage_in_a_run_folder_is_one_line(trained, tmp_path, capsys):
    "Checkpoints, tokenizers and files in the way are named with the remedy, and nothing is changed."
    import shutil

    store, out = trained[0], tmp_path / 'run'
    shutil.copytree(trained[1], out)
    before = own_files(out)
    words = ['--store', str(store), '--out', str(out), '--steps', '1', '--batch', '2']

    def refused(stage, why):
        assert run(['train', stage, *words]) == 2
        err = capsys.readouterr().err
        assert why in err and err.count('\n') == 1, err

    (kept := out / 'checkpoints' / 'oracle').mkdir(parents=True)
    (kept / 'step-00000001.pt').write_text('no checkpoint')
    refused('oracle', 'remove the folder to begin anew')
    shutil.rmtree(out / 'checkpoints')
    (out / 'checkpoints').write_text('a file')
    refused('oracle', 'checkpoints')
    (out / 'checkpoints').unlink()
    (out / 'tokenizer' / 'tokenizer_config.json').write_text('{}')
    refused('mllm', 'train words again')
    shutil.copy(trained[1] / 'tokenizer' / 'tokenizer_config.json', out / 'tokenizer')
    assert own_files(out) == before, 'what is refused changes nothing'
    shutil.rmtree(out / 'vae')
    (out / 'vae').write_text('mine')
    refused('vae', 'vae is a file where a folder is written')
    assert (out / 'vae').read_text() == 'mine'


def test_off_a_terminal_the_rows_are_all_that_is_said(trained, tmp_path, capsys):
    words = ['--store', str(trained[0]), '--out', str(tmp_path / 'run'), '--steps', '2', '--batch', '2']
    assert run(['train', 'vae', *words, '--log-every', '1']) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)['step'] for line in lines] == [1, 2], 'no bar, and no word of a library'


def test_an_environment_of_several_processes(trained, tmp_path, monkeypatch, capsys):
    words = ['--store', str(trained[0]), '--out', str(tmp_path / 'run'), '--steps', '1', '--batch', '2']
    for said, why in (('2', 'the work of one process'), ('x', "WORLD_SIZE is 'x'"), ('0', "WORLD_SIZE is '0'")):
        monkeypatch.setenv('WORLD_SIZE', said)
        assert run(['train', 'vae', *words]) == 2 and why in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


SCRIPT = """
import json, sys
from pathlib import Path
import torch
from seed_story.training.page_store import load_store
from seed_story.training.options import Conditioning, Optimisation
from seed_story.training.runs import launched_accelerator, load_text_tokenizer
from seed_story.training.sharding import end_together
from seed_story.training.stages import ChunkData, fresh_component, load_encoded, train_mllm
torch.set_num_threads(1)
accelerator = launched_accelerator()
store, run, out, batch, accumulate = *map(Path, sys.argv[1:4]), int(sys.argv[4]), int(sys.argv[5])
tokenizer = load_text_tokenizer(run)
data = ChunkData(tokenizer, load_store(store, images=False).texts, load_encoded(store / 'features'), pages=4)
device = str(accelerator.device) if accelerator else 'cpu'
how = Optimisation(steps=3, lr=1e-3, warmup=1, batch=batch, accumulate=accumulate, device=device)
quiet = Conditioning(noise=0, scheduled_sampling=0)
train_mllm(fresh_component('tiny', 'mllm', 0, tokenizer), data, out, how, quiet, accelerator=accelerator)
end_together(accelerator)
"""


def test_two_processes_and_two_passes_do_what_one_does(trained, tmp_path, monkeypatch):
    import os
    import runpy
    import subprocess
    import sys
    from safetensors.torch import load_file

    store, out = trained
    (tmp_path / 'train.py').write_text(SCRIPT)
    launch = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--nproc_per_node',
        '2',
        '--standalone',
    ]  # takes a free port
    fsdp = {'ACCELERATE_USE_FSDP': 'true', 'FSDP_VERSION': '2'}

    def words(name, batch, passes):
        return [str(tmp_path / 'train.py'), str(store), str(out), str(tmp_path / name), str(batch), str(passes)]

    for name, batch, passes in (('one', 4, 1), ('passes', 2, 2)):
        monkeypatch.setattr(sys, 'argv', words(name, batch, passes))
        runpy.run_path(sys.argv[0])
    for name, more in (('processes', {}), ('shards', fsdp)):
        env = {**os.environ, 'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1', **more}
        done = subprocess.run([*launch, *words(name, 2, 1)], capture_output=True, text=True, timeout=300, env=env)
        assert done.returncode == 0, done.stderr[-2000:]

    def read(name):
        rows = (tmp_path / name / 'logs' / 'mllm.jsonl').read_text().splitlines()
        return json.loads(rows[-1]), load_file(tmp_path / name / 'mllm' / 'model.safetensors')

    row, weights = read('one')
    for name in ('passes', 'processes', 'shards'):
        other, others = read(name)
        assert all(abs(other[k] - row[k]) < 1e-3 * row[k] for k in ('loss', 'lm', 'rec')), (name, other, row)
        assert (
            sum(float((weights[k].float() - others[k].float()).norm() ** 2) for k in weights) ** 0.5
            < 0.01 * sum(float(weights[k].float().norm() ** 2) for k in weights) ** 0.5
        ), name
