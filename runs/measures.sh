#!/usr/bin/env bash
# The records of the ablations that measure models that exist: length, sinks_report (tiny), why_dense, attention_maps, anchors, sink_and_text, stage3 and write_first of nbs/repro.
# usage: runs/measures.sh [OUT]      environment:
#   PLAIN        folder of tiny's plainly trained counterpart (OUT of runs/tiny.sh without EVICTION); empty: it is left out
#   SMALL        small, if a folder is to take the place of the bundled one; "none": it is left out      SMALL_PLAIN  its plainly trained counterpart
#   CHECKPOINTS  more models for attention_maps, NAME:FOLDER in the order of training      LONGER  more models for why_dense, e.g. trained on longer chunks
#   STAGE3       variants for stage3, e.g. 'before=RUN/*.stage1 whole=RUN released=OTHER' (RUN as runs/tiny.sh leaves it); empty: shipped weights alone
#   GPUS (1) cards, JOBS (5) processes on each, LIMIT (3000) seconds: what has not begun by then is left for the next time, what runs is stopped
#   STORIES (100; visualised by the large models: half), SWEPT (16: stories of anchors and why_dense), PAGES (50), LONG (100: pages visualised by the large models), TOLD (50), DEVICE (cuda), WORKERS (3: processes that draw true pictures)
# Good records are kept, so it goes on where it was. One H200 with 16 cores, JOBS=11: all of tiny's but stage3 and attention_maps took 17 minutes, beside a training; a story told under one policy takes its process 90 to 210 s, the card's time being shared.
# One H200: `small` tells 100 stories of 50 pages under one policy in 210 to 1,440 s, and reads 50 of 100 pages in 23 to 520 s, with other processes on the card, which three of them keep busy; plain, 100 of 50 pages, in 57 to 182 and 20 to 83 s.
# A rehearsal on a CPU: DEVICE=cpu JOBS=1 WORKERS=0 STORIES=2 PAGES=12 TOLD=4 SMALL=none FEW=1 runs/measures.sh out/rehearsal
set -u
OUT=${1:-out/measures}; HERE=$(cd "$(dirname "$0")/.." && pwd); mkdir -p "$OUT/logs" "$OUT/notebooks"; OUT=$(cd "$OUT" && pwd)
PLAIN=${PLAIN:-} SMALL=${SMALL:-small} SMALL_PLAIN=${SMALL_PLAIN:-} CHECKPOINTS=${CHECKPOINTS:-} LONGER=${LONGER:-} STAGE3=${STAGE3:-} GPUS=${GPUS:-1} JOBS=${JOBS:-5} LIMIT=${LIMIT:-3000}
STORIES=${STORIES:-100} SWEPT=${SWEPT:-16} PAGES=${PAGES:-50} LONG=${LONG:-100} TOLD=${TOLD:-50} DEVICE=${DEVICE:-cuda} WORKERS=${WORKERS:-3} FEW=${FEW:-} SEED_STORY=${SEED_STORY:-seed-story}
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
began=$SECONDS n=0; : > "$OUT/logs/failed"
say() { echo "$((SECONDS - began)) s: $*"; }
repro() { # LOG NAME parameters…
  local log=${1//[^A-Za-z0-9_]/_} name=$2 left=$((LIMIT - SECONDS + began)) since=$SECONDS; shift 2
  if [ "$left" -le 5 ]; then say "not begun: $log"; echo "$log" >> "$OUT/logs/failed"; return 1; fi
  if timeout "$left" $SEED_STORY repro "$name" --out "$OUT/notebooks/$log.ipynb" "$@" > "$OUT/logs/$log.out" 2>&1; then say "done $log in $((SECONDS - since)) s"; else say "FAILED $log: $(tail -n 1 "$OUT/logs/$log.out")"; echo "$log" >> "$OUT/logs/failed"; return 1; fi
}
job() { # as repro, beside the others, on the next card
  while [ "$(jobs -rp | wc -l)" -ge $((GPUS * JOBS)) ]; do sleep 1; done
  n=$((n + 1))
  CUDA_VISIBLE_DEVICES=$((n % GPUS)) repro "$1" "$2" -p device "$DEVICE" -p oracle "$HERE/data/oracle" "${@:3}" &
}

paper='dense@clamped dense reencode:6 window:6 sink:6 multimodal:6 random:6'  # the paper's four at the positions where they were read, the release's way, and the controls
placed='sink:6@cache sink:6@clamped multimodal:6@cache multimodal:6@clamped random:6@cache random:6@clamped capped:pages=6,cap=8@clamped'
more='capped:pages=6,cap=8 capped:pages=6,cap=8@cache pinned:6 pinned:6@cache pinned:6@clamped heavy:pages=6,heavy=128 heavy:pages=6,heavy=128@cache heavy:pages=6,heavy=128@clamped multimodal:pages=6,sentences=1@clamped'
told='dense@clamped dense window:6 multimodal:6@clamped random:6@clamped' first='sink:6@cache reencode:6'
drawing='dense@clamped dense window:6 multimodal:6@clamped random:6@clamped' drawn='5 10 15 20 25 30 40 50'
control=random:6@clamped counts='0 1 2 4 8' windows='2 4 6 8 10' caps='1 2 4 8 16' dense='dense@clamped dense HALF window:6 multimodal:6@clamped random:6@clamped' leads='1 2 4 8'
swept='dense dense@clamped reencode:9 multimodal:pages=6,sentences=1@clamped multimodal:9@clamped'
for name in window:6 sink:6 multimodal:6 random:6 pinned:6 capped:pages=6,cap=8 heavy:pages=6,heavy=128; do swept="$swept $name $name@cache $name@clamped"; done
if [ -n "$FEW" ]; then control=random:2@clamped; swept=window:2; paper='dense@clamped dense window:2'; placed='multimodal:2@clamped random:2@clamped'; more=; told='dense@clamped random:2@clamped'; first=; drawing=dense@clamped; drawn='4 8'; counts='0 2'; windows=3; caps=2; dense='dense@clamped dense'; leads=1; fi

models=tiny; [ -n "$PLAIN" ] && models="$models plain:$PLAIN"
large=; [ "$SMALL" != none ] && { [ "$SMALL" = small ] && large=small || large="small:$SMALL"; }
[ -n "$SMALL_PLAIN" ] && large="$large small_plain:$SMALL_PLAIN"
lengths="$OUT/lengths" w="$WORKERS"

# what takes longest begins first: stories told by the large models, one policy a process
for word in $large; do
  for policy in $told $first; do job "length_${word%%:*}_tell_$policy" length -p models "$word" -p visualise '' -p tell "$policy" -p stories "$STORIES" -p told "$TOLD" -p batch 50 -p workers "$w" -p out "$lengths"; done
  for policies in "$paper" "$placed" "$more"; do [ -z "$policies" ] || job "length_${word%%:*}_${policies%% *}" length -p models "$word" -p visualise "$policies" -p tell '' -p stories $(((STORIES + 1) / 2)) -p pages "$LONG" -p drawing "$drawing" -p drawn '10 50 100' -p batch 50 -p workers "$w" -p out "$lengths"; done
done
for word in $models; do
  name=${word%%:*}; at=$drawn; [ "$name" = plain ] && at='10 50'
  for policy in $told $first; do job "length_${name}_tell_$policy" length -p models "$word" -p visualise '' -p tell "$policy" -p stories "$STORIES" -p told "$TOLD" -p workers "$w" -p out "$lengths"; done
  k=0; for policies in "$paper" "$placed" "$more"; do k=$((k + 1)); [ -z "$policies" ] || job "length_${name}_$k" length -p models "$word" -p visualise "$policies" -p tell '' -p stories "$STORIES" -p pages "$PAGES" -p drawing "$drawing" -p drawn "$at" -p workers "$w" -p out "$lengths"; done
done
for policy in $swept; do job "sinks_$policy" sinks_report -p oracle "$HERE/data/oracle/features" -p attention "$policy" -p stories "$STORIES" -p pages "$PAGES" -p pictures 20 -p out "$OUT/sinks"; done # tiny alone
half() { case "$1" in small*) echo "${dense/HALF/dense@clamped:600}";; *) echo "${dense/HALF/dense@clamped:240}";; esac; } # half of what the model was trained for
for word in $large $models; do # the large models' anchors with fewer counts
  name=${word%%:*}; some=$counts wide=$windows top=$caps
  case "$name" in small*) some='0 1 4'; wide='2 6'; top='1 8';; esac
  job "why_dense_$name" why_dense -p models "$word" -p dense "$(half "$word")" -p looked 'dense dense@clamped' -p window 6 -p leads "$leads" -p stories "$SWEPT" -p looking 2 -p pages "$PAGES" -p at "$(seq -s ' ' 5 5 "$PAGES")" -p workers "$w" -p out "$OUT/why_dense"
  job "anchors_$name" anchors -p models "$word" -p counts "$some" -p windows "$wide" -p caps "$top" -p window 6 -p stories "$SWEPT" -p pages "$PAGES" -p workers "$w" -p out "$OUT/anchors"
done
for word in $LONGER; do job "why_dense_${word%%:*}" why_dense -p models "$word" -p dense "$(half "$word")" -p looked 'dense dense@clamped' -p window 6 -p leads "$leads" -p stories "$SWEPT" -p looking 2 -p pages "$PAGES" -p at "$(seq -s ' ' 5 5 "$PAGES")" -p workers "$w" -p out "$OUT/why_dense"; done
for word in ${large%% *} tiny; do job "write_first_${word%%:*}" write_first -p models "$word" -p control "$control" -p stories "$STORIES" -p pages "$TOLD" -p out "$lengths"; done # its interleaved stories are told already
while [ "$(jobs -rp | wc -l)" -ge $((GPUS * JOBS)) ]; do sleep 1; done
maps() { for word in $models $large $CHECKPOINTS; do CUDA_VISIBLE_DEVICES=0 repro "attention_maps_${word%%:*}" attention_maps -p models "$word" -p stories 12 -p pages 6 -p device "$DEVICE" -p out "$OUT/attention_maps" || return 1; done; }
maps &
[ -n "$PLAIN" ] && drawer="plain:$PLAIN" || drawer=tiny
job stage3 stage3 -p model "$drawer" -p variants "${STAGE3:-after=tiny}" -p stories "$STORIES" -p pages "$((PAGES < 25 ? PAGES : 25))" -p drawn '2 5 10 15 20 25' -p workers "$w" -p out "$OUT/stage3"
wait

# each notebook once more, from the records alone
every="$models $large"; show() { repro "$@" -p measure False; }
show length length -p models "$every" -p visualise "$paper $placed $more" -p tell "$told $first" -p plotted "$paper multimodal:6@clamped random:6@clamped sink:6@cache" -p out "$lengths"
show why_dense why_dense -p models "$every $LONGER" -p dense "${dense/HALF/dense@clamped:240 dense@clamped:600}" -p looked 'dense dense@clamped' -p window 6 -p leads "$leads" -p out "$OUT/why_dense"
show attention_maps attention_maps -p models "$every $CHECKPOINTS" -p out "$OUT/attention_maps"
show anchors anchors -p models "$every" -p counts "$counts" -p windows "$windows" -p caps "$caps" -p window 6 -p pages "$PAGES" -p out "$OUT/anchors"
show sink_and_text sink_and_text -p models "$every" -p attention "$told $first" -p out "$lengths"
show sinks_report sinks_report -p attention "$swept" -p stories "$STORIES" -p pages "$PAGES" -p out "$OUT/sinks"
show write_first write_first -p models "tiny ${large%% *}" -p control "$control" -p out "$lengths"
if [ -s "$OUT/logs/failed" ]; then say "finished, but not $(sort -u "$OUT/logs/failed" | xargs): start it again"; exit 1; fi
say finished
