"From a few pages to a model that tells them: `seed-story finetune`, in this process, with a small model."

import json
from dataclasses import replace

import pytest
from PIL import Image
from seed_story.story.format import Page, Story, read_stories, write_stories
from seed_story.training.finetune import FinetuneOptions, finetune, hash_stories
from seed_story.training.loop import Interrupted
from seed_story.training.stages import load_encoded
from small_model import command, pages_of, small_model, tell

HOW = FinetuneOptions(steps=2, minutes=5, batch=2)


def own_pages(count):
    return [Page(f'the red bear walks to hill {k}', Image.new('RGB', (40, 40), (9 * k, 80, 99))) for k in range(count)]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('own')
    write_stories([Story(own_pages(6), 'bear')], folder / 'data')
    return folder / 'data'


def test_killed_resumed_and_told(data, tmp_path, monkeypatch):
    "A run that is stopped in stage 3 goes on there; its folder tells, and nothing is trained twice."
    from seed_story.training import runs

    out = tmp_path / 'model'
    begun = []
    stage_three = runs.STAGES['adapt']

    def stopped(options, log=None):
        raise Interrupted(1)

    monkeypatch.setitem(runs.STAGES, 'adapt', stopped)
    with pytest.raises(Interrupted):
        finetune(data, str(small_model()), out, HOW)
    monkeypatch.setitem(runs.STAGES, 'adapt', stage_three)
    with pytest.raises(ValueError, match=r'steps was 2, now 3.*give the same'):
        finetune(data, str(small_model()), out, replace(HOW, steps=3))
    report = finetune(data, str(small_model()), out, HOW, begun.append)
    assert begun == ['stage 3', 'after', 'assembled', 'openings', 'told after', 'sheet']
    assert (report.pages, report.held_out) == (5, 1) and report.after['features'] != report.before['features']
    assert (
        Image.open(report.sheet).size[0] > 6 * 128
        and load_encoded(out / 'store' / 'learned' / 'features').shape[1] == 5
    )
    [told] = read_stories(out / 'after')
    assert told[0].text == 'the red bear walks to hill 0' and json.loads((out / 'finetune.json').read_text())['sheet']
    code, said, _ = tell(tmp_path / 'book', '--pages', 2, '--seed', 1, model=out)
    assert code == 0 and [s[0].text for s in read_stories(tmp_path / 'book')] == ['the red bear walks to hill 0']
    adapter_tells_the_same(data, out, tmp_path)


def adapter_tells_the_same(data, out, top):
    "The run's model, kept as an adapter alone, tells the book that the whole model told into `top / 'book'`."
    words = ('finetune', data, '--from', small_model(), '--out', out, '--steps', 2, '--minutes', 5, '--batch', 2)
    code, said, err = command(*words, '--adapter-only', '--quiet')
    assert code == 0 and said.endswith(f'{out}/adapter: seed-story tell --adapter {out}/adapter\n'), err
    held = 'adapter.json feature_resampler mllm opening unet'
    assert ' '.join(sorted(p.name for p in (out / 'adapter').iterdir())) == held
    assert not (out / 'vae').exists() and command(*words)[2].endswith(
        'holds the adapter alone: give --adapter-only, or another --out\n'
    )
    code, said, err = command('tell', '--adapter', out / 'adapter', '--out', top / 'other', '--pages', 2, '--seed', 1)
    assert code == 0 and pages_of(top / 'other') == pages_of(top / 'book'), err
    code, said, err = command('tell', '--resume', '--out', top / 'other', '--pages', 3)
    assert code == 0 and len(pages_of(top / 'other')) == 3, err
    for words, expected in (
        (('--adapter', out), f'is no adapter, it has no adapter.json: give {out}/adapter'),
        (('--adapter', top / 'none'), 'there is no such folder'),
        (('--adapter', out / 'adapter', '--model', 'tiny'), f'belongs to {small_model()}, and tiny has another'),
    ):
        code, said, err = command('tell', *words, '--out', top / 'never')
        assert code == 2 and err.count('\n') == 1 and expected in err and not (top / 'never').exists(), err


def test_what_cannot_be_used_is_told_in_one_line(data, tmp_path):
    model = small_model()
    write_stories([Story(own_pages(4))], tmp_path / 'few')
    (tmp_path / 'pictures').mkdir()
    own_pages(1)[0].image.save(tmp_path / 'pictures' / 'a.png')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'notes.txt').write_text('mine')
    cases = [
        (tmp_path / 'few', model, 'out', 'a story of 5 pages or more is needed'),
        (tmp_path / 'pictures', model, 'out', 'pictures'),
        (tmp_path / 'none', model, 'out', 'none'),
        (data, tmp_path / 'few', 'out', 'is not a model'),
        (data, model, 'full', 'holds something else: choose a new folder'),
        (data, model, 'full/notes.txt', 'is a file: choose a new folder'),
    ]
    for source, start, out, expected in cases:
        code, said, err = command('finetune', source, '--from', start, '--out', tmp_path / out)
        assert code == 2 and not said and err.count('\n') == 1 and expected in err, err
    assert not (tmp_path / 'out').exists() and [p.name for p in (tmp_path / 'full').iterdir()] == ['notes.txt']


def test_other_words_or_pictures_are_other_data(data):
    [story] = read_stories(data)
    other = Story([Page(page.text, page.image) for page in story])
    assert hash_stories([other]) == hash_stories([story])
    other.pages[2].text += '!'
    assert hash_stories([other]) != hash_stories([story])
