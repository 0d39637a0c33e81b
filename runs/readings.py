"What pipelines make of true stories that they read whole: the loop that `copied.py` and `held_out.py` share."

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from seed_story.models.sequence import PageEncoder, build_branched_batch
from seed_story.pipeline.loading import fingerprint, load_pipeline
from seed_story.records.estimates import Estimate, format_estimate
from seed_story.records.record import write_record
from seed_story.training.loop import pages_left
from seed_story.training.stages import chunk_features


def whole_stories(pipe: Any, texts: list, features: torch.Tensor, rows: Sequence[int], pages: int) -> Any:
    "The `rows` of a store as one batch of stories of at most `pages`, each told how many pages follow."
    chosen = [texts[row] for row in rows]
    left = [pages_left(len(chunk), 0, True) for chunk in chosen]
    encoder = PageEncoder(pipe.tokenizer, max_text_tokens=64)
    batch = build_branched_batch(chosen, encoder, pages, left=left, ends=[True] * len(chosen))
    index = torch.tensor(rows)
    batch.features = chunk_features(features, index, torch.zeros_like(index), pages).float()
    return batch


def record_readings(
    record: str,  # file to write
    pipelines: str,  # names or folders, with commas between them
    measure: Callable[[Any], dict[str, Estimate]],  # the figures of one of them
    stories: int,
    command: str,
    **settings: Any,  # of the record
) -> None:
    "Measure each of the `pipelines`, write the record, and print its figures."
    began = time.time()
    figures: dict[str, Estimate] = {}
    weights: dict[str, Any] = {}
    for folder in pipelines.split(','):
        pipe = load_pipeline(folder)
        pipe.mllm.float().eval()
        weights[folder] = fingerprint(pipe)
        figures |= {f'{Path(folder).name}/{name}': figure for name, figure in measure(pipe).items()}
    settings = dict(weights=weights, **settings)
    write_record(Path(record), command, figures, stories, 0, time.time() - began, settings=settings)
    for name, figure in figures.items():
        print(f'{name:40} {format_estimate(figure, "fine", cases=True)}')
