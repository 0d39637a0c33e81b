"From a few pages to a model that tells them: `seed-story finetune`, in this process, with a small model."

import re
from dataclasses import replace

import pytest
from PIL import Image
from seed_story.story.format import Page, Story, read_stories, write_stories
from seed_story.training.finetune import FinetuneOptions, finetune, hash_stories
from seed_story.training.stages import load_encoded
from kills import killed_at
from small_model import command, pages_of, small_model, tell

HOW = FinetuneOptions(steps=2, batch=2)


def own_pages(count):
    return [Page(f'the red bear walks to hill {k}', Image.new('RGB', (40, 40), (9 * k, 80, 99))) for k in range(count)]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('own')
    write_stories([Story(own_pages(6), 'bear')], folder / 'data')
    return folder / 'data'


@pytest.fixture(scope='module')
def whole(data, tmp_path_factory):
    "A model that was made without a stop."
    out = tmp_path_factory.mktemp('made') / 'model'
    begun = []
    report = finetune(data, str(small_model()), out, HOW, begun.append)
    said = r'5 pages .*, 1 held out; 2 steps of each stage, about 0\.\d+ GB of memory on cpu'
    assert re.fullmatch(said, begun[0])
    assert [line.split(':')[0] for line in begun[1:]] == [f'{k} of 10' for k in range(1, 11)]
    assert re.search(r'about 2 steps in \d+ s$', begun[4]), begun[4]
    assert (report.folder, report.pages, report.held_out) == (out, 5, 1)
    assert report.after['features'] != report.before['features'] and Image.open(report.sheet).size[0] > 6 * 128
    return out


def test_the_model_tells(data, whole):
    "From the first page of the data, and with other options its folder is refused."
    [told] = read_stories(whole / 'after')
    assert told[0].text == 'the red bear walks to hill 0' and len(told) == 6
    assert load_encoded(whole / 'store' / 'learned' / 'features').shape[1] == 5
    with pytest.raises(ValueError, match=r'steps was 2, now 3.*give the same'):
        finetune(data, str(small_model()), whole, replace(HOW, steps=3))


def test_killed_again_and_again_the_adapter_tells_what_the_model_tells(data, whole, tmp_path):
    "SIGKILL at changes of the disk that come ever later; the same call goes on each time, to the same weights."
    out = tmp_path / 'model'

    def job():
        finetune(data, str(small_model()), out, replace(HOW, adapter_only=True))

    kills = 0
    while killed_at(10 * 2**kills, job):
        kills += 1
    assert kills > 2
    begun = []
    report = finetune(data, str(small_model()), out, replace(HOW, adapter_only=True), begun.append)
    assert not begun and report.folder == out / 'adapter' and not (out / 'vae').exists()
    held = 'adapter.json feature_resampler mllm opening unet'
    assert ' '.join(sorted(p.name for p in report.folder.iterdir())) == held
    words = ('--pages', 2, '--seed', 1)
    assert tell(tmp_path / 'book', *words, model=whole)[0] == 0
    code, _, err = command('tell', '--adapter', report.folder, '--out', tmp_path / 'other', *words)
    assert code == 0 and pages_of(tmp_path / 'other') == pages_of(tmp_path / 'book'), err
    code, _, err = command('tell', '--resume', '--out', tmp_path / 'other', '--pages', 3)
    assert code == 0 and len(pages_of(tmp_path / 'other')) == 3, err
    refuses_what_is_no_adapter(data, out, tmp_path / 'never')


def refuses_what_is_no_adapter(data, out, never):
    "A line for each; `out` holds an adapter of the small model."
    words = ('finetune', data, '--from', small_model(), '--out', out, '--steps', 2, '--batch', 2)
    cases = [
        (words, 'holds the adapter alone: give --adapter-only, or another --out'),
        (('tell', '--adapter', out), f'is no adapter, it has no adapter.json: give {out}/adapter'),
        (('tell', '--adapter', out / 'none'), 'there is no such folder'),
        (
            ('tell', '--adapter', out / 'adapter', '--model', 'tiny'),
            f'belongs to {small_model()}, and tiny has another',
        ),
    ]
    for line, expected in cases:
        code, _, err = command(*line, *(('--out', never) if line[0] == 'tell' else ()))
        assert code == 2 and err.count('\n') == 1 and expected in err and not never.exists(), err


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


def test_what_does_not_fit_is_told_before_anything_is_written(data, tmp_path, monkeypatch):
    out = tmp_path / 'out'

    def refused(free, **options):
        monkeypatch.setattr('seed_story.training.finetune.free_bytes', lambda device: free)
        with pytest.raises(ValueError) as told:
            finetune(data, str(small_model()), out, replace(HOW, **options))
        return str(told.value)

    assert refused(3e7).endswith('0.03 GB are free: end other programs, or begin with a smaller model (--from)')
    fits = refused(2e8, batch=64)
    assert re.search(r'are free: --memory 0.2 --batch \d+ fits$', fits), fits
    assert '--memory 0.2 is given, 9 GB are free: --batch' in refused(9e9, batch=64, memory=0.2)
    assert not out.exists()


def test_other_words_or_pictures_are_other_data(data):
    [story] = read_stories(data)
    other = Story([Page(page.text, page.image) for page in story])
    assert hash_stories([other]) == hash_stories([story])
    other.pages[2].text += '!'
    assert hash_stories([other]) != hash_stories([story])
