"""What can go wrong with `seed-story tell`: exit code 2, one line on stderr, nothing half-written.

The line says what is wrong and what to do."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from small_model import command, pages_of, small_model, tell


def refused(result, *parts):
    "Exit code 2, one line on stderr, with all of `parts` in it."
    code, out, err = result
    assert code == 2 and out == '', (code, out, err)
    assert err.startswith('seed-story: ') and err.count('\n') == 1 and 'Traceback' not in err, err
    for part in parts:
        assert part in err, err


@pytest.fixture
def folder(tmp_path):
    Image.new('RGB', (40, 30), 'teal').save(tmp_path / 'good.png')
    (tmp_path / 'words.png').write_text('these are words')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'good.png').read_bytes()[:60])
    (tmp_path / 'empty.png').touch()
    return tmp_path


OPTIONS = [
    (['--pages', '0'], ['--pages', 'at least 1']),
    (['--pages', '-3'], ['--pages']),
    (['--pages', 'many'], ['--pages']),
    (['--attention', 'sinking'], ["unknown attention 'sinking'", 'dense, window, reencode']),
    (['--attention', 'window:0'], ['at least 1']),
    (['--temperature', '-1'], ['--temperature']),
    (['--temperature', 'nan'], ['--temperature']),
    (['--steps', '0'], ['--steps']),
    (['--threads', '0'], ['--threads']),
    (['--dtype', 'int8'], ['--dtype']),
    (['--what'], ['--what']),
    (['--device', 'toaster'], ['toaster']),
    (['--guidance', 'nan'], ['--guidance']),
]


@pytest.mark.parametrize('words,parts', OPTIONS, ids=[' '.join(words) for words, _ in OPTIONS])
def test_options(words, parts, tmp_path):
    refused(tell(tmp_path / 'book', *words), *parts)
    assert not (tmp_path / 'book').exists()


@pytest.mark.parametrize(
    'image,text,parts',
    [
        ('gone.png', 'A bear.', ['no such image', 'gone.png']),
        ('words.png', 'A bear.', ['not an image']),
        ('cut.png', 'A bear.', ['broken']),
        ('empty.png', 'A bear.', ['zero bytes']),
        ('.', 'A bear.', ['not a file']),
        ('good.png', '', ['the text is empty']),
        ('good.png', ' \n\t', ['the text is empty']),
        ('good.png', '<s></s>', ['the text is empty']),
        ('good.png', 'the rabbit walks ' * 2000, ['too long', 'tokens', 'shorten']),
        ('good.png', None, ['--image and --text go together']),
        (None, 'A bear.', ['go together']),
    ],
)
def test_openings(image, text, parts, folder):
    words = ([] if image is None else ['--image', folder / image]) + ([] if text is None else ['--text', text])
    refused(tell(folder / 'book', *words), *parts)
    assert not (folder / 'book').exists()


def test_out_folders(folder):
    (folder / 'notes').mkdir()
    (folder / 'notes' / 'index.html').write_text('my notes')
    refused(tell(folder / 'notes'), 'already holds a book', '--out')
    refused(tell(folder / 'good.png'), 'is a file')
    refused(tell(folder / 'good.png' / 'book'), 'cannot be written')
    refused(tell('/proc/nowhere/book'), 'cannot be written')
    assert (folder / 'notes' / 'index.html').read_text() == 'my notes' and len(list((folder / 'notes').iterdir())) == 1
    if os.geteuid():
        (folder / 'locked').mkdir(mode=0o500)
        refused(tell(folder / 'locked' / 'book'), 'cannot be written')


def test_another_book(folder):
    assert tell(folder / 'book', '--pages', 2, '--seed', 1)[0] == 0
    before = {p: p.read_bytes() for p in (folder / 'book').rglob('*') if p.is_file()}
    refused(tell(folder / 'book', '--pages', 2, '--seed', 1), 'already holds a book', '--resume')
    refused(tell(folder / 'book', '--resume', '--pages', 3, '--seed', 2), 'holds another book', 'seed was 1, now 2')
    refused(tell(folder / 'book', '--resume', '--pages', 3, '--attention', 'dense'), 'attention was')
    refused(
        tell(folder / 'book', '--resume', '--pages', 3, '--image', folder / 'good.png', '--text', 'A bear.'),
        'opening was',
    )
    assert before == {p: p.read_bytes() for p in (folder / 'book').rglob('*') if p.is_file()}


def test_damaged_books(folder):
    assert tell(folder / 'book', '--pages', 3, '--seed', 1)[0] == 0

    def damaged(change, *parts):
        copy = folder / 'copy'
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / 'book', copy)
        change(copy)
        refused(command('tell', '--resume', '--out', copy, '--pages', 5), *parts)

    damaged(lambda d: (d / '.state' / '0002.safetensors').unlink(), '0002.safetensors is missing')
    damaged(lambda d: (d / '.state' / '0001.safetensors').write_bytes(b'x'), '0001.safetensors is missing or damaged')
    damaged(lambda d: (d / '.state' / 'settings.json').write_text('{'), 'cannot be continued')
    damaged(lambda d: (d / 'images' / '0001.png').write_bytes(b'x'), 'story.jsonl is damaged')
    damaged(lambda d: (d / 'story.jsonl').write_text('{"id": 0'), 'story.jsonl is damaged')
    damaged(lambda d: (d / 'story.jsonl').unlink(), 'story.jsonl')


def rewrite(file, change):
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata=dict(format='pt'))


def first(pattern):
    return lambda d: sorted(d.glob(pattern))[0]


BROKEN = dict(
    no_index=lambda d: (d / 'model_index.json').unlink(),
    index_is_no_json=lambda d: (d / 'model_index.json').write_text('{'),
    no_unet=lambda d: shutil.rmtree(d / 'unet'),
    no_mllm_weights=lambda d: first('mllm/*.safetensors')(d).unlink(),
    no_tokenizer=lambda d: shutil.rmtree(d / 'tokenizer'),
    cut_mllm=lambda d: (lambda f: f.write_bytes(f.read_bytes()[:2000]))(first('mllm/*.safetensors')(d)),
    cut_vae=lambda d: (lambda f: f.write_bytes(f.read_bytes()[:-50]))(first('vae/*.safetensors')(d)),
    empty_vae=lambda d: first('vae/*.safetensors')(d).write_bytes(b''),
    lost_weight=lambda d: rewrite(first('unet/*.safetensors')(d), lambda w: w.pop('conv_in.weight')),
    lost_mllm_weight=lambda d: rewrite(first('mllm/*.safetensors')(d), lambda w: w.pop('input_resampler.query')),
    other_shape=lambda d: rewrite(
        first('unet/*.safetensors')(d), lambda w: w.update({'conv_in.weight': w['conv_in.weight'][:5].contiguous()})
    ),
    other_mllm_shape=lambda d: rewrite(
        first('mllm/*.safetensors')(d),
        lambda w: w.update({'input_resampler.query': w['input_resampler.query'][:5].contiguous()}),
    ),
    not_a_number=lambda d: rewrite(
        first('mllm/*.safetensors')(d), lambda w: w['input_resampler.query'].fill_(float('nan'))
    ),
)


@pytest.mark.parametrize('damage', BROKEN)
def test_broken_weights(damage, tmp_path):
    shutil.copytree(small_model(), tmp_path / 'model')
    BROKEN[damage](tmp_path / 'model')
    refused(tell(tmp_path / 'book', model=tmp_path / 'model'), str(tmp_path / 'model'))
    assert not (tmp_path / 'book').exists()


@pytest.mark.parametrize('model', ['nowhere', './nowhere', '/nowhere/at/all'])
def test_no_such_model(model, tmp_path):
    refused(tell(tmp_path / 'book', model=model), 'no such model', model)


def test_a_full_disk_keeps_whole_pages(tmp_path, monkeypatch):
    "The disk refuses the third picture: the pages before it are whole, and the book can go on."
    import seed_story.story.book as book

    real = book.write_atomic

    def refuse(path, data):
        if Path(path).name == '0002.png':
            raise OSError(28, 'No space left on device', str(path))
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(book, 'write_atomic', refuse)
        code, out, err = tell(tmp_path / 'book', '--pages', 4, '--seed', 1)
    assert code == 2 and 'No space left' in err and len(pages_of(tmp_path / 'book')) == 2
    assert command('tell', '--resume', '--out', tmp_path / 'book')[0] == 0 and len(pages_of(tmp_path / 'book')) == 4
