"""How exported code is written, as far as no rule of ruff says it: each check names the line and what to do instead.

The rules are read off the syntax tree; nothing of the package is imported."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / 'seed_story'
Function = ast.FunctionDef | ast.AsyncFunctionDef

# Names that mean the same wherever they stand: each module's own logger, what a process begins with, and commands
# named like the functions that they call.
SAME_MEANING = {'logger', 'main', 'convert', 'fetch'}

# Functions that may have ten parameters or more: what a user or a saved configuration says in one call.
MANY_PARAMETERS = {
    # the pipeline's face, in diffusers' manner
    'StoryComponents.__init__',
    'StoryPipeline.__call__',
    'NarrationPipeline.narrate',
    'StreamingPipeline.stream',
    # a model's forward pass, in transformers' manner
    'StoryMLLM.forward',
    # what a model is built from: the keys of its config.json
    'FeatureResampler.__init__',
    'StoryMLLMConfig.__init__',
    'VisualTokenizer.__init__',
    # commands, an option a parameter
    'tell',
    'tell_many_books',
    'data_storyland',
    'data_build',
    'finetune_model',
    'write_set',
}

# What may be assigned together: parts of one point, vector, size or interval. Their names differ in nothing else.
PARTS = [
    ('x', 'y', 'z'),
    ('u', 'v'),
    ('w', 'h'),
    ('a', 'b'),
    ('0', '1', '2', '3'),
    ('width', 'height'),
    ('left', 'right'),
    ('top', 'bottom'),
    ('low', 'high'),
    ('start', 'end'),
    ('first', 'last'),
    ('cos', 'sin'),
    ('key', 'value'),
    ('keys', 'values'),
]


def modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob('*.py')) if p.name not in ('_modidx.py', '__init__.py')]


def wing(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'))


def last_name(node: ast.expr) -> str:
    "`x` of `x`, `self.x` and `point.x`; nothing of other targets."
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ''


def are_parts(targets: list[ast.expr]) -> bool:
    "Whether targets are parts of one thing: `x, y`, `x0, y0`, `self.width, self.height`, but not `self.x, other.y`."
    names = [last_name(t) for t in targets]
    owners = {ast.unparse(t.value) if isinstance(t, ast.Attribute) else '' for t in targets}
    if not all(names) or len(set(names)) < len(names) or len(owners) > 1:
        return False
    for family in PARTS:
        for part in family:
            before, found, after = names[0].partition(part)
            if found and all(any(n == f'{before}{other}{after}' for other in family) for n in names):
                return True
    return False


def elements(node: ast.expr) -> list[ast.expr]:
    return [e for x in node.elts for e in elements(x)] if isinstance(node, (ast.Tuple, ast.List)) else [node]


def needs_old_values(targets: list[ast.expr], values: list[ast.expr]) -> bool:
    "Whether a later value reads an earlier target, as a swap does: one after the other would mean something else."
    for n, target in enumerate(targets):
        later = {ast.unparse(x) for value in values[n + 1 :] for x in ast.walk(value)}
        if any(ast.unparse(t) in later for t in elements(target)):
            return True
    return False


# ---- checks: each yields (line, what is wrong) ----------------------------------------------------------------------


def check_tuple_assignment(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """`a, b = f(x), g(y)` is two statements.

    Tuples on both sides of `=` are left alone only if a later value reads an earlier target (`a, b = b, a`),
    or if the targets are parts of one thing (`x, y = 0, 0`; see `PARTS`). One value that is unpacked is no tuple."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, (ast.Tuple, ast.List))):
            continue
        for target in node.targets:
            if not isinstance(target, (ast.Tuple, ast.List)):
                continue
            if not (are_parts(target.elts) or needs_old_values(target.elts, node.value.elts)):
                yield node.lineno, f'several things are assigned at once: {ast.unparse(target)}'


def check_list_times_flag(tree: ast.Module) -> Iterator[tuple[int, str]]:
    "`[x] * flag` hides an `if`."
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            for items, count in ((node.left, node.right), (node.right, node.left)):
                flag = isinstance(count, (ast.Compare, ast.BoolOp)) or (
                    isinstance(count, ast.UnaryOp) and isinstance(count.op, ast.Not)
                )
                flag = flag or (isinstance(count, ast.Call) and last_name(count.func) in ('bool', 'isinstance'))
                if isinstance(items, (ast.List, ast.Tuple, ast.ListComp)) and flag:
                    yield node.lineno, f'a list times a condition: {ast.unparse(node)}'


def check_comprehension_statement(tree: ast.Module) -> Iterator[tuple[int, str]]:
    "A list that is built for its side effects is a loop."
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, kinds):
            yield node.lineno, 'a comprehension as a statement'


def check_getattr_policy(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """A policy has a base class with defaults: nobody needs to ask whether it has something.

    `getattr(policy, name)` for a name that is not known beforehand asks nothing, and is left alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and last_name(node.func) in ('getattr', 'hasattr') and node.args:
            asks = last_name(node.func) == 'hasattr' or len(node.args) > 2 or isinstance(node.args[1], ast.Constant)
            if asks and last_name(node.args[0]).endswith('policy'):
                yield node.lineno, f'{ast.unparse(node)}: policies have this by their base class'


def functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    "(`name` or `Class.name`, function) of what a module or one of its classes defines."
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield f'{node.name}.{inner.name}', inner


def count_parameters(function: Function) -> int:
    "Parameters of a function, `self` and `cls` left out."
    a = function.args
    names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs) if x.arg not in ('self', 'cls')]
    return len(names) + bool(a.vararg) + bool(a.kwarg)


def check_parameters(tree: ast.Module) -> Iterator[tuple[int, str]]:
    "Ten parameters are a dataclass that has not been written yet."
    for name, function in functions(tree):
        if (n := count_parameters(function)) >= 10 and name not in MANY_PARAMETERS:
            yield function.lineno, f'{name} has {n} parameters'


def check_docstring(tree: ast.Module) -> Iterator[tuple[int, str]]:
    "Public functions, classes and methods say what they do; a method of a subclass may leave it to its base."
    subclasses = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.bases}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_') and not ast.get_docstring(node):
            yield node.lineno, f'class {node.name} has no docstring'
    for name, function in functions(tree):
        if name.split('.')[0] in subclasses:
            continue
        if not any(part.startswith('_') for part in name.split('.')) and not ast.get_docstring(function):
            yield function.lineno, f'{name} has no docstring'


CHECKS = [
    check_tuple_assignment,
    check_list_times_flag,
    check_comprehension_statement,
    check_getattr_policy,
    check_parameters,
    check_docstring,
]
WINGS = sorted({wing(p) for p in modules()})


@pytest.mark.parametrize('name', WINGS)
@pytest.mark.parametrize('check', CHECKS, ids=lambda c: c.__name__.removeprefix('check_'))
def test_style(check, name, request):
    found = [
        f'{path.relative_to(PACKAGE.parent)}:{line}: {what}'
        for path in modules()
        if wing(path) == name
        for line, what in check(parse(path))
    ]
    assert not found, check.__doc__ + '\n' + '\n'.join(found)


def exported(tree: ast.Module) -> list[str]:
    "The names in a module's `__all__`."
    for node in tree.body:
        if isinstance(node, ast.Assign) and [last_name(t) for t in node.targets] == ['__all__']:
            return ast.literal_eval(node.value)
    return []


def test_no_name_stands_for_two_things():
    "A name that two modules export is qualified or renamed; faces, which hand names on, are not looked at."
    homes = defaultdict(list)
    for path in modules():
        for name in exported(parse(path)):
            homes[name].append('.'.join(path.relative_to(PACKAGE).with_suffix('').parts))
    shared = {name: where for name, where in homes.items() if len(where) > 1 and name not in SAME_MEANING}
    assert not shared, shared


# ---- the checks themselves: what each must see, and what it must leave alone ----------------------------------------

BAD = {
    check_tuple_assignment: [
        'a, n = f(), g()',
        'a, (b, c) = f(), x',
        'a.x, b.y = 0, 0',
        'x, size = 0, 1',
    ],
    check_list_times_flag: ['a = [1] * (n > 2)', 'a = (not n) * [1]', 'a = [1] * (n and m)', 'a = [1] * bool(n)'],
    check_comprehension_statement: ['[f(x) for x in y]', '{f(x) for x in y}'],
    check_getattr_policy: ['getattr(policy, "n", 1)', 'getattr(self.policy, "n", None)', 'hasattr(policy, "n")'],
    check_parameters: ['def f(a, b, c, d, e, f, g, h, i, j): pass', 'def f(a, b, c, d, e, f, g, h, *i, **j): pass'],
    check_docstring: ['def f(): pass', 'class A:\n    "a"\n    def f(self): pass', 'class A:\n    n: int'],
}
GOOD = {
    check_tuple_assignment: [
        'a, b = b, a',
        'a, n = f()',
        'x, y = 0, g()',
        'x0, x1 = 1, 2',
        'a, n = n, a + n',
        'a = 1, 2',
    ],
    check_list_times_flag: ['a = [1] * n', 'a = 2 * (n > 2)', 'a = [1] * (n + 1)'],
    check_comprehension_statement: ['a = [f(x) for x in y]', 'f(x for x in y)'],
    check_getattr_policy: ['getattr(model, "n", 1)', 'policy.n', 'getattr(policy, name)'],
    check_parameters: ['class A:\n    def f(self, a, b, c, d, e, f, g, h, i): pass'],
    check_docstring: ['def _f(): pass', 'def f():\n    "f"', 'class A:\n    "a"\n    def __init__(self): pass'],
}


@pytest.mark.parametrize('check', CHECKS, ids=lambda c: c.__name__)
def test_checks_see_what_they_are_for(check):
    assert [code for code in BAD[check] if not list(check(ast.parse(code)))] == []
    assert [code for code in GOOD[check] if list(check(ast.parse(code)))] == []


def test_lines_are_short():
    "But for the list of names that nbdev writes. A module's docstring is the line under its notebook's title."
    for path in modules():
        lines = path.read_text(encoding='utf-8').split('\n')
        tree = ast.parse('\n'.join(lines))
        names = [n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '__all__']
        listed = {line for node in names for line in range(node.lineno, node.end_lineno + 1)}
        long = [number for number, line in enumerate(lines, 1) if len(line) > 120 and number not in listed]
        assert not long, f'{path}: lines {long} have more than 120 characters: write the notebook\'s in two'
