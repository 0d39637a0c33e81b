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


def defines(node: ast.stmt) -> set[str]:
    "The names that a top-level statement gives to others: those of imports, functions and CONSTANTS of literals."
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(name.asname or name.name).split('.')[0] for name in node.names}
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Assign) and not any(
        isinstance(part, (ast.Name, ast.Call)) for part in ast.walk(node.value)
    ):
        return {target.id for target in node.targets if isinstance(target, ast.Name) and target.id.isupper()}
    return set()


def needed_for(source: str, notebook: dict) -> str:
    "The imports, functions and constants of other cells that the code `source` needs."
    cells = [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']
    given = [node for text in cells if text != source for node in ast.parse(text).body if defines(node)]
    found: list[ast.stmt] = []
    asking: list[ast.AST] = [ast.parse(source)]
    while asking:
        used = {node.id for node in ast.walk(asking.pop()) if isinstance(node, ast.Name)}
        new = [node for node in given if node not in found and used & defines(node)]
        found += new
        asking += new
    return '\n'.join(ast.unparse(node) for node in given if node in found) + '\n'


def findings(source: str, notebook: dict) -> str:
    "The Markdown that a tagged cell of the notebook makes: it calls it `findings`."
    names: dict = {}
    exec(compile(needed_for(source, notebook) + source, '<findings>', 'exec'), names)
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
