#!/usr/bin/env bash
# How long a page takes with random weights of the paper's size, one run, as ratios to the released way: language model token by token, in fixed buffers, as CUDA graphs, with fused kernels; batches; SDXL, plain and as graphs, VAE included, with less work, several pictures at once; a page end to end, its picture drawn beside the next text.
# Each way prints seconds a page, milliseconds a token with its share of the copy bandwidth, and the parts of a page: pages that are read, what stands before the text, text, slots, image embeddings.
# Every way is written to OUT/PART.json at once. A further call adds a further run: call it twice for a spread. A run that is stopped keeps what it has.
# usage: runs/speed.sh [OUT]      environment: SIZES (paper), DEVICE (cuda), DTYPE (bfloat16), PAGES (8), STEPS (50) of denoising, BATCHES ("1 8 32"), PARTS ("language pictures story"), FUSE (inductor; none: empty), WAYS (words of the ways' names, as "released graph fused"; none: all)
# One H200, twice, each call below 290 s by what was measured (a way takes 4 to 18 s, the fused one a minute or two more, to compile):
#   PARTS=language WAYS='released graph' timeout 290 runs/speed.sh out/speed
#   PARTS=language WAYS='released fused' timeout 290 runs/speed.sh out/speed
#   PARTS=language WAYS='released eager buffers' timeout 290 runs/speed.sh out/speed
# The drawing alone, and the same part with fewer steps (not measured yet; 3 minutes by arithmetic):
#   PARTS=pictures timeout 290 runs/speed.sh out/drawing
#   PARTS=story timeout 290 runs/speed.sh out/drawing
#   PARTS=pictures STEPS=20 timeout 290 runs/speed.sh out/drawing_20
# The record of a file or of a log: python runs/speed_record.py out/speed/language.json data/results/speed_h200/language.json
# A rehearsal on a laptop, 30 s: SIZES=miniature DEVICE=cpu DTYPE=float32 PAGES=4 STEPS=2 BATCHES="1 2" FUSE=eager runs/speed.sh out/rehearsal
set -euo pipefail
OUT=${1:-out/speed}; export PYTHONUNBUFFERED=1
mkdir -p "$OUT"
for part in ${PARTS:-language pictures story}; do
  ${PYTHON:-python} "$(dirname "$0")/speed.py" "$part" --out "$OUT/$part.json" --sizes "${SIZES:-paper}" --device "${DEVICE:-cuda}" --dtype "${DTYPE:-bfloat16}" \
    --pages "${PAGES:-8}" --steps "${STEPS:-50}" --batches ${BATCHES:-1 8 32} --fuse "${FUSE-inductor}" ${WAYS:+--ways $WAYS} || echo "$part: failed"
done
