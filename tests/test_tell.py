"""`seed-story tell` that is killed, interrupted, refused by the disk, or called twice: nothing is lost or mixed up.

Kills are real: a forked process ends itself at the n-th step on disk."""

import contextlib
import functools
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image, ImageChops

import seed_story.cli
import seed_story.pipeline.books
import seed_story.pipeline.loading
import seed_story.pipeline.tell
import seed_story.story.files
from kills import run_forked
from small_model import command, small_model
from seed_story.story.format import Page, Story, write_stories


@functools.cache
def small_pipeline():
    from seed_story.pipeline.loading import load_pipeline

    return load_pipeline(str(small_model()))


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    "The small model is loaded once for all of these tests."
    pipe = small_pipeline()
    monkeypatch.setattr(seed_story.pipeline.tell, 'load_pipeline', lambda *_: pipe)


@pytest.fixture(scope='module')
def words(tmp_path_factory):
    "What a command says of a story that has its own opening."
    image = tmp_path_factory.mktemp('opening') / 'mine.png'
    Image.new('RGB', (24, 24), 'teal').save(image)
    opening = ['--image', image, '--text', 'a </s> bear <img> walks']
    return ['tell', '--model', small_model(), '--seed', 7, '--pages', 2, *opening]


def files_of(book: Path) -> dict[str, bytes]:
    return {p.relative_to(book).as_posix(): p.read_bytes() for p in book.rglob('*') if p.is_file()}


@pytest.fixture(scope='module')
def whole(words, tmp_path_factory):
    "The files of the story that nobody interrupted."
    book = tmp_path_factory.mktemp('whole') / 'book'
    pipe = small_pipeline()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seed_story.pipeline.tell, 'load_pipeline', lambda *_: pipe)
        assert command(*words, '--out', book)[0] == 0
    return files_of(book)


@pytest.fixture
def finished(whole, tmp_path) -> Path:
    "A copy of that story's folder."
    for name, data in whole.items():
        (tmp_path / 'book' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'book' / name).write_bytes(data)
    return tmp_path / 'book'


def refused(*words, why):
    "Exit code 2, and one line that says `why`."
    code, out, err = command(*words)
    assert (code, out, err.count('\n')) == (2, '', 1) and why in err and 'Errno' not in err, (words, code, out, err)


@contextmanager
def at_step(number: int, act, after: bool = False):
    "`act(path)` at the `number`-th move of a finished file into its place, before or after it."
    real = seed_story.story.files._move_into_place
    steps = itertools.count(1)

    def move(part, path):
        here = next(steps) == number
        if here and not after:
            act(path)
        real(part, path)
        if here and after:
            act(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seed_story.story.files, '_move_into_place', move)
        yield


# --- killed, interrupted, refused by the disk: at every step

STEPS = 9  # two pages: opening, settings, picture, line, index; state, picture, line, index


def killed_at(step: int, *words) -> bool:
    "Whether a process that tells came to this step on disk, and was killed there."

    def begin() -> int:
        with at_step(step, lambda path: os.kill(os.getpid(), signal.SIGKILL)):
            return command(*words)[0]

    status = run_forked(begin)
    assert status in (0, -signal.SIGKILL)
    return status != 0


@pytest.mark.own
@pytest.mark.parametrize('step', range(1, STEPS + 1))
def test_a_kill_at_any_step(step, words, whole, tmp_path):
    book = tmp_path / 'book'
    assert killed_at(step, *words, '--out', book)
    begun = (book / '.state' / 'settings.json').exists()
    assert begun == (step > 2)
    assert command(*(['tell', '--resume'] if begun else words), '--out', book)[::2] == (0, '')
    assert files_of(book) == whole and [p.name for p in tmp_path.iterdir()] == ['book']


@pytest.mark.own
def test_no_step_was_forgotten(words, tmp_path):
    assert not killed_at(STEPS + 1, *words, '--out', tmp_path / 'book')


@pytest.mark.own
def test_a_kill_while_an_opening_of_two_pages_is_written(words, tmp_path):
    second = tmp_path / 'second.png'
    Image.new('RGB', (10, 10), 'red').save(second)
    several = [*words, '--image', second, '--text', 'Then came a fox.', '--pages', 3]
    assert command(*several, '--out', tmp_path / 'never')[::2] == (0, '')
    never = files_of(tmp_path / 'never')
    for step in (3, 7, 8, 10):  # of: both kept, settings; picture, line, index; state, picture, line, index; …
        book = tmp_path / f'book {step}'
        assert killed_at(step, *several, '--out', book)
        begun = (book / '.state' / 'settings.json').exists()
        assert begun == (step > 3)
        assert command(*(['tell', '--resume'] if begun else several), '--out', book)[::2] == (0, '')
        assert files_of(book) == never, step


@pytest.mark.parametrize('step', [1, 2, 3, 5, 8])
def test_ctrl_c_at_a_step(step, words, whole, tmp_path):
    book = tmp_path / 'book'

    def interrupt(path):
        raise KeyboardInterrupt

    with at_step(step, interrupt, after=True):
        code, out, err = command(*words, '--out', book)
    pages = {1: None, 2: None, 3: 0, 5: 1, 8: 1}[step]
    assert code == 130 and (f'{pages} of 2 pages' in err or pages is None) and err.count('\n') == 1, err
    begun = (book / '.state' / 'settings.json').exists()
    if pages:
        assert 'To be continued' in (book / 'index.html').read_text('utf-8')
    assert command(*(['tell', '--resume'] if begun else words), '--out', book)[::2] == (0, '')
    assert files_of(book) == whole


@pytest.mark.parametrize('step', [1, 3, 6, 9])
def test_a_full_disk_at_a_step(step, words, whole, tmp_path):
    book = tmp_path / 'book'

    def refuse(path):
        raise OSError(28, 'No space left on device', str(path))

    with at_step(step, refuse):
        refused(*words, '--out', book, why='No space left on device: the disk is full, make room and go on')
    if step > 2:
        assert command('tell', '--resume', '--out', book)[::2] == (0, '') and files_of(book) == whole
    else:
        assert not (book / '.state' / 'settings.json').exists()


# --- two at once


def test_a_folder_is_told_into_by_one(words, whole, tmp_path, monkeypatch):
    book = tmp_path / 'book'
    with seed_story.story.files.claim(book):
        refused(*words, '--out', book, why=f'is being written by process {os.getpid()}: wait until that has ended')
        refused('tell', '--resume', '--out', book, why='is being written by process')
        assert not book.exists()
    monkeypatch.chdir(tmp_path)
    with seed_story.story.files.claim('story'):
        code, out, err = command(*words)
    assert code == 0 and 'story-2' in out and files_of(tmp_path / 'story-2') == whole
    assert [p.name for p in tmp_path.iterdir()] == ['story-2']


# --- going on


def test_resume_begins_nothing(words, finished, tmp_path, monkeypatch):
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes' / 'mine.txt').write_text('mine')
    for place in (tmp_path / 'typo', tmp_path / 'notes'):
        refused('tell', '--resume', '--out', place, why='holds no book to go on with: leave out --resume')
        refused(*words, '--resume', '--out', place, why='holds no book to go on with')
    monkeypatch.chdir(tmp_path)
    refused('tell', '--resume', why='story holds no book to go on with')
    assert not (tmp_path / 'typo').exists() and [p.name for p in (tmp_path / 'notes').iterdir()] == ['mine.txt']


def test_resume_leaves_what_is_of_others(finished, whole, tmp_path):
    others = ['sub/.download.part', '.download.part', 'images/.x.7.part', '.123.part/half', '.story.jsonl.part']
    for name in others:
        (finished / name).parent.mkdir(exist_ok=True)
        (finished / name).write_text('of somebody else')
    ours = ['.story.jsonl.77.part', 'images/.0000.png.77.part', '.state/.0001.safetensors.77.part']
    for name in ours:
        (finished / name).write_text('half')
    assert command('tell', '--resume', '--out', finished)[::2] == (0, '')
    assert set(files_of(finished)) == set(whole) | set(others)


def test_a_book_without_its_line_is_lost_to_nobody(words, finished, whole):
    (finished / 'story.jsonl').unlink()
    refused(*words, '--out', finished, why='already holds a book (index.html)')
    refused('tell', '--resume', '--out', finished, why='story.jsonl is missing')
    (finished / 'index.html').unlink()
    refused(*words, '--out', finished, why='already holds a book (images)')
    assert set(files_of(finished)) == set(whole) - {'index.html', 'story.jsonl'}


def test_what_is_said_of_a_finished_book_counts(words, finished, whole, tmp_path):
    resume = ['tell', '--resume', '--out', finished]
    for option, was in (('--seed', 'seed was 7, now 0'), ('--temperature', 'now 0.0'), ('--guidance', 'now 0.0')):
        refused(*resume, option, 0, why=was)
    Image.new('RGB', (24, 24), 'red').save(tmp_path / 'red.png')
    refused(*resume, '--image', tmp_path / 'red.png', '--text', 'a bear walks', why='holds another book (opening was')
    refused(*resume, '--image', tmp_path / 'red.png', why='go together')
    refused(*resume, '--pages', 1, why='has 2 pages already: --pages must be more, not 1')
    assert files_of(finished) == whole
    assert command(*words, '--resume', '--out', finished)[0] == 0, 'the same words as when it was begun'


def test_a_lost_index_comes_back(finished, whole):
    for damage in (lambda file: file.unlink(), lambda file: file.write_text('of one page less')):
        damage(finished / 'index.html')
        assert command('tell', '--resume', '--out', finished)[0] == 0 and files_of(finished) == whole


def test_links_in_a_book_are_not_followed(words, finished, tmp_path):
    (finished / 'images').rename(tmp_path / 'elsewhere')
    (finished / 'images').symlink_to(tmp_path / 'elsewhere')
    before = files_of(tmp_path / 'elsewhere')
    refused('tell', '--resume', '--pages', 3, '--out', finished, why='images is a link, and must be a folder')
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new' / 'images').symlink_to(tmp_path / 'elsewhere')
    refused(*words, '--out', tmp_path / 'new', why='images is a link')
    assert files_of(tmp_path / 'elsewhere') == before


WRONG = {
    'seed': ['3', None, 1.5, True],
    'pages': [0, -1, 'many', []],
    'steps': [0, '4'],
    'threads': [0, 100_000, 2.5],
    'attention': [7, 'sinking', ''],
    'guidance': ['high', -1, 1e400],
    'temperature': [None, {}],
    'model': [3, ''],
    'dtype': ['int8'],
    'opening': [None],
}


def test_kept_settings_are_checked(finished):
    file = finished / '.state' / 'settings.json'
    settings = json.loads(file.read_text('utf-8'))
    for text in ('[]', 'null', '5', '"x"', '{', '', '[' * 10_000):
        file.write_text(text)
        refused('tell', '--resume', '--out', finished, why='cannot be continued')
    for name, values in WRONG.items():
        for value in values:
            file.write_text(json.dumps({**settings, name: value}))
            refused('tell', '--resume', '--out', finished, why='settings.json is damaged (')


def test_kept_pages_are_checked(finished):
    import torch
    from safetensors.torch import load, save

    file = finished / '.state' / '0001.safetensors'
    state = load(file.read_bytes())
    ids = state['ids']
    wrong = dict(
        foreign_ids=state | dict(ids=ids + 100_000),
        negative_ids=state | dict(ids=-ids),
        other_ids=state | dict(ids=ids.flip(0) if len(ids) > 1 else ids + 1),
        no_ids=state | dict(ids=ids[:0]),
        ids_of_two=state | dict(ids=ids[None]),
        nan=state | dict(features=state['features'] * torch.nan),
        fewer=state | dict(features=state['features'][:3].contiguous()),
        lacking=dict(ids=ids),
        other=dict(x=ids),
    )
    for tensors in wrong.values():
        file.write_bytes(save(tensors))
        refused('tell', '--resume', '--pages', 3, '--out', finished, why='0001.safetensors')


def test_what_has_changed_of_itself(finished, monkeypatch):
    resume = ['tell', '--resume', '--pages', 3, '--out', finished]
    with monkeypatch.context() as patch:
        patch.setattr(seed_story.pipeline.tell, 'fingerprint', lambda pipe: 'of-others')
        refused(*resume, why='holds other weights than it was begun with; bring them back, or name')
        refused(*resume, '--model', small_model(), why='weights was')
    Image.new('RGB', (24, 24), 'red').save(finished / 'images' / '0000.png')
    refused(*resume, why='images/0000.png, or its text, is not what it was begun with')


@pytest.mark.parametrize('name', ['story.jsonl', 'index.html', '.state/settings.json', '.state/0001.safetensors'])
def test_a_folder_where_a_file_should_be(name, words, finished):
    for make in (Path.mkdir, os.mkfifo):
        (finished / name).unlink(missing_ok=True)
        make(finished / name)
        refused('tell', '--resume', '--pages', 3, '--out', finished, why='not a file')
        (finished / name).rmdir() if make is Path.mkdir else (finished / name).unlink()
    assert not list(finished.glob('images/0002.png'))


# --- interrupted before there is anything


def test_ctrl_c_while_the_model_is_loaded(words, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(seed_story.pipeline.tell, 'load_pipeline', interrupt)
    assert command(*words, '--out', tmp_path / 'a' / 'book') == (130, '', 'seed-story: interrupted\n')
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_the_command_is_imported():
    interrupted = 'import builtins; real = builtins.__import__\n'
    interrupted += 'def stop(name, *rest, **more):\n    if name == "typer":\n        raise KeyboardInterrupt\n'
    interrupted += '    return real(name, *rest, **more)\nbuiltins.__import__ = stop\nimport seed_story.cli'
    done = subprocess.run([sys.executable, '-c', interrupted], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, 'seed-story: interrupted\n')


# --- refused before a book is begun


@pytest.mark.parametrize(
    'option,value,why',
    [
        ('--steps', 1001, 'no picture can be drawn with --steps 1001'),
        ('--steps', 10**9, 'must be a whole number from 1 to 1,000'),
        ('--steps', 10**30, 'must be a whole number from 1 to 1,000'),
        ('--guidance', 1e30, '--guidance must be a number from 0 to 1,000'),
        ('--temperature', 'inf', '--temperature must be a number'),
        ('--threads', 100_000, '--threads must be a whole number from 1 to'),
        ('--model', '', '--model is empty'),
        ('--device', '', '--device is empty'),
        ('--attention', '', "unknown attention ''"),
        ('--text', 'half \ud83d', 'half a character'),
        ('--out', 'x' * 300, 'File name too long: choose a shorter one'),
    ],
)
def test_options_that_cannot_work(option, value, why, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = list(words)
    if option in words:  # a second text would be of a second page
        k = words.index(option)
        del words[k : k + 2]
    refused(*words, '--out', 'book', option, value, why=why)
    assert not list(tmp_path.iterdir())


def test_stdout_that_lacks_a_letter(words, tmp_path):
    code, out, err = 0, io.TextIOWrapper(io.BytesIO(), 'latin-1'), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = seed_story.cli.run([str(w) for w in (*words, '--pages', 1, '--out', tmp_path / 'a → b')])
    out.flush()
    assert (code, err.getvalue()) == (0, '') and b'a \\u2192 b' in out.buffer.getvalue() and out.errors == 'strict'


def test_what_of_an_opening_is_far_is_said_once_before_the_story(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(seed_story.pipeline.tell, 'load_pipeline', seed_story.pipeline.loading.load_pipeline)
    Image.new('RGB', (64, 64), (200, 120, 40)).save(tmp_path / 'plain.png')
    german = ['--image', str(tmp_path / 'plain.png'), '--text', 'Es war einmal eine Katze.']
    words = ['tell', *german, '--pages', '1', '--quiet', '--out', str(tmp_path / 'book')]
    assert seed_story.cli.run(words) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith('seed-story: the picture is far') and '; the text is far' in line
    kept = json.loads((tmp_path / 'book' / '.state' / 'settings.json').read_text('utf-8'))
    assert '; '.join(kept['notes']) == line.removeprefix('seed-story: ')
    assert seed_story.cli.run(['tell', '--resume', '--steps', '8', '--out', str(tmp_path / 'book'), '--quiet']) == 0
    assert capsys.readouterr().err == ''


def test_many_books_are_those_told_alone(tmp_path, monkeypatch):
    "One at a time to the byte; in two rows to the word, and the pictures but for rounding."
    monkeypatch.setattr(seed_story.pipeline.books, 'load_pipeline', lambda *_: small_pipeline())
    firsts = [Page(words, Image.new('RGB', (24, 24), shade)) for words, shade in (('a bear', 'teal'), ('home', 'red'))]
    openings = write_stories([Story([page], id=page.text) for page in firsts], tmp_path / 'openings')
    how = '--model', small_model(), '--pages', 2
    for number in (1, 2):
        alone = '--opening', f'{openings}:{number}', '--seed', 6 + number, '--out', tmp_path / 'alone' / f'000{number}'
        assert command('tell', '--quiet', *how, *alone)[0] == 0
    for rows in (1, 2):
        many = '--openings', openings, '--seed', 7, '--rows', rows, '--out', tmp_path / f'{rows}'
        code, said, err = command('tell-many', *how, *many)
        assert code == 0 and '2 books, 4 pages' in said and err == ''
    alone, one, two = (files_of(tmp_path / name) for name in ('alone', '1', '2'))
    assert one.pop('stories.jsonl') == two.pop('stories.jsonl') and one == alone and {*two} == {*alone}
    assert all(two[name] == alone[name] for name in alone if name.endswith(('story.jsonl', 'settings.json')))
    for name in (name for name in alone if name.endswith('.png')):
        pictures = [Image.open(io.BytesIO(files[name])) for files in (two, alone)]
        assert max(high for _, high in ImageChops.difference(*pictures).getextrema()) <= 2, name
