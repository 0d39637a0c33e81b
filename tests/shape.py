"""The shape of the package in figures: rooms, arrows, long lines and signatures, names that stand for two things.

python tests/shape.py [CHECKOUT] [--names]     # --names: lists the signatures and the names"""

import argparse
import ast
from collections import defaultdict
from pathlib import Path

LONG = 120  # columns
MANY = 10  # parameters


def modules(package: Path) -> dict[str, ast.Module]:
    "Dotted name below the package -> parsed module; faces (`__init__.py`) left out."
    files = [p for p in sorted(package.rglob('*.py')) if p.name not in ('_modidx.py', '__init__.py')]
    return {
        '.'.join(p.relative_to(package).with_suffix('').parts): ast.parse(p.read_text(encoding='utf-8')) for p in files
    }


def imported(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    "Modules of the package that module `name` imports anywhere, inside functions too."
    found, parents = set(), name.split('.')[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name.removeprefix('seed_story.') for a in node.names if a.name.startswith('seed_story.')]
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').split('.')[0] == 'seed_story'):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = node.module if node.level else (node.module or '').removeprefix('seed_story').lstrip('.')
            base = '.'.join([*base, *([module] if module else [])])
            names = [base, *(f'{base}.{a.name}'.lstrip('.') for a in node.names)]
        else:
            continue
        found |= {n for n in names if n in known}
    return found - {name}


def parameters(function: ast.FunctionDef) -> int:
    "Parameters of a function, `self` and `cls` left out."
    a = function.args
    names = [x.arg for x in [*a.posonlyargs, *a.args, *a.kwonlyargs]]
    return len([n for n in names if n not in ('self', 'cls')]) + bool(a.vararg) + bool(a.kwarg)


def public_names(tree: ast.Module) -> set[str]:
    "Functions, classes and constants that a module defines at its top and does not hide."
    named = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    return {n for n in named if not n.startswith('_')}


def shape(checkout: Path) -> dict:
    package = checkout / 'seed_story'
    trees = modules(package)
    arrows = {(a, b) for a, tree in trees.items() for b in imported(a, tree, set(trees))}

    def room(name: str) -> str:
        return name.split('.')[0]

    functions = [
        (f'{m}.{f.name}', parameters(f))
        for m, tree in trees.items()
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef)
    ]
    homes = defaultdict(set)
    for m, tree in trees.items():
        for n in public_names(tree):
            homes[n].add(m)
    lines = [line for m in trees for line in (package / (m.replace('.', '/') + '.py')).read_text('utf-8').split('\n')]
    return dict(
        modules=len(trees),
        rooms=len({room(n) for n in trees}),
        room_arrows=len({(room(a), room(b)) for a, b in arrows if room(a) != room(b)}),
        lines=len(lines),
        long_lines=sum(len(line) > LONG for line in lines),
        longest=max(map(len, lines)),
        many=sorted((-n, name) for name, n in functions if n >= MANY),
        two=sorted((n, sorted(h)) for n, h in homes.items() if len(h) > 1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkout', nargs='?', type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument('--names', action='store_true')
    given = parser.parse_args()
    s = shape(given.checkout)
    for key in ('modules', 'rooms', 'room_arrows', 'lines', 'long_lines', 'longest'):
        print(f'{key:12} {s[key]}')
    print(f'{"many":12} {len(s["many"])} functions of {MANY} or more parameters')
    print(f'{"two":12} {len(s["two"])} public functions or classes whose name another module uses, too')
    if given.names:
        for n, name in s['many']:
            print(f'  {-n:3} {name}')
        for name, where in s['two']:
            print(f'  {name}: {", ".join(where)}')


if __name__ == '__main__':
    main()
