#!/usr/bin/env bash
# How the shipped `tiny` weights were made: every stage of the paper's order on one GPU, each with a budget in seconds.
# usage: runs/tiny.sh [OUT]      environment: STORE (page store), SCALE (1 = the shipped weights; 0.01 = a rehearsal), DEVICE, STORIES, WORKERS
# With SCALE=1 it takes about 22 minutes on an H100 with 16 cores.
set -euo pipefail
OUT=${1:-out/tiny}; STORE=${STORE:-out/storyland}; SCALE=${SCALE:-1}; DEVICE=${DEVICE:-cuda}; STORIES=${STORIES:-7000}; WORKERS=${WORKERS:-12}
FIRST=${FIRST:-1800}; SECOND=${SECOND:-4000}; WORDS=${WORDS:-1500}; BATCH=${BATCH:-}
mkdir -p "$OUT/logs"
export TORCHDYNAMO_SUPPRESS_ERRORS=1 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
seconds() { python3 -c "print(max(3.0, round($1 * $SCALE, 1)))"; }
stage() {  # stage NAME SECONDS [OPTION...]
  local name=$1 budget=$2; shift 2
  local began=$SECONDS
  python3 -m seed_story.runs "$name" --store "$STORE" --out "$OUT" --device "$DEVICE" ${BATCH:+--batch $BATCH} \
    ${budget:+--seconds $(seconds "$budget")} "$@" > "$OUT/logs/$name.out" 2>&1 || { echo "$name FAILED"; tail -n 5 "$OUT/logs/$name.out"; return 1; }
  echo "$name: $((SECONDS - began)) s, at $SECONDS s: $(tail -n 1 "$OUT/logs/$name.out")"
}
stage render "" --stories "$STORIES" --workers "$WORKERS" & RENDER=$!
stage words "" --stories "$WORDS" --wait 300 & W=$!
stage vae 185 --stories "$FIRST" --wait 300 & A=$!
stage tokenizer 185 --stories "$FIRST" --wait 300 & B=$!
stage oracle 190 --stories "$SECOND" --wait 300 & ORACLE=$!
wait $A; wait $B; wait $W; wait $RENDER
PIDS=(); for k in 0 1 2 3 4; do stage encode "" --part $k/5 & PIDS+=($!); done; wait "${PIDS[@]}"
stage detokenizer 520 & D=$!
stage mllm 540 --workers 6
wait $D; wait $ORACLE
for part in unet feature_resampler; do cp -r "$OUT/$part" "$OUT/$part.stage1"; done
stage adapt 130 --workers 6
stage assemble ""
echo finished
