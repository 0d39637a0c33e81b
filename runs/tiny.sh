#!/usr/bin/env bash
# How the `tiny` weights are made: every stage of the paper's order on one or two GPUs, each with a budget in seconds.
# usage: runs/tiny.sh [OUT]      environment:
#   STORE     page store (fast disk or memory; 12,000 stories of 30 pages are 19 GB)
#   SCALE     1 = the shipped weights (about 26 minutes on two H200 with 32 cores), 0.001 = a rehearsal
#   GPUS      2: vae and de-tokenizer train on the second GPU; 1: everything shares the first
#   CONTINUE  components (folders of OUT) that are trained further instead of being kept, e.g. "visual_tokenizer mllm"
#   DEVICE, STORIES, WORKERS, BATCH
# A component that OUT holds already is kept: an interrupted run goes on, and trained parts can be brought along.
# The shipped weights were made in two runs: the first from nothing; then, with its tokenizer, visual_tokenizer, mllm (and the oracle)
# in OUT,  CONTINUE="visual_tokenizer mllm" GPUS=2 runs/tiny.sh OUT
set -euo pipefail
OUT=${1:-out/tiny}; STORE=${STORE:-out/storyland}; SCALE=${SCALE:-1}; DEVICE=${DEVICE:-cuda}; STORIES=${STORIES:-12000}; WORKERS=${WORKERS:-26}
FIRST=${FIRST:-1800}; WORDS=${WORDS:-1500}; BATCH=${BATCH:-}; SEED_STORY=${SEED_STORY:-seed-story}; GPUS=${GPUS:-1}; CONTINUE=" ${CONTINUE:-} "
mkdir -p "$OUT/logs"
export TORCHDYNAMO_SUPPRESS_ERRORS=1 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
seconds() { python3 -c "print(max(3.0, round($1 * $SCALE, 1)))"; }
stage() {  # stage NAME SECONDS [OPTION...]
  local name=$1 budget=$2 began=$SECONDS; shift 2
  $SEED_STORY train "$name" --store "$STORE" --out "$OUT" --device "$DEVICE" ${BATCH:+--batch $BATCH} \
    ${budget:+--seconds $(seconds "$budget")} "$@" >> "$OUT/logs/$name.out" 2>&1 || { echo "$name FAILED"; tail -n 5 "$OUT/logs/$name.out"; return 1; }
  echo "$name: $((SECONDS - began)) s, ended at $SECONDS s: $(tail -n 1 "$OUT/logs/$name.out")"
}
wanted() { [ ! -d "$OUT/$1" ] || further "$1"; }
further() { [ -d "$OUT/$1" ] && [[ "$CONTINUE" == *" $1 "* ]]; }
resume() { if further "$1"; then echo --resume; fi; }
second() { if [ "$GPUS" -gt 1 ]; then CUDA_VISIBLE_DEVICES=1 "$@"; else "$@"; fi; }
encode() {  # encode WHAT PROCESSES: share the shards among processes
  local pids=() k; for k in $(seq 0 $(($2 - 1))); do stage encode "" --what "$1" --part "$k/$2" --stories "$STORIES" --wait 600 & pids+=($!); done; wait "${pids[@]}"
}
pids=()
stage render "" --stories "$STORIES" --workers "$WORKERS" & RENDER=$!
if wanted tokenizer; then stage words "" --stories "$WORDS" --wait 300 & pids+=($!); fi
if wanted oracle; then stage oracle 120 --stories "$FIRST" --wait 300 & pids+=($!); fi
if wanted vae; then second stage vae 230 --stories "$FIRST" --wait 300 & VAE=$!; fi
if wanted visual_tokenizer; then stage tokenizer 170 --stories "$FIRST" --wait 300 $(resume visual_tokenizer); fi
wait "$RENDER"
encode features 8
RESUME=$(resume mllm)
if wanted mllm; then stage mllm 960 --workers 6 $RESUME & MLLM=$!; fi
[ -z "${VAE:-}" ] || wait "$VAE"
second encode latents 8
if wanted unet; then second stage detokenizer 880; fi
[ ${#pids[@]} -eq 0 ] || wait "${pids[@]}"
[ -z "${MLLM:-}" ] || wait "$MLLM"
for part in unet feature_resampler; do rm -rf "$OUT/$part.stage1"; cp -r "$OUT/$part" "$OUT/$part.stage1"; done
stage adapt 240 --workers 6
stage assemble ""
echo finished
