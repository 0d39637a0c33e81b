"""The tables of findings that notebooks make from committed records: python docs/findings.py [--check].

Cells tagged `findings` are executed, in `nbs/repro` and in the executed copies alike, and their outputs written.
With --check nothing is written; exit status 1 if an output is not what the records say today."""

import ast
import json
import os
import sys
from pathlib import Path

from seed_story.records.executed import read_notebook, write_notebook

ROOT = Path(__file__).resolve().parent.parent


def imports_for(source: str, notebook: dict) -> str:
    "The imports of other cells that the code `source` needs."
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    found = []
    for cell in notebook['cells']:
        if cell['cell_type'] == 'code':
            nodes = [n for n in ast.parse(''.join(cell['source'])).body if isinstance(n, (ast.Import, ast.ImportFrom))]
            found += [n for n in nodes if used & {(name.asname or name.name).split('.')[0] for name in n.names}]
    return '\n'.join(map(ast.unparse, found)) + '\n'


def findings(source: str, notebook: dict) -> str:
    "The Markdown that a tagged cell of the notebook makes: it calls it `findings`."
    names: dict = {}
    exec(compile(imports_for(source, notebook) + source, '<findings>', 'exec'), names)
    return names['findings']


def output(text: str) -> dict:
    "The output of such a cell, as notebooks hold it."
    shown = {'text/markdown': text.splitlines(True), 'text/plain': ['<IPython.core.display.Markdown object>']}
    return dict(output_type='execute_result', execution_count=None, metadata={}, data=shown)


def refresh(paths: list[Path], write: bool = True) -> list[Path]:
    "The notebooks among `paths` whose findings were not what the records say; they are, if `write`."
    made: dict[str, dict] = {}  # source → output: a copy holds the cell of its notebook
    stale = []
    for path in paths:
        notebook = read_notebook(path)
        before = json.dumps(notebook, sort_keys=True)
        for cell in notebook['cells']:
            if 'findings' in cell['metadata'].get('tags', []):
                source = ''.join(cell['source'])
                if source not in made:
                    made[source] = output(findings(source, notebook))
                cell['outputs'] = [made[source]]
        if json.dumps(notebook, sort_keys=True) != before:
            stale.append(path)
            if write:
                write_notebook(path, notebook)
    return stale


def main(words: list[str]) -> int:
    "Refreshes all notebooks, or checks them; the exit status."
    os.chdir(ROOT)  # paths in the cells start here
    check = '--check' in words
    stale = refresh([*sorted(ROOT.glob('nbs/repro/*.ipynb')), *sorted(ROOT.glob('data/results/*.ipynb'))], not check)
    verb = 'is not what the records say: python docs/findings.py' if check else 'written'
    print(*(f'{path.relative_to(ROOT)}: {verb}' for path in stale), sep='\n', end='\n' * bool(stale))
    return int(check and bool(stale))


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
