"""Losses of whole stories of page stores, read by pipelines: whether a model has learned its stories by heart.

usage: runs/held_out.py RECORD PIPELINE[,PIPELINE…] STORE[,STORE…]      each store with features of `seed-story train encode`
`learned` and `new` of two trainings, 40 s on two cores:
  seed-story train render --store out/learned --stories 64 --seed 300000 --pages 10-30 --names any; seed-story train encode --store out/learned --out data/tiny --what features --device cpu
  seed-story train render --store out/new --stories 64 --seed 1000000 --pages 30 --names any; seed-story train encode --store out/new --out data/tiny --what features --device cpu
  python runs/held_out.py out/held_out.json data/tiny out/learned,out/new
"""

import sys
from functools import partial
from pathlib import Path

import torch

from readings import record_readings, whole_stories
from seed_story.models.mllm import branched_loss
from seed_story.records.estimates import Estimate
from seed_story.training.page_store import load_store
from seed_story.training.stages import load_encoded

STORIES, PAGES, BATCH = 32, 30, 8


@torch.no_grad()
def losses(pipe, store: str) -> list[tuple[float, float]]:
    "(nats a token of the text, loss of the features) of batches of whole stories, told how many pages follow."
    texts = [story[0] for story in load_store(store, STORIES, images=False).texts]
    features = load_encoded(Path(store, 'features'), STORIES)
    found = []
    for k in range(0, STORIES, BATCH):
        read = branched_loss(pipe.mllm, whole_stories(pipe, texts, features, range(k, k + BATCH), PAGES))
        found.append((float(read.lm_loss), float(read.rec_loss)))
    return found


def measure(stores: list[str], pipe) -> dict[str, Estimate]:
    "Store and kind of loss → its mean."
    figures = {}
    for store in stores:
        for name, values in zip(('text', 'features'), zip(*losses(pipe, store))):
            figures[f'{Path(store).name}/{name}'] = Estimate(sum(values) / len(values))
    return figures


def main() -> None:
    record, pipelines, stores = sys.argv[1:]
    command = f'python runs/held_out.py {record} {pipelines} {stores}'
    settings = dict(stores=stores.split(','), pages=PAGES)
    record_readings(record, pipelines, partial(measure, stores.split(',')), STORIES, command, **settings)


if __name__ == '__main__':
    main()
