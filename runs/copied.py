"""What a model copies as it reads true stories: names, promises, places, feasts and magic words of earlier pages.

usage: runs/copied.py RECORD PIPELINE[,PIPELINE…] STORE [STORIES]    the store has features of `train encode`
Stories in their first wording, told how many pages follow; 24 stories take 60 s on one core:
  seed-story train render --store out/new --stories 64 --seed 1000000 --pages 30 --names any
  seed-story train encode --store out/new --out data/tiny --what features --device cpu
  python runs/copied.py out/copied.json data/tiny out/new 24
A value is copied if each of its tokens is the likeliest one after the true text before it.
`nats` is the loss of all of its tokens.
"""

import re
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

import torch

from readings import record_readings, whole_stories
from seed_story.models.mllm import branch_mask, embed_branched_batch
from seed_story.models.sequence import IGNORE_INDEX
from seed_story.records.estimates import Estimate, bootstrap_ratio
from seed_story.storyland.plot import PlotStory, write_plot
from seed_story.training.page_store import load_store
from seed_story.training.stages import load_encoded


def values(story: PlotStory) -> list[tuple[str, int, str]]:
    "(kind, page, words) of what a page repeats: values of facts where they are needed first, and names."
    found = [(fact['kind'], fact['needed'][0], str(fact['value'])) for fact in story.facts]
    known: set[str] = set()
    for number, page in enumerate(story.pages):
        found += [('name', number, name) for name in page.names if name in known]
        known.update(page.names)
    return found


@torch.no_grad()
def read(pipe, batch, pages: int) -> list[tuple[list[str], torch.Tensor, torch.Tensor]]:
    """Of every page but the first of a `batch` of one story: its tokens as text, their losses in nats, and whether each
    is the likeliest."""
    mllm = pipe.mllm
    mask = branch_mask(batch.position_ids, batch.trunk_length, batch.num_slots)
    embeds = embed_branched_batch(mllm, batch, batch.features)
    hidden = mllm.run_llm(embeds, mask, batch.position_ids).last_hidden_state[:, : batch.trunk_length]
    scores = mllm.llm.lm_head(hidden)[0, :-1].float().log_softmax(-1)
    labels = batch.labels[0, 1:]
    page = batch.page[0, 1 : batch.trunk_length]
    rows = []
    for number in range(1, pages):
        at = ((page == number) & (labels != IGNORE_INDEX)).nonzero().flatten()
        wanted = labels[at]
        tokens = [pipe.tokenizer.decode([token]) for token in wanted.tolist()]
        rows.append((tokens, -scores[at, wanted], scores[at].argmax(-1) == wanted))
    return rows


def tokens_of(tokens: list[str], words: str) -> list[int]:
    "The tokens that spell the first mention of `words`, in whichever case; none where they are not there."
    ends = torch.tensor([len(token) for token in tokens]).cumsum(0).tolist()
    found = re.search(re.escape(words), ''.join(tokens), re.IGNORECASE)
    if not found:
        return []
    return [k for k, end in enumerate(ends) if end > found.start() and end - len(tokens[k]) < found.end()]


def measure(store: str, stories: int, pipe) -> dict[str, Estimate]:
    "KIND/nats: the loss; KIND/copied: the share; each with its interval over stories."
    shard = load_store(store, stories, images=False)
    features = load_encoded(Path(store, 'features'), stories)
    losses, copied = (
        defaultdict(lambda: [[] for _ in range(stories)]),
        defaultdict(lambda: [[] for _ in range(stories)]),
    )
    for k, seed in enumerate(shard.seeds[:stories]):
        texts = shard.texts[k][0]
        told = write_plot(seed, len(texts), names=shard.made.get('names', 'known'))
        if [page.text for page in told.pages] != list(texts):
            raise ValueError(f'{store}: story {seed} is not as it is written today: render it again')
        batch = whole_stories(pipe, [story[0] for story in shard.texts], features, [k], len(texts))
        pages = read(pipe, batch, len(texts))
        for kind, number, words in values(told):
            tokens, loss, likeliest = pages[number - 1] if number else ([], None, None)
            if at := tokens_of(tokens, words):
                losses[kind][k].append(float(loss[at].sum()))
                copied[kind][k].append(float(likeliest[at].all()))

    def estimate(rows: list[list[float]]) -> Estimate:
        return bootstrap_ratio([sum(row) for row in rows], [len(row) for row in rows])

    found = {}
    for kind in sorted(losses):
        found |= {f'{kind}/nats': estimate(losses[kind]), f'{kind}/copied': estimate(copied[kind])}
    return found


def main() -> None:
    record, pipelines, store, *more = sys.argv[1:]
    stories = int(more[0]) if more else 24
    command = f'python runs/copied.py {record} {pipelines} {store} {stories}'
    record_readings(record, pipelines, partial(measure, store, stories), stories, command, store=store)


if __name__ == '__main__':
    main()
