#!/usr/bin/env bash
# Stage 3 both ways, from the same weights of stage 1, the same pairs and as many steps: the whole UNet, and the keys and values that the release trains; then the record of nbs/repro/stage3.ipynb.
# usage: BEFORE=FOLDER runs/stage3.sh [OUT]      environment:
#   BEFORE    folder with `unet` and `feature_resampler` as stage 1 left them, beside the bundled VAE and visual tokenizer (the committed record: data/tiny of commit d152c21)
#   STORE     page store; drawn and encoded if it is not there    STORIES (2000) to learn from, PROCESSES (16) that draw, ENCODERS (4)
#   STEPS (2000) of 512 pairs each, WORKERS (4), DEVICE (cuda)    TOLD (100), PAGES (25), DRAWN ('2 10 25'): stories, pages and drawn pages of the record
# One H100, other work beside it: a few minutes. A rehearsal: DEVICE=cpu STORIES=6 PROCESSES=2 ENCODERS=1 STEPS=2 WORKERS=0 TOLD=1 PAGES=3 DRAWN='2 3' BEFORE=data/tiny runs/stage3.sh out/rehearsal
set -euo pipefail
OUT=${1:-out/stage3}; HERE=$(cd "$(dirname "$0")/.." && pwd); BEFORE=$(realpath "${BEFORE:?a folder with unet and feature_resampler as stage 1 left them}"); DEVICE=${DEVICE:-cuda}; STORIES=${STORIES:-2000}
STEPS=${STEPS:-2000}; WORKERS=${WORKERS:-4}; ENCODERS=${ENCODERS:-4}; TOLD=${TOLD:-100}; PAGES=${PAGES:-25}; DRAWN=${DRAWN:-2 10 25}; SEED_STORY=${SEED_STORY:-seed-story}
mkdir -p "$OUT"; OUT=$(realpath "$OUT"); STORE=${STORE:-$OUT/storyland}
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false TORCHDYNAMO_SUPPRESS_ERRORS=1 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1
train() { local stage=$1 out=$2; shift 2; $SEED_STORY train "$stage" --store "$STORE" --out "$OUT/$out" --stories "$STORIES" "$@" >> "$OUT/$out/$stage.out" 2>&1 || { echo "$out $stage FAILED: $(tail -n 1 "$OUT/$out/$stage.out")"; return 1; }; }
for way in whole released; do
  mkdir -p "$OUT/$way"
  for part in mllm tokenizer visual_tokenizer vae; do [ -d "$OUT/$way/$part" ] || cp -r "$HERE/data/tiny/$part" "$OUT/$way/"; done
  for part in unet feature_resampler; do [ -d "$OUT/$way/$part" ] || cp -r "$BEFORE/$part" "$OUT/$way/"; done
done
[ -d "$STORE" ] || train render whole --workers "${PROCESSES:-16}"
for what in features latents; do
  pids=(); for k in $(seq 0 $((ENCODERS - 1))); do train encode whole --device "$DEVICE" --what "$what" --part "$k/$ENCODERS" & pids+=($!); done
  for pid in "${pids[@]}"; do wait "$pid"; done
done
echo "drawn and encoded at $SECONDS s"; pids=()
for way in whole released; do (train adapt "$way" --device "$DEVICE" --trainable "$way" --steps "$STEPS" --workers "$WORKERS"; echo "$way at $SECONDS s: $(tail -n 1 "$OUT/$way/adapt.out")") & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid"; done
$SEED_STORY repro stage3 --out "$OUT/stage3.ipynb" -p model tiny -p variants "before=$BEFORE/* whole=$OUT/whole/* released=$OUT/released/*" -p stories "$TOLD" -p pages "$PAGES" -p drawn "$DRAWN" \
  -p oracle "$HERE/data/oracle" -p device "$DEVICE" -p workers "$WORKERS" -p out "$OUT/records" > "$OUT/stage3.out" 2>&1 || { echo "stage3 FAILED: $(tail -n 1 "$OUT/stage3.out")"; exit 1; }
echo "finished at $SECONDS s"
