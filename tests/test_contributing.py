"""CONTRIBUTING.md and README.md as a newcomer would follow them: their pieces of Python are run."""

import re
import sys
from pathlib import Path

import pytest

from seed_story.cli import run

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = dict(
    re.findall(r'^## (.*?)\n(.*?)(?=^## |\Z)', (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8'), re.M | re.S)
)


def code(section: str, language: str = 'python') -> str:
    "The one block of a section in a language."
    [block] = re.findall(rf'```{language}\n(.*?)```', SECTIONS[section], re.S)
    return block


def follow(section: str, **names) -> dict:
    "What a section's Python leaves behind."
    names['__name__'] = 'newcomer'
    exec(compile(code(section), section, 'exec'), names)
    return names


@pytest.fixture
def restored():
    "The registries as they were."
    from seed_story.models.presets import PRESETS
    from seed_story.sinks.policies import POLICIES
    from seed_story.training.options import STAGE_OPTIONS
    from seed_story.training.runs import STAGES

    before = [(registry, dict(registry)) for registry in (PRESETS, POLICIES, STAGE_OPTIONS, STAGES)]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


def test_a_policy(tmp_path, monkeypatch, restored):
    (tmp_path / 'my_policies.py').write_text(code('A policy in ten lines'))
    info = tmp_path / 'my_policies-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: my-policies\nVersion: 1.0\n')
    group, line = code('A policy in ten lines', 'toml').split('\n')[:2]
    group = re.search(r'entry-points\."(.*)"', group)[1]
    (info / 'entry_points.txt').write_text(f'[{group}]\n{line.replace(chr(34), "")}\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / 'book'
    assert run(['tell', '--pages', '3', '--steps', '2', '--attention', 'clips:pages=1,every=2', '--out', str(out)]) == 0
    assert 'clips' in (out / '.state' / 'settings.json').read_text()
    sys.modules.pop('my_policies', None)


def test_a_preset(restored):
    made = follow('A preset')
    assert len(made['parts']['mllm'].llm.model.layers) == 2 and set(made['parts']) > {'unet', 'vae'}


def test_a_stage(tmp_path, capsys, restored):
    follow('A training stage')
    assert run(['train', 'render', '--store', str(tmp_path / 'store'), '--stories', '2', '--workers', '1']) == 0
    capsys.readouterr()
    assert run(['train', 'count', '--help']) == 0
    assert '--stories N' in capsys.readouterr().out
    assert run(['train', 'count', '--store', str(tmp_path / 'store')]) == 0
    assert 'stories: 2' in capsys.readouterr().out
    assert run(['train', 'count', '--store', str(tmp_path / 'store'), '--stories', '0']) == 2
    assert 'at least 1' in capsys.readouterr().err


def test_an_ablation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = follow('An ablation notebook', ORACLE=str(ROOT / 'data' / 'oracle' / 'features'))
    assert made['lacking'] == [] and 'squared error' in made['table']
    assert len([*Path('records').rglob('seed_0.json*')]) == 2


def test_a_measure():
    from seed_story import read_stories

    sample = ROOT / 'data' / 'storyland_sample'
    stories = list(read_stories(sample / 'stories.jsonl', sample / 'images'))
    made = follow('A measure')
    found = made['words_a_page'](stories)
    assert 3 < found.low <= found.value <= found.high < 60
    assert made['format_estimate'](found, 'fine')


def test_readme_in_python(tmp_path, monkeypatch, capsys):
    "README's lines, with two pages instead of twenty-five."
    from seed_story import bundled_folder

    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    [block] = re.findall(r'```python\n(.*?)```', readme, re.S)
    monkeypatch.chdir(tmp_path)
    [opening] = bundled_folder('tiny').rglob('opening.png')
    (tmp_path / 'opening.png').write_bytes(opening.read_bytes())
    assert block.count('pages=25') == 2
    exec(compile(block.replace('pages=25', 'pages=2'), 'README.md', 'exec'), {})
    assert len(capsys.readouterr().out.split('\n')) >= 3 and '<img' in (tmp_path / 'book.html').read_text()
