"""Pages with a slip of grammar: three words in a row, within a sentence, that no true story has.

usage: runs/slips.py RECORD PIPELINE [STORIES] [LEARNED]    100 stories of 25 pages with known names: 3 minutes
  python runs/slips.py data/results/slips/tiny.json data/tiny 100 6000
Names are one word here: what is capitalised within a sentence. LEARNED true stories in three wordings each say what can
stand in a row. The same share of as many true stories of the test split says how many alarms are false.
"""

import re
import sys
import time
from collections.abc import Iterator, Sequence

import torch

from seed_story.evaluation.generate import draw_openings, tell_features, test_seeds
from seed_story.pipeline.loading import fingerprint, load_pipeline
from seed_story.records.estimates import bootstrap_ratio
from seed_story.records.record import write_record
from seed_story.storyland.plot import write_plot

PAGES = 25
FIRST = 3_000_000  # seed of the true stories that are learned from: neither of training nor of the test split
WORDINGS = 3
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
NAME = re.compile(r'(?<=[a-z,] )[A-ZÀ-Þ]\w+')


def triples(pages: Sequence[str]) -> Iterator[set[tuple[str, ...]]]:
    "Of each page: three words in a row, in lower case, and the ends of sentences."
    names = {name for page in pages for name in NAME.findall(page)}
    for page in pages:
        found: set[tuple[str, ...]] = set()
        for sentence in re.split(r'[.!?:;"]', page):
            words = ['Name' if word in names else word.lower() for word in WORD.findall(sentence)]
            words = ['^', *words, '$']
            found.update(zip(words, words[1:], words[2:]))
        yield found


def main() -> None:
    record, model, *more = sys.argv[1:]
    stories = int(more[0]) if more else 100
    learned = int(more[1]) if more[1:] else 6000
    began = time.time()
    known: set[tuple[str, ...]] = set()
    for seed in range(FIRST, FIRST + learned):
        for wording in range(WORDINGS):
            for found in triples([page.text for page in write_plot(seed, PAGES, wording, names='any').pages]):
                known |= found
    seeds = test_seeds(stories)
    true = [[page.text for page in write_plot(seed, PAGES).pages] for seed in seeds]
    pipe = load_pipeline(model)
    with torch.inference_mode():
        told, _ = tell_features(pipe, draw_openings(seeds), PAGES, pipe.config.attention, seeds)
    figures = {}
    for name, texts in (('true', true), ('told', told)):
        slips = [[bool(found - known) for found in triples(pages)][1:] for pages in texts]
        figures[f'{name}/pages with a slip'] = bootstrap_ratio([sum(s) for s in slips], [len(s) for s in slips])
        for pages in texts[:200]:
            for page, found in list(zip(pages, triples(pages)))[1:]:
                if found - known:
                    print(f'{name}: {sorted(found - known)[0]}: {page}')
    settings = dict(model=model, weights=fingerprint(pipe), attention=pipe.config.attention, learned=learned)
    command = f'python runs/slips.py {record} {model} {stories} {learned}'
    write_record(
        record, command, figures, stories, seeds[0], time.time() - began, settings=settings | dict(pages=PAGES)
    )
    for name, figure in figures.items():
        print(f'{name:26} {figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}] of {figure.count:.0f}')


if __name__ == '__main__':
    main()
