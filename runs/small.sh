#!/usr/bin/env bash
# How the `small` adapters are made: SmolLM2-135M-Instruct with LoRA on Storyland, plainly and under eviction, side by side on two GPUs.
# usage: runs/small.sh [OUT]      environment:
#   STORE     page store (fast disk or memory)          SCALE     1 = the committed runs, 0.001 = a rehearsal
#   GPUS      2: one run on each; 1: they share it      EVICTION  the policies of the second run, joined by "+"
#   STORIES, SEED, WORKERS, BATCH, LR, DEVICE; MLLM, ADAPT: seconds (ADAPT=0 leaves stage 3 out)
# The pre-trained weights must be there (seed-story fetch small); visual tokenizer, VAE and de-tokenizer are tiny's. What OUT holds already goes on.
set -euo pipefail
OUT=${1:-out/small}; STORE=${STORE:-out/storyland}; SCALE=${SCALE:-1}; DEVICE=${DEVICE:-cuda}; GPUS=${GPUS:-2}; STORIES=${STORIES:-6000}; SEED=${SEED:-40000}; WORKERS=${WORKERS:-26}
BATCH=${BATCH:-16}; LR=${LR:-1e-3}; MLLM=${MLLM:-1080}; ADAPT=${ADAPT:-0}; EVICTION=${EVICTION:-multimodal + multimodal:sentences=1}; SEED_STORY=${SEED_STORY:-seed-story}
TINY=${TINY:-$(dirname "$0")/../data/tiny}
export TORCHDYNAMO_SUPPRESS_ERRORS=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
seconds() { python3 -c "print(max(3.0, round($1 * $SCALE, 1)))"; }
stage() {  # stage FOLDER NAME [OPTION...]
  local out=$1 name=$2 began=$SECONDS; shift 2; mkdir -p "$out/logs"
  $SEED_STORY train "$name" --preset small --store "$STORE" --out "$out" --device "$DEVICE" --seed "$SEED" "$@" >> "$out/logs/$name.out" 2>&1 || { echo "$out $name FAILED: $(tail -n 1 "$out/logs/$name.out")"; return 1; }
  echo "$out $name: $((SECONDS - began)) s, ended at $SECONDS s"
}
on() { local card=$1; shift; if [ "$GPUS" -gt 1 ]; then CUDA_VISIBLE_DEVICES=$card "$@"; else "$@"; fi; }
for out in "$OUT/plain" "$OUT/evicted"; do
  mkdir -p "$out"; for part in visual_tokenizer vae unet feature_resampler; do [ -d "$out/$part" ] || cp -r "$TINY/$part" "$out/"; done
  [ -d "$out/tokenizer" ] || stage "$out" words
done
stage "$OUT/plain" render --stories "$STORIES" --workers "$WORKERS"
pids=(); for k in 0 1 2 3; do on $((k % 2)) stage "$OUT/plain" encode --what features --part "$k/4" --stories "$STORIES" --wait 600 & pids+=($!); done; wait "${pids[@]}"
one() {  # one FOLDER CARD [OPTION...]
  local out=$1 card=$2; shift 2
  [ -f "$out/mllm/training.json" ] && [ ! -d "$out/checkpoints/mllm" ] || on "$card" stage "$out" mllm --batch "$BATCH" --lr "$LR" --seconds "$(seconds "$MLLM")" --workers 8 "$@"
  if [ "$ADAPT" != 0 ]; then on "$card" stage "$out" adapt --seconds "$(seconds "$ADAPT")" --workers 6; fi
  stage "$out" assemble
}
if [ "$ADAPT" != 0 ]; then on 0 stage "$OUT/plain" encode --what latents --stories "$STORIES"; fi
one "$OUT/plain" 0 & pids=($!)
one "$OUT/evicted" 1 --eviction "$EVICTION" & pids+=($!)
wait "${pids[@]}"
echo finished
