#!/usr/bin/env bash
# How long a page takes with random weights of the paper's size, one run, as ratios to the released way: language model token by token, in fixed buffers, as CUDA graphs, with fused kernels; batches; SDXL, plain and as graphs, VAE included, with less work, several pictures at once; a page end to end, its picture drawn beside the next text.
# Each way prints seconds a page, milliseconds a token with its share of the copy bandwidth, and the parts of a page: pages that are read, what stands before the text, text, slots, image embeddings.
# usage: runs/speed.sh [OUT]      environment: SIZES (paper), DEVICE (cuda), DTYPE (bfloat16), PAGES (8), STEPS (50) of denoising, BATCHES ("1 8 32"), PARTS ("language pictures story"), FUSE (inductor; none: empty)
# One H200, about 7 minutes by its arithmetic (not measured yet), each part in a process of its own; a part without its libraries says so:
#   timeout 900 runs/speed.sh out/speed
# The drawing alone, about 3 minutes, and the same part with fewer steps:
#   PARTS='pictures story' timeout 500 runs/speed.sh out/drawing
#   PARTS=pictures STEPS=20 timeout 300 runs/speed.sh out/drawing_20
# Without diffusers: PARTS=language timeout 300 runs/speed.sh out/speed
# A rehearsal on a laptop, 30 s: SIZES=miniature DEVICE=cpu DTYPE=float32 PAGES=4 STEPS=2 BATCHES="1 2" FUSE=eager runs/speed.sh out/rehearsal
set -euo pipefail
OUT=${1:-out/speed}; export PYTHONUNBUFFERED=1
mkdir -p "$OUT"
for part in ${PARTS:-language pictures story}; do
  ${PYTHON:-python} "$(dirname "$0")/speed.py" "$part" --out "$OUT/$part.json" --sizes "${SIZES:-paper}" --device "${DEVICE:-cuda}" --dtype "${DTYPE:-bfloat16}" \
    --pages "${PAGES:-8}" --steps "${STEPS:-50}" --batches ${BATCHES:-1 8 32} --fuse "${FUSE-inductor}" || echo "$part: failed"
done
