#!/usr/bin/env bash
# How the `small` adapters are made: SmolLM2-135M-Instruct with LoRA on Storyland. First plainly; then two of them go on from there, one plainly, one under eviction.
# usage: runs/small.sh [OUT]      environment:
#   STORE     page store (fast disk or memory)          SCALE     1 = the committed runs, 0.001 = a rehearsal
#   GPUS      2: the two go on with a card each; 1: they share it        EVICTION  the policies of the second, joined by "+"
#   FIRST, THEN: seconds of the common part, and of each that goes on (0 leaves it out)    ADAPT: of stage 3 (0 leaves it out)
#   VARIANTS  which of the two go on ("plain evicted")
#   STORIES, SEED, WORKERS, BATCH, LR, DEVICE
# The pre-trained weights must be there (seed-story fetch small); visual tokenizer, VAE and de-tokenizer are tiny's. What OUT holds already goes on, or is kept if it was ended.
# The bundled adapter (logs 1 to 3: data/results/small_logs; the machines had 16 cores): `STORIES=4500 FIRST=1090 THEN=0 GPUS=1` on an H200, 5,923 steps; after that, each with the stories of another folder,
# `SEED=60000 STORIES=3500 FIRST=1 THEN=462 VARIANTS=evicted GPUS=1`, 2,023 steps, and `SEED=80000 … THEN=880 …` beside three small trainings, 2,776 steps, on an H100. FIRST=1 trains nothing: OUT/first/mllm holds what to go on from.
set -euo pipefail
OUT=${1:-out/small}; STORE=${STORE:-out/storyland}; SCALE=${SCALE:-1}; DEVICE=${DEVICE:-cuda}; GPUS=${GPUS:-2}; STORIES=${STORIES:-5000}; SEED=${SEED:-40000}; WORKERS=${WORKERS:-16}
BATCH=${BATCH:-16}; LR=${LR:-1e-3}; FIRST=${FIRST:-1150}; THEN=${THEN:-1150}; ADAPT=${ADAPT:-0}; EVICTION=${EVICTION:-multimodal + multimodal:sentences=1}; SEED_STORY=${SEED_STORY:-seed-story}; VARIANTS=${VARIANTS:-plain evicted}
TINY=${TINY:-$(dirname "$0")/../data/tiny}
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
seconds() { python3 -c "print(max(3.0, round($1 * $SCALE, 1)))"; }
stage() {  # stage FOLDER NAME [OPTION...]
  local out=$1 name=$2 began=$SECONDS; shift 2; mkdir -p "$out/logs"
  case "$name" in
    words|assemble) ;;
    render) set -- --seed "$SEED" "$@";;
    encode) set -- --device "$DEVICE" "$@";;
    *) set -- --device "$DEVICE" --seed "$SEED" "$@";;
  esac
  $SEED_STORY train "$name" --preset small --store "$STORE" --out "$out" "$@" >> "$out/logs/$name.out" 2>&1 || { echo "$out $name FAILED: $(tail -n 1 "$out/logs/$name.out")"; return 1; }
  echo "$out $name: $((SECONDS - began)) s, ended at $SECONDS s"
}
on() { local card=$1; shift; if [ "$GPUS" -gt 1 ]; then CUDA_VISIBLE_DEVICES=$card "$@"; else "$@"; fi; }
ended() { [ -f "$1/mllm/training.json" ] && [ ! -d "$1/checkpoints/mllm" ]; }
mllm() { local out=$1 budget=$2; shift 2; ended "$out" || stage "$out" mllm --batch "$BATCH" --lr "$LR" --seconds "$(seconds "$budget")" --workers 6 "$@"; }
parts() { mkdir -p "$1"; for part in visual_tokenizer vae unet feature_resampler; do [ -d "$1/$part" ] || cp -r "$TINY/$part" "$1/"; done; [ -d "$1/tokenizer" ] || stage "$1" words; }
parts "$OUT/first"
stage "$OUT/first" render --stories "$STORIES" --workers "$WORKERS"
pids=(); for k in 0 1 2 3; do on $((k % 2)) stage "$OUT/first" encode --what features --part "$k/4" --stories "$STORIES" --wait 600 & pids+=($!); done; wait "${pids[@]}"
mllm "$OUT/first" "$FIRST"
further() {  # further FOLDER CARD [OPTION...]: goes on from the common weights, which it takes over at its own beginning
  local out=$1 card=$2; shift 2; parts "$out"
  [ -d "$out/mllm" ] || { cp -r "$OUT/first/mllm" "$out/mllm"; rm -f "$out/mllm/training.json"; }
  on "$card" mllm "$out" "$THEN" --init-from "$@"
  if [ "$ADAPT" != 0 ]; then on "$card" stage "$out" adapt --seconds "$(seconds "$ADAPT")" --workers 6; fi
  stage "$out" assemble
}
if [ "$ADAPT" != 0 ]; then stage "$OUT/first" encode --what latents --stories "$STORIES"; fi
if [ "$THEN" = 0 ]; then stage "$OUT/first" assemble
else
  pids=(); for variant in $VARIANTS; do
    case "$variant" in
      plain) further "$OUT/plain" 0 & pids+=($!);;
      evicted) further "$OUT/evicted" 1 --eviction "$EVICTION" & pids+=($!);;
      *) echo "VARIANTS: $variant is neither plain nor evicted"; exit 2;;
    esac
  done; failed=0; for pid in "${pids[@]}"; do wait "$pid" || failed=1; done; [ "$failed" = 0 ]
fi
echo finished
