#!/usr/bin/env bash
# From which step of training on attention has its sinks: a `tiny` language model from random weights, kept after some steps; then nbs/repro/attention_maps.ipynb over these.
# usage: runs/emergence.sh [OUT]      environment:
#   STORE     page store; drawn and encoded if it is not there    STORIES (2000) to learn from, PROCESSES (16) that draw, ENCODERS (4)
#   STEPS (5000) of BATCH (64) chunks, WORKERS (6), DEVICE (cuda)    SNAPSHOTS ('0 30 100 300 1000 2000 3000'): steps after which the weights are kept, beside the last    LOOKED (12), PAGES (6): stories and pages looked at
# One H100, other work beside it: some 6 minutes. A rehearsal: DEVICE=cpu STORIES=6 PROCESSES=2 ENCODERS=1 STEPS=2 SNAPSHOTS='0 1' BATCH=2 WORKERS=0 LOOKED=1 PAGES=3 runs/emergence.sh out/rehearsal
set -euo pipefail
OUT=${1:-out/emergence}; HERE=$(cd "$(dirname "$0")/.." && pwd); DEVICE=${DEVICE:-cuda}; STORIES=${STORIES:-2000}; STEPS=${STEPS:-5000}; SNAPSHOTS=${SNAPSHOTS:-0 30 100 300 1000 2000 3000}
WORKERS=${WORKERS:-6}; ENCODERS=${ENCODERS:-4}; SEED_STORY=${SEED_STORY:-seed-story}
mkdir -p "$OUT"; OUT=$(realpath "$OUT"); STORE=${STORE:-$OUT/storyland}
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false TORCHDYNAMO_SUPPRESS_ERRORS=1 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1
train() { local stage=$1; shift; $SEED_STORY train "$stage" --store "$STORE" --out "$OUT" --stories "$STORIES" "$@" >> "$OUT/$stage.out" 2>&1 || { echo "$stage FAILED: $(tail -n 1 "$OUT/$stage.out")"; return 1; }; }
for part in tokenizer visual_tokenizer; do [ -d "$OUT/$part" ] || cp -r "$HERE/data/tiny/$part" "$OUT/"; done
[ -d "$STORE" ] || train render --workers "${PROCESSES:-16}"
pids=(); for k in $(seq 0 $((ENCODERS - 1))); do train encode --device "$DEVICE" --what features --part "$k/$ENCODERS" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid"; done
echo "drawn and encoded at $SECONDS s"
train mllm --device "$DEVICE" --steps "$STEPS" --batch "${BATCH:-64}" --workers "$WORKERS" --snapshots "$SNAPSHOTS"
echo "trained at $SECONDS s: $(tail -n 1 "$OUT/mllm.out")"; models=
cp -r "$OUT/mllm" "$OUT/mllm_$STEPS"
for n in $SNAPSHOTS $STEPS; do
  rm -rf "$OUT/at/$n"; mkdir -p "$OUT/at"; cp -r "$HERE/data/tiny" "$OUT/at/$n"; rm -rf "$OUT/at/$n/mllm"; cp -r "$OUT/mllm_$n" "$OUT/at/$n/mllm"; models="$models step_$n:$OUT/at/$n"
done
$SEED_STORY repro attention_maps --out "$OUT/attention_maps.ipynb" -p models "${models# }" -p stories "${LOOKED:-12}" -p pages "${PAGES:-6}" -p mapped "step_$STEPS" -p device "$DEVICE" -p out "$OUT/records" > "$OUT/attention_maps.out" 2>&1 || { echo "attention_maps FAILED: $(tail -n 1 "$OUT/attention_maps.out")"; exit 1; }
echo "finished at $SECONDS s"
