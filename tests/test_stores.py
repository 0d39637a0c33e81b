"""Sets and page stores under kills, two at once and other makes: whole or not at all, and never silently another.

A command is killed at each of its steps on the disk in turn, in a process forked for it."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kills import contents, killed_at
from seed_story.story.files import ClaimedError, claim
from seed_story.story.format import Page, Story, check_file, write_stories
from seed_story.storyland.plot import HELD_OUT
from seed_story.storyland.world import make_opening, write_set
from seed_story.training.page_store import StoreFormat, load_store, pack_store, render_store
from small_model import command

DRAWN = StoreFormat(pages=10, size=16, wordings=1)


def kill_everywhere(folder: Path, job, check) -> int:
    "Kill `job(folder)` at each of its steps, `check(folder)` what is there, then do it again; returns how many steps."
    job(whole := folder / 'whole')
    step = 0
    while killed_at(step, lambda: job(folder / f'{step}' / 'it')):
        (folder / f'{step}').mkdir(exist_ok=True)
        check(folder / f'{step}' / 'it')
        job(folder / f'{step}' / 'it')
        assert contents(folder / f'{step}') == {f'it/{k}': v for k, v in contents(whole).items()}, f'step {step}'
        step += 1
    return step


@pytest.mark.own
def test_a_set_is_whole_or_not_there(tmp_path):
    def check(out):
        assert not out.exists() or check_file(out / 'stories.jsonl') == []

    def job(out):
        if not out.exists():
            write_set(1, 7, out, 10, (16, 16), workers=1)

    assert kill_everywhere(tmp_path, job, check) > 12


@pytest.mark.own
def test_a_store_is_drawn_to_its_end_after_a_kill(tmp_path, monkeypatch):
    from seed_story.training import page_store

    monkeypatch.setattr(page_store, '_storyland_story', functools.cache(page_store._storyland_story))

    def check(out):
        if any(out.glob('*.npz')):
            assert load_store(out).seeds in ([7], [7, 8])

    def job(out):
        render_store(out, 2, 7, DRAWN, workers=1, shard_stories=1)

    assert kill_everywhere(tmp_path, job, check) > 8


@pytest.fixture(scope='module')
def told(tmp_path_factory):
    "Three short stories in StoryStream's format."
    tales = [
        Story([Page(f'{name} {k}.', Image.new('RGB', (9, 9), (k, 0, n))) for k in range(2)], id=name)
        for n, name in enumerate('abc')
    ]
    return write_stories(tales, tmp_path_factory.mktemp('told') / 'set')


@pytest.mark.own
def test_a_store_is_packed_to_its_end_after_a_kill(told, tmp_path):
    def check(out):
        if any(out.glob('*.npz')):
            assert load_store(out).seeds in (['a-0', 'b-0'], ['a-0', 'b-0', 'c-0'])

    assert kill_everywhere(tmp_path, lambda out: pack_store(told, out, 2, 8, shard_stories=2), check) > 8


@pytest.mark.own
def test_pages_are_encoded_to_their_end_after_a_kill(told, tmp_path):
    import torch
    from types import SimpleNamespace
    from seed_story.models.visual_tokenizer import ImageInputMixin
    from seed_story.training.stages import encode_store, load_encoded

    class MeanColour(ImageInputMixin, torch.nn.Module):
        dtype = torch.float32
        device = torch.device('cpu')
        config = SimpleNamespace(image_size=4, image_mean=(0.5,) * 3, image_std=(0.5,) * 3)

        def forward(self, x):
            return x.mean((2, 3))[:, None]

    pack_store(told, tmp_path / 'packed', 2, 8, shard_stories=2)
    eyes = MeanColour()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the threads of a process do not live on in one that is forked from it

    def job(out):
        encode_store(tmp_path / 'packed', out, eyes, 'cpu')

    def check(out):
        assert len(list(out.glob('*.safetensors'))) <= 2

    try:
        assert kill_everywhere(tmp_path, job, check) > 5
        encode_store(tmp_path / 'packed', tmp_path / 'packed' / 'features', eyes, 'cpu')
        assert len(load_encoded(tmp_path / 'packed' / 'features')) == 3
    finally:
        torch.set_num_threads(threads)


def test_two_at_once(told, tmp_path):
    "Whoever comes second is told so before anything is done, and what the first makes is not touched."
    for out, fill in (
        (tmp_path / 'set', lambda out: write_set(1, 0, out, 10, (16, 16), workers=1)),
        (tmp_path / 'drawn', lambda out: render_store(out, 1, 0, DRAWN, workers=1)),
        (tmp_path / 'packed', lambda out: pack_store(told, out, 2, 8)),
    ):
        with claim(out), pytest.raises(ClaimedError, match='is being written by'):
            fill(out)
        assert not out.exists()
        fill(out)


@pytest.fixture
def drawing(tmp_path):
    "A command that draws a set by two processes for minutes, and has begun."
    program = 'import sys; from seed_story.cli import main; main()'
    words = ['data', 'storyland', '--stories', '3000', '--size', '64', '--workers', '2', '--out', str(tmp_path / 'set')]
    with subprocess.Popen([sys.executable, '-c', program, *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while len(list(tmp_path.glob('.set.*.part/images/*'))) < 3:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline, 'a minute has gone by, and fewer than 3 pictures are there'
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def children_of(process: int) -> list[int]:
    return [int(n) for n in Path(f'/proc/{process}/task/{process}/children').read_text().split()]


def is_running(process: int) -> bool:
    "Whether a process is there, and not merely remembered until somebody asks how it ended."
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def ended(processes: list[int], seconds: float = 20) -> bool:
    "Whether all of them end in time."
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(map(is_running, processes)):
            return True
        time.sleep(0.05)
    return False


on_linux = pytest.mark.skipif(not Path('/proc/self/task').exists() or os.cpu_count() == 1, reason='two cores and /proc')


@pytest.mark.own
@on_linux
def test_a_set_that_is_ended_leaves_nothing(drawing, tmp_path):
    workers = children_of(drawing.pid)
    assert len(workers) == 2
    drawing.send_signal(signal.SIGTERM)
    assert drawing.wait(20) == 130 and ended(workers)
    assert drawing.stderr.read() == 'seed-story: interrupted\n' and not list(tmp_path.iterdir())


@pytest.mark.own
@on_linux
def test_the_processes_of_a_set_that_is_killed_end_with_it(drawing, tmp_path):
    workers = children_of(drawing.pid)
    drawing.kill()
    drawing.wait(20)
    assert len(workers) == 2 and ended(workers)
    assert not (tmp_path / 'set').exists()
    write_set(1, 0, tmp_path / 'set', 10, (16, 16), workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ['set'], 'the next one takes away what the killed one left'


def test_held_out_seeds_are_refused_everywhere(tmp_path):
    from seed_story.evaluation.generate import draw_openings, draw_true_stories
    from seed_story.evaluation.lengths import write_true_stories
    from seed_story.storyland.plot import write_plot
    from seed_story.storyland.world import draw_story, make_story, write_opening
    from seed_story.training.page_store import storyland_shard

    for way in (
        lambda seed: write_plot(seed),
        lambda seed: make_story(seed),
        lambda seed: draw_story(seed),
        lambda seed: make_opening(seed),
        lambda seed: write_opening(tmp_path / 'model', seed),
        lambda seed: write_set(1, seed, tmp_path / 'set'),
        lambda seed: write_set(2, seed - 1, tmp_path / 'set'),
        lambda seed: storyland_shard(seed, 1, DRAWN),
        lambda seed: render_store(tmp_path / 'store', 1, seed, DRAWN),
        lambda seed: render_store(tmp_path / 'store', 2, seed - 1, DRAWN),
        lambda seed: draw_openings([seed]),
        lambda seed: draw_true_stories([seed], 10),
        lambda seed: write_true_stories([seed], 10),
        lambda seed: write_true_stories([seed], 10, workers=2),
    ):
        with pytest.raises(ValueError, match='held out'):
            way(HELD_OUT)
    code, out, err = command('train', 'render', '--store', tmp_path / 'store', '--seed', '99999999999')
    assert code == 2 and 'held out' in err and err.count('\n') == 1
    assert not list(tmp_path.iterdir())


SETS = [
    (['--stories', '0'], 'from 1 to 10,000,000'),
    (['--stories', '-1'], 'from 1 to 10,000,000'),
    (['--stories', '9' * 20], 'from 1 to 10,000,000'),
    (['--stories', '9' * 20, '--allow-held-out'], 'from 1 to 10,000,000'),
    (['--pages', '9'], 'pages must be a whole number from 10'),
    (['--pages', '1000000000'], 'from 10 to 10,000'),
    (['--seed', '-1'], 'seed'),
    (['--seed', '10000000'], 'held out'),
    (['--size', '0'], '--size'),
    (['--size', '9' * 20], 'width must be a whole number from 16 to 4,096'),
    (['--size', '128x8'], 'height must be a whole number from 16 to 4,096'),
    (['--suffix', 'gif'], 'png or jpg'),
    (['--colours', '999'], '2 to 256'),
    (['--workers', '0'], '--workers'),
    (['--out', '.'], 'the folder that you are in'),
    (['--out', '..'], 'the folder that you are in, or holds it'),
    (['--out', 'notes'], 'not an empty folder'),
    (['--out', 'file'], 'not an empty folder'),
]


@pytest.mark.parametrize('words,part', SETS, ids=[' '.join(words)[:40] for words, _ in SETS])
def test_sets_that_cannot_be_made(words, part, tmp_path, monkeypatch):
    here = tmp_path / 'here'
    (here / 'notes').mkdir(parents=True)
    (here / 'notes' / 'mine').touch()
    (here / 'file').touch()
    before = contents(tmp_path)
    monkeypatch.chdir(here / 'notes' if words == ['--out', '..'] else here)
    code, out, err = command('data', 'storyland', '--stories', '1', '--out', 'set', *words)
    assert code == 2 and out == '' and err.count('\n') == 1 and part in err, err
    assert contents(tmp_path) == before


def test_into_an_empty_folder_that_is_there(tmp_path, monkeypatch):
    (tmp_path / 'set').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'elsewhere')
    for name in ('set', 'link'):
        words = ('--pages', 10, '--size', 16, '--workers', 20_000, '--out', tmp_path / name)
        code, _, err = command('data', 'storyland', '--stories', '1', *words)
        assert code == 0, err
        assert check_file(tmp_path / name / 'stories.jsonl') == []
    assert (tmp_path / 'link').is_symlink()


def test_a_store_from_the_command_line(told, tmp_path):
    store = tmp_path / 'store'

    def train(stage, *words, rc=0, part=''):
        code, out, err = command('train', stage, '--store', store, '--out', tmp_path / 'run', *words)
        lines = [line for line in err.splitlines() if not line.startswith('{')]  # rows of the log
        assert code == rc and part in err and 'Traceback' not in err and len(lines) == bool(rc), err

    train('render', '--stories', 1, '--workers', 1)
    train('render', '--stories', 2, '--workers', 1)
    assert load_store(store, 2).seeds == [0, 1]
    train('render', '--stories', 3, '--series', 'harbour', rc=2, part='series None instead of harbour')
    train('render', '--stories', 3, '--set', 'image_size=64', rc=2, part='size 128 instead of 64')
    train('render', '--stories', 3, '--pages', '10-30', rc=2, part='shortest None instead of 10')
    train('pack', '--source', told, '--set', 'pages=2', rc=2, part='kind storyland instead of pack')
    train('pack', '--source', told, '--set', 'pages=3', rc=2, part='no story has 3 pages')
    train('vae', '--stories', 3, '--steps', 1, rc=2, part='has 2 of 3 stories')
    train('words', '--stories', 3, rc=2, part='has 2 of 3 stories')
    train('mllm', '--steps', 1, rc=2, part='run `seed-story train words')
    train(
        'vae', '--steps', 1, '--set', 'image_size=64', rc=2, part='has pictures of 128 pixels, and stage vae wants 64'
    )
    labels = dict(np.load(store / '000000000.npz'))
    np.savez(store / '000000000.npz', **{k: v for k, v in labels.items() if not k.startswith('label.')})
    for stage in ('oracle', 'tokenizer'):
        train(stage, '--steps', 1, rc=2, part='does not say what its pictures show')
    (store / '000000001.npz').write_bytes(b'')
    for stage in ('words', 'vae', 'oracle', 'tokenizer', 'render'):
        train(stage, *(() if stage in ('words', 'render') else ('--steps', 1)), rc=2, part='000000001.npz is no shard')
    assert np.load(store / '000000000.npz')['images'].shape == (1, 30, 128, 128, 3)
