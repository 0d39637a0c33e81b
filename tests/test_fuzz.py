"""Whatever it is given: done as asked, or refused in one clear line, with nothing lost and nothing left behind.

Bounded to some three minutes; `FUZZ=20` tries twenty times as many cases, other ones each time."""

import json
import shutil
import string
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fuzzing import answered, atoms, cases, changed, clear, contents, counted, damaged, integers, json_values, raised
from fuzzing import whole, within, words
from small_model import command, pages_of, small_model, tell


@pytest.fixture(scope='module', autouse=True)
def counts(told_at_the_end):
    "How many cases were tried, and how many of them refused."
    yield
    for kind in sorted({kind for kind, _ in counted}):
        said = ', '.join(f'{n} {code}' for (k, code), n in sorted(counted.items(), key=str) if k == kind)
        told_at_the_end.append(f'fuzz {kind}: {said}')


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


# policies

POLICY_NAMES = ['dense', 'window', 'reencode', 'lead', 'sink', 'multimodal', 'capped', 'random', 'pinned', 'heavy', 'x']
NUMBERS = ['pages', 'tokens', 'first', 'cap', 'heavy', 'begins', 'ends', 'seed', 'pagez']
VALUES = ['0', '1', '4', '16', '480', '-1', '4.5', '²', '٣', '99999999999999999999', '', ' 2', '+3', '1_0', '0x4']
MODES_OF_POSITIONS = [
    '',
    '@absolute',
    '@cache',
    '@clamped',
    '@clamped:480',
    '@contiguous',
    '@',
    '@clamped:',
    '@cache:7',
    '@x',
]
policy_parts = st.tuples(
    st.sampled_from(POLICY_NAMES),
    st.lists(st.tuples(st.sampled_from([*NUMBERS, '']), st.sampled_from(VALUES)), max_size=3),
    st.sampled_from(MODES_OF_POSITIONS),
)
policy_texts = st.one_of(
    policy_parts.map(lambda p: p[0] + ':' * bool(p[1]) + ','.join('='.join(filter(None, n)) for n in p[1]) + p[2]),
    st.lists(st.sampled_from([*POLICY_NAMES, *VALUES, ':', '=', ',', '@']), max_size=7).map(''.join),
    st.text(string.printable, max_size=20) | words,
)


@cases(500)
@given(policy_texts)
def test_policy_strings(text):
    from seed_story.sinks.policies import attention_policy, policy_name

    policy = raised('policies', lambda: attention_policy(text))
    if policy is not None:
        assert attention_policy(policy_name(policy)) == policy, 'a policy that its own name does not make again'
        for number in [part.split('=')[-1] for part in text.partition('@')[0].partition(':')[2].split(',')]:
            assert number.strip() in policy_name(policy) or int(number) in vars(policy).values(), 'a number was dropped'


@cases(100)
@given(atoms | st.lists(atoms, max_size=2) | st.dictionaries(words, atoms, max_size=2))
def test_policies_of_any_type(value):
    from seed_story.sinks.policies import Policy, attention_policy

    policy = raised('policies', lambda: attention_policy(value), 'attention')
    assert policy is None or isinstance(policy, Policy)


# StoryStream lines

PAGE_NAMES = ['p0.png', 'p1.png', 'p2.png', 'ep/p3.png']
NAMES = PAGE_NAMES + ['ep\\p3.png', '../out.png', '/etc/passwd', 'C:\\p0.png', 'p0.png\x00', 'x' * 5000, '\ud800.png']
NAMES += [
    '',
    '.',
    'ep',
    'p0.png/',
    './p0.png',
    'broken.png',
    'a\nline 7: fine.png',
    ' p0.png',
    'ep/../p1.png',
    'link.png',
]
CAPTIONS = [
    'A boat.',
    'Then <img> and </s>.',
    '',
    ' ',
    None,
    'x' * 100_000,
    '\ud83d',
    '\x00',
    'A\nB',
    '<img_00000>',
    'ü😀',
]
good_line = dict(id=1, images=PAGE_NAMES[:3], captions=['A boat.', 'A hill.', 'A door.'], orders=[0, 1, 2])
stories = st.fixed_dictionaries(
    dict(
        images=st.lists(st.sampled_from(NAMES), max_size=4),
        captions=st.lists(st.sampled_from(CAPTIONS), max_size=4),
    ),
    optional=dict(id=atoms, orders=st.permutations(range(3)) | json_values, own=json_values, story=atoms),
)
lines = st.one_of(
    changed(good_line).map(lambda row: json.dumps(row).encode()),
    st.permutations(range(3)).map(lambda orders: json.dumps(dict(good_line, orders=list(orders))).encode()),
    stories.map(lambda row: json.dumps(row).encode()),
    damaged(json.dumps(good_line).encode()),
    st.sampled_from(
        [b'', b'\xff\xfe', b'\xef\xbb\xbf' + json.dumps(good_line).encode(), b'[]', b'null', b'{"id": 1, "id": 2}']
    ),
)


@cache
def pictures() -> Path:
    "A folder with images, one of them damaged, one a link that leads out."
    made = Path(tempfile.mkdtemp())
    Image.new('RGB', (8, 8), 'red').save(made / 'out.png')
    folder = made / 'images'
    (folder / 'ep').mkdir(parents=True)
    for k, name in enumerate(PAGE_NAMES):
        Image.new('RGB', (12, 8), (k * 40, 9, 9)).save(folder / name)
    (folder / 'broken.png').write_bytes((folder / 'p0.png').read_bytes()[:40])
    (folder / 'link.png').symlink_to('../out.png')
    return folder


@cases(250)
@given(st.lists(lines, min_size=1, max_size=4))
@example([json.dumps(dict(good_line, images=['ep1\\p0.png', 'p1.png', 'p2.png'])).encode()])
@example([json.dumps(dict(good_line, captions=['A', None, 'B'])).encode()])
def test_story_lines(rows):
    from seed_story.story.format import read_stories

    with tempfile.TemporaryDirectory() as made, within(60):
        file = Path(made) / 'mine.jsonl'
        file.write_bytes(b'\n'.join(rows) + b'\n')
        problems: list = []
        reader = read_stories(file, pictures(), skip_bad=True, on_problem=problems.append)
        sound = list(reader)
        for problem in problems:
            clear(str(problem), 'mine.jsonl:')
        bad = [problem for problem in problems if not problem.warning]
        assert len(sound) == reader.read and (reader.skipped == 0) == (not bad)
        for story in sound:
            assert all(isinstance(page.text, str) and page.pil().size == (12, 8) for page in story)
            assert all(pictures().resolve() in Path(page.image).resolve().parents for page in story)
        code, out, err = command('data', 'check', file, '--images', pictures())
        assert err == '' and code in (0, 1) and (code == 0) == (bool(sound) and not bad), (code, out, err)
        counted['story lines', 'sound' if code == 0 else 'refused'] += 1
        assert len(out.splitlines()) == len(problems) + 1, (out, problems)
        chunked = command('data', 'chunk', file, '--images', pictures(), '--pages', 2, '--out', Path(made) / 'cut')
        if answered('data chunk', chunked, 'mine.jsonl'):
            assert code == 0 and command('data', 'check', Path(made) / 'cut' / 'stories.jsonl')[0] == 0
        else:
            assert sorted(p.name for p in Path(made).iterdir()) == ['mine.jsonl'], 'something half-written was left'


# pictures

MODES = [
    '1',
    'L',
    'P',
    'RGB',
    'RGBA',
    'CMYK',
    'YCbCr',
    'LAB',
    'HSV',
    'I',
    'F',
    'LA',
    'PA',
    'La',
    'RGBa',
    'I;16',
    'RGBX',
]
FORMATS = ['PNG', 'JPEG', 'GIF', 'TIFF', 'BMP', 'WEBP', 'PPM', 'ICO', 'TGA']


@cache
def encoded(form: str) -> bytes:
    "One picture in a file format."
    file = Path(tempfile.mkdtemp()) / 'x'
    Image.radial_gradient('L').resize((24, 16)).convert('RGB').save(file, form)
    return file.read_bytes()


@cases(600)
@given(st.sampled_from(FORMATS).flatmap(lambda form: damaged(encoded(form))))
def test_picture_files(data):
    from seed_story.story.format import open_image

    with tempfile.TemporaryDirectory() as made, within(30):
        file = Path(made) / 'mine.png'
        file.write_bytes(data)
        image = raised('pictures', lambda: open_image(file), 'mine.png')
        assert image is None or (image.mode == 'RGB' and min(image.size) > 0 and np.asarray(image).ndim == 3)


@cases(200)
@given(st.sampled_from(MODES), st.integers(1, 9), st.integers(1, 9), st.integers(0, 255))
def test_pictures_of_any_mode(mode, width, height, grey):
    "Every mode of PIL; a grey of 32 bits is as light as it is in 8, never white or black for want of scaling."
    from seed_story.story.format import open_image

    values = np.full((height, width), grey, np.uint8)
    if mode in ('I', 'I;16'):
        image = Image.fromarray(values.astype(np.uint16) * 257)
        image = image.convert('I') if mode == 'I' else image
    elif mode == 'F':
        image = Image.fromarray(values.astype(np.float32) / 255)
    else:
        via = {'PA': 'P', 'La': 'LA', 'RGBa': 'RGBA', 'LAB': 'RGB'}.get(mode, mode)
        image = Image.fromarray(values).convert(via)
        image = image.convert(mode) if mode != 'LAB' else Image.frombytes('LAB', image.size, image.tobytes())
    with tempfile.TemporaryDirectory() as made:
        form = {'F': 'TIFF', 'CMYK': 'TIFF', 'LAB': 'TIFF', 'YCbCr': 'TIFF', 'RGBX': 'TIFF'}.get(mode, 'PNG')
        file = Path(made) / f'mine.{form.lower()}'
        try:
            image.save(file, form)
        except (OSError, KeyError):
            return  # no file of this mode can be made
        read = raised('pictures', lambda: open_image(file), 'mine.')
    if read is not None and mode in ('L', 'RGB', 'I', 'I;16', 'F'):
        assert abs(int(np.asarray(read).mean()) - grey) <= 1 or (mode in ('I', 'F') and grey in (0, 1))


# books


@cache
def told() -> Path:
    "A book of three pages."
    made = Path(tempfile.mkdtemp()) / 'book'
    assert tell(made, '--pages', 3, '--seed', 1, '--quiet')[0] == 0
    return made


def resumed(change) -> None:
    "A book that was changed goes on with its pages as they are, or is refused in one line and left as it is."
    with tempfile.TemporaryDirectory() as made, within(90):
        book = Path(made) / 'book'
        shutil.copytree(told(), book)
        change(book)
        before = contents(book)
        if answered(
            'books', command('tell', '--resume', '--out', book, '--pages', 4, '--quiet'), 'book', '--', 'model'
        ):
            now = contents(book)
            assert len(pages_of(book)) == 4 and 'index.html' in now
            kept = [name for name in before if name.startswith(('images', '.state/0'))]
            assert all(now[name] == before[name] for name in kept), 'pages that were there have changed'
        else:
            assert contents(book) == before


@cases(60)
@given(st.data())
def test_settings_of_a_book(data):
    settings = json.loads((told() / '.state' / 'settings.json').read_text(encoding='utf-8'))
    new = data.draw(changed(settings))
    resumed(lambda book: (book / '.state' / 'settings.json').write_text(json.dumps(new), encoding='utf-8'))


@cases(40)
@given(st.data())
def test_files_of_a_book(data):
    names = [name for name in contents(told()) if not name.endswith('index.html')]
    name = data.draw(st.sampled_from(sorted(names)))
    new = data.draw(damaged((told() / name).read_bytes()))
    resumed(lambda book: (book / name).write_bytes(new))


# options

TELL = [
    'pages',
    'attention',
    'seed',
    'model',
    'steps',
    'guidance',
    'temperature',
    'threads',
    'device',
    'dtype',
    'image',
    'text',
]
plain_words = (words | integers.map(str) | st.floats().map(str)).filter(
    lambda w: '\x00' not in w and not w.startswith('-')
)


@cases(80)
@given(st.dictionaries(st.sampled_from(TELL), plain_words, min_size=1, max_size=2))
@example(dict(threads='100000'))
@example(dict(steps='1001'))
@example(dict(guidance='1e30'))
def test_tell_options(options):
    if whole(options.get('pages', '')) > 3:
        options = dict(options, pages='2')  # a long story is no bad input
    options = {'pages': '2', 'model': str(small_model()), 'seed': '1', **options}
    with tempfile.TemporaryDirectory() as made, within(120):
        given_words = [word for name, value in options.items() for word in (f'--{name}', value)]
        result = command('tell', '--quiet', '--out', Path(made) / 'book', *given_words)
        if answered('tell', result, *(f'--{name}' for name in options), *options, *filter(None, options.values())):
            assert len(pages_of(Path(made) / 'book')) == whole(options['pages'])
        else:
            assert not list(Path(made).iterdir()), 'something was left behind'


TRAIN = [
    'store',
    'out',
    'stories',
    'pages',
    'steps',
    'seconds',
    'batch',
    'lr',
    'seed',
    'device',
    'set',
    'log_every',
    'accumulate',
]
TRAIN += ['init_from', 'eviction', 'part', 'mixed', 'workers', 'volume', 'checkpoint_every', 'warmup', 'resume']


@cases(150)
@given(
    st.sampled_from(['render', 'tokenizer', 'vae', 'detokenizer', 'encode', 'mllm', 'stage3', 'nothing']),
    st.dictionaries(st.sampled_from(TRAIN), plain_words, min_size=1, max_size=3),
)
def test_train_options(stage, options):
    "No store is there, so every one is refused; nothing is made."
    with tempfile.TemporaryDirectory() as made, within(60):
        options = {
            'out': f'{made}/out',
            'store': f'{made}/store',
            **{k: v for k, v in options.items() if k not in ('out', 'store')},
        }
        if stage == 'render':
            options |= dict(stories='0')
        given_words = [word for name, value in options.items() for word in (f'--{name.replace("_", "-")}', value)]
        assert not answered('train', command('train', stage, *given_words))
        assert not [p for p in Path(made).rglob('*') if p.is_file()], 'something was left behind'


@cases(150)
@given(
    st.sampled_from(['storyland', 'check', 'chunk']),
    st.lists(plain_words, max_size=2),
    st.dictionaries(
        st.sampled_from(['stories', 'seed', 'pages', 'size', 'workers', 'suffix', 'colours', 'images']),
        plain_words,
        max_size=2,
    ),
)
def test_data_options(name, extra, options):
    with tempfile.TemporaryDirectory() as made, within(60):
        options = {key: value for key, value in options.items() if not (whole(value) > 2)}
        options = {
            'out': f'{made}/out',
            **({'stories': '1', 'pages': '2', 'size': '16'} if name == 'storyland' else {}),
            **options,
        }
        options = options if name != 'check' else {k: v for k, v in options.items() if k == 'images'}
        given_words = [word for key, value in options.items() for word in (f'--{key}', value)]
        if not answered('data', command('data', name, *extra, *given_words)):
            assert not list(Path(made).rglob("*")), 'something was left behind'


@cases(100)
@given(
    st.sampled_from(['length', 'nothing', '../x', '']),
    st.lists(st.tuples(st.sampled_from(['pages', 'models', 'pagez', '']), plain_words), min_size=1, max_size=2),
)
def test_repro_parameters(name, parameters):
    "Refused before a kernel starts."
    wrong = [(key, value) for key, value in parameters if key not in ('pages', 'models')] or name != 'length'
    if not wrong:
        parameters = [('pages', 'many')]
    with tempfile.TemporaryDirectory() as made, within(20):
        given_words = [word for key, value in parameters for word in ('-p', key, value)]
        assert not answered('repro', command('repro', name, '--out', f'{made}/x.ipynb', *given_words))
        assert not list(Path(made).iterdir())


# model folders


@cases(60)
@given(st.data())
def test_model_folders(data):
    "A damaged or edited folder tells a whole book or is refused in one line that names it; no book is begun then."
    files = [name for name in contents(small_model()) if not name.startswith('opening')]
    name = data.draw(st.sampled_from(sorted(files)))
    old = (small_model() / name).read_bytes()
    edited = (
        changed(json.loads(old)).map(lambda new: json.dumps(new).encode())
        if name.endswith('.json') and len(old) < 20_000
        else None
    )
    new = data.draw(damaged(old) if edited is None else st.one_of(edited, damaged(old)))
    with tempfile.TemporaryDirectory() as made, within(120):
        model = Path(made) / 'model'
        shutil.copytree(small_model(), model)
        (model / name).write_bytes(new)
        out = Path(made) / 'book'
        if answered(
            'model folders', tell(out, '--pages', 2, '--seed', 1, '--steps', 1, '--quiet', model=model), 'model'
        ):
            for text, picture in pages_of(out):
                assert text and picture
        else:
            assert not out.exists()


# Python


@cache
def pipeline():
    from seed_story.pipeline.story_pipeline import StoryPipeline

    return StoryPipeline.from_pretrained(small_model())


OPENING = Image.new('RGB', (20, 16), 'teal')
odd = st.one_of(
    atoms,
    st.lists(atoms, max_size=2),
    st.dictionaries(words, atoms, max_size=1),
    st.binary(max_size=3),
    st.sampled_from(
        [OPENING, Image.new('L', (0, 0)), np.zeros((4, 4)), np.float32(0.5), np.int64(2), object, print, Path('.')]
    ),
)
CALL = [
    'image',
    'text',
    'pages',
    'attention',
    'seed',
    'num_inference_steps',
    'guidance_scale',
    'temperature',
    'top_p',
    'max_text_tokens',
]


@cases(120)
@given(st.dictionaries(st.sampled_from(CALL), odd, min_size=1, max_size=2))
@example(dict(pages=True))
@example(dict(seed=1.5))
@example(dict(guidance_scale=float('inf')))
@example(dict(image=Image.new('L', (0, 0))))
def test_calls(arguments):
    for name in ('pages', 'num_inference_steps', 'max_text_tokens'):
        value = arguments.get(name)
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 3:
            arguments = dict(arguments, **{name: 3})  # many is not bad
    wanted = dict(image=OPENING, text='the rabbit walks', pages=2, seed=3, num_inference_steps=1) | arguments
    with within(90):
        story = raised('calls', lambda: pipeline()(**wanted), *arguments, 'picture', 'text', 'token')
    if story is not None:
        pages = 4 if wanted['pages'] is None else wanted['pages']
        assert len(story) == pages and not isinstance(pages, bool)
        assert all(isinstance(page.text, str) and page.pil().mode == 'RGB' for page in story)
