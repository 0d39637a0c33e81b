#!/usr/bin/env bash
# Training at full size within 24, 40 and 80 GB: stage 2 (7 billion weights with LoRA), the whole UNet (stages 1 and 3), keys and values (stage 3); a record each under data/results/memory, beside the same steps in fp32.
# usage: runs/memory.sh [OUT] [NAME…]      environment: SIZES (paper), DEVICE (cuda), STEPS (8), LIMIT (400: seconds after which no further record is begun), PYTHON (python)
# A call takes 9 minutes at the most; call it again until it says "there already" nine times. Records that are good are kept. Needs diffusers; 8 and 4 bits need bitsandbytes, and are left out where it is missing.
# One H200: LIMIT=400 timeout 540 runs/memory.sh data/results/memory mllm_80 mllm_40 mllm_24, then without names for what is left.
# A rehearsal: SIZES=tiny DEVICE=cpu STEPS=3 runs/memory.sh out/memory
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-data/results/memory}; shift || true
[ $# -gt 0 ] || set -- mllm_24 released_24 whole_24 mllm_80 released_80 whole_80 mllm_40 released_40 whole_40
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
exec "${PYTHON:-python}" runs/memory.py "$OUT" "$@" --sizes "${SIZES:-paper}" --device "${DEVICE:-cuda}" --steps "${STEPS:-8}" --limit "${LIMIT:-400}"
