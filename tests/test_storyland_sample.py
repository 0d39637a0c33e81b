"The sample in data/ is what the code makes today: texts and truth to the letter, pictures up to what 128 colours lose."

import json
from pathlib import Path
import numpy as np
import pytest
from seed_story.story.format import check_file, read_stories
from seed_story.storyland.world import ImageFormat, make_story, save_story

SAMPLE = Path(__file__).parent.parent / 'data' / 'storyland_sample'
SEEDS = range(1_000_000, 1_000_004)


def test_sample_is_a_sound_storystream_set():
    assert check_file(SAMPLE / 'stories.jsonl') == []
    assert [s.id for s in read_stories(SAMPLE / 'stories.jsonl')] == list(SEEDS)


@pytest.mark.parametrize('number, seed', list(enumerate(SEEDS)))
def test_sample_has_not_drifted(number, seed):
    story, truth = make_story(seed, size=(128, 128))
    stored = list(read_stories(SAMPLE / 'stories.jsonl'))[number]
    assert [p.text for p in stored] == [p.text for p in story], (
        'write the sample anew: write_set(4, 1_000_000, "data/storyland_sample", image_format=ImageFormat(colours=128))'
    )
    assert json.loads((SAMPLE / 'truth.jsonl').read_text(encoding='utf-8').splitlines()[number]) == json.loads(
        json.dumps(truth)
    )
    for old, new in zip(stored, story):
        a, b = (np.asarray(p.pil().convert('RGB'), dtype=float) for p in (old, new))
        assert a.shape == b.shape and np.abs(a - b).mean() < 4


def test_a_set_is_the_same_for_every_telling_of_its_seed(tmp_path):
    lines = [save_story(tmp_path / name, 10, (32, 32), ImageFormat(), False, 'known', 77) for name in 'ab']
    assert lines[0] == lines[1]
    pictures = [sorted((tmp_path / name).rglob('*.png')) for name in 'ab']
    assert [p.read_bytes() for p in pictures[0]] == [p.read_bytes() for p in pictures[1]] and len(pictures[0]) == 10
