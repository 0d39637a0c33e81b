"""StoryStream data as strangers have it: read in one way by all, refused in one line, written wholly or not at all."""

import gzip
import json
import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kills import run_forked
from small_model import command

NAMES = ['p0.png', 'p1.png', 'p2.png']
GOOD = dict(id=1, images=NAMES, captions=['A boat.', 'A hill.', 'A door.'])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "A folder with `images/`, in which the test stands."
    (tmp_path / 'images' / 'ep1').mkdir(parents=True)
    for k, name in enumerate(NAMES):
        image = Image.new('RGB', (12, 8), (k * 40, 9, 9))
        image.save(tmp_path / 'images' / name)
        image.save(tmp_path / 'images' / 'ep1' / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, *rows) -> Path:
    "A file of these rows; bytes stay as they are."
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    Path(name).write_bytes(b'\n'.join(lines) + b'\n')
    return Path(name)


def texts(path) -> list[list[str]]:
    from seed_story.story.format import read_stories

    return [[page.text for page in story] for story in read_stories(path)]


def refused(result, *parts: str) -> None:
    code, out, err = result
    assert (code, out) == (2, '') and err.startswith('seed-story: ') and err.count('\n') == 1, result
    assert all(part in err for part in parts), err


SOUND = dict(
    backslash=dict(GOOD, images=['ep1\\p0.png', 'ep1\\p1.png', 'p2.png']),
    orders=dict(GOOD, captions=['Two.', 'Three.', 'One.'], orders=[1, 2, 0]),
    relative=dict(GOOD, images=['images/p0.png', './p1.png', 'images/ep1/p2.png']),
    tokens=dict(GOOD, captions=['The sign said <img> and </s>.', 'A hill.', 'A door.']),
    own=dict(GOOD, story='of a boat', first_page='cover', weight=1.5),
    mark=b'\xef\xbb\xbf' + json.dumps(GOOD).encode() + b'\r',
    id=dict(GOOD, id=10**30),
    no_id={k: v for k, v in GOOD.items() if k != 'id'},
    nothing=dict(GOOD, orders=None),
)
BAD = dict(
    null_caption=(dict(GOOD, captions=['A', None, 'B']), 'captions[1] is None'),
    unequal=(dict(GOOD, images=['p0.png']), 'unequal counts: 1 images, 3 captions'),
    gone=(dict(GOOD, images=['p0.png', 'gone.png', 'p1.png']), 'images[1]: no such image'),
    gone_backslash=(dict(GOOD, images=['p0.png', 'ep1\\gone.png', 'p1.png']), '\\ is taken for /'),
    above=(dict(GOOD, images=['../secret.png', *NAMES[1:]]), 'leaves the image folder'),
    absolute=(dict(GOOD, images=['/etc/passwd', *NAMES[1:]]), 'is absolute'),
    drive=(dict(GOOD, images=['C:\\a.png', *NAMES[1:]]), 'is absolute'),
    surrogate=(dict(GOOD, images=['\ud800.png', *NAMES[1:]]), 'cannot be followed'),
    long=(dict(GOOD, images=['a' * 5000, *NAMES[1:]]), 'cannot be followed'),
    forged=(dict(GOOD, images=['x\nbad.jsonl:7: fine', *NAMES[1:]]), 'x\\nbad.jsonl:7'),
    escape=(dict(GOOD, images=['\x1b[2J', *NAMES[1:]]), '\\x1b[2J'),
    double=(b'{"id": 1, "id": 2, "images": ["p0.png"], "captions": ["a"]}', "'id' stands there twice"),
    nan=(b'{"id": 1, "images": ["p0.png"], "captions": ["a"], "own": NaN}', 'NaN is no JSON'),
    half_id=(dict(GOOD, id='\udc80'), 'half a character'),
    half_key=(dict(GOOD, own=[{'\ud800': 1}]), 'half a character'),
    latin=(b'{"captions": ["caf\xe9"]}', 'not UTF-8'),
    utf16=(json.dumps(GOOD).encode('utf-16'), 'UTF-16'),
    packed=(gzip.compress(json.dumps(GOOD).encode()), 'gzip'),
    list=(b'[\n' + json.dumps(GOOD).encode() + b'\n]', 'one JSON list'),
    pretty=(json.dumps(GOOD, indent=1).encode(), 'spread over several lines'),
    empty=(b'', 'holds no story'),
    no_pages=(dict(GOOD, images=[], captions=[]), 'images is empty'),
)


@pytest.mark.parametrize('name', SOUND)
def test_sound_lines_are_read_and_cut(folder, name):
    write('mine.jsonl', SOUND[name])
    code, out, err = command('data', 'check', 'mine.jsonl')
    assert code == 0 and err == '' and '1 stories are sound, 0 bad' in out, out
    assert command('data', 'chunk', 'mine.jsonl', '--pages', 3, '--out', 'cut')[0] == 0
    wanted = SOUND[name] if isinstance(SOUND[name], dict) else GOOD
    shown = wanted['captions'] if name != 'orders' else ['One.', 'Two.', 'Three.']
    assert texts('mine.jsonl') == texts('cut/stories.jsonl') == [shown]
    [row] = [json.loads(line) for line in Path('cut/stories.jsonl').read_text().splitlines()]
    assert row['story'] == wanted.get('story', wanted.get('id', 0)) and row['first_page'] == wanted.get('first_page', 0)
    assert row.get('weight') == wanted.get('weight')


@pytest.mark.parametrize('name', BAD)
def test_bad_lines_are_told_once(folder, name):
    row, why = BAD[name]
    write('bad.jsonl', row)
    code, out, err = command('data', 'check', 'bad.jsonl')
    assert code == 1 and err == '' and why in out and '0 stories are sound' in out, out
    assert all(line.startswith('bad.jsonl') for line in out.splitlines()[:-1]), 'a line was forged'
    refused(command('data', 'chunk', 'bad.jsonl', '--pages', 1, '--out', 'cut'), 'bad.jsonl', why)
    from seed_story.training.story_stream import load_story_dataset

    with pytest.raises(ValueError) as error:
        load_story_dataset('bad.jsonl')
    assert why in str(error.value) and '\n' not in str(error.value) and 'data check bad.jsonl' in str(error.value)
    assert sorted(p.name for p in folder.iterdir()) == ['bad.jsonl', 'images']


def test_nothing_is_no_success(folder):
    write('short.jsonl', GOOD, dict(GOOD, id=2))
    refused(command('data', 'chunk', 'short.jsonl', '--out', 'cut'), 'short.jsonl', 'no story has 10 pages', 'has 3')
    write('bad.jsonl', b'{"id"', b'[]')
    refused(command('data', 'chunk', 'bad.jsonl', '--skip-bad', '--out', 'cut'), 'no story can be used', 'bad.jsonl:1')
    assert command('data', 'check', 'bad.jsonl', '--skip-bad')[0] == 1
    refused(command('data', 'chunk', 'none.jsonl', '--out', 'cut'), 'no such StoryStream file')
    refused(command('data', 'chunk', 'images', '--out', 'cut'), 'no .jsonl file in images')
    refused(command('data', 'chunk', 'short.jsonl', '--images', 'none', '--out', 'cut'), 'no such image folder')
    refused(command('data', 'chunk', 'short.jsonl', '--pages', 3, '--out', 'short.jsonl'), 'is a file')
    refused(command('train', 'pack', '--source', 'short.jsonl', '--store', 'store'), 'no story has')
    assert not Path('cut').exists() and not list(Path('.').glob('store/*.npz'))


def test_missing_pictures_cost_their_page(folder):
    "Skipped one by one, counted and said; a story is left out only when nothing of it is left."
    write(
        'mine.jsonl',
        dict(GOOD, images=['p0.png', 'gone.png', 'p2.png']),
        dict(GOOD, id=2, captions=['A', None, '</s>']),
        dict(GOOD, id=3, images=['gone.png'] * 3),
    )
    (folder / 'images' / 'p1.png').unlink()
    write('mine.jsonl', *map(json.loads, Path('mine.jsonl').read_text().splitlines()))
    code, out, err = command('data', 'chunk', 'mine.jsonl', '--pages', 1, '--skip-bad', '--skip-pages', '--out', 'cut')
    assert code == 0 and '3 chunks from 2 stories, 1 skipped, 3 pages left out' in out, out
    assert [line.split(': ')[1] for line in err.splitlines()] == ['mine.jsonl:1'] + ['mine.jsonl:2'] * 3 + [
        'mine.jsonl:3'
    ] * 4
    assert texts('cut/stories.jsonl') == [['A boat.'], ['A door.'], ['A']]
    code, out, err = command('data', 'check', 'mine.jsonl', '--skip-pages')
    assert code == 1 and '2 stories are sound, 1 bad, 3 pages of sound stories are left out' in out
    refused(command('data', 'chunk', 'mine.jsonl', '--pages', 1, '--skip-pages', '--out', 'cut2'), 'mine.jsonl:3')


def test_subsets_are_one_set(folder):
    "Folders of subsets, each with its pictures; files with other fields; pictures elsewhere."
    from seed_story.training.story_stream import load_story_dataset

    for k, name in enumerate(('george', 'rabbids')):
        (folder / 'top' / name).mkdir(parents=True)
        write(f'top/{name}/a.jsonl', dict(GOOD, id=k, own=k), dict(GOOD, id=k + 9))
    os.rename('images', 'top/rabbids/images')
    write('top/rabbids/b.jsonl', dict(GOOD, id=5, other=['field'], orders=[2, 1, 0]))
    refused(command('data', 'chunk', 'top', '--pages', 3, '--out', 'cut'), 'top/george/a.jsonl:1', 'no such image')
    (folder / 'top' / 'george' / 'images').symlink_to('../rabbids/images')
    assert len(load_story_dataset('top')) == 5 and command('data', 'check', 'top')[0] == 0
    assert load_story_dataset('top')['captions'] == texts('top')
    assert load_story_dataset('top')['captions'][-1] == GOOD['captions'][::-1]
    assert command('data', 'chunk', 'top', '--pages', 3, '--out', 'cut')[0] == 0 and len(texts('cut')) == 5
    write('mine.jsonl', GOOD)
    assert len(load_story_dataset('mine.jsonl', images='top/george/images')) == 1


def killed_at(step: int, job, stop=signal.SIGKILL) -> int | None:
    """What signal ended a forked child that sends itself `stop` at change number `step` of the disk; None: it ended.

    A change is a folder made, a file opened for writing, and whatever is renamed or removed."""

    def begin() -> int:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        changes = count()

        def watch(event, args):
            writes = event == 'open' and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in ('os.mkdir', 'os.rename', 'os.remove', 'os.rmdir'):
                if next(changes) == step:
                    os.kill(os.getpid(), stop)

        sys.addaudithook(watch)
        return job()

    code = run_forked(begin)
    return -code if code < 0 else None


@pytest.mark.own
@pytest.mark.parametrize('there', [False, True], ids=['new folder', 'folder that is there'])
def test_killed_at_every_step(folder, there):
    "The set is there as a whole or not at all; the next command needs no help, and leaves nothing of the first."
    write('mine.jsonl', GOOD)
    words = ['data', 'chunk', 'mine.jsonl', '--pages', 1, '--out', 'cut']
    if there:
        Path('cut').mkdir()
        Path('cut/notes.txt').write_text('mine')
    assert command(*words)[0] == 0
    whole = {str(p): p.read_bytes() for p in sorted(Path('cut').rglob('*')) if p.is_file()}
    others = sorted(p.name for p in folder.iterdir())
    seen = set()
    for step in range(100):
        for name in ('stories.jsonl', 'images'):
            path = Path('cut') / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not there:
            Path('cut').rmdir()
        ended = killed_at(step, lambda: command(*words)[0])
        if Path('cut/stories.jsonl').exists():
            assert command('data', 'check', 'cut')[0] == 0, f'half a set after step {step}'
        if ended:
            code, _, err = command(*words)
            assert code == 0 or 'cut/stories.jsonl exists' in err, err
            seen.add(code)
        now = {str(p): p.read_bytes() for p in sorted(Path('cut').rglob('*')) if p.is_file()}
        assert now == whole and sorted(p.name for p in folder.iterdir()) == others, step
        if not ended:
            break
    assert 10 < step < 99 and seen == {0, 2}


@pytest.mark.own
def test_stopped_by_sigterm(folder):
    "SIGTERM at any step leaves nothing but a whole set, or the empty file of a claim, which the next command removes."
    write('mine.jsonl', GOOD)
    words = ['data', 'chunk', 'mine.jsonl', '--pages', 1, '--out', 'cut']
    for step in range(0, 30, 2):
        assert killed_at(step, lambda: command(*words)[0], signal.SIGTERM) is None
        left = {p.name for p in folder.iterdir()} - {'images', 'mine.jsonl', '.cut.lock'}
        assert left <= {'cut'}, left
        if left:
            assert command('data', 'check', 'cut')[0] == 0
            shutil.rmtree('cut')
        assert command(*words)[0] == 0 and sorted(p.name for p in folder.iterdir()) == ['cut', 'images', 'mine.jsonl']
        shutil.rmtree('cut')


def test_two_at_once(folder):
    "The second is refused at once; the first is whole."
    from seed_story.story.files import claim

    write('mine.jsonl', GOOD)
    with claim('cut'):
        refused(command('data', 'chunk', 'mine.jsonl', '--pages', 1, '--out', 'cut'), 'cut is being written by')
    assert command('data', 'chunk', 'mine.jsonl', '--pages', 1, '--out', 'cut')[0] == 0
    refused(command('data', 'chunk', 'mine.jsonl', '--pages', 1, '--out', 'cut'), 'cut/stories.jsonl exists')


def test_disk_that_refuses(folder, monkeypatch):
    "A full disk is named with what to do; nothing is left."
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device', 'x')

    write('mine.jsonl', GOOD)
    for out in ('cut', 'deep/er/cut', 'there'):
        Path('there').mkdir(exist_ok=True)
        with monkeypatch.context() as patched:
            patched.setattr(shutil, 'copyfile', full)
            refused(
                command('data', 'chunk', 'mine.jsonl', '--pages', 1, '--out', out), f'{out} cannot be written', 'full'
            )
        assert sorted(p.name for p in folder.iterdir()) == ['images', 'mine.jsonl', 'there']
    assert not list(Path('there').iterdir())
    refused(command('data', 'chunk', 'mine.jsonl', '--pages', 1, '--out', 'a' * 300), 'cannot be written', 'too long')
    refused(command('data', 'chunk', 'mine.jsonl', '--pages', 1, '--out', 'mine.jsonl/cut'), 'cannot be written')


def test_pictures_of_every_kind(folder):
    "Greys of 32 bits and floats are as light as they are; animations, broken EXIF and odd files make no noise."
    grey = np.linspace(0, 1, 96).reshape(8, 12)
    wanted = np.uint8(grey * 255 + 0.5)
    kinds = dict(
        float=Image.fromarray(grey.astype(np.float32)),
        int32=Image.fromarray((grey * 65535).astype(np.int32)),
        small=Image.fromarray(wanted.astype(np.int32)),
        short=Image.fromarray((grey * 65535).astype(np.uint16)),
        palette=Image.fromarray(wanted).convert('P'),
    )
    for name, image in kinds.items():
        image.save(f'images/{name}.tiff')
    Image.fromarray(np.float32([[np.nan, 1]])).save('images/nan.tiff')
    Image.new('RGB', (4, 4)).save('images/moves.gif', save_all=True, append_images=[Image.new('RGB', (4, 4), 'red')])
    Image.new('RGB', (4, 4)).save('images/exif.jpg', exif=b'Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03')
    names = [f'{name}.tiff' for name in kinds]
    write('mine.jsonl', dict(id=1, images=names, captions=['A grey.'] * len(names)))
    write('odd.jsonl', *(dict(id=n, images=[n], captions=['A.']) for n in ('exif.jpg', 'moves.gif', 'nan.tiff')))
    from seed_story.story.format import read_stories

    [story] = read_stories('mine.jsonl')
    for page, name in zip(story, kinds):
        found = np.asarray(page.pil()).astype(int)
        assert found.shape == (8, 12, 3) and abs(found - wanted[:, :, None]).max() <= 1, name
    code, out, err = command('data', 'check', 'odd.jsonl')
    first, second, third = out.splitlines()
    assert code == 1 and err == '' and 'odd.jsonl:2: warning: images[0] has 2 frames' in first, out
    assert 'odd.jsonl:3: images[0]' in second and 'not finite' in second and third.startswith('2 stories')
