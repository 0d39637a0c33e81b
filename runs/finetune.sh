#!/usr/bin/env bash
# A series that is not Storyland, learned on one GPU: losses, sheets and told books of tiny and small after some minutes of training each.
# usage: runs/finetune.sh [OUT]      environment:
#   DATA (the robot of nbs/tutorials/05_your_own_series.ipynb; or a StoryStream folder)      MODELS ("tiny small"; or folders)
#   MINUTES ("1 4")      STEPS (of each stage, instead of minutes)      DEVICE (cuda)      PAGES (10)      SEEDS ("1 2 3")
# On one H200: runs/finetune.sh out/finetune. Some 20 minutes with what is above; not yet timed on a GPU. It goes on where it was when it is given again.
# A rehearsal on a busy core (6 minutes): DEVICE=cpu MODELS=tiny STEPS=2 MINUTES=1 PAGES=2 SEEDS=1 runs/finetune.sh out/rehearsal
set -u
OUT=${1:-out/finetune}; HERE=$(cd "$(dirname "$0")/.." && pwd); mkdir -p "$OUT/logs"; OUT=$(cd "$OUT" && pwd)
MODELS=${MODELS:-tiny small} MINUTES=${MINUTES:-1 4} STEPS=${STEPS:-} DEVICE=${DEVICE:-cuda} PAGES=${PAGES:-10} SEEDS=${SEEDS:-1 2 3} DATA=${DATA:-$OUT/mine}
SEED_STORY=${SEED_STORY:-seed-story}
export OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
if [ ! -e "$DATA" ]; then # the cells of the tutorial that draw the pages and write them
  python - "$HERE/nbs/tutorials/05_your_own_series.ipynb" "$DATA" <<'PYTHON' || exit 1
import json
import shutil
import sys

drawn: dict = {}
for cell in json.load(open(sys.argv[1], encoding='utf-8'))['cells']:
    if cell['cell_type'] == 'code':
        exec(''.join(cell['source']), drawn)
    if 'data' in drawn:
        break
shutil.copytree(drawn['folder'] / 'mine', sys.argv[2])
PYTHON
fi
failed=''
for model in $MODELS; do
  for minutes in $MINUTES; do
    name=$(basename "$model")_$minutes; log=$OUT/logs/$name
    $SEED_STORY finetune "$DATA" --from "$model" --out "$OUT/$name" --minutes "$minutes" ${STEPS:+--steps $STEPS} --device "$DEVICE" --adapter-only > "$log" 2>&1 || { echo "FAILED $name: $(tail -n 1 "$log")"; failed="$failed $name"; continue; }
    echo "== $name"; grep -E 'pages learned|held-out|adapter:' "$log"
    for seed in $SEEDS; do
      book=$OUT/books/${name}_$seed
      [ -d "$book" ] || $SEED_STORY tell --adapter "$OUT/$name/adapter" --pages "$PAGES" --seed "$seed" --device "$DEVICE" --out "$book" --quiet >> "$log" 2>&1 || { echo "FAILED to tell $book: $(tail -n 1 "$log")"; failed="$failed $book"; }
    done
    cp "$OUT/$name/before_after.png" "$OUT/$name.png"
  done
done
[ -z "$failed" ] || { echo "not done:$failed: start it again"; exit 1; }
echo "finished: $OUT/*.png and $OUT/books"
