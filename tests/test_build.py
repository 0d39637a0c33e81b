"From pictures to a StoryStream folder, at the command line."

from pathlib import Path

import pytest
from PIL import Image
from seed_story import cli
from seed_story.story.format import read_stories


def draw(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        Image.new('RGB', (64, 48), (number * 9 % 256, 0, 99)).save(folder / f'{number}.png')
    return folder


def test_pictures_and_texts_become_stories(tmp_path, capsys):
    drawings = draw(tmp_path / 'drawings', 12)
    texts = tmp_path / 'texts.txt'
    texts.write_text('\n'.join(f'Page {n}.' for n in range(1, 13)))
    built = ['data', 'build', str(drawings), '--out', str(tmp_path / 'data'), '--pages', '6']
    assert cli.run(built) == 0 and 'captions.html' in capsys.readouterr().out
    assert cli.run([*built, '--captions', str(texts)]) == 0
    assert cli.run(['data', 'check', str(tmp_path / 'data')]) == 0
    assert '2 stories are sound, 0 bad' in capsys.readouterr().out
    assert [[p.text for p in story][0] for story in read_stories(tmp_path / 'data')] == ['Page 1.', 'Page 7.']
    assert not list(tmp_path.rglob('*.lock')) and not list(tmp_path.rglob('*.part'))


@pytest.mark.parametrize(
    'make, said',
    [
        (lambda p: draw(p / 'few', 3), '3 pictures are too few for a story'),
        (lambda p: draw(p / 'empty', 0), 'holds no picture'),
        (lambda p: p / 'missing', 'no such file or folder'),
    ],
)
def test_bad_material_is_one_line(make, said, tmp_path, capsys):
    source = make(tmp_path)
    (tmp_path / 'texts.txt').write_text('One.\nTwo.\nThree.\n')
    words = ['data', 'build', str(source), '--out', str(tmp_path / 'data'), '--captions', str(tmp_path / 'texts.txt')]
    assert cli.run(words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count('\n') == 1
