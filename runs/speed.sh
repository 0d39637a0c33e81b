#!/usr/bin/env bash
# How long a page takes with random weights of the paper's size, one run, as ratios to the released way: language model token by token, in fixed buffers, as CUDA graphs; batches; SDXL, plain and as one graph.
# usage: runs/speed.sh [OUT]      environment: SIZES (paper), DEVICE (cuda), DTYPE (bfloat16), PAGES (12), STEPS (50) of denoising, BATCHES ("1 8 32"), PARTS ("language pictures")
# One H200, about 6 minutes by its arithmetic (not measured yet), each part in a process of its own; a part without its libraries says so:
#   timeout 540 runs/speed.sh out/speed
# Without diffusers: PARTS=language timeout 300 runs/speed.sh out/speed
# A rehearsal on a laptop, 30 s: SIZES=miniature DEVICE=cpu DTYPE=float32 PAGES=4 STEPS=2 BATCHES="1 2" runs/speed.sh out/rehearsal
set -euo pipefail
OUT=${1:-out/speed}; export PYTHONUNBUFFERED=1
mkdir -p "$OUT"
for part in ${PARTS:-language pictures}; do
  ${PYTHON:-python} "$(dirname "$0")/speed.py" "$part" --out "$OUT/$part.json" --sizes "${SIZES:-paper}" --device "${DEVICE:-cuda}" --dtype "${DTYPE:-bfloat16}" \
    --pages "${PAGES:-12}" --steps "${STEPS:-50}" --batches ${BATCHES:-1 8 32} || echo "$part: failed"
done
