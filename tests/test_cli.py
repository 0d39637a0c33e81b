"""The command line: a book is told page by page, an interrupted one goes on to become the same book.

Data is made, checked and cut."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from small_model import command, pages_of, small_model, tell


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "An uninterrupted book of six pages for each attention policy."
    told = {}
    for attention in ('dense', 'window:2', 'reencode:2'):
        told[attention] = tmp_path_factory.mktemp('whole') / 'book'
        assert tell(told[attention], '--seed', 7, '--pages', 6, '--attention', attention)[0] == 0
    return told


def test_a_book(whole):
    book = whole['dense']
    pages = pages_of(book)
    assert len(pages) == 6 and pages[0][0] == 'the rabbit walks to the river' and all(text for text, _ in pages)
    assert len({image for _, image in pages}) == 6 and Image.open(book / 'images' / '0003.png').size == (128, 128)
    line = json.loads((book / 'story.jsonl').read_text())
    assert line['images'] == [f'{k:04d}.png' for k in range(6)] and line['orders'] == list(range(6))
    html = (book / 'index.html').read_text()
    assert html.count('data:image/') >= 6 and 'src="images' not in html
    assert command('data', 'check', book / 'story.jsonl')[0] == 0
    assert sorted(p.name for p in book.iterdir()) == ['.state', 'images', 'index.html', 'story.jsonl']


def test_same_seed_same_book(whole, tmp_path):
    code, out, err = tell(tmp_path / 'again', '--seed', 7, '--pages', 6, '--attention', 'dense')
    assert code == 0 and err == '' and str(tmp_path / 'again' / 'index.html') in out and 'seed 7' in out
    assert pages_of(tmp_path / 'again') == pages_of(whole['dense'])
    assert tell(tmp_path / 'other', '--seed', 8, '--pages', 3)[0] == 0
    assert pages_of(tmp_path / 'other')[1:] != pages_of(whole['reencode:2'])[1:3]


def test_policies_differ(whole):
    assert len({tuple(pages_of(book)) for book in whole.values()}) == 3


def test_own_opening(tmp_path):
    Image.effect_noise((64, 48), 90).save(tmp_path / 'mine.jpg')
    assert (
        tell(
            tmp_path / 'book',
            '--image',
            tmp_path / 'mine.jpg',
            '--text',
            ' A  happy bear. ',
            '--pages',
            2,
            '--steps',
            1,
        )[0]
        == 0
    )
    pages = pages_of(tmp_path / 'book')
    assert (
        len(pages) == 2
        and pages[0][0] == 'A happy bear.'
        and Image.open(tmp_path / 'book' / 'images' / '0000.png').size == (48, 48)
    )


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('story', 'story-2'):
        assert command('tell', '--model', small_model(), '--pages', 1)[0] == 0
        assert (tmp_path / name / 'index.html').is_file()


# --- interrupted and resumed


class Interrupt:
    "Raises KeyboardInterrupt in the `count`-th call of a function of a module or class."

    def __init__(self, monkeypatch, owner, name, count):
        real, self.calls = getattr(owner, name), 0

        def wrapped(*args, **kwargs):
            self.calls += 1
            if self.calls == count:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapped)


def interrupt_places():
    import seed_story.story.book
    import seed_story.pipeline.narrate
    import seed_story.pipeline.story_pipeline
    import seed_story.pipeline.tell

    return dict(
        text=(seed_story.pipeline.narrate, 'sample_tokens', 18),
        slots=(seed_story.pipeline.narrate, 'regress_image', 3),
        drawing=(seed_story.pipeline.story_pipeline, 'detokenize', 2),
        writing=(seed_story.story.book, 'encode_png', 3),
        naming=(seed_story.story.book, 'format_story_line', 4),
        binding=(seed_story.pipeline.tell, 'write_index', 3),
    )


@pytest.mark.parametrize('attention', ['dense', 'window:2', 'reencode:2'])
@pytest.mark.parametrize('place', ['text', 'slots', 'drawing', 'writing', 'naming', 'binding'])
def test_interrupt_and_resume(place, attention, whole, tmp_path):
    book = tmp_path / 'book'
    with pytest.MonkeyPatch.context() as patch:
        Interrupt(patch, *interrupt_places()[place])
        code, out, err = tell(book, '--seed', 7, '--pages', 6, '--attention', attention)
    assert code == 130 and f'seed-story tell --resume --out {book}' in err and err.count('\n') == 1
    kept = pages_of(book)
    assert 1 <= len(kept) < 6 and kept == pages_of(whole[attention])[: len(kept)] and not list(book.rglob('*.part'))
    code, out, err = command('tell', '--resume', '--out', book)
    assert (code, err) == (0, '') and '6 pages, seed 7' in out
    assert pages_of(book) == pages_of(whole[attention])
    assert (book / 'index.html').read_bytes() == (whole[attention] / 'index.html').read_bytes()
    assert (book / 'story.jsonl').read_bytes() == (whole[attention] / 'story.jsonl').read_bytes()


def test_interrupted_before_the_first_page(tmp_path):
    import seed_story.pipeline.story_pipeline

    with pytest.MonkeyPatch.context() as patch:
        Interrupt(patch, seed_story.pipeline.story_pipeline.StoryPipeline, 'from_pretrained', 1)
        assert tell(tmp_path / 'book')[0] == 130
    assert not (tmp_path / 'book').exists()
    code, out, err = tell(tmp_path / 'book', '--resume')
    assert code == 2 and 'holds no book to go on with: leave out --resume' in err and not (tmp_path / 'book').exists()
    assert tell(tmp_path / 'book', '--pages', 2)[0] == 0 and len(pages_of(tmp_path / 'book')) == 2


def test_resume_a_finished_book_and_make_it_longer(whole, tmp_path):
    import shutil

    shutil.copytree(whole['dense'], tmp_path / 'book')
    assert command('tell', '--resume', '--out', tmp_path / 'book')[0] == 0 and pages_of(tmp_path / 'book') == pages_of(
        whole['dense']
    )
    assert command('tell', '--resume', '--out', tmp_path / 'book', '--pages', 8)[0] == 0
    assert tell(tmp_path / 'long', '--seed', 7, '--attention', 'dense', '--pages', 8)[0] == 0
    assert pages_of(tmp_path / 'book') == pages_of(tmp_path / 'long') and pages_of(tmp_path / 'long')[:6] == pages_of(
        whole['dense']
    )


@pytest.mark.parametrize('kind', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals(kind, tmp_path):
    "A real process, a real signal; after SIGKILL nothing can be said, and still the book goes on."
    book = tmp_path / 'book'
    words = [
        sys.executable,
        '-c',
        'from seed_story.cli import main; main()',
        'tell',
        '--model',
        small_model(),
        '--out',
        book,
        '--seed',
        '3',
        '--pages',
        '500',
        '--steps',
        '40',
    ]
    process = subprocess.Popen(
        [str(w) for w in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # tests run in the background may have inherited that it is ignored
    until = time.monotonic() + 120
    while not (book / 'images' / '0002.png').exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(kind)
    out, err = process.communicate(timeout=60)
    if kind == signal.SIGKILL:
        assert process.returncode == -kind
    else:
        assert process.returncode == 130 and 'go on with: seed-story tell --resume' in err and 'Traceback' not in err, (
            err
        )
    kept = pages_of(book)
    assert 2 <= len(kept) < 500 and (book / 'index.html').is_file()
    assert command('tell', '--resume', '--out', book, '--pages', len(kept) + 1)[0] == 0 and pages_of(book)[:-1] == kept


# --- data, train, repro, help


def test_storyland_set_is_sound_and_can_be_cut(tmp_path):
    code, out, err = command(
        'data',
        'storyland',
        '--stories',
        2,
        '--seed',
        5,
        '--pages',
        12,
        '--size',
        '64x48',
        '--workers',
        1,
        '--out',
        tmp_path / 'set',
    )
    assert (code, err) == (0, '') and '2 stories' in out
    code, out, err = command('data', 'check', tmp_path / 'set' / 'stories.jsonl')
    assert code == 0 and '2 stories are sound, 0 bad' in out
    code, out, err = command(
        'data', 'chunk', tmp_path / 'set' / 'stories.jsonl', '--pages', 5, '--out', tmp_path / 'chunks'
    )
    assert code == 0 and 'from 2 stories' in out
    assert len((tmp_path / 'chunks' / 'stories.jsonl').read_text().splitlines()) == 4
    code, out, err = command('data', 'storyland', '--stories', 1, '--out', tmp_path / 'set')
    assert code == 2 and err.count('\n') == 1


def test_check_reports_every_bad_line(tmp_path):
    Image.new('RGB', (4, 4)).save(tmp_path / 'a.png')
    good = json.dumps(dict(id=1, images=['a.png'], captions=['One.']))
    (tmp_path / 's.jsonl').write_text(
        '\n'.join(
            [
                good,
                '{"id": 2',
                json.dumps(dict(id=3, images=['b.png'], captions=['One.'])),
                good.replace('"id": 1', '"id": 4'),
            ]
        )
        + '\n'
    )
    code, out, err = command('data', 'check', tmp_path / 's.jsonl')
    assert (
        code == 1
        and 's.jsonl:2:' in out
        and 's.jsonl:3:' in out
        and 's.jsonl:1:' not in out
        and '2 stories are sound, 2 bad' in out
    )
    code, out, err = command('data', 'check', '--skip-bad', tmp_path / 's.jsonl')
    assert code == 0 and '2 skipped' in out
    assert command('data', 'chunk', tmp_path / 's.jsonl', '--pages', 1, '--out', tmp_path / 'cut')[0] == 2 and not list(
        (tmp_path / 'cut').glob('*')
    )
    assert command('data', 'chunk', tmp_path / 's.jsonl', '--pages', 1, '--skip-bad', '--out', tmp_path / 'cut')[0] == 0


def test_train_names_its_stages():
    code, out, err = command('train', 'sing')
    assert code == 2 and "unknown stage 'sing'; known:" in err
    assert 'has no option --volume' in command('train', 'vae', '--volume', '3')[2]
    assert (
        'stage vae needs --store FOLDER and --out FOLDER' in command('train', 'vae')[2]
        and 'stage vae needs --store FOLDER\n' in command('train', 'vae', '--out', 'x')[2]
    )


def test_repro_outside_and_inside_a_checkout(tmp_path, monkeypatch):
    import nbformat

    (tmp_path / 'nbs' / 'repro').mkdir(parents=True)
    (tmp_path / 'settings.ini').write_text('')
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell('x = 1', metadata=dict(tags=['parameters'])),
            nbformat.v4.new_code_cell('assert x == 5; x'),
        ],
        metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')),
    )
    nbformat.write(notebook, tmp_path / 'nbs' / 'repro' / 'five.ipynb')
    monkeypatch.chdir(tmp_path)
    five = tmp_path / 'out' / 'repro' / 'five.ipynb'
    assert command('repro', 'five', '-p', 'x', 5) == (0, f'{five}\n', '') and five.is_file()
    code, out, err = command('repro', 'five', '-p', 'x', 6)
    assert code == 2 and 'AssertionError' in err and 'five.failed.ipynb' in err and err.count('\n') == 1
    results = tmp_path / 'data' / 'results'
    assert command('repro', 'five', '-p', 'x', 5, '--out', results)[0] == 0  # there is nothing yet
    whole = (results / 'five.ipynb').read_bytes()
    code, out, err = command('repro', 'five', '-p', 'x', 5, '--out', results)
    assert code == 2 and '--force' in err and (results / 'five.ipynb').read_bytes() == whole
    assert command('repro', 'five', '-p', 'x', 5, '--out', results, '--force')[0] == 0
    assert (results / 'five.ipynb').read_bytes() != whole
    assert 'there are: five' in command('repro', 'six')[2]
    assert 'five' in command('repro')[1] and 'name one' in command('repro', 'five', '--all')[2]
    code, out, err = command('repro', '--all')  # with its default, five fails
    assert (
        code == 1
        and 'FAILED: AssertionError' in out
        and '0 of 1 ok' in out
        and (tmp_path / 'out' / 'repro' / 'five.failed.ipynb').is_file()
    )
    notebook.cells[0].source, notebook.cells[1].source = 'x = 5\nout = None', 'x'
    nbformat.write(notebook, tmp_path / 'nbs' / 'repro' / 'five.ipynb')
    assert [command('repro', '--all')[0] for _ in range(2)] == [0, 0] and 's  kept' in command('repro', '--all')[1]
    assert str(tmp_path) not in (tmp_path / 'out' / 'repro' / 'five.ipynb').read_text()


def test_help_is_quick():
    "A second of the processor, however busy the machine is."
    best = 9.0
    for _ in range(3):
        before = os.times()
        shown = subprocess.run(
            [sys.executable, '-c', 'from seed_story.cli import main; main()', 'tell', '--help'],
            capture_output=True,
            text=True,
            env={**os.environ, 'COLUMNS': '200'},
        )
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, spent)
    assert shown.returncode == 0 and all(
        f'--{o}' in shown.stdout
        for o in 'image text pages attention seed model out resume steps guidance temperature threads'.split()
    )
    assert best < 1
