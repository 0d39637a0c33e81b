#!/usr/bin/env bash
# The ablations in which something is trained: regression head, supervision, eviction in training, chunk length, one model for three series. On one GPU, several trainings at a time.
# usage: runs/ablations.sh [OUT]      environment:
#   PLAIN     a pipeline folder with a `tiny` language model that was trained without eviction (OUT of runs/tiny.sh): what regression_head (its resamplers anew), trained_for_cache and chunk_length go on from;
#             empty: they begin with random weights of the size below
#   ONLY      which of the five, in the order of the plan (all)     WORK     stories, features and trained models, shared by all five (OUT/work; fast disk or memory: 2.5 GB for the defaults)
#   SEEDS (3) BATCH (32) LR (1.5e-3) START_LR (1e-3, of what goes on from PLAIN)    WIDTH (192) LAYERS (6) HEADS (6): what is trained from random weights
#   HEAD_STEPS (600) SUPERVISION_STEPS (1000) CACHE_STEPS (500) CHUNK_STEPS (1000) SERIES_STEPS (1500)
#   TRAINING (2000) stories to learn from, STORIES (50) to measure, JOBS (8) trials at a time, WORKERS (1) that make batches for each, PROCESSES (16) that draw
#   LIMIT     seconds after which no trial begins (1500); those that run are ended, what is made by then is shown, and the same command goes on (a training that was killed goes on from its checkpoint)
#   COMPILE   1: trainings are compiled (the first of each shape takes longer, the others find it in PyTorch's cache); 0: not
#   SCALE     1 = the committed runs, 0.001 = a rehearsal        DEVICE (cuda)
#
# Plan of the defaults on one H200 (assumed: 75 steps/s of the whole `tiny` at batch 32, as 40 at batch 64 were measured; 140 steps/s of the small one, all jobs together).
# A trial takes some 40 s of a processor core beside its training (start, compiling, reading along, telling), during which others train.
#   notebook            variants × seeds × steps                       steps       GPU      trials
#   regression_head     9 × 3 × 600 (36 slots: 1.6 times the cost)     16,200 L    230 s    27
#   supervision         5 × 3 × 1000 … 2100                            21,000 s    130 s    15, and a minute alone for the clock
#   trained_for_cache   8 × 3 × 500                                    12,000 L    160 s    24, read under 5 caches
#   chunk_length        3 × 3 × 3000                                   27,000 s    190 s     9, told to 50 pages
#   series              3 × 3 × 700, 3 × 700, 3 × 2100                 14,700 s    105 s    15   (L: of the whole `tiny`, s: small)
#   together                                                                       815 s    90 trials × 40 s / 8 jobs = 450 s beside it: 15 to 20 minutes
# Measured so far: trained_for_cache, CACHE_STEPS=600 JOBS=3 on an H100 beside the training of `small`: 23 minutes; of a trial's 86 to 208 s, 37 to 131 are training.
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
    && echo "$name: $((SECONDS - began)) s, ended at $SECONDS s, $(find "$OUT/$name" -name 'seed_*.json' | wc -l) records" || { failed=1; echo "$name FAILED: $(tail -n 1 "$OUT/logs/$name.out")"; }
}
ablation regression_head "$FEW" "${HEAD_STEPS:-600}" "${START[@]}"
ablation supervision "$FEW" "${SUPERVISION_STEPS:-1000}" -p clock "$CLOCK"
ablation trained_for_cache "$FEW" "${CACHE_STEPS:-500}" "${START[@]}" -p told "multimodal:$WINDOW@clamped" \
  -p given "multimodal:$WINDOW@clamped random:$WINDOW@clamped sink:$WINDOW@clamped window:$WINDOW dense@clamped"
ablation chunk_length "$MANY" "${CHUNK_STEPS:-1000}" "${START[@]}" -p given 'dense@clamped dense reencode' -p told dense@clamped
ablation series "$FEW" "${SERIES_STEPS:-1500}"
if [ "$failed" = 0 ]; then echo finished; else exit 1; fi
