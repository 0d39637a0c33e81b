"""What a bundled model says of openings, and whether a story keeps its hero's name.

    python tests/openings.py [--model tiny] [--stories 100] [--photos FOLDER] [--out data/results/openings/tiny.json]

Counted are warnings: of true openings (seeds that neither training nor the summary saw), heroes in one's own words with
known and with new names, texts and pictures from elsewhere. Told are stories of the first three, without pictures."""

import argparse
import random
import re
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FIRST_SEED = 2_000_500
NEW = 'Whiskers Felix Snowball Priya Zed Anastasia Brumblewick Matilda Shelly Maximilian Fluffy Quill Kwame'.split()
FAR = """Es war einmal eine kleine graue Katze namens Mimi, die einen roten Hut trug.
Der blaue Frosch Benno lebte am Leuchtturm und winkte allen zu.
Il était une fois un petit chat gris nommé Mimi qui portait un chapeau rouge.
Había una vez una gata gris llamada Mimi con un sombrero rojo.
从前有一只灰色的小猫，名叫咪咪，戴着一顶红帽子。
Жила-была серая кошка Мими в красной шляпе.
むかしむかし、灰色の猫がいました。
def main(): return print('hello')
SELECT name, age FROM users WHERE id = 3;
Grace was a woman who served in the navy and wrote the first compiler.
A portrait of a man in a grey suit, looking at the camera.
The committee met on Tuesday to discuss the budget for the coming fiscal year.
Detective Miller examined the body and sighed.
a green dragon called Zed lived on the moon
On Mars a robot named Beep repaired his spaceship.
A princess called Elsa lived in a palace of ice with her sister.
Little Red Riding Hood carried a basket to her grandmother.
...
42
lorem ipsum dolor sit amet
The tenant shall pay the monthly rent in advance and shall not sublet the premises without written consent.
IN NO EVENT SHALL THE AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY.""".splitlines()


def own_words(page) -> tuple[str, str]:
    "(name, text) of a page's hero, told in plain words."
    hero = page.scene.actors[0].character
    name = re.search(r'\b(?:called|named|name of|know|met|comes) ([A-Z]\w+)', page.text)
    name = name[1] if name else re.findall(r'(?<=[a-z,] )[A-Z]\w+', page.text)[0]
    dressed = f' with a {hero.accessory_colour} {hero.accessory}' if hero.accessory != 'none' else ''
    article = 'an' if hero.colour == 'orange' else 'a'
    return name, f'{name} was {article} {hero.colour} {hero.species}{dressed}. One day, {name} wanted to see the world.'


def far_pictures(count: int = 10) -> list[Image.Image]:
    "Plain colours, gradients, clouds of noise, line drawings and pages of writing, `count` of each."
    dice = random.Random(0)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        one, other = rng.integers(0, 256, (2, 3))
        found.append(Image.new('RGB', (128, 128), tuple(map(int, one))))
        ramp = np.linspace(0, 1, 128)[:, None, None] * np.ones((1, 128, 1))
        found.append(Image.fromarray((one * ramp + other * (1 - ramp)).astype('uint8')))
        small = rng.integers(0, 256, (8, 8, 3)).astype('uint8')
        found.append(Image.fromarray(small).resize((128, 128), Image.BICUBIC))
        for lines in range(2):
            sheet = Image.new('RGB', (256, 256), 'white')
            draw = ImageDraw.Draw(sheet)
            for k in range(12):
                x, y, size = dice.randrange(200), dice.randrange(200), dice.randrange(20, 90)
                if lines:
                    draw.ellipse((x, y, x + size, y + size), outline='black', width=3)
                else:
                    draw.text((10, 10 + 20 * k), 'the quick brown fox jumps over the dog', fill='black')
            found.append(sheet)
    return found


def main() -> None:
    from seed_story.pipeline.loading import fingerprint, load_pipeline
    from seed_story.records.estimates import bootstrap_ratio, wilson_share
    from seed_story.records.record import write_record
    from seed_story.storyland.art import draw_scene
    from seed_story.storyland.plot import write_plot

    parser = argparse.ArgumentParser(description=__doc__)
    for word, default in (('model', 'tiny'), ('stories', '100'), ('told', '20'), ('photos', ''), ('out', '')):
        parser.add_argument(f'--{word}', default=default)
    given = parser.parse_args()
    began = time.monotonic()
    pipe = load_pipeline(given.model)
    first = [write_plot(FIRST_SEED + k).pages[0] for k in range(int(given.stories))]
    features = pipe.encode([draw_scene(page.scene, 128, 128) for page in first])
    heroes = [own_words(page) for page in first]
    new = [NEW[k % len(NEW)] for k in range(len(first))]
    openings = {
        'true': ([name for name, _ in heroes], [page.text for page in first]),
        'own words': ([name for name, _ in heroes], [text for _, text in heroes]),
        'new name': (new, [text.replace(name, other) for (name, text), other in zip(heroes, new)]),
    }

    def warned(texts, pictures, what=''):
        said = [pipe.check_opening(None, text, picture[None]) for text, picture in zip(texts, pictures)]
        return wilson_share([any(what in line for line in lines) for lines in said])

    figures = {f'warned/{name}': warned(texts, features) for name, (_, texts) in openings.items()}
    figures['warned/far texts'] = warned(FAR, features)
    drawn = pipe.encode(far_pictures())
    figures['warned/far pictures'] = warned([first[0].text] * len(drawn), drawn, 'the picture')
    if given.photos:
        photos = pipe.encode(sorted(Path(given.photos).iterdir()))
        figures['warned/photos'] = warned([first[0].text] * len(photos), photos, 'the picture')
    for name, (names, texts) in openings.items() if int(given.told) else ():
        some = slice(int(given.told))
        told = pipe.narrate(None, texts[some], 6, seed=list(range(int(given.told))), features=features[some])
        pages = np.array([[hero in page.text for hero, page in zip(names, row)] for row in list(told)[1:]])
        figures[f'named/{name}'] = bootstrap_ratio(pages.sum(0), np.full(pages.shape[1], len(pages)))
    for name, figure in figures.items():
        print(f'{name:22} {figure}')
    if given.out:
        command = f'python tests/openings.py --model {given.model} --stories {given.stories} --told {given.told}'
        settings = dict(model=given.model, weights=fingerprint(pipe), told=int(given.told), pages=6, seeds=FIRST_SEED)
        write_record(given.out, command, figures, len(first), None, time.monotonic() - began, settings=settings)


if __name__ == '__main__':
    main()
