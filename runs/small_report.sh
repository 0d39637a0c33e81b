#!/usr/bin/env bash
# The records of `small` for nbs/repro: compare_models (beside tiny) and pretrained_sinks (before adaptation, after it, tiny).
# usage: runs/small_report.sh [OUT]      environment:
#   MODELS    NAME:FOLDER, the adapted models, as runs/small.sh leaves them, separated by spaces; default: small, the bundled one
#   GPUS (1) cards over which the models are spread    JOBS (3) processes on each: one takes up to 21 GB    DEVICE (cuda)
#   STORIES (100), PAGES (25): told    READ (20), LONG (100): stories and pages read along    LOOKED (8), SHORT (10): stories and pages whose attention is looked at
# Good records are kept, so it goes on where it was. The pre-trained weights must be there (seed-story fetch small).
# A rehearsal on a CPU: DEVICE=cpu STORIES=1 PAGES=3 READ=1 LONG=12 LOOKED=1 SHORT=2 runs/small_report.sh out/rehearsal
set -u
OUT=${1:-out/small_report}; mkdir -p "$OUT/logs" "$OUT/notebooks"; OUT=$(cd "$OUT" && pwd)
MODELS=${MODELS:-small} GPUS=${GPUS:-1} JOBS=${JOBS:-3} DEVICE=${DEVICE:-cuda} STORIES=${STORIES:-100} PAGES=${PAGES:-25} READ=${READ:-20} LONG=${LONG:-100} LOOKED=${LOOKED:-8} SHORT=${SHORT:-10} SEED_STORY=${SEED_STORY:-seed-story}
policies='dense dense@clamped window:8 sink:8@cache multimodal:8@cache multimodal:8@clamped random:8@clamped reencode:9'
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
began=$SECONDS n=0; : > "$OUT/logs/failed"
repro() { # LOG NAME parameters…
  local log=$1 name=$2 since=$SECONDS; shift 2
  if $SEED_STORY repro "$name" --out "$OUT/notebooks/$log.ipynb" "$@" > "$OUT/logs/$log.out" 2>&1; then echo "$((SECONDS - began)) s: done $log in $((SECONDS - since)) s"; else echo "$((SECONDS - began)) s: FAILED $log: $(tail -n 1 "$OUT/logs/$log.out")"; echo "$log" >> "$OUT/logs/failed"; fi
}
job() { # beside the others, on the next card
  while [ "$(jobs -rp | wc -l)" -ge $((GPUS * JOBS)) ]; do sleep 1; done
  n=$((n + 1)); CUDA_VISIBLE_DEVICES=$((n % GPUS)) repro "$@" -p device "$DEVICE" &
}
told=; for word in $MODELS tiny; do [ "${word#*:}" = "$word" ] && told="$told $word" || told="$told ${word%%:*}=${word#*:}"; done
for word in $told; do job "compare_${word%%=*}" compare_models -p models "$word" -p stories "$STORIES" -p pages "$PAGES" -p out "$OUT/compare_models"; done
for word in $MODELS before tiny; do job "sinks_${word%%:*}" pretrained_sinks -p models "$word" -p attention "$policies" -p stories "$READ" -p pages "$LONG" -p looked "$LOOKED" -p short "$SHORT" -p out "$OUT/pretrained_sinks"; done
wait
# each notebook once more, from the records alone
repro compare_models compare_models -p models "${told# }" -p stories "$STORIES" -p pages "$PAGES" -p measure False -p out "$OUT/compare_models"
repro pretrained_sinks pretrained_sinks -p models "$MODELS before tiny" -p attention "$policies" -p stories "$READ" -p pages "$LONG" -p looked "$LOOKED" -p short "$SHORT" -p measure False -p out "$OUT/pretrained_sinks"
if [ -s "$OUT/logs/failed" ]; then echo "finished, but not $(sort -u "$OUT/logs/failed" | xargs): start it again"; exit 1; fi
echo finished
