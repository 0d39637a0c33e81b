"""Both ends of what settings.ini allows: the lowest versions and the newest of the day, each in its own environment.

At each end a book is told, the golden vectors are checked, and the tests of what the package reads, writes and refuses
run: caches, books, stores, data, training, model folders and the fuzz suite. What is marked `own` is left out. torch is
not installed again: the one that runs these tests is linked into both environments. They are kept in build/ends, and
the newest is brought up to date every time.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
ENDS = ('lowest', 'newest')
WITHOUT_OLD_WHEELS = (3, 13)  # from this Python on, the lowest numpy and pillow would have to be compiled
TELL = 'from seed_story.cli import main; main()'
TESTS = (
    'build',
    'cache',
    'cache_use',
    'faults',
    'folders',
    'fuzz',
    'loading',
    'policies',
    'stores',
    'stream',
    'tell',
    'train',
)
LONGEST = 1200  # seconds that a command may take
HUNG = ('-o', 'faulthandler_timeout=600', '-o', 'faulthandler_exit_on_timeout=true')  # seconds of one test
FOR_TESTS = ('pytest', 'hypothesis', 'datasets>=3', 'tensorboardX')
VERSIONS = 'import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))'


def requirements() -> list[Requirement]:
    "What settings.ini asks for, torch left out."
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(ROOT / 'settings.ini', encoding='utf-8')
    words = ' '.join(ini['DEFAULT'][f'{extra}requirements'] for extra in ('', 'small_', 'build_')).split()
    return [wanted for wanted in map(Requirement, words) if wanted.name != 'torch']


def lowest(wanted: Requirement) -> str:
    "The version after >= in a requirement."
    [version] = [part.version for part in wanted.specifier if part.operator == '>=']
    return version


def asked_for(end: str) -> list[str]:
    "What pip is asked to install at an end."
    wanted = requirements()
    return [f'{w.name}=={lowest(w)}' for w in wanted] if end == 'lowest' else [str(w) for w in wanted]


def of_torch(name: str = 'torch') -> set[str]:
    "Names of the distributions that torch is made of, as this environment has them: itself, and the GPU's libraries."
    found = {name}
    for line in distribution(name).requires or []:
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({'extra': ''}):
            continue
        if needed.name.startswith(('nvidia', 'triton', 'cuda')):
            found |= of_torch(needed.name)
    return found


def link_torch(site: Path) -> None:
    "Let another environment's site-packages have the torch of this one."
    for name in of_torch():
        files = distribution(name).files
        for top in {file.parts[0] for file in files if file.parts[0] not in ('..', '__pycache__')}:
            target = Path(distribution(name).locate_file(top)).resolve()
            if target.exists() and not (site / top).exists():
                (site / top).symlink_to(target)


@dataclass
class End:
    "One environment, and what its commands said; `failed` names the first that went wrong."

    name: str
    said: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    failed: str = ''

    @property
    def folder(self) -> Path:
        return ROOT / 'build' / 'ends' / self.name

    @property
    def python(self) -> Path:
        return self.folder / 'bin' / 'python'

    def run(self, what: str, *words) -> bool:
        "A command without anything of this environment; False if it, or one before it, went wrong."
        if self.failed:
            return False
        ours = ('PYTHON', 'VIRTUAL_ENV', 'IN_TEST', 'PYTEST')
        clean = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        clean |= dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', FUZZ='0.2')
        start = time.time()
        words = [str(w) for w in words]
        try:
            done = subprocess.run(words, cwd=ROOT, env=clean, capture_output=True, timeout=LONGEST)
            said, errors, ended = done.stdout, done.stderr, f'it ended with {done.returncode}'
        except subprocess.TimeoutExpired as late:
            said, errors, ended = late.stdout or b'', late.stderr or b'', f'it ran longer than {LONGEST} s'
        self.seconds[what] = round(time.time() - start)
        self.said[what], errors = said.decode(errors='replace'), errors.decode(errors='replace')
        if ended != 'it ended with 0':
            free = f'{shutil.disk_usage(tempfile.gettempdir()).free / 1e9:.1f} GB are free in {tempfile.gettempdir()}'
            line = f'{self.name} versions, {" ".join(words)}: {ended}; {free}'
            self.failed = f'{line}\n{self.said[what][-4000:]}\n{errors[-6000:]}'
        return not self.failed

    def build(self) -> None:
        "Make the environment, or bring it up to date."
        wanted, stamp = asked_for(self.name), self.folder / 'asked_for.txt'
        if not self.python.exists():
            self.run('venv', sys.executable, '-m', 'venv', '--without-pip', self.folder)
            [site] = self.folder.glob('lib/python*/site-packages')
            link_torch(site)
        if self.name == 'lowest' and stamp.is_file() and stamp.read_text().split() == [*wanted, *FOR_TESTS]:
            return
        pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--python', self.python]
        torch = f'torch=={distribution("torch").version}'
        upgrade = ['--upgrade', '--upgrade-strategy', 'eager'] if self.name == 'newest' else []
        if self.run('install', *pip, 'install', '-q', '--only-binary', ':all:', *upgrade, torch, *wanted, *FOR_TESTS):
            stamp.write_text('\n'.join([*wanted, *FOR_TESTS]))

    def try_all(self, book: Path) -> 'End':
        "Build it, tell a `book`, and test."
        self.build()
        self.run('versions', self.python, '-c', VERSIONS)
        self.run('tell', self.python, '-c', TELL, 'tell', '--pages', '3', '--seed', '1', '--out', book)
        self.run('golden', self.python, 'tests/parity.py', 'tests/golden')
        files = [f'tests/test_{name}.py' for name in TESTS]
        self.run('tests', self.python, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-m', 'not own', *HUNG, *files)
        return self

    @property
    def versions(self) -> dict[str, str]:
        return {canonicalize_name(name): version for name, version in json.loads(self.said['versions']).items()}


@pytest.fixture(scope='module')
def told(tmp_path_factory) -> dict[str, tuple[End, Path]]:
    "Both ends, tried side by side, and the book of each."
    books = {end: tmp_path_factory.mktemp(end) / 'book' for end in ENDS}
    if sys.version_info >= WITHOUT_OLD_WHEELS:
        del books['lowest']
    with ThreadPoolExecutor(len(books)) as pool:
        tried = list(pool.map(lambda end: End(end).try_all(books[end]), books))
    return {end.name: (end, books[end.name]) for end in tried}


def end_of(told, name: str) -> tuple[End, Path]:
    if name not in told:
        pytest.skip(f'the lowest numpy and pillow have no wheels for Python {sys.version.split()[0]}: use Python 3.11')
    return told[name]


@pytest.mark.parametrize('name', ENDS)
def test_an_end(told, name, told_at_the_end):
    end, book = end_of(told, name)
    assert not end.failed, end.failed
    wanted = requirements()
    used = {w.name: end.versions[canonicalize_name(w.name)] for w in wanted}
    found = ', '.join(f'{package} {version}' for package, version in used.items())
    told_at_the_end += [
        f'{name}: Python {sys.version.split()[0]}, torch {end.versions["torch"]}, {found}',
        f'  {end.said["tell"].strip()}',
        f'  golden vectors: {end.said["golden"].count(" ok ")} cases agree',
        f'  tests: {end.said["tests"].strip().splitlines()[-1]}',
        f'  seconds: {end.seconds}',
    ]
    for w in wanted:
        assert w.specifier.contains(used[w.name]), f'{w} was asked for, and {used[w.name]} is there'
        if name == 'lowest':
            assert Requirement(f'x=={lowest(w)}').specifier.contains(used[w.name]), f'{w.name} {used[w.name]}'
    captions = json.loads((book / 'story.jsonl').read_text(encoding='utf-8'))['captions']
    assert len(captions) == 3 and all(captions) and (book / 'index.html').is_file()


def test_both_ends_tell_the_same_story(told):
    "The same weights, seed and torch: another text would be the work of a package that does something else, silently."
    first, second = (end_of(told, name) for name in ENDS)
    assert not (first[0].failed or second[0].failed)
    assert (first[1] / 'story.jsonl').read_bytes() == (second[1] / 'story.jsonl').read_bytes()
