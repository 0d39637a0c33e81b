#!/usr/bin/env bash
# Stage 1 anew, on the latents of data/tiny/vae: feature resampler and UNet learn to draw from the features of the shipped visual tokenizer, which stays as it is.
# usage: runs/detokenizer.sh [OUT]      environment:
#   STORE     page store; what is missing of it is drawn and encoded    STORIES (1536) to learn from, WORKERS (15) that draw
#   SECONDS_DETOKENIZER (900) of training, BATCH (256), DEVICE (cuda), STEPS (none); STEPS=2 rehearses
#   SIZES     changes of the preset; RESAMPLER, UNET: the part of it that belongs to these
#   HOW       options of the loss and of the batches    INIT  a folder whose feature_resampler and unet are trained further
#   PREPARED  not empty: the store is there, drawn and encoded
# What ships was made in two steps, on one H200 (the commit of the runs: 734c5e6):
#   1. STORIES=1536 BATCH=128 SECONDS_DETOKENIZER=345 runs/detokenizer.sh out/a: 4,442 steps, the card shared with three other trials
#   2. INIT=out/a STORIES=7680 SECONDS_DETOKENIZER=930 runs/detokenizer.sh out/main: 16,805 steps of 256, the card alone, 55 ms a step
# Where told features leave open on which side a palm stands, out/main draws both, faintly. Stage 3 is there for that (SECONDS_ADAPT); it has not been run on these weights.
#   ONLY_ADAPT  not empty: OUT has a feature_resampler and a unet that stage 1 has trained
#   SECONDS_ADAPT  of stage 3 afterwards, on features that the language model of data/tiny regresses for the same stories (none)
# A rehearsal: DEVICE=cpu STORIES=2 WORKERS=1 STEPS=2 BATCH=4 SECONDS_ADAPT=60 runs/detokenizer.sh out/rehearsal
set -euo pipefail
OUT=${1:-out/detokenizer}; STORE=${STORE:-out/storyland}; STORIES=${STORIES:-1536}; DEVICE=${DEVICE:-cuda}; SEED_STORY=${SEED_STORY:-seed-story}; DATA=${DATA:-data}
RESAMPLER=${RESAMPLER-feature_resampler.num_features=36 feature_resampler.num_queries=36 feature_resampler.depth=4 feature_resampler.dim=160 feature_resampler.heads=5}
UNET=${UNET-unet.block_out_channels=[128,128,128] unet.attention_head_dim=[4,4,4]}
SIZES=${SIZES-vae.block_out_channels=[120] vae.latent_channels=16 unet.in_channels=16 unet.out_channels=16 $UNET $RESAMPLER}
HOW=${HOW---thing-share .4 --thing-weight 5 --character-weight 2 --condition-dropout .05}
export TORCHDYNAMO_SUPPRESS_ERRORS=1 PYTHONUNBUFFERED=1
mkdir -p "$OUT"
[ -d "$OUT/visual_tokenizer" ] || cp -r "$DATA/tiny/visual_tokenizer" "$OUT/"
[ -d "$OUT/vae" ] || python3 -c "import sys; from seed_story.story.packed import unpack_folder; unpack_folder(*sys.argv[1:])" "$DATA/tiny/vae" "$OUT/vae"
if [ -z "${PREPARED:-}" ]; then
  $SEED_STORY train render --store "$STORE" --stories "$STORIES" --workers "${WORKERS:-15}"
  for what in features latents; do $SEED_STORY train encode --what $what --store "$STORE" --out "$OUT" --stories "$STORIES" --device "$DEVICE"; done
fi
[ -n "${ONLY_ADAPT:-}" ] || $SEED_STORY train detokenizer --store "$STORE" --out "$OUT" --stories "$STORIES" --device "$DEVICE" --batch "${BATCH:-256}" --seconds "${SECONDS_DETOKENIZER:-900}" \
  ${STEPS:+--steps $STEPS} ${INIT:+--init-from "$INIT"} $HOW --set "$SIZES"
if [ -n "${SECONDS_ADAPT:-}" ]; then
  for part in mllm tokenizer; do [ -d "$OUT/$part" ] || cp -r "$DATA/tiny/$part" "$OUT/"; done
  $SEED_STORY train adapt --store "$STORE" --out "$OUT" --stories "$STORIES" --device "$DEVICE" --batch "${BATCH:-256}" --seconds "$SECONDS_ADAPT" ${STEPS:+--steps $STEPS} $HOW --set "$SIZES"
fi
