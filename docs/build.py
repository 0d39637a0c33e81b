"""The documentation site, built without network: python docs/build.py [OUT]; `make docs` calls it.

Pages are laid out as in the repository, so that each link is the one that works in Jupyter and in the file view.
A link that leads nowhere, an asset from elsewhere, a table shown as text, or a page that Chromium, where there is one,
does not open as it should ends the build with exit status 1."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / 'build' / 'docs'
BUILT = ROOT / 'build' / 'site' / 'html'  # Sphinx writes its copies of notebooks beside this folder

# The sidebar, in the order of the paper: method (section 3), data (4), experiments (5), and what carries them.
CHAPTERS = {
    'Start': [
        'nbs/start_here.ipynb',
        'nbs/index.ipynb',
        'nbs/results.ipynb',
        'nbs/glossary.ipynb',
        'nbs/contents.ipynb',
        'CONTRIBUTING.md',
        'CHANGELOG.md',
    ],
    'Tutorials': ['nbs/tutorials/*.ipynb'],
    'Method: the model': ['nbs/3_models/*.ipynb'],
    'Method: training': ['nbs/6_training/*.ipynb'],
    'Method: the attention sink': ['nbs/4_sinks/*.ipynb'],
    'Method: telling': ['nbs/5_pipeline/*.ipynb'],
    'Data: stories': ['nbs/1_story/*.ipynb'],
    'Data: from your material': ['nbs/10_building/*.ipynb'],
    'Data: Storyland': [
        'data/storyland_sample/README.md',
        'nbs/2_storyland/*.ipynb',
        'nbs/2_storyland/writing/*.ipynb',
        'nbs/2_storyland/drawing/*.ipynb',
    ],
    'Experiments: measures': ['nbs/7_evaluation/*.ipynb'],
    'Experiments: results': ['data/results/*.ipynb'],
    'Experiments: notebooks': ['nbs/repro/*.ipynb'],
    'Models that ship': ['data/tiny/README.md', 'data/small/README.md'],
    'Tools': ['nbs/8_records/*.ipynb', 'nbs/9_released/*.ipynb', 'nbs/cli.ipynb'],
}
TABLE = re.compile(r'^\|.*\n\|[ :|-]+\n(?:\|.*(?:\n|\Z))+', re.M)
LINK = re.compile(r'(\]\()([^)\s]+)(\))')
HIDDEN = re.compile(r'\s*#\|\s*hide\b')
NBDEV_LINES = re.compile(r'^- skip_exec: true\n+', re.M)
FOLDED = ('data/results/', 'nbs/repro/')  # pages whose code is folded: they are read for their tables and pictures
OPENED = {  # page that a browser opens → what it must show then
    'index.html': 'Start here',
    'nbs/4_sinks/01_policies.html': 'What a policy sees',
    'data/results/length.html': 'What we found',
    'api/seed_story.sinks.policies.html': 'Layout',
    'search.html?q=sink': 'Attention policies',
}
DIRECTIVES = re.compile(r'^#\|.*\n?', re.M)


def chapters() -> dict[str, list[str]]:
    "Chapter → its pages, as paths in the repository."
    return {
        title: [p.relative_to(ROOT).as_posix() for pattern in patterns for p in sorted(ROOT.glob(pattern))]
        for title, patterns in CHAPTERS.items()
    }


def modules() -> dict[str, list[str]]:
    "Wing → the dotted names of its modules."
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / 'seed_story').rglob('*.py')):
        if path.name not in ('__init__.py', '_modidx.py'):
            parts = path.relative_to(ROOT).with_suffix('').parts
            found.setdefault(parts[1], []).append('.'.join(parts))
    return found


def shown(notebook: dict) -> dict:
    "A notebook without hidden cells and without the lines that are for nbdev."
    cells = []
    for cell in notebook['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'raw' or cell['cell_type'] == 'code' and HIDDEN.match(source):
            continue
        if cell['cell_type'] == 'code':
            source = DIRECTIVES.sub('', source)
            if not source.strip() and not cell['outputs']:
                continue
        cells.append(cell | dict(source=source))
    return notebook | dict(cells=cells)


def folded(notebook: dict, page: str) -> dict:
    "The notebook of an experiment with its code folded; a committed run says so in its title."
    for cell in notebook['cells']:
        if cell['cell_type'] == 'code':
            tags = cell['metadata'].get('tags', [])
            cell['metadata'] = cell['metadata'] | dict(tags=[*tags, 'hide-input'])
        else:
            cell['source'] = NBDEV_LINES.sub('', cell['source'])
    if page.startswith('data/results/'):
        first = notebook['cells'][0]
        first['source'] = re.sub(r'\A(# .*)', r'\1 (committed run)', first['source'])
    return notebook


def narrowed(text: str, most: int = 6) -> str:
    """Markdown whose tables have at most `most` columns beside those that tell the rows apart, wide ones in blocks.

    So a table of many measures can be read without scrolling sideways. Tables that fit stay as they are."""

    def blocks(match: re.Match) -> str:
        rows = [re.split(r'(?<!\\)\|', line.strip().strip('|')) for line in match[0].strip().split('\n')]
        if len({len(row) for row in rows}) > 1 or len(rows[0]) <= most + 1:
            return match[0]
        keys = [k for k in (1, 2, 3) if len({tuple(row[:k]) for row in rows[2:]}) == len(rows) - 2] or [1]
        measures = range(keys[0], len(rows[0]))
        count = -(-len(measures) // most)  # blocks, of columns as equal in number as can be
        parts = [measures[len(measures) * k // count : len(measures) * (k + 1) // count] for k in range(count)]
        tables = [[row[: keys[0]] + [row[column] for column in part] for row in rows] for part in parts]
        return '\n'.join(''.join(f'|{"|".join(row)}|\n' for row in table) for table in tables)

    return TABLE.sub(blocks, text)


def relink(text: str, page: str, pages: set[str]) -> str:
    "The links of `page`: a file that is no page is copied beside them; of a folder, its first page is linked."

    def link(match: re.Match) -> str:
        target, _, place = match[2].partition('#')
        if '://' in target or not target:
            return match[0].lower() if match[2].startswith('#') else match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(page), unquote(target)))
        source = ROOT / path
        if path in pages:
            return f'{match[1]}{target}{"#" * bool(place)}{place.lower()}{match[3]}'
        if source.is_file():
            (PAGES / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, PAGES / path)
            return f'{match[1]}{target}{match[3]}'
        inside = sorted(name for name in pages if name.startswith(f'{path}/'))
        if inside:  # a folder: its first page
            return f'{match[1]}{os.path.relpath(inside[0], os.path.dirname(page))}{match[3]}'
        if source.is_dir() and not place:  # of files alone, as records are: all are copied, the first is linked
            shutil.copytree(source, PAGES / path, dirs_exist_ok=True)
            first = min(p.relative_to(ROOT).as_posix() for p in source.rglob('*') if p.is_file())
            return f'{match[1]}{os.path.relpath(first, os.path.dirname(page))}{match[3]}'
        return match[0]

    return LINK.sub(link, text)


def stage() -> None:
    "Lays out all pages under build/docs."
    shutil.rmtree(PAGES, ignore_errors=True)
    found = chapters()
    pages = {page for listed in found.values() for page in listed}
    for page in sorted(pages):
        target = PAGES / page
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / page).read_text(encoding='utf-8')
        if page.endswith('.ipynb'):
            notebook = shown(json.loads(text))
            if page.startswith(FOLDED):
                notebook = folded(notebook, page)
            for cell in notebook['cells']:
                if cell['cell_type'] == 'markdown':
                    cell['source'] = relink(cell['source'], page, pages)
                for output in cell.get('outputs', []):
                    if 'text/markdown' in output.get('data', {}):
                        made = ''.join(output['data']['text/markdown'])
                        output['data']['text/markdown'] = narrowed(relink(made, page, pages))
            target.write_text(json.dumps(notebook), encoding='utf-8')
        else:
            text = re.sub(r'\A---\n.*?\n---\n', '', text, flags=re.S)
            target.write_text(relink(text, page, pages), encoding='utf-8')
    write_lists(found)
    shutil.copyfile(ROOT / 'docs' / 'bibliography.md', PAGES / 'bibliography.md')


def toctree(title: str, pages: list[str], depth: int = 1) -> str:
    "The list of a chapter's pages in Sphinx's words."
    lines = [re.sub(r'\.(ipynb|md)$', '', page) for page in pages]
    lines = ['Overview <nbs/index>' if line == 'nbs/index' else line for line in lines]
    return '\n'.join(['```{toctree}', f':caption: "{title}"', f':maxdepth: {depth}', '', *lines, '```', ''])


def write_lists(found: dict[str, list[str]]) -> None:
    "The front page with the sidebar's chapters, and the API's pages, one a module."
    front = [
        '# seed_story',
        '',
        'SEED-Story ([arXiv 2407.08683](https://arxiv.org/abs/2407.08683)), whole and working.',
    ]
    front += ['', 'New here? [Start here](nbs/start_here.ipynb). The chapters follow the paper.', '']
    front += [toctree(title, pages) for title, pages in found.items()]
    front.append(toctree('Reference', ['api/index', 'bibliography']))
    (PAGES / 'index.md').write_text('\n'.join(front), encoding='utf-8')
    api = ['# API reference', '', 'Made from the docstrings of every module. Shapes stand beside the parameters.', '']
    (PAGES / 'api').mkdir()
    for wing, names in modules().items():
        api.append(toctree(wing, names))
        for name in names:
            page = (
                f'# {name.removeprefix("seed_story.")}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n'
            )
            (PAGES / 'api' / f'{name}.md').write_text(page, encoding='utf-8')
    (PAGES / 'api' / 'index.md').write_text('\n'.join(api), encoding='utf-8')


def link_pages(site: Path) -> None:
    "In what notebooks show as HTML, links to notebooks become links to their pages."
    for path in site.rglob('*.html'):
        text = path.read_text(encoding='utf-8')

        def link(match: re.Match, folder: Path = path.parent) -> str:
            return f'{match[1]}.html' if (folder / f'{unquote(match[2])}.html').is_file() else match[0]

        linked = re.sub(r'(href="([^":#]+))\.ipynb(?=["#])', link, text)
        if linked != text:
            path.write_text(linked, encoding='utf-8')


class Links(HTMLParser):
    "What a page links to and loads, and the names of its places."

    def __init__(self, text: str):
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = dict(attrs)
        self.places |= {given[key] for key in ('id', 'name') if given.get(key)}
        for key in ('href', 'src'):
            if given.get(key) and tag in ('a', 'img', 'script', 'link'):
                self.links.append(('style' if given.get('rel') == 'stylesheet' else tag, given[key]))


def dead_links(site: Path) -> list[str]:
    "`page: link` of each link that leads nowhere, and of each script, style or picture from elsewhere."
    pages = {path: Links(path.read_text(encoding='utf-8')) for path in sorted(site.rglob('*.html'))}
    found = []
    for path, page in pages.items():
        for tag, link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                loads = tag in ('img', 'script', 'style') and parts.scheme != 'data'
                if loads:
                    found.append(f'{path.relative_to(site)}: {link[:80]} comes from elsewhere')
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target = target / 'index.html'
            places = pages[target].places if target in pages else set()
            if not target.exists() or parts.fragment and target in pages and unquote(parts.fragment) not in places:
                found.append(f'{path.relative_to(site)}: {link}')
    return found


def tables_as_text(site: Path) -> list[str]:
    "Pages on which a table stands with its bars and dashes; code is passed over."
    found = []
    for page in sorted(site.rglob('*.html')):
        text = re.sub(r'<pre\b.*?</pre>|<[^>]*>', '', page.read_text(encoding='utf-8'), flags=re.S)
        if re.search(r'\|\s*(?:-{3}|—)\s*\|\s*(?:-{3}|—)\s*\|', text):
            found.append(f'{page.relative_to(site)}: a table is shown as text')
    return found


def find_chromium() -> str | None:
    "The browser that CHROMIUM names, else the first one on the path."
    names = [os.environ.get('CHROMIUM', ''), 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
    return next((found for found in map(shutil.which, filter(None, names)) if found), None)


def opened_wrongly(site: Path, browser: str, pages: dict[str, str] = OPENED) -> list[str]:
    "`page: what is missing` of each of the `pages` that does not show its words in a headless browser."
    found = []
    with tempfile.TemporaryDirectory() as profile:
        words = [browser, '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', f'--user-data-dir={profile}']
        words += ['--disable-background-networking', '--virtual-time-budget=8000', '--dump-dom']
        for page, wanted in pages.items():
            path, _, query = page.partition('?')
            address = (site / path).as_uri() + f'?{query}' * bool(query)
            done = subprocess.run([*words, address], capture_output=True, text=True, timeout=120)
            text = re.sub(r'<(script|style)\b.*?</\1>|<nav\b.*?</nav>|<aside\b.*?</aside>', '', done.stdout, flags=re.S)
            if wanted not in re.sub(r'<[^>]*>', '', text):
                found.append(f'{page}: opened in {Path(browser).name} it does not show "{wanted}"')
    return found


def main(out: str | Path = ROOT / '_docs') -> int:
    "Builds the site into the folder `out`; the exit status."
    out = Path(out).resolve()
    stage()
    shutil.rmtree(BUILT.parent, ignore_errors=True)
    began = time.monotonic()
    words = ['-b', 'html', '-q', '-j', 'auto', '-c', ROOT / 'docs', '-d', ROOT / 'build' / 'doctrees', PAGES, BUILT]
    done = subprocess.run([sys.executable, '-m', 'sphinx', *map(str, words)], cwd=ROOT)
    if done.returncode == 0:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(BUILT, out)
        link_pages(out)
    dead = dead_links(out) if done.returncode == 0 else []
    raw = tables_as_text(out) if done.returncode == 0 else []
    browser = find_chromium() if done.returncode == 0 else None
    wrong = [*raw, *(opened_wrongly(out, browser) if browser else [])]
    print(*dead, *wrong, sep='\n', end='\n' * bool(dead or wrong))
    count = len(list(out.rglob('*.html')))
    print(f'{out / "index.html"}: {count} pages in {time.monotonic() - began:.0f} s, {len(dead)} dead links')
    print(f'{len(OPENED)} pages opened in a browser' if browser else 'no page opened: there is no Chromium on the path')
    return done.returncode or int(bool(dead or wrong))


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:2]))
