#!/usr/bin/env bash
# The ablations in which something is trained: regression head, supervision, eviction in training, chunk length, one model for three series. On one GPU, several trainings at a time.
# usage: runs/ablations.sh [OUT]      environment:
#   PLAIN     a pipeline folder with a `tiny` language model that was trained without eviction (OUT of runs/tiny.sh): what regression_head (its resamplers anew), trained_for_cache and chunk_length go on from;
#             empty: they begin with random weights of the size below
#   ONLY      which of the five, in the order of the plan (all)     WORK     stories, features and trained models, shared by all five (OUT/work; fast disk or memory: 2.5 GB for the defaults)
#   SEEDS (3) BATCH (32) LR (1.5e-3) START_LR (1e-3, of what goes on from PLAIN)    WIDTH (192) LAYERS (6) HEADS (6): what is trained from random weights
#   HEAD_STEPS (600) SUPERVISION_STEPS (1000) CACHE_STEPS (500) CHUNK_STEPS (1000) SERIES_STEPS (2000)   LENGTHS (5 10 20): pages of chunk_length's chunks, JUMPS (2500): positions up to which pages jump ahead in one more of its variants
#   TRAINING (2000) stories to learn from, STORIES (50) to measure, JOBS (8) trials at a time, WORKERS (1) that make batches for each, PROCESSES (16) that draw
#   LIMIT     seconds after which no trial begins (1500); those that run come to their end, what is made by then is shown, and the same command goes on (a training that was killed goes on from its checkpoint)
#   COMPILE   1: trainings are compiled (the first of each shape takes longer, the others find it in PyTorch's cache); 0: not
#   SCALE     1 = the committed runs, 0.001 = a rehearsal        DEVICE (cuda)
#
# Measured on one H200, several things at a time. supervision's clock counted 36 steps/s of the small model where every page is learned, 47 where the last is (its record pace), while stories were drawn on the same machine; a training alone leaves
# the card idle for part of the time, several side by side fill it, and stories told by `small` beside them take their share of it from all. A trial takes 30 s (read along, told to 25 pages) to 130 s (three times read along and told to 50 pages)
# beside its training, and 10 to 40 s to compile what no trial before it has compiled. Beside stories of `small` 140 GB were not enough for chunk_length's trials of 20 pages.
#   notebook            variants × seeds × steps                  trials   JOBS   seconds, all (one trial)
#   regression_head     9 × 3 × 600                               27         4    1,380 in two parts (64 to 290), beside chunk_length and series
#   supervision         5 × 3 × 1000 … 2142                       15         4    510 (59 to 167) after the clock, beside the training of emergence.sh and stage3.sh
#   trained_for_cache   8 × 3 × 600, read under 5 caches          24         3    1,380 (86 to 208), on an H100 beside the training of `small`
#   chunk_length        4 × 3 × 1000, told to 50 pages            12         4    620 for seven (109 to 290), beside regression_head; 530 for five, beside series
#   series              9 × 2000, 3 × 2000, 3 × 6000 (TRAINING=1000)  15   8    400 for twelve (290 to 360), beside the last four of regression_head; 620 for the three of 6000, beside chunk_length
set -euo pipefail
OUT=${1:-out/ablations}; SCALE=${SCALE:-1}; DEVICE=${DEVICE:-cuda}; PLAIN=${PLAIN:-}; WORK=${WORK:-$OUT/work}; SEED_STORY=${SEED_STORY:-seed-story}
ONLY=${ONLY:-regression_head supervision trained_for_cache chunk_length series}
JOBS=${JOBS:-8}; WORKERS=${WORKERS:-1}; PROCESSES=${PROCESSES:-16}; LIMIT=${LIMIT:-1500}; COMPILE=${COMPILE:-1}; BATCH=${BATCH:-32}; LR=${LR:-1.5e-3}; START_LR=${START_LR:-1e-3}
WIDTH=${WIDTH:-192}; LAYERS=${LAYERS:-6}; HEADS=${HEADS:-6}
scaled() { python3 -c "print(max($2, round($1 * $SCALE)))"; }
SEEDS=$(scaled "${SEEDS:-3}" 1); TRAINING=$(scaled "${TRAINING:-2000}" 8); STORIES=$(scaled "${STORIES:-50}" 1); CLOCK=$(scaled 100 2); FEW=$(scaled 25 5); MANY=$(scaled 50 8); WINDOW=$(scaled 6 3)
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1
if [ "$COMPILE" = 0 ]; then export TORCHDYNAMO_DISABLE=1; fi
mkdir -p "$OUT/logs" "$OUT/notebooks" "$WORK"; OUT=$(realpath "$OUT"); WORK=$(realpath "$WORK"); START=(-p lr "$LR" -p start '')
if [ -n "$PLAIN" ]; then PLAIN=$(realpath "$PLAIN"); START=(-p lr "$START_LR" -p start 'plain:$PLAIN'); fi; export PLAIN # the notebooks say $PLAIN, not where it lies
failed=0
ablation() {  # ablation NAME PAGES STEPS [PARAMETER...]
  local name=$1 pages=$2 steps=$3 began=$SECONDS; shift 3
  [[ " $ONLY " == *" $name "* ]] || return 0
  if [ "$SECONDS" -ge "$LIMIT" ]; then failed=1; echo "$name: not begun, LIMIT has passed; the same command goes on"; return 0; fi
  $SEED_STORY repro "$name" --out "$OUT/notebooks/$name.ipynb" -p out "$OUT/$name" -p work "$WORK" -p seeds "$SEEDS" -p steps "$(scaled "$steps" 2)" -p batch "$BATCH" -p lr "$LR" -p width "$WIDTH" \
    -p layers "$LAYERS" -p heads "$HEADS" -p training_stories "$TRAINING" -p stories "$STORIES" -p pages "$pages" -p jobs "$JOBS" -p workers "$WORKERS" -p processes "$PROCESSES" \
    -p limit $((LIMIT - SECONDS)) -p device "$DEVICE" "$@" > "$OUT/logs/$name.out" 2>&1 \
    || { failed=1; echo "$name FAILED: $(tail -n 1 "$OUT/logs/$name.out")"; return 0; }
  local lacking; lacking=$(grep -cE '"[^"]*, seed [0-9]+: ' "$OUT/notebooks/$name.ipynb" || true)
  echo "$name: $((SECONDS - began)) s, ended at $SECONDS s, $(find "$OUT/$name" -name 'seed_*.json' | wc -l) records"
  if [ "$lacking" != 0 ]; then failed=1; echo "$name: $lacking trials lack a good record; the same command goes on"; fi
}
ablation regression_head "$FEW" "${HEAD_STEPS:-600}" "${START[@]}"
ablation supervision "$FEW" "${SUPERVISION_STEPS:-1000}" -p clock "$CLOCK"
ablation trained_for_cache "$FEW" "${CACHE_STEPS:-500}" "${START[@]}" -p told "multimodal:$WINDOW@clamped" \
  -p given "multimodal:$WINDOW@clamped random:$WINDOW@clamped sink:$WINDOW@clamped window:$WINDOW dense@clamped"
ablation chunk_length "$MANY" "${CHUNK_STEPS:-1000}" "${START[@]}" -p lengths "${LENGTHS:-5 10 20}" -p jumps "$(scaled "${JUMPS:-2500}" 60)" -p given 'dense@clamped dense reencode' -p told dense@clamped
ablation series "$FEW" "${SERIES_STEPS:-2000}"
if [ "$failed" = 0 ]; then echo finished; else exit 1; fi
