"""What the fuzz suite is made of: strange values, damage to files, and what an answer has to look like.

`FUZZ=20 pytest tests/test_fuzz.py` tries twenty times as many cases, other ones each time."""

import json
import os
import re
import signal
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st

FUZZ = float(os.environ.get('FUZZ', '1'))
counted: Counter = Counter()  # cases tried and refused, by test
UNCLEAR = re.compile(
    r"object (is not|has no|cannot)|'NoneType' object|unexpected keyword|subscriptable|list index|must be str|"
    r"tuple\.index|"
    r"\[Errno|cannot reshape|Expecting (value|property|',')|codec can't|invalid literal|positional arg|unhashable|"
    r"KeyError|could not convert|not supported between|out of range\b(?!:)|shape '|size mismatch|dictionary changed|"
    r"'<' not|<(class|function|object|module) | at 0x[0-9a-f]{6}|Traceback|site-packages|Error\(|unsupported operand|"
    r"expected (str|int|float|bytes)|argument of type|not iterable|failed: .*assert|math domain|cannot unpack"
)


def cases(count: int) -> settings:
    "So many cases in CI, the same each time; more and others on request."
    return settings(
        max_examples=max(1, int(count * FUZZ)),
        deadline=None,
        derandomize=FUZZ <= 1,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


@contextmanager
def within(seconds: int):
    "AssertionError if the body takes longer: a hang is a fault, too."

    def late(*_):
        raise AssertionError(f'no answer within {seconds} s')

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def clear(message: str, *parts: str) -> None:
    "One line that a reader of the manual understands, with one of `parts` in it."
    assert message and message.count('\n') == 0, message
    assert not UNCLEAR.search(message), message
    assert not parts or any(part in message for part in parts), (message, parts)


def answered(kind: str, result: tuple[int, str, str], *parts: str) -> bool:
    "Whether a command did what it was told; else it says in one clear line, with one of `parts`, why not."
    code, out, err = result
    note(f'{code} {err}')
    counted[kind, code] += 1
    assert code in (0, 1, 2), (code, out, err)
    if code == 2:
        assert err.startswith('seed-story: ') and err.endswith('\n') and err.count('\n') == 1 and len(err) < 2000, err
        clear(err.removeprefix('seed-story: ').rstrip('\n'), *parts)
    return code == 0


def raised(kind: str, call, *parts: str):
    "What `call()` returns, or None if it says in one clear line, with one of `parts`, why not."
    try:
        result = call()
    except (ValueError, TypeError) as error:
        note(repr(error))
        counted[kind, 'refused'] += 1
        clear(str(error), *parts)
        return None
    counted[kind, 'done'] += 1
    return result


def contents(folder: Path) -> dict[str, bytes]:
    "The bytes of all files in a folder."
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob('*')) if p.is_file()}


WORDS = '|auto|null|None|true|nan|-inf|1e400|0x10|٣|1_0|../x|~|/|.|con|a b|<img>|</s>|é|日本|x;y|-p|--|$HOME|{}|%s'
WORDS = [*WORDS.split('|'), '\ud800']


def whole(text: str) -> int:
    "The number that `text` is in decimal digits, else -1."
    return int(text) if re.fullmatch(r'\+?[0-9]{1,300}', text) else -1


integers = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 7, 255, 1000, 1001, 2**31, 2**63, -(2**63), 10**9, 10**30]), st.integers()
)
floats = st.one_of(st.sampled_from([0.0, -0.0, 0.5, 1.0, 1.5, -1.0, 1e-30, 1e30]), st.floats())
words = st.one_of(
    st.sampled_from(WORDS),
    st.text(max_size=12),
    st.sampled_from(['a' * 5000, 'a b ' * 300, '9' * 5000, '\n', '\x00', 'a\nb', ' ']),
)
atoms = st.one_of(st.none(), st.booleans(), integers, floats, words)
json_values = st.recursive(
    atoms, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)), max_leaves=6
)


@st.composite
def changed(draw, document):
    "A JSON document with one value, at any depth, replaced, removed, or joined by another."
    document = json.loads(json.dumps(document))
    places = []

    def walk(value):
        if isinstance(value, dict) and value:
            places.append((value, sorted(value)))
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list) and value:
            places.append((value, range(len(value))))
            for inner in value:
                walk(inner)

    walk(document)
    kind = draw(st.sampled_from(['value', 'value', 'value', 'near', 'remove', 'add', 'whole']))
    if kind == 'whole' or not places:
        return draw(json_values)
    holder, keys = draw(st.sampled_from(places))
    key = draw(st.sampled_from(list(keys)))
    if kind == 'remove':
        del holder[key]
    elif kind == 'add' and isinstance(holder, dict):
        holder[draw(words)] = draw(json_values)
    elif kind == 'near' and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        holder[key] = holder[key] * draw(st.sampled_from([-1, 0, 2, 0.5, 1e9])) + draw(st.sampled_from([0, 1, -1]))
    else:
        holder[key] = draw(json_values)
    return document


POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:' + b'0' * 64 + b'\nsize 9610216\n'
PAGE = b'<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>'


@st.composite
def damaged(draw, data: bytes):
    "The bytes of a file as disks, downloads and editors leave them."
    kind = draw(st.sampled_from(['cut', 'flip', 'zeros', 'empty', 'pointer', 'page', 'twice', 'insert', 'noise']))
    at = draw(st.integers(0, max(0, len(data) - 1)))
    if kind == 'cut':
        return data[:at]
    if kind == 'flip':
        return data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :] if data else b'x'
    if kind == 'zeros':
        return data[:at] + bytes(len(data) - at)
    if kind == 'insert':
        return data[:at] + draw(st.binary(min_size=1, max_size=9)) + data[at:]
    return {'empty': b'', 'pointer': POINTER, 'page': PAGE, 'twice': data * 2, 'noise': draw(st.binary(max_size=200))}[
        kind
    ]
