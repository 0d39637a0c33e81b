"""What keeps the repository honest: each check here fails when the thing that it names has been broken."""

import ast
import importlib
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from graphlib import TopologicalSorter
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'seed_story'
RESULTS = ROOT / 'data' / 'results'
MIB = 2**20


def settings():
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(ROOT / 'settings.ini', encoding='utf-8')
    return ini['DEFAULT']


def notebooks() -> list[Path]:
    return [
        p
        for p in sorted((ROOT / 'nbs').rglob('*.ipynb'))
        if not any(part.startswith(('.', '_')) for part in p.relative_to(ROOT).parts)
    ]


def cells(path: Path, kind='code') -> list[dict]:
    return [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type'] == kind]


def source(cell) -> str:
    return ''.join(cell['source'])


def run(*words, cwd):
    "A command of this Python's environment, as it would run outside of the tests."
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    env['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}'
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f'{" ".join(map(str, words))}\n{done.stdout}\n{done.stderr}'
    return done


def tree(folder: Path, pattern='*.py') -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob(pattern)) if p.is_file()}


# ---- notebooks and package -----------------------------------------------------------------------


@pytest.fixture(scope='module')
def copy(tmp_path_factory) -> Path:
    "The notebooks and settings alone, in a folder where tools may write."
    folder = tmp_path_factory.mktemp('copy')
    shutil.copy(ROOT / 'settings.ini', folder)
    shutil.copytree(ROOT / 'nbs', folder / 'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints', '.*'))
    return folder


def test_package_is_what_the_notebooks_export(copy):
    for face in PACKAGE.rglob('__init__.py'):  # written by hand; nbdev only writes the version into the first
        (copy / face.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(face, copy / face.relative_to(ROOT))
    run('nbdev_export', cwd=copy)
    here, exported = tree(PACKAGE), tree(copy / 'seed_story')
    index = exported.pop('_modidx.py')  # 400 KB that each export writes anew, so it is not committed
    assert b'seed_story.pipeline.story_pipeline' in index and here.pop('_modidx.py', index)
    assert sorted(here) == sorted(exported), 'a module without a notebook, or a notebook that was not exported'
    assert [name for name in here if here[name] != exported[name]] == [], 'run nbdev_export'


def test_nbdev_clean_changes_nothing(copy):
    before = tree(copy / 'nbs', '*.ipynb')
    run('nbdev_clean', cwd=copy)
    after = tree(copy / 'nbs', '*.ipynb')
    assert [name for name in before if before[name] != after[name]] == [], 'run nbdev_clean'


@pytest.mark.parametrize('path', notebooks(), ids=lambda p: p.relative_to(ROOT / 'nbs').as_posix())
def test_notebook_is_readable(path):
    code = [c for c in cells(path) if not re.match(r'\s*#\|\s*(export|default_exp|hide)', source(c))]
    assert not code or any(c['outputs'] for c in code), 'no outputs: run the notebook'
    errors = [o for c in cells(path) for o in c.get('outputs', []) if o['output_type'] == 'error']
    assert not errors, f'a stored output is an error: {errors[0].get("evalue")}'
    first = cells(path, 'markdown')[0]
    assert re.match(r'# \S.*\n(\n)?> \S', source(first)), 'the first cell is "# Title" and "> one line"'


@pytest.mark.parametrize('path', notebooks(), ids=lambda p: p.relative_to(ROOT / 'nbs').as_posix())
def test_exported_cells_are_short(path):
    long = [
        source(c).split('\n')[1]
        for c in cells(path)
        if re.match(r'\s*#\|\s*export', source(c)) and source(c).count('\n') > 45
    ]
    assert long == [], 'cells of more than 45 lines'


def test_notebooks_leave_logging_as_it_was():
    "Notebooks are tested several in one process: what one silences, the next would miss."
    for path in notebooks():
        text = '\n'.join(map(source, cells(path)))
        off = len(re.findall(r'logging\.disable\((?!logging\.NOTSET)', text))
        on = text.count('logging.disable(logging.NOTSET)')
        assert off == on, f'{path.name} switches logging off {off} times, and on again {on} times'


def test_repro_notebooks_have_one_parameters_cell():
    for path in sorted((ROOT / 'nbs' / 'repro').glob('*.ipynb')):
        tagged = [c for c in cells(path) if 'parameters' in c['metadata'].get('tags', [])]
        assert len(tagged) == 1, f'{path.name} has {len(tagged)} cells tagged "parameters"'


def test_readme_is_the_index_notebook(tmp_path):
    run(ROOT / '.ci' / 'readme', str(tmp_path), sys.executable, cwd=ROOT)
    assert (ROOT / 'README.md').exists(), 'run make readme'
    assert (tmp_path / 'README.md').read_text() == (ROOT / 'README.md').read_text(), 'run make readme'
    assert tree(tmp_path / 'README_files', '*') == tree(ROOT / 'README_files', '*'), 'run make readme'
    cards = tree(tmp_path / 'data', 'README.md')
    assert len(cards) == 3 and cards == {name: (ROOT / 'data' / name).read_bytes() for name in cards}, 'run make readme'


def test_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert cited['version'] == settings()['version'] and cited['preferred-citation']['url'].endswith('2407.08683')
    assert f'({cited["version"]})' in (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')


LINK = re.compile(r'\]\(\s*<?([^)\s>]+)|^\[[^\]]+\]:\s*(\S+)|<(?:a|img)\b[^>]*?\b(?:href|src)="([^"]+)"', re.M)


def prose(path: Path) -> str:
    "All Markdown and HTML of a notebook, its outputs' too, or of a page; code blocks and code spans left out."
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.ipynb':
        shown = [o['data'] for c in cells(path) for o in c.get('outputs', []) if 'data' in o]
        kinds = ('text/markdown', 'text/html')
        parts = [source(c) for c in cells(path, 'markdown')]
        text = '\n\n'.join([*parts, *(''.join(data[kind]) for data in shown for kind in kinds if kind in data)])
    return re.sub(r'```.*?```|`[^`\n]*`', '', text, flags=re.S)


def links(path: Path) -> list[str]:
    "Links of a notebook or page to other files and to places in them, not those to the web."
    found = [next(filter(None, groups)) for groups in LINK.findall(prose(path))]
    return [t for t in found if '://' not in t and not t.startswith(('mailto:', 'attachment:', 'data:'))]


def anchors(path: Path) -> set[str]:
    "Names of the places in a notebook or page: its headings, as Jupyter and as GitHub call them."
    headings = re.findall(r'^#+ +(.+?) *$', prose(path), re.M)
    github = {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in headings}
    return {h.replace(' ', '-') for h in headings} | github


def is_dead(link: str, path: Path) -> bool:
    name, _, place = link.partition('#')
    target = path.parent / unquote(name) if name else path
    return not target.exists() or bool(place) and unquote(place) not in anchors(target)


def pages() -> list[Path]:
    "Everything with links: notebooks, executed copies, README and its like, cards of data and models."
    tops = [*notebooks(), *RESULTS.glob('*.ipynb'), *ROOT.glob('*.md'), *(ROOT / 'data').rglob('*.md')]
    return sorted(tops)


@pytest.mark.parametrize('path', pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    assert [t for t in links(path) if is_dead(t, path)] == []


def test_what_a_dead_link_is(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(
        '# Two Words!\n[a](page.md) `[b](code)` [c](gone.md) [d](#two-words) [e](page.md#three) <img src="no.png">'
    )
    assert links(page) == ['page.md', 'gone.md', '#two-words', 'page.md#three', 'no.png']
    assert [t for t in links(page) if is_dead(t, page)] == ['gone.md', 'page.md#three', 'no.png']


def test_contents_name_every_notebook():
    "Each notebook stands in the list of all, those of Storyland's two sub-folders by their first."
    named = set(links(ROOT / 'nbs' / 'contents.ipynb'))
    wings = [p.relative_to(ROOT / 'nbs').as_posix() for p in notebooks() if len(p.relative_to(ROOT / 'nbs').parts) == 2]
    assert [n for n in wings if n not in named] == []


def test_executed_copies_are_their_sources():
    "A committed run shows the code and the prose of its notebook; only outputs and parameters are its own."
    from seed_story.records.executed import read_notebook
    from seed_story.records.parameters import executed_from

    copies = sorted(RESULTS.glob('*.ipynb'))
    assert len(copies) >= 24
    for copy in copies:
        notebook = read_notebook(copy)
        origin = read_notebook(ROOT / 'nbs' / 'repro' / f'{executed_from(notebook, copy)}.ipynb')
        own = [c for c in notebook['cells'] if 'injected-parameters' not in c['metadata'].get('tags', [])]
        differ = [source(c)[:80] for c, o in zip(own, origin['cells']) if source(c) != source(o)]
        assert len(own) == len(origin['cells']) and not differ, f'{copy.name} is not its notebook, executed: {differ}'


def test_committed_runs_are_known_as_such():
    "Their parameters are allowed today, and with them no remark says that another run is committed."
    from seed_story.records.parameters import check_parameters, committed_runs, run_note

    sources = sorted((ROOT / 'nbs' / 'repro').glob('*.ipynb'))
    runs = {(path, copy): told for path in sources for copy, told in committed_runs(path.stem, ROOT).items()}
    assert len({copy for _, copy in runs}) >= 24
    for (path, copy), told in runs.items():
        assert check_parameters(path, told, ROOT) and run_note(path.stem, told, ROOT) == '', copy.name
        assert 'not the committed run' in run_note(path.stem, told | dict(pages=7, stories=7, steps=7, tokens=7), ROOT)


def test_repro_notebooks_begin_alike():
    "Each goes to the checkout and checks its parameters, so that papermill and Jupyter may start anywhere."
    from seed_story.records.parameters import read_parameters

    for path in sorted((ROOT / 'nbs' / 'repro').glob('*.ipynb')):
        code = [source(c) for c in cells(path)]
        first = next(k for k, c in enumerate(cells(path)) if 'parameters' in c['metadata'].get('tags', [])) + 1
        assert 'os.chdir(find_checkout())' in code[first] and f"begin_run('{path.stem}', globals())" in code[first]
        assert not any('../' in line for line in code), f'{path.name}: paths start at the checkout'
        assert read_parameters(path)


def test_repro_notebooks_say_which_run_is_shown():
    "On top of each stand the run that its own outputs show, and links to all committed ones."
    from seed_story.records.parameters import committed_runs

    for path in sorted((ROOT / 'nbs' / 'repro').glob('*.ipynb')):
        top = source(cells(path, 'markdown')[0])
        said = re.search(r'^\*\*Runs\*\*: .+?(?=\n\n|\Z)', top, re.M | re.S)
        assert said, f'{path.name}: say on top, after **Runs**:, what its outputs show'
        unnamed = [c.name for c in committed_runs(path.stem, ROOT) if f'../../data/results/{c.name}' not in said[0]]
        assert not unnamed, f'{path.name}: the line **Runs** has no link to {unnamed}'


def test_runs_give_parameters_that_there_are():
    from seed_story.records.parameters import default_parameters

    known = {n for p in (ROOT / 'nbs' / 'repro').glob('*.ipynb') for n in default_parameters(p)}
    for script in sorted((ROOT / 'runs').glob('*.sh')):
        given = set(re.findall(r'(?<=\s)-p (\w+)', script.read_text(encoding='utf-8')))
        assert given <= known, f'{script.name}: no notebook has {sorted(given - known)}'


# ---- the paper -----------------------------------------------------------------------------------

PAPER = json.loads((ROOT / 'tests' / 'paper_contents.json').read_text(encoding='utf-8'))
NUMBER = r'(?:\d+(?:\.\d+)*|[A-H]\b)'
CITED = re.compile(rf'\b([Ss]ection|[Aa]ppendix|[Ff]igure|[Tt]able)s?\.? ({NUMBER}(?:(?:, | and |–){NUMBER})*)')


def citations(text: str) -> list[tuple[str, str]]:
    "(kind, number) of all that `text` cites of the paper: where no other paper is named right before it."
    found = []
    for match in CITED.finditer(text):
        before = text[max(0, match.start() - 160) : match.start()]
        named = re.findall(r'arxiv\.org/abs/(\d{4}\.\d+)|arXiv (\d{4}\.\d+)|(SEED-Story)', before)
        if not named or {'2407.08683', 'SEED-Story'} & set(named[-1]):
            found += [(match[1].lower(), number) for number in re.findall(NUMBER, match[2])]
    return found


def test_the_paper_has_what_is_cited():
    "Sections, figures and tables against `paper_contents.json`: in notebooks, their code, executed copies and README."
    counted = 0
    for path in [*pages(), *sorted(PACKAGE.rglob('*.py'))]:
        if path.name == '_modidx.py':
            continue
        text = path.read_text(encoding='utf-8')
        if path.suffix == '.ipynb':
            text = '\n'.join(source(c) for kind in ('markdown', 'code') for c in cells(path, kind))
        cited = citations(text)
        counted += len(cited)
        assert [c for c in cited if c[1] not in PAPER[c[0]]] == [], f'{path.relative_to(ROOT)}: see paper_contents.json'
    assert counted > 40


def test_a_wrong_citation_is_seen():
    text = '(SEED-Story, section 4.3) and figures 6 and 7 ([Xiao](https://arxiv.org/abs/2309.17453), figure 3)'
    assert citations(text) == [('section', '4.3'), ('figure', '6'), ('figure', '7')]
    assert citations('tables of 5 rows, appendix B') == [('appendix', 'B')]


# ---- code ----------------------------------------------------------------------------------------


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(path: Path, known: set[str]) -> set[str]:
    "Modules of the package that a module imports anywhere, inside functions too."
    found, parents = set(), list(path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names = [
                a.name.removeprefix('seed_story').lstrip('.')
                for a in node.names
                if a.name.split('.')[0] == 'seed_story'
            ]
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').split('.')[0] == 'seed_story'):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            base = '.'.join(
                [
                    *base,
                    *filter(None, [node.module if node.level else node.module.removeprefix('seed_story').lstrip('.')]),
                ]
            )
            names = [base] + [f'{base}.{a.name}'.lstrip('.') for a in node.names]
        else:
            continue
        found |= {n for n in names if n in known}
    return found - {''}


@pytest.fixture(scope='module')
def graph() -> dict[str, set[str]]:
    files = {module_name(p): p for p in PACKAGE.rglob('*.py') if p.name != '_modidx.py'}
    return {name: imports(path, set(files)) - {name} for name, path in files.items()}


def test_no_import_cycle(graph):
    TopologicalSorter(graph).prepare()


# ---- the faces: names that packages offer, imported when they are first used ---------------------

FACES = ['seed_story', *(f'seed_story.{p.parent.name}' for p in sorted(PACKAGE.glob('*/__init__.py')))]


@pytest.mark.parametrize('name', FACES)
def test_face(name):
    "Each name of a face is there, known to type checkers, and documented; no name hides a module."
    package = importlib.import_module(name)
    folder = PACKAGE.joinpath(*name.split('.')[1:])
    typed = {
        a.name
        for node in ast.walk(ast.parse((folder / '__init__.py').read_text()))
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
        for a in node.names
    }
    assert set(package.__all__) == typed and package.__doc__
    assert not {p.stem for p in folder.iterdir()} & typed, 'a name that is a module, too'
    for offered in package.__all__:
        assert getattr(package, offered) is not None and offered in dir(package)
    with pytest.raises(AttributeError, match='has no attribute'):
        package.__getattr__('nothing_of_this_name')
    assert name != 'seed_story' or 12 <= len(typed) <= 18


def test_importing_costs_nothing():
    "Neither `import seed_story` nor the command's help imports torch; 0.3 s are allowed."
    for code in (
        'import seed_story, seed_story.sinks, seed_story.story',
        "import seed_story.cli, sys; sys.argv[1:] = ['--help']; seed_story.cli.main()",
    ):
        watched = f"""
import sys, time
began = time.process_time()
try:
    exec({code!r})
except SystemExit:
    pass
assert 'torch' not in sys.modules, 'a heavy import'
print('seconds', time.process_time() - began)
"""
        runs = [float(run(sys.executable, '-c', watched, cwd=ROOT).stdout.split()[-1]) for _ in range(3)]
        assert min(runs) < 0.3, f'{code}: {min(runs):.2f} s'


# What a wing may import, besides itself. Every module of the package belongs to one of these.
WINGS = {
    'story': (),
    'sinks': (),
    'records': ('story',),
    'building': ('story',),
    'storyland': ('story',),
    'models': ('story', 'sinks'),
    'pipeline': ('story', 'storyland', 'models', 'sinks'),
    'released': ('models', 'pipeline', 'story'),
    'training': ('story', 'storyland', 'models', 'sinks', 'pipeline', 'records'),
    'evaluation': ('story', 'storyland', 'models', 'sinks', 'pipeline', 'training', 'records'),
    'cli': (
        'story',
        'building',
        'storyland',
        'models',
        'sinks',
        'pipeline',
        'training',
        'records',
        'released',
        'evaluation',
    ),
}


def wing(name: str) -> str:
    return name.split('.')[0]


def test_arrows_point_downwards(graph):
    for name, found in graph.items():
        if not name:
            continue
        assert wing(name) in WINGS, f'{name} is in no wing'
        above = {f for f in found if wing(f) not in (wing(name), *WINGS[wing(name)])}
        assert not above, f'{name} must not import {sorted(above)}'


@pytest.mark.parametrize('path', sorted(PACKAGE.rglob('*.py')), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_exported_code_is_quiet(path):
    "No printing, no global seeds or devices, no matplotlib at the top, no swallowed exceptions, no star imports."
    top = ast.parse(path.read_text(encoding='utf-8'))
    forked = {
        id(inner)
        for node in ast.walk(top)
        if isinstance(node, ast.With) and any('fork_rng' in ast.unparse(i) for i in node.items)
        for inner in ast.walk(node)
    }
    for node in ast.walk(top):
        if isinstance(node, ast.Call) and id(node) not in forked:  # a forked generator leaves the process's own alone
            called = ast.unparse(node.func)
            if called == 'print':
                assert any(k.arg == 'file' for k in node.keywords), f'line {node.lineno}: print'
            forbidden = (
                'torch.manual_seed',
                'torch.cuda.manual_seed',
                'torch.cuda.manual_seed_all',
                'torch.set_default_device',
                'torch.set_default_dtype',
                'torch.cuda.set_device',
                'np.random.seed',
                'numpy.random.seed',
                'random.seed',
                'set_seed',
                'os.environ.setdefault',
                'os.putenv',
                'os.environ.update',
            )
            assert called not in forbidden, f'line {node.lineno}: {called} changes the whole process'
        if isinstance(node, ast.Assign):
            for target in node.targets:
                assert not ast.unparse(target).startswith('os.environ['), (
                    f'line {node.lineno}: the environment is changed'
                )
        if isinstance(node, ast.ExceptHandler) and all(isinstance(s, ast.Pass) for s in node.body):
            assert node.type is not None and ast.unparse(node.type) not in ('Exception', 'BaseException'), (
                f'line {node.lineno}: except: pass'
            )
        if isinstance(node, ast.ImportFrom):
            assert all(a.name != '*' for a in node.names), f'line {node.lineno}: star import'
    for node in top.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            assert 'matplotlib' not in ast.unparse(node), f'line {node.lineno}: matplotlib at the top'


def test_no_preset_in_a_condition():
    "One code path for all sizes: nothing asks for the preset's name."
    for path in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, (ast.If, ast.IfExp)):
                assert not re.search(r'''preset\w*\s*(==|!=|in)\s*[('"\[]''', ast.unparse(node.test)), (
                    f'{path.name}:{node.lineno}'
                )


# ---- front ---------------------------------------------------------------------------------------


LOCKS = dict(
    requirements='requirements.txt', dev_requirements='requirements-dev.txt', docs_requirements='requirements-docs.txt'
)


def test_environment_names_the_same_requirements():
    told = yaml.safe_load((ROOT / 'environment.yml').read_text())['dependencies']
    pip = next(d['pip'] for d in told if isinstance(d, dict))
    assert pip == settings()['requirements'].split() + settings()['dev_requirements'].split()


@pytest.mark.parametrize('key, name', LOCKS.items())
def test_locks_hold_what_settings_ask_for(key, name):
    files = list(LOCKS.values())[: list(LOCKS).index(key) + 1]  # each builds on the one before it
    lines = [line for file in files for line in (ROOT / file).read_text().split('\n') if '==' in line]
    pins = {canonicalize_name(n): v for n, v in (line.split('==') for line in lines)}
    for wanted in map(Requirement, settings()[key].split()):
        pin = pins.get(canonicalize_name(wanted.name))
        assert pin and wanted.specifier.contains(pin), (
            f'{name} pins {wanted.name} to {pin}, settings.ini asks for {wanted}'
        )
    assert pins['torch'] == '2.13.0'


def test_front_files():
    for name in ('LICENSE', 'README.md', 'settings.ini', 'environment.yml', 'Makefile', '.ci/run', 'nbs/index.ipynb'):
        assert (ROOT / name).is_file(), name
    assert os.access(ROOT / '.ci' / 'run', os.X_OK) and 'make test' in (ROOT / '.ci' / 'run').read_text()
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()[:300]


def tracked() -> list[Path]:
    "Files that a clone would have, and those that the next commit would add."
    done = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, capture_output=True
    )
    if done.returncode:
        pytest.skip('not a git checkout')
    return [p for p in (ROOT / name for name in done.stdout.decode().split('\0') if name) if p.is_file()]


def test_sizes():
    sizes = {p.relative_to(ROOT).as_posix(): p.stat().st_size for p in tracked()}
    assert [name for name, size in sizes.items() if size > 16 * MIB] == []
    assert sum(sizes.values()) < 56 * MIB, f'{sum(sizes.values()) / MIB:.1f} MiB in all'
    weights = sum(size for name, size in sizes.items() if name.startswith('data/') and name.endswith('.safetensors'))
    assert weights < 44 * MIB, f'{weights / MIB:.1f} MiB of weights'


def test_written_by_each_export_and_not_committed():
    names = {p.relative_to(ROOT).as_posix() for p in tracked()}
    assert 'seed_story/_modidx.py' not in names, 'git rm --cached seed_story/_modidx.py'


def names_folder(text: str, folder: Path) -> bool:
    "Whether an absolute path into `folder` is in a text; `out/mine/x` is none into `/mine`."
    return folder != Path('/') and bool(re.search(r'(?<![\w.})])' + re.escape(f'{folder}/'), text))


def test_no_path_of_one_machine():
    assert all(names_folder(text, Path('/mine')) for text in ('/mine/a', "'/mine/a'", 'file:///mine/a', 'in /mine/a'))
    assert not any(names_folder(text, Path('/mine')) for text in ('out/mine/a', '{out}/mine/a', '../mine/a', 'mine/a'))
    for path in tracked():
        if path.suffix in ('.py', '.ipynb', '.md', '.ini', '.yml', '.sh', '.json', '.txt', ''):
            text = path.read_text(encoding='utf-8', errors='replace')
        elif path.name.endswith('.json.xz'):
            text = lzma.decompress(path.read_bytes()).decode('utf-8')
        else:
            continue
        assert not names_folder(text, ROOT.parent), f'{path} names a folder of this machine'


def records() -> list[Path]:
    "The files of all records: plain, and those of more than 2 KB packed."
    files = [p for p in RESULTS.rglob('*') if p.name.endswith(('.json', '.json.xz'))]
    return sorted(p for p in files if not p.name.startswith('.'))


@pytest.mark.parametrize('path', records(), ids=lambda p: p.relative_to(RESULTS).as_posix())
def test_record_is_whole(path):
    data = path.read_bytes()
    record = json.loads(lzma.decompress(data) if path.suffix == '.xz' else data)
    for key in ('command', 'code', 'versions', 'hardware', 'seconds', 'n', 'seed'):
        assert key in record, f'{key} is missing'
    assert record['command'].strip() and record['versions'].get('python') and record['hardware']
    assert re.fullmatch('[0-9a-f]{40}', record['code'].get('commit') or ''), (
        'the record does not say at which commit it was made'
    )
    assert record['seconds'] >= 0 and isinstance(record['n'], int)


def test_every_record_is_found():
    "Packed or not, once each: what `read_records` finds is what the files are."
    from seed_story.records.record import read_records

    names = [re.sub(r'\.json(\.xz)?$', '', p.relative_to(RESULTS).as_posix()) for p in records()]
    assert len(set(names)) == len(names), 'a record stands there plain and packed: make records'
    assert sorted(read_records(RESULTS)) == sorted(names) and len(names) >= 549
