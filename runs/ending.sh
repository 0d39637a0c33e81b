#!/usr/bin/env bash
# What told texts keep: goals, ends, debts and names of stories told by both models, with names that they know and with unseen ones (ending of nbs/repro). Nothing is drawn.
# usage: runs/ending.sh [OUT]      environment:
#   MODELS ("tiny small"; a bundled preset, or NAME:FOLDER)      STORIES (100)      PAGES ("25 50": lengths)      NAMES ("known unseen")
#   DEVICE (cuda)      GPUS (1) cards, JOBS (4) processes on each      BATCH (100: stories told at once)      LIMIT (550) seconds: what runs then is stopped
# Good records are kept, so it goes on where it was. Records of other weights are set aside, never mixed with new ones. Commit first: a record says whether the code had changes.
# Not yet timed on a GPU. From what runs/measures.sh took on an H200: `small` 100 stories of 50 pages in 210 s and more, half of it for 25, `tiny` a third, several side by side.
# A rehearsal on two busy cores (410 s; with MODELS=tiny NAMES=known 60 s): DEVICE=cpu JOBS=1 STORIES=2 PAGES=12 runs/ending.sh out/rehearsal
set -u
OUT=${1:-out/ending}; HERE=$(cd "$(dirname "$0")/.." && pwd); mkdir -p "$OUT/logs"; OUT=$(cd "$OUT" && pwd)
MODELS=${MODELS:-tiny small} STORIES=${STORIES:-100} PAGES=${PAGES:-25 50} NAMES=${NAMES:-known unseen} DEVICE=${DEVICE:-cuda} GPUS=${GPUS:-1} JOBS=${JOBS:-4} BATCH=${BATCH:-100} LIMIT=${LIMIT:-550}
SEED_STORY=${SEED_STORY:-seed-story}
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
began=$SECONDS n=0; : > "$OUT/logs/failed"
say() { echo "$((SECONDS - began)) s: $*"; }
repro() { # LOG parameters…
  local log=${1//[^A-Za-z0-9_]/_} left=$((LIMIT - SECONDS + began)) since=$SECONDS; shift
  if [ "$left" -le 5 ]; then say "not begun: $log"; echo "$log" >> "$OUT/logs/failed"; return 1; fi
  if timeout "$left" $SEED_STORY repro ending --out "$OUT/logs/$log.ipynb" -p oracle "$HERE/data/oracle" -p out "$OUT/records" "$@" > "$OUT/logs/$log.out" 2>&1; then say "done $log in $((SECONDS - since)) s"; else say "FAILED $log: $(tail -n 1 "$OUT/logs/$log.out")"; echo "$log" >> "$OUT/logs/failed"; return 1; fi
}
longest() { for word in $MODELS; do case "$word" in small*) echo "$word";; esac; done; for word in $MODELS; do case "$word" in small*) ;; *) echo "$word";; esac; done; }
for length in $(printf '%s\n' $PAGES | sort -rn); do # what takes longest begins first
  for word in $(longest); do
    for supply in $NAMES; do
      while [ "$(jobs -rp | wc -l)" -ge $((GPUS * JOBS)) ]; do sleep 1; done
      n=$((n + 1))
      CUDA_VISIBLE_DEVICES=$((n % GPUS)) repro "${word%%:*}_${supply}_$length" -p models "$word" -p names "$supply" -p pages "$length" -p stories "$STORIES" -p batch "$BATCH" -p device "$DEVICE" &
    done
  done
done
wait
LIMIT=$((LIMIT + 120)) repro ending -p models "$MODELS" -p names "$NAMES" -p pages "$PAGES" -p stories "$STORIES" -p device "$DEVICE" -p measure False
if [ -s "$OUT/logs/failed" ]; then say "finished, but not $(sort -u "$OUT/logs/failed" | xargs): start it again"; exit 1; fi
say "finished: $OUT/records and $OUT/logs/ending.ipynb"
