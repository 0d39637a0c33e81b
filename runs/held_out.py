"""Losses of whole stories of page stores, read by pipelines: whether a model has learned its stories by heart.

usage: runs/held_out.py RECORD PIPELINE[,PIPELINE…] STORE[,STORE…]      each store with features of `seed-story train encode`
`learned` and `new` of two trainings, 40 s on two cores:
  seed-story train render --store out/learned --stories 64 --seed 300000 --pages 10-30 --names any; seed-story train encode --store out/learned --out data/tiny --what features --device cpu
  seed-story train render --store out/new --stories 64 --seed 1000000 --pages 30 --names any; seed-story train encode --store out/new --out data/tiny --what features --device cpu
  python runs/held_out.py out/held_out.json data/tiny out/learned,out/new
"""

import sys
import time
from pathlib import Path

import torch

from seed_story.models.mllm import branched_loss
from seed_story.models.sequence import PageEncoder, build_branched_batch
from seed_story.pipeline.loading import fingerprint, load_pipeline
from seed_story.records.estimates import Estimate
from seed_story.records.record import write_record
from seed_story.training.loop import pages_left
from seed_story.training.page_store import load_store
from seed_story.training.stages import chunk_features, load_encoded

STORIES, PAGES, BATCH = 32, 30, 8


@torch.no_grad()
def losses(pipe, store: str) -> list[tuple[float, float]]:
    "(nats a token of the text, loss of the features) of batches of whole stories, told how many pages follow."
    encoder = PageEncoder(pipe.tokenizer, max_text_tokens=64)
    texts = [story[0] for story in load_store(store, STORIES, images=False).texts]
    features = load_encoded(Path(store, 'features'), STORIES)
    found = []
    for k in range(0, STORIES, BATCH):
        chunks = texts[k : k + BATCH]
        left = [pages_left(len(chunk), 0, True) for chunk in chunks]
        batch = build_branched_batch(chunks, encoder, PAGES, left=left, ends=[True] * BATCH)
        batch.features = chunk_features(features, torch.arange(k, k + BATCH), torch.zeros(BATCH, dtype=int), PAGES)
        batch.features = batch.features.float()
        read = branched_loss(pipe.mllm, batch)
        found.append((float(read.lm_loss), float(read.rec_loss)))
    return found


def main() -> None:
    record, pipelines, stores = sys.argv[1:]
    began = time.time()
    figures, weights = {}, {}
    for folder in pipelines.split(','):
        pipe = load_pipeline(folder)
        pipe.mllm.float().eval()
        weights[folder] = fingerprint(pipe)
        for store in stores.split(','):
            for name, values in zip(('text', 'features'), zip(*losses(pipe, store))):
                figures[f'{Path(folder).name}/{Path(store).name}/{name}'] = Estimate(sum(values) / len(values))
    settings = dict(weights=weights, stores=stores.split(','), pages=PAGES)
    command = f'python runs/held_out.py {record} {pipelines} {stores}'
    write_record(Path(record), command, figures, STORIES, 0, time.time() - began, settings=settings)
    for name, figure in figures.items():
        print(f'{name:40} {figure.value:.4f}')


if __name__ == '__main__':
    main()
