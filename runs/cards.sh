#!/usr/bin/env bash
# Stage 2 at full size on one card and on two, by data parallelism and by FSDP, each with layers kept and computed again: tokens a second and the memory of a card, as records under data/results/memory.
# usage: runs/cards.sh [OUT]      environment: SIZES (paper), DEVICE (cuda), STEPS (25), BATCH (4: chunks of a card), CARDS (2), WAYS ("one data shards", in this order), LIMIT (420: seconds after which no further record is begun), PYTHON (python)
# Records that are good are kept, so a call that ran out of time is repeated. Needs diffusers.
# A record takes 40 to 70 seconds on two H200: data 68, shards 61, one 41, and with layers computed again data 48, shards 58. To measure one again, remove it first.
# Two H200: timeout 560 runs/cards.sh data/results/memory
# A rehearsal: SIZES=tiny DEVICE=cpu STEPS=3 runs/cards.sh out/cards
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-data/results/memory}; LIMIT=${LIMIT:-420}; PYTHON=${PYTHON:-python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
[ "${DEVICE:-cuda}" = cuda ] || export ACCELERATE_USE_CPU=true
several="-m torch.distributed.run --standalone --nproc_per_node ${CARDS:-2}"
measure() { # NAME, what starts it, options
  local name=$1 launch=$2; shift 2
  if [ "$SECONDS" -gt "$LIMIT" ]; then echo "$name: left for the next call"; return; fi
  # shellcheck disable=SC2086
  "$PYTHON" $launch runs/memory.py "$OUT" "$name" --sizes "${SIZES:-paper}" --device "${DEVICE:-cuda}" --steps "${STEPS:-25}" --batch "${BATCH:-4}" "$@" || echo "$name FAILED"
}
for more in '' --checkpointing; do
  for way in ${WAYS:-one data shards}; do
    case $way in
      one) measure "cards_one${more:+_again}" '' $more;;
      data) measure "cards_data${more:+_again}" "$several" $more;;
      shards) ACCELERATE_USE_FSDP=true FSDP_VERSION=2 measure "cards_shards${more:+_again}" "$several" $more;;
      *) echo "WAYS: $way is none of one, data and shards"; exit 2;;
    esac
  done
done
