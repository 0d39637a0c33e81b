#!/usr/bin/env bash
# How `tiny` and `small` learn heroes of any name, stories of 10 to 30 pages, told page numbers, and facts that lie 29 pages back.
# Both go on from weights that there are, side by side, on new stories. The work may be cut into parts: each call ends after LIMIT seconds, the same call goes on.
# usage: runs/storytellers.sh [OUT]      environment:
#   STORE     page store (fast disk or memory: 1.5 MB a story)   STORIES (9984), SEED (200000) of the first, WORDINGS (32) of each, WORKERS (26) that draw, ENCODERS (6)
#   LIMIT     seconds of this call (560)          GPUS  2: a card each; 1: they share it      DEVICE (cuda)
#   TINY, SMALL   seconds of training in all calls together (880, 1070; 0 leaves it out). Not begun without its weights: `seed-story fetch small`
#   FROM_TINY, FROM_SMALL   pipeline folders whose language model is trained further (data/tiny, data/small), e.g. what BACK holds of a machine that is gone
#   BACK      folder that is given the newest weights as tar files, every two minutes and at the end
#   ADAPT     seconds of stage 3 (0: none), on features of the new `tiny`, when its seconds are over. DRAW: the folder of vae, unet and feature_resampler (data/tiny)
#             It takes some 80 s before its first step (latents, features, compiling), and comes back when it has ended: leave the last call ADAPT + 110 seconds after `tiny`
#   MEASURE   stories of 25 pages, of heroes with unseen names, told by both at last (0: none); records in OUT/measures
#   TINY_BATCH (64), SMALL_BATCH (16), TINY_LR (1.2e-3), SMALL_LR (8e-4), HOW: more options of both (TINY_HOW, SMALL_HOW: of one);  TINY_TOKENS, SMALL_TOKENS: of a chunk of 10 pages, and of 30
#   WARM      1: what is compiled is compiled while stories are drawn (PyTorch keeps it in OUT/cache); 0: not
# Four calls on two H200, for instance:
#   1. LIMIT=220 (stories, features; tiny begins)   2. LIMIT=560 (small begins as well)   3. ADAPT=150 LIMIT=560 (tiny ends, stage 3)   4. ADAPT=150 MEASURE=32 LIMIT=190
# A rehearsal (small wants 13 GB): DEVICE=cpu GPUS=1 WARM=0 STORIES=2 WORKERS=1 ENCODERS=1 TINY=20 SMALL=0 TINY_BATCH=2 ADAPT=5 ADAPT_BATCH=8 MEASURE=1 PAGES=5 LIMIT=500 runs/storytellers.sh out/rehearsal
set -euo pipefail
OUT=${1:-out/storytellers}; STORE=${STORE:-out/storytellers_pages}; STORIES=${STORIES:-9984}; WORDINGS=${WORDINGS:-32}; SEED=${SEED:-200000}; WORKERS=${WORKERS:-26}; LIMIT=${LIMIT:-560}; GPUS=${GPUS:-2}; DEVICE=${DEVICE:-cuda}
TINY=${TINY:-880}; SMALL=${SMALL:-1070}; DATA=${DATA:-data}; FROM_TINY=${FROM_TINY:-$DATA/tiny}; FROM_SMALL=${FROM_SMALL:-$DATA/small}; DRAW=${DRAW:-$DATA/tiny}; BACK=${BACK:-}; ADAPT=${ADAPT:-0}; MEASURE=${MEASURE:-0}
TINY_BATCH=${TINY_BATCH:-64}; SMALL_BATCH=${SMALL_BATCH:-16}; TINY_LR=${TINY_LR:-1.2e-3}; SMALL_LR=${SMALL_LR:-8e-4}; TINY_TOKENS=${TINY_TOKENS:-680 1960}; SMALL_TOKENS=${SMALL_TOKENS:-1152 3408}; WARM=${WARM:-1}
HOW=${HOW:---eviction multimodal+multimodal:sentences=1 --eviction-share .6 --long-pages 30 --long-share .3 --ending-share .15 --countdown-share .85 --repeated-weight 8}
TINY_HOW=${TINY_HOW:-$HOW}; SMALL_HOW=${SMALL_HOW:-$HOW}
ADAPTED=${ADAPTED:-$((STORIES < 1536 ? STORIES : 1536))}; ENCODERS=${ENCODERS:-6}; WARMED=${WARMED:-128}; PAGES=${PAGES:-25}; SEED_STORY=${SEED_STORY:-seed-story}; PYTHON=${PYTHON:-python3}
mkdir -p "$OUT/logs"; OUT=$(realpath "$OUT"); mkdir -p "$STORE"; STORE=$(realpath "$STORE"); began=$SECONDS
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 TORCHDYNAMO_SUPPRESS_ERRORS=1 TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$OUT/cache}
past() { echo $((SECONDS - began)); }
say() { echo "$(past) s: $*"; }
run() {  # run LOG CARD WORD...: a command that takes the place of this process
  local log=$OUT/logs/$1 card=$2; shift 2
  if [ "$GPUS" -gt 1 ]; then export CUDA_VISIBLE_DEVICES=$card; fi
  exec $SEED_STORY train "$@" --store "$STORE" >> "$log.out" 2>&1
}
ended() { [ -f "$OUT/$1/mllm/training.json" ] && [ ! -d "$OUT/$1/checkpoints/mllm" ]; }
options() {  # options NAME: of its training, but for how long
  local of; case $1 in
    tiny) of="$TINY_BATCH --lr $TINY_LR --workers 10 $TINY_HOW"; from=$FROM_TINY; tokens=$TINY_TOKENS;;
    small) of="$SMALL_BATCH --lr $SMALL_LR --workers 5 $SMALL_HOW"; from=$FROM_SMALL; tokens=$SMALL_TOKENS;;
  esac
  words=(mllm --preset "$1" --device "$DEVICE" --init-from "$from" --chunk-tokens "$tokens" --seed "$SEED" --save-seconds ${SAVE:-60} --batch $of)
}
card() { if [ "$1" = small ]; then echo 1; else echo 0; fi; }
wanted() { case $1 in tiny) [ "$TINY" != 0 ];; small) [ "$SMALL" != 0 ] && $PYTHON -c "import sys; from seed_story.models.fetch import find_fetched; sys.exit(find_fetched('small') is None)";; esac; }
back() {
  [ -n "$BACK" ] || return 0; mkdir -p "$BACK"; local name
  for name in tiny small; do
    if [ -f "$OUT/$name/mllm/config.json" ] && tar cf "$OUT/part.tar" -C "$OUT" "$name/mllm" "$name/tokenizer"; then mv "$OUT/part.tar" "$BACK/$name.tar"; fi
  done
  for name in unet feature_resampler; do if [ -f "$OUT/adapted" ] && tar cf "$OUT/part.tar" -C "$OUT" "tiny/$name"; then mv "$OUT/part.tar" "$BACK/$name.tar"; fi; done
  tar czf "$OUT/part.tar" -C "$OUT" $(cd "$OUT" && ls -d logs */logs measures 2>/dev/null) && mv "$OUT/part.tar" "$BACK/logs.tgz"
}
declare -A pid=()
begin() {  # begin NAME: its training goes on, if it has not ended
  local name=$1 from tokens words seconds; options "$name"; if [ "$name" = tiny ]; then seconds=$TINY; else seconds=$SMALL; fi
  (run "$name" "$(card "$name")" "${words[@]}" --out "$OUT/$name" --stories "$STORIES" --seconds "$seconds") & pid[$name]=$!
  say "$name goes on"
}
warm() {  # warm NAME: a few steps on the first stories, of both lengths of chunks, with and without gradients
  local name=$1 from tokens words; options "$name"
  (run "warm_$name" "$(card "$name")" "${words[@]}" --out "$OUT/warm_$name" --stories "$WARMED" --steps "${WARM_STEPS:-12}" --long-share .5 --scheduled-sampling 1) || say "$name could not be compiled beforehand: $(tail -n 1 "$OUT/logs/warm_$name.out")"
  rm -rf "$OUT/warm_$name"
}
warm_all() {
  (run encode 0 encode --out "$DRAW" --what features --device "$DEVICE" --stories "$WARMED" --wait 120) || return 0
  local name; for name in tiny small; do if wanted "$name" && ! ended "$name"; then warm "$name" & fi; done; wait; say compiled
}
if [ ! -f "$STORE/all" ]; then
  (run render 0 render --pages 10-30 --names any --wordings "$WORDINGS" --stories "$STORIES" --seed "$SEED" --workers "$WORKERS") & drawing=$!
  if [ "$WARM" = 1 ]; then warm_all & warming=$!; fi
  wait "$drawing"; say "$STORIES stories are drawn"
  encoding=(); for k in $(seq 0 $((ENCODERS - 1))); do (run "encode_$k" $((k % 2)) encode --out "$DRAW" --what features --device "$DEVICE" --stories "$STORIES" --part "$k/$ENCODERS") & encoding+=($!); done
  for process in "${encoding[@]}"; do wait "$process"; done; say "features are there"; touch "$STORE/all"
  [ -z "${warming:-}" ] || wait "$warming"
fi
for name in tiny small; do if wanted "$name" && ! ended "$name"; then begin "$name"; fi; done
adapt() {  # stage 3 on what the new tiny regresses
  local part; for part in visual_tokenizer vae unet feature_resampler; do
    [ -d "$OUT/tiny/$part" ] || $PYTHON -c "import sys; from seed_story.story.packed import unpack_folder; unpack_folder(*sys.argv[1:])" "$DRAW/$part" "$OUT/tiny/$part"
  done
  (run adapt 0 encode --out "$OUT/tiny" --what latents --device "$DEVICE" --stories "$ADAPTED")
  (run adapt 0 adapt --out "$OUT/tiny" --stories "$ADAPTED" --device "$DEVICE" --seconds "$ADAPT" --seed "$SEED" --batch "${ADAPT_BATCH:-256}" --thing-share .4 --thing-weight 5 --character-weight 2 --condition-dropout .05) && touch "$OUT/adapted"
}
saved=$(past); adapting=
while [ "$(past)" -lt $((LIMIT - 15 - (MEASURE > 0 ? ${MEASURING:-120} : 0))) ]; do
  for name in "${!pid[@]}"; do
    if ! kill -0 "${pid[$name]}" 2> /dev/null; then wait "${pid[$name]}" && say "$name has ended" || say "$name: $(tail -n 1 "$OUT/logs/$name.out")"; unset "pid[$name]"; fi
  done
  if [ "$ADAPT" != 0 ] && ended tiny && [ ! -f "$OUT/adapted" ] && [ -z "$adapting" ]; then say "stage 3"; adapt & adapting=$!; fi
  [ -z "$adapting" ] || kill -0 "$adapting" 2> /dev/null || { wait "$adapting" && say "stage 3 has ended" || say "stage 3: $(tail -n 1 "$OUT/logs/adapt.out")"; adapting=; }
  [ "${#pid[@]}" -gt 0 ] || [ -n "$adapting" ] || break
  if [ $(($(past) - saved)) -ge 120 ]; then back; saved=$(past); fi
  sleep 2
done
for name in "${!pid[@]}"; do kill -TERM "${pid[$name]}" 2> /dev/null || true; done
for name in "${!pid[@]}"; do wait "${pid[$name]}" || say "$name: $(tail -n 1 "$OUT/logs/$name.out")"; done
if [ -n "$adapting" ]; then pkill -TERM -P "$adapting" || true; wait "$adapting" || say "stage 3 is not at its end: $(tail -n 1 "$OUT/logs/adapt.out")"; fi
back
measure() {  # measure NAME POLICY...: told features, read by the oracle of features; a record for each policy
  if [ "$GPUS" -gt 1 ]; then export CUDA_VISIBLE_DEVICES=$(card "$1"); fi
  exec timeout $((LIMIT - $(past) - 5)) $PYTHON - "$OUT" "$DATA" "$DEVICE" "$MEASURE" "$PAGES" "$@" > "$OUT/logs/measure_$1.out" 2>&1 << 'END'
import sys
import time
from pathlib import Path

from seed_story.evaluation.generate import draw_openings, tell_features, test_seeds
from seed_story.evaluation.metrics import evaluate_stories
from seed_story.pipeline.loading import fingerprint
from seed_story.pipeline.story_pipeline import StoryPipeline
from seed_story.records.record import write_record
from seed_story.story.format import Page, Story
from seed_story.storyland.oracle import FeatureOracle

out, data, device, stories, pages, name, *policies = sys.argv[1:]
pages = int(pages)
pipe = StoryPipeline.from_pretrained(f"{out}/told/{name}").to(device)
oracle = FeatureOracle.from_pretrained(f"{data}/oracle/features").to(device).eval()
seeds = test_seeds(int(stories))
given = draw_openings(seeds, names="unseen")
for policy in policies:
    began = time.time()
    texts, features = tell_features(pipe, given, pages, policy, seeds, batch=50)
    read = oracle.read(features.flatten(0, 1).float())
    told = [Story([Page(text) for text in story], id=seed) for story, seed in zip(texts, seeds)]
    readings = [read[k * pages : (k + 1) * pages] for k in range(len(told))]
    chosen = dict(model=name, weights=fingerprint(pipe), attention=policy, stories=len(told), pages=pages, names="unseen")
    figures = evaluate_stories(told, pages=pages, readings=readings)
    file = Path(out, "measures", f"{name}_{policy.replace(':', '_')}.json")
    command = f"MEASURE={len(told)} runs/storytellers.sh"
    write_record(file, command, figures, len(told), seeds[0], time.time() - began, settings=chosen | dict(device=device))
    file.with_suffix(".txt").write_text("\n\n".join("\n".join(story) for story in texts))
    print(name, policy, {k: (round(v.value, 3), v.count) for k, v in figures.items()}, flush=True)
END
}
if [ "$MEASURE" != 0 ]; then
  measuring=()
  for name in tiny small; do if [ -f "$OUT/$name/mllm/config.json" ] && wanted "$name"; then
    for part in tiny "$name"; do [ -d "$OUT/told/$part" ] || { mkdir -p "$OUT/told"; cp -r "$DATA/$part" "$OUT/told/"; }; done
    rm -rf "$OUT/told/$name/mllm"; cp -r "$OUT/$name/mllm" "$OUT/told/$name/"
    if [ "$name" = tiny ]; then policies=${POLICIES_TINY:-dense@clamped:1900 dense@clamped multimodal:6@clamped}; else policies=${POLICIES_SMALL:-dense@clamped:3300 multimodal:6@clamped}; fi
    (measure "$name" $policies) & measuring+=($!)
  fi; done
  for process in "${measuring[@]}"; do wait "$process" || say "not all is measured"; done; tail -qn 1 "$OUT"/logs/measure_*.out | cut -c1-900; back
fi
say "$(for name in tiny small; do if [ -f "$OUT/$name/mllm/training.json" ]; then echo "$name: $(tail -n 1 "$OUT/$name/logs/mllm.jsonl")"; fi; done)"
