#!/usr/bin/env bash
# How the VAE of data/tiny/vae is made: 16 × 32 × 32 latents of 128-pixel pictures, drawn afresh from Storyland.
# usage: runs/vae.sh [OUT]      environment:
#   STORE     page store; what is missing of it is drawn    STORIES (1200) to learn from, WORKERS (15) that draw
#   SECONDS_VAE (455) of training, BATCH (32), CHANNELS (16), DEVICE (cuda); STEPS=2 rehearses
# Took: drawing 36 s on 16 cores, training 455 s (35,576 steps) on one H200 that two trainings shared, 12.8 ms a step.
# The records of the trials name commit 8f4a6c1, of a branch before the wings; the same training landed as af33f16.
# The kept weights ended at 0.2 % of the highest learning rate, this ends at 1 %. Measured by nbs/repro/vae.ipynb (records: data/results/vae).
# data/tiny/vae is packed. To go on from it (train vae --init-from out/begin, with the --set below), or to give it to other programs, unpack it first:
#   python -c "from seed_story.story.packed import unpack_folder; unpack_folder('data/tiny/vae', 'out/begin/vae')"
# A rehearsal: DEVICE=cpu STORIES=2 WORKERS=1 STEPS=2 BATCH=4 runs/vae.sh out/rehearsal
set -euo pipefail
OUT=${1:-out/vae}; STORE=${STORE:-out/storyland}; STORIES=${STORIES:-1200}; DEVICE=${DEVICE:-cuda}; CHANNELS=${CHANNELS:-16}; SEED_STORY=${SEED_STORY:-seed-story}
export TORCHDYNAMO_SUPPRESS_ERRORS=1 PYTHONUNBUFFERED=1
$SEED_STORY train render --store "$STORE" --stories "$STORIES" --workers "${WORKERS:-15}"
$SEED_STORY train vae --store "$STORE" --out "$OUT" --stories "$STORIES" --device "$DEVICE" --batch "${BATCH:-32}" --seconds "${SECONDS_VAE:-455}" ${STEPS:+--steps $STEPS} \
  --set "vae.block_out_channels=[120] vae.latent_channels=$CHANNELS vae_loss.kl_weight=1e-7 vae_loss.l2_weight=10 vae_loss.noise=.1"
