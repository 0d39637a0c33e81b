"""Attention policies of an installed distribution, as the command line sees them; and the names that records hold."""

import lzma
import re
import subprocess
import sys
from pathlib import Path

import pytest
from seed_story.sinks.policies import PositionedPolicy, attention_policy, policy_name

POLICY = """from dataclasses import dataclass
from seed_story.sinks.policies import WindowPolicy, pages_outside, policy

print('imported', flush=True)


@policy('clips')
class Clips(WindowPolicy):
    "Every `every`-th page stays whole."

    every: int = 3

    def extra_ranges(self, layout, window):
        return [range(page.start, page.stop) for page in pages_outside(layout, window)[:: self.every]]
"""
POINTS = """[seed_story.policies]
clips = story_clips:Clips
torn = story_clips:Absent
gone = no_such_module:Mine
text = story_clips:policy
dense = no_such_module:Dense
"""


@pytest.fixture
def site(tmp_path) -> Path:
    "A folder as pip leaves it: a module, and beside it what the distribution offers."
    folder = tmp_path / 'site'
    info = folder / 'story_clips-1.2.dist-info'
    info.mkdir(parents=True)
    (folder / 'story_clips.py').write_text(POLICY)
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: story-clips\nVersion: 1.2\n')
    (info / 'entry_points.txt').write_text(POINTS)
    return folder


def seed_story(site, *words) -> subprocess.CompletedProcess:
    "The command line in a process of its own, with `site` among the installed packages."
    code = f'import sys; sys.path.append({str(site)!r}); sys.argv[0] = "seed-story"; '
    code += 'from seed_story.cli import main; main()'
    return subprocess.run([sys.executable, '-c', code, *map(str, words)], capture_output=True, text=True, timeout=300)


def test_command_line_knows_installed_policies(site, tmp_path):
    told = seed_story(
        site, 'tell', '--attention', 'clips:2,every=2@clamped', '--pages', 2, '--steps', 1, '--out', tmp_path / 'book'
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.count('imported') == 1
    settings = (tmp_path / 'book' / '.state' / 'settings.json').read_text()
    assert 'clips:pages=2,tokens=0,every=2@clamped:480' in settings
    assert len((tmp_path / 'book' / 'story.jsonl').read_text().splitlines()) == 1


def test_help_names_them_and_imports_none(site):
    shown = seed_story(site, 'tell', '--help')
    assert shown.returncode == 0 and 'imported' not in shown.stdout
    assert re.search(r'heavy,\s+clips,\s+gone,\s+text,\s+torn', shown.stdout)


@pytest.mark.parametrize(
    'name, why',
    [
        ('torn', "AttributeError: module 'story_clips' has no attribute 'Absent'"),
        ('gone', "ModuleNotFoundError: No module named 'no_such_module'"),
        ('text', 'no subclass of seed_story.sinks.policies.Policy'),
    ],
)
def test_broken_policy_is_one_line(site, tmp_path, name, why):
    told = seed_story(site, 'tell', '--attention', name, '--out', tmp_path / 'book')
    lines = told.stderr.strip().splitlines()
    assert told.returncode and len(lines) == 1 and why in lines[0], told.stderr
    assert f"attention '{name}' comes from story-clips, which is broken" in lines[0]
    assert 'mend or uninstall it' in lines[0] and not (tmp_path / 'book').exists()


def test_bundled_policies_win(site):
    assert seed_story(site, 'tell', '--attention', 'dense:4').stderr.count("attention 'dense' has no number '4'") == 1


def names_in_records(root) -> set[str]:
    "All names of policies with positions that committed records hold."
    plain = [path.read_text() for path in (root / 'data' / 'results').rglob('*.json')]
    packed = [lzma.open(path, 'rt').read() for path in (root / 'data' / 'results').rglob('*.json.xz')]
    return {name for text in plain + packed for name in re.findall(r'[a-z]+(?::[\w=,]+)?@[a-z]+(?::\d+)?', text)}


def test_names_in_records_are_understood_and_written_again(root):
    names = names_in_records(root)
    assert len(names) > 100 and any(name.endswith('@cache') for name in names)
    for name in names:
        made = attention_policy(name)
        assert isinstance(made, PositionedPolicy)
        written = policy_name(made)
        mode = name.partition('@')[2].replace('contiguous', 'cache')  # both are read, and the shorter is written
        assert attention_policy(written) == made and written.partition('@')[2] == mode, name
    today = {attention_policy(name.replace('@cache', '@contiguous')) for name in names}
    assert today == {attention_policy(name) for name in names}
