"""Stories that begin with a page for each of several heroes: who comes back, and with the looks of the opening.

usage: runs/several_heroes.py RECORD PIPELINE [STORIES] [DEVICE]    4 stories: minutes of one core
  python runs/several_heroes.py data/results/openings/several_tiny.json tiny 100 cuda
The heroes are those of first pages of Storyland's test split, no two of a species. A hero counts on the told pages that
name it. Each policy tells the same openings, with the same seeds; `pinned` keeps the opening's pages whole.
"""

import sys
import time

from seed_story.evaluation.generate import test_seeds
from seed_story.evaluation.metrics import measure_story, storyland_reader
from seed_story.pipeline.loading import fingerprint, load_pipeline
from seed_story.records.estimates import bootstrap_ratio, wilson_share
from seed_story.records.record import write_record
from seed_story.story.format import Page, Story
from seed_story.storyland.oracle import Oracle
from seed_story.storyland.plot import write_plot
from seed_story.storyland.world import make_opening

PAGES = 10  # told behind the opening
HEROES = (1, 2, 3)


def choose_openings(stories: int) -> list[list[tuple]]:
    "Of each story: (picture, text, name) of three first pages, whose heroes differ in species and in name."
    pool = [(seed, write_plot(seed).pages[0]) for seed in test_seeds(6 * stories)]
    found = []
    while len(found) < stories and pool:
        chosen: list = []
        for seed, page in list(pool):
            actors = page.scene.actors
            hero = (actors[0].character.species, page.names[0])
            taken = {word for _, *words in chosen for word in words}
            if len(actors) == 1 and len(page.names) == 1 and not {*hero} & taken:
                chosen.append((seed, *hero))
                pool.remove((seed, page))
            if len(chosen) == max(HEROES):
                found.append([(*make_opening(seed), name) for seed, _, name in chosen])
                break
        else:
            break
    return found


def measure(stories: list[Story], names: list[list[str]], oracle) -> dict:
    "Looks of the heroes, the first and the others, on told pages that name them; and whether all are named again."
    reader = storyland_reader()
    looks: dict[str, list] = dict(first=[], others=[])
    again = []
    for story, heroes in zip(stories, names):
        appearances = measure_story(story, oracle, reader, len(story)).appearances
        told = [a for a in appearances if a.page > len(heroes)]
        for who, some in dict(first=heroes[:1], others=heroes[1:]).items():
            looks[who].append([a.looks for a in told if a.name in some])
        again.append({*heroes} <= {a.name for a in told})
    scored = {who: rows for who, rows in looks.items() if any(rows)}
    figures = {f'looks/{who}': bootstrap_ratio([*map(sum, rows)], [*map(len, rows)]) for who, rows in scored.items()}
    return figures | {'all named again': wilson_share(again)}


def main() -> None:
    record, model, *more = sys.argv[1:]
    stories, device = int(more[0]) if more else 4, more[1] if len(more) > 1 else 'cpu'
    began = time.monotonic()
    pipe = load_pipeline(model, device)
    oracle = Oracle.from_pretrained('data/oracle').eval()
    chosen = choose_openings(stories)
    figures = {}
    for count in HEROES:
        openings = [([p for p, *_ in row[:count]], [text for _, text, _ in row[:count]]) for row in chosen]
        names = [[name for *_, name in row[:count]] for row in chosen]
        # the opening's pages stay in memory with the newest three, or only as long as they are among the newest
        for policy in (pipe.config.attention, f'pinned:pages=4,pinned={count}@clamped', f'window:{4 + count}@clamped'):
            told: list[dict] = [{} for _ in openings]
            for page in pipe.tell_many(openings, PAGES + count, 1, policy, rows=32):
                if page.page is None:
                    raise page.error
                told[page.story][page.number] = page.page
            made = [Story([Page(row[k].text, row[k].image) for k in sorted(row)]) for row in told]
            kind = policy.partition(':')[0].partition('@')[0]
            found = measure(made, names, oracle)
            figures |= {f'{count} heroes/{kind}/{name}': figure for name, figure in found.items()}
            print(f'{count} {policy}', {name: str(figure) for name, figure in found.items()})
    settings = dict(model=model, weights=fingerprint(pipe), pages=PAGES, heroes=list(HEROES), window=4)
    command = f'python runs/several_heroes.py {record} {model} {stories} {device}'
    write_record(record, command, figures, len(chosen), 1, time.monotonic() - began, settings=settings)


if __name__ == '__main__':
    main()
