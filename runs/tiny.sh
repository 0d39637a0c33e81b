#!/usr/bin/env bash
# How the `tiny` weights are made: every stage of the paper's order on one or two GPUs, each with a budget in seconds.
# usage: runs/tiny.sh [OUT]      environment:
#   STORE     page store (fast disk or memory; 12,000 stories of 30 pages are 19 GB)
#   SCALE     1 = the shipped weights (about 26 minutes on two H200 with 32 cores), 0.001 = a rehearsal
#   GPUS      2: vae and de-tokenizer train on the second GPU; 1: everything shares the first
#   CONTINUE  components (folders of OUT) that are trained further instead of being kept, e.g. "visual_tokenizer mllm"
#   EVICTION  an attention policy under which stage 2 is trained (see nbs/6_training/07_eviction.ipynb), e.g. multimodal; empty: all is seen
#   BESIDE    such a policy, or several joined by "+": a second language model is trained under it beside the first, from the same weights, in OUT/beside
#   SEED      first story; VAE, TOKENIZER, MLLM, DETOKENIZER, ADAPT: seconds of these stages (ADAPT=0 leaves stage 3 out)
#   DEVICE, STORIES, WORKERS, BATCH
# A component that OUT holds already is kept: an interrupted run goes on, and trained parts can be brought along.
set -euo pipefail
OUT=${1:-out/tiny}; STORE=${STORE:-out/storyland}; SCALE=${SCALE:-1}; DEVICE=${DEVICE:-cuda}; STORIES=${STORIES:-12000}; WORKERS=${WORKERS:-26}
FIRST=${FIRST:-1800}; WORDS=${WORDS:-1500}; BATCH=${BATCH:-}; SEED_STORY=${SEED_STORY:-seed-story}; GPUS=${GPUS:-1}; SEED=${SEED:-0}; CONTINUE=" ${CONTINUE:-} "
VAE=${VAE:-230}; TOKENIZER=${TOKENIZER:-170}; MLLM=${MLLM:-960}; DETOKENIZER=${DETOKENIZER:-880}; ADAPT=${ADAPT:-240}
mkdir -p "$OUT/logs"
export TORCHDYNAMO_SUPPRESS_ERRORS=1 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
seconds() { python3 -c "print(max(3.0, round($1 * $SCALE, 1)))"; }
stage() {  # stage NAME SECONDS [OPTION...]
  local name=$1 budget=$2 began=$SECONDS; shift 2
  case "$name" in
    render|words|assemble) ;;
    encode) set -- --device "$DEVICE" "$@";;
    *) set -- --device "$DEVICE" ${BATCH:+--batch "$BATCH"} --seconds "$(seconds "$budget")" "$@";;
  esac
  $SEED_STORY train "$name" --store "$STORE" --out "$OUT" "$@" >> "$OUT/logs/$name.out" 2>&1 || { echo "$name FAILED"; tail -n 5 "$OUT/logs/$name.out"; return 1; }
  echo "$name: $((SECONDS - began)) s, ended at $SECONDS s: $(tail -n 1 "$OUT/logs/$name.out")"
}
wanted() { [ ! -d "$OUT/$1" ] || further "$1"; }
further() { [ -d "$OUT/$1" ] && [[ "$CONTINUE" == *" $1 "* ]]; }
init() { if further "$1"; then echo --init-from; fi; } # the weights in OUT
second() { if [ "$GPUS" -gt 1 ]; then CUDA_VISIBLE_DEVICES=1 "$@"; else "$@"; fi; }
encode() {  # encode WHAT PROCESSES: share the shards among processes
  local pids=() k; for k in $(seq 0 $(($2 - 1))); do stage encode "" --what "$1" --part "$k/$2" --stories "$STORIES" --wait 600 & pids+=($!); done; wait "${pids[@]}"
}
beside() { (OUT="$OUT/beside"; "$@"); }
pids=()
stage render "" --seed "$SEED" --stories "$STORIES" --workers "$WORKERS" & RENDER=$!
if wanted tokenizer; then stage words "" --stories "$WORDS" --wait 300 & pids+=($!); fi
if wanted oracle; then stage oracle 120 --stories "$FIRST" --wait 300 & pids+=($!); fi
if wanted vae; then second stage vae "$VAE" --stories "$FIRST" --wait 300 & VAE_RUN=$!; fi
if wanted visual_tokenizer; then stage tokenizer "$TOKENIZER" --stories "$FIRST" --wait 300 $(init visual_tokenizer); fi
wait "$RENDER"
encode features 8 & FEATURES=$!
if [ -z "${VAE_RUN:-}" ]; then second encode latents 8 & LATENTS=$!; fi
wait "$FEATURES"
if [ -n "${BESIDE:-}" ]; then
  mkdir -p "$OUT/beside/logs"
  for part in tokenizer visual_tokenizer vae mllm; do if [ -d "$OUT/$part" ] && [ ! -d "$OUT/beside/$part" ]; then cp -r "$OUT/$part" "$OUT/beside/"; fi; done
  if beside wanted mllm; then beside stage mllm "$MLLM" --workers 8 --eviction "$BESIDE" $(beside init mllm) & pids+=($!); fi
fi
if wanted mllm; then stage mllm "$MLLM" --workers 8 ${EVICTION:+--eviction "$EVICTION"} $(init mllm) & MLLM_RUN=$!; fi
if [ -n "${VAE_RUN:-}" ]; then wait "$VAE_RUN"; second encode latents 8; else wait "$LATENTS"; fi
if wanted unet; then second stage detokenizer "$DETOKENIZER" $(init unet); fi
[ ${#pids[@]} -eq 0 ] || wait "${pids[@]}"
[ -z "${MLLM_RUN:-}" ] || wait "$MLLM_RUN"
if [ "$ADAPT" != 0 ]; then
  for part in unet feature_resampler; do rm -rf "$OUT/$part.stage1"; cp -r "$OUT/$part" "$OUT/$part.stage1"; done
  if [ -n "${BESIDE:-}" ]; then
    for part in vae unet feature_resampler; do rm -rf "$OUT/beside/$part"; cp -r "$OUT/$part" "$OUT/beside/"; done
    second beside stage adapt "$ADAPT" --workers 6 & BESIDE_RUN=$!
  fi
  stage adapt "$ADAPT" --workers 6
  [ -z "${BESIDE_RUN:-}" ] || wait "$BESIDE_RUN"
fi
stage assemble ""
[ -z "${BESIDE_RUN:-}" ] || beside stage assemble ""
echo finished
