#!/usr/bin/env bash
# Pages a second of the language model when many stories are told at once, random weights of the paper's size: rows against in step (all wait for the longest) and one by one.
# Stories have 2 to 10 new pages, texts 10 to 120 tokens (40 on average); every way tells the same stories. Each way runs TIMES times; a record has all of them.
# usage: runs/many.sh [OUT]      environment: SIZES (paper), DEVICE (cuda), DTYPE (bfloat16), ROWS ("1 8 32 64"), STORIES (96), ATTENTION (window:8), TIMES (2), LIMIT (480: seconds after which no further way is begun), CARDS (1)
# One H200, at most 9 minutes (not measured yet):
#   timeout 560 runs/many.sh out/many
# Two H200s, a process a card, the same stories; seconds are those of the slower one:
#   CARDS=2 ROWS="32 64" timeout 560 runs/many.sh out/many_2
# A rehearsal on a laptop, 1 minute: SIZES=miniature DEVICE=cpu DTYPE=float32 ROWS="1 4 8" STORIES=12 TIMES=1 runs/many.sh out/rehearsal_many
set -euo pipefail
OUT=${1:-out/many}; export PYTHONUNBUFFERED=1
mkdir -p "$OUT"
exec ${PYTHON:-python} "$(dirname "$0")/many.py" --out "$OUT" --sizes "${SIZES:-paper}" --device "${DEVICE:-cuda}" --dtype "${DTYPE:-bfloat16}" --rows ${ROWS:-1 8 32 64} \
  --stories "${STORIES:-96}" --attention "${ATTENTION:-window:8}" --times "${TIMES:-2}" --limit "${LIMIT:-480}" --cards "${CARDS:-1}"
