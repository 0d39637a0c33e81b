"""The wheel alone: built, installed into an empty environment with what it requires, and told a story with, offline."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def run(*words, cwd, **env):
    "Run with a clean environment: nothing of this checkout on Python's path."
    clean = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'VIRTUAL_ENV', 'IN_TEST'))}
    done = subprocess.run(
        [str(w) for w in words], cwd=cwd, env={**clean, **env}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f'{" ".join(map(str, words))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    return done


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    "Built from what a clone has, in a copy: the checkout gets no build folder."
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    names = (
        subprocess.run(
            ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .split('\0')
    )
    for name in names:
        if (
            not (
                name.startswith(('seed_story/', 'data/tiny/', 'data/small/'))
                or name in ('setup.py', 'settings.ini', 'README.md', 'LICENSE', 'MANIFEST.in')
            )
            or not (ROOT / name).is_file()
        ):
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', out, source, cwd=out)
    return next(out.glob('*.whl'))


def test_wheel_carries_the_weights(wheel):
    with zipfile.ZipFile(wheel) as z:
        inside = {i.filename: i.file_size for i in z.infolist()}
    shipped = {
        p.relative_to(ROOT / 'data').as_posix(): p.stat().st_size
        for model in ('tiny', 'small')
        for p in (ROOT / 'data' / model).rglob('*')
        if p.is_file() and not p.name.startswith('.')
    }
    assert {name.partition('/')[0] for name in shipped if '.safetensors' in name} == {'tiny', 'small'}
    for name, size in shipped.items():
        assert inside.get(f'seed_story/weights/{name}') == size, name
    modules = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / 'seed_story').rglob('*.py') if p.name != '_modidx.py'
    }  # a clone has no index before its first export
    assert {name for name in inside if name.endswith('.py')} == modules


@pytest.fixture(scope='module')
def program(wheel, tmp_path_factory) -> Path:
    "An environment with the wheel and what it requires, at the pinned versions."
    venv = tmp_path_factory.mktemp('venv')
    run(sys.executable, '-m', 'venv', venv, cwd=venv)
    run(
        venv / 'bin' / 'python',
        '-m',
        'pip',
        '--disable-pip-version-check',
        'install',
        '-q',
        '-c',
        ROOT / 'requirements.txt',
        wheel,
        cwd=venv,
    )
    return venv / 'bin' / 'seed-story'


def test_nothing_of_development_is_needed(program):
    packages = {
        p['name'].lower()
        for p in json.loads(
            run(program.parent / 'python', '-m', 'pip', 'list', '--format=json', cwd=program.parent).stdout
        )
    }
    assert packages & {'nbdev', 'fastcore', 'pytest', 'matplotlib', 'ipython', 'jupyterlab'} == set()


def test_the_other_model_says_what_it_needs(program, tmp_path):
    told = subprocess.run(
        [str(program), 'tell', '--model', 'small', '--pages', '2'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={'PATH': os.environ['PATH'], 'HOME': str(tmp_path), 'SEED_STORY_CACHE': str(tmp_path / 'none')},
    )
    assert told.returncode == 2 and 'seed-story fetch small' in told.stderr and told.stderr.count('\n') == 1, (
        told.stderr
    )


def cut_off() -> list[str]:
    "A prefix that runs a command without any network, where the system lets us."
    words = ['unshare', '--net', '--map-root-user']
    try:
        return words if subprocess.run([*words, 'true'], capture_output=True).returncode == 0 else []
    except FileNotFoundError:
        return []


def test_installed_wheel_tells_a_story_offline(program, tmp_path):
    told = run(
        *cut_off(),
        program,
        'tell',
        '--pages',
        '2',
        cwd=tmp_path,
        HF_HUB_OFFLINE='1',
        HOME=str(tmp_path / 'home'),
        http_proxy='http://127.0.0.1:9',
        https_proxy='http://127.0.0.1:9',
    )
    assert told.stderr == '' and told.stdout.count('\n') == 1, told.stderr
    books = list(tmp_path.rglob('story.jsonl'))
    assert len(books) == 1, sorted(tmp_path.iterdir())
    row = json.loads(books[0].read_text(encoding='utf-8').splitlines()[0])
    assert len(row['captions']) == len(row['images']) == 2 and all(c.strip() for c in row['captions'])
    opening = ROOT / 'data' / 'tiny' / 'opening'
    assert row['captions'][0] == (opening / 'opening.txt').read_text(encoding='utf-8').strip()
    pictures = [Image.open(path) for path in (opening / 'opening.png', books[0].parent / 'images' / row['images'][0])]
    assert pictures[0].size == (128, 128) and pictures[0].tobytes() == pictures[1].tobytes()
    html = (books[0].parent / 'index.html').read_text(encoding='utf-8')
    assert html.count('data:image/') >= 2
    check = (
        'import sys; from seed_story.story import check_file; found = check_file(sys.argv[1]); assert not found, found'
    )
    run(program.parent / 'python', '-c', check, books[0], cwd=tmp_path)
