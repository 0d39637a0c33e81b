"""What makes held-out losses wrong on a GPU: the losses of one batch, by each attention kernel, compiled or not.

usage: runs/held_out_kernels.py STORE PIPELINE [DEVICE]    the store has features of `train encode`; 60 s on an H200
  seed-story train render --store out/held --stories 64 --seed 207424 --pages 10-30 --names any --wordings 2
  seed-story train encode --store out/held --out data/tiny --what features --device cuda
  python runs/held_out_kernels.py out/held data/tiny cuda
A row has the loss of texts, of features and of repeated words, five times over: all numbers should be alike.
On an H200 (PyTorch 2.11) one kind of row was wrong: compiled, without gradients, from the second time on, whatever the kernel.
Its output, of commit c50596de: data/results/tiny_logs/held_out_kernels.log.
"pageable" copies the batch as it was made, "pinned" from page-locked memory, as in training.
"""

import itertools
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from seed_story.training import stages
from seed_story.training.loop import Saving
from seed_story.training.options import Conditioning, Optimisation
from seed_story.training.page_store import load_store
from seed_story.training.runs import load_component, load_text_tokenizer

store, pipeline, device = (*sys.argv[1:], 'cuda')[:3]
how = dict(long_pages=30, long_share=0.5, countdown_share=0.85, repeated_weight=8.0, chunk_tokens=(680, 1960))
conditioning = Conditioning(eviction='multimodal', eviction_share=0.25, **how)
optimisation = Optimisation(batch=64 if device != 'cpu' else 6, device=device, seconds=1.0)
texts = load_store(Path(store), None, images=False).texts
features = stages.load_encoded(Path(store, 'features'))
data = stages.ChunkData(load_text_tokenizer(pipeline), texts, features, held_out=len(texts) // 2)
learned, held = stages.split_held_out(data)
mllm = load_component(pipeline, 'mllm').to(device).train()
step = stages._StageTwoStep(mllm, learned, optimisation, conditioning, None)
with tempfile.TemporaryDirectory() as folder:
    measured = stages._HeldOut(step, held, Path(folder), Saving())
made = dict(pageable=measured.chunks[0], pinned=next(itertools.islice(measured.chunks.loader(device), 1)))
kernels = dict(default=None, cudnn='CUDNN_ATTENTION', efficient='EFFICIENT_ATTENTION', math='MATH')
times = 5 if device != 'cpu' else 1
for (copied, batch), (kernel, name), compiled, learns in itertools.product(
    made.items(), kernels.items(), (False, True), (False, True)
):
    loss = step._loss
    if compiled:
        torch._dynamo.reset()
        loss = torch.compile(step._loss, dynamic=False) if device != 'cpu' else step.loss
    label = f'{copied:9}{kernel:10}{"compiled" if compiled else "plain":9}{"gradients" if learns else "none":10}'
    try:
        with sdpa_kernel(getattr(SDPBackend, name)) if name else nullcontext(), torch.set_grad_enabled(learns):
            rows = [stages._losses(measured, 0, batch, loss) for _ in range(times)]
    except RuntimeError as error:
        print(label, 'cannot:', str(error).splitlines()[0][:80], flush=True)
        continue
    print(label, *(' '.join(f'{value:.4f}' for value in row.values()) for row in rows), sep=' | ', flush=True)
