#!/usr/bin/env bash
# How the `tiny` weights are made: every stage of the paper's order on one GPU, each with a budget in seconds.
# usage: runs/tiny.sh [OUT]      environment:
#   STORE    page store (fast disk or memory; 7,000 stories of 30 pages are 11 GB)
#   SCALE    1 = the shipped weights (about 26 minutes on an H100 with 16 cores), 0.001 = a rehearsal
#   DEVICE, STORIES, WORKERS, BATCH
# A component that OUT holds already is kept: an interrupted run goes on, and trained parts can be brought along.
set -euo pipefail
OUT=${1:-out/tiny}; STORE=${STORE:-out/storyland}; SCALE=${SCALE:-1}; DEVICE=${DEVICE:-cuda}; STORIES=${STORIES:-8000}; WORKERS=${WORKERS:-13}
FIRST=${FIRST:-1800}; WORDS=${WORDS:-1500}; BATCH=${BATCH:-}; SEED_STORY=${SEED_STORY:-seed-story}
mkdir -p "$OUT/logs"
export TORCHDYNAMO_SUPPRESS_ERRORS=1 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
seconds() { python3 -c "print(max(3.0, round($1 * $SCALE, 1)))"; }
stage() {  # stage NAME SECONDS [OPTION...]
  local name=$1 budget=$2; shift 2
  local began=$SECONDS
  $SEED_STORY train "$name" --store "$STORE" --out "$OUT" --device "$DEVICE" ${BATCH:+--batch $BATCH} \
    ${budget:+--seconds $(seconds "$budget")} "$@" >> "$OUT/logs/$name.out" 2>&1 || { echo "$name FAILED"; tail -n 5 "$OUT/logs/$name.out"; return 1; }
  echo "$name: $((SECONDS - began)) s, ended at $SECONDS s: $(tail -n 1 "$OUT/logs/$name.out")"
}
missing() { [ ! -d "$OUT/$1" ]; }
encode() {  # encode WHAT PROCESSES: share the shards among processes
  local pids=() k; for k in $(seq 0 $(($2 - 1))); do stage encode "" --what "$1" --part "$k/$2" --stories "$STORIES" --wait 600 & pids+=($!); done; wait "${pids[@]}"
}
pids=()
stage render "" --stories "$STORIES" --workers "$WORKERS" & RENDER=$!
if missing tokenizer; then stage words "" --stories "$WORDS" --wait 300 & pids+=($!); fi
if missing oracle; then stage oracle 120 --stories "$FIRST" --wait 300 & pids+=($!); fi
if missing vae; then stage vae 200 --stories "$FIRST" --wait 300 & VAE=$!; fi
if missing visual_tokenizer; then stage tokenizer 185 --stories "$FIRST" --wait 300; fi
wait "$RENDER"
encode features 4
stage mllm 960 --workers 6 & MLLM=$!
[ -z "${VAE:-}" ] || wait "$VAE"
encode latents 4
stage detokenizer 800
[ ${#pids[@]} -eq 0 ] || wait "${pids[@]}"
wait "$MLLM"
for part in unet feature_resampler; do rm -rf "$OUT/$part.stage1"; cp -r "$OUT/$part" "$OUT/$part.stage1"; done
stage adapt 280 --workers 6
stage assemble ""
echo finished
