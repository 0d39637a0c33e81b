"""The record of `runs/speed.py`, of the file that it wrote or of what it printed.

python runs/speed_record.py FILE RECORD [--commit C] [--date D] [--torch V] [--card NAME] [--note TEXT]

FILE: PART.json, which says all the rest itself, or a log of the language model with the lines of before a file was written
after every way; then the options say what the log does not. Figures are means of the runs' medians with Student's
interval; the curves hold each run."""

import argparse
import io
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

from speed import by_way

from seed_story.records.estimates import student_mean
from seed_story.records.record import source_hash, write_record

ROOT = Path(__file__).resolve().parent.parent
WAY = re.compile(r'(.+): ([\d.]+) s a page(?:, ([\d.]+) ms a token, (\d+)% of the bandwidth; measured in (\d+) s)?')
PART = re.compile(r'(\w[^,\d]*) ([\d.]+) ms')


def read_log(text: str) -> list[dict]:
    "The runs of a log, as `runs/speed.py` writes them."
    runs: list[dict] = []
    row: dict = {}
    for line in text.splitlines():
        if 'of weights a token' in line:
            runs.append(dict(rows={}, seconds=0.0))
        elif found := WAY.fullmatch(line):
            name, seconds, token, share, took = found.groups()
            row = runs[-1]['rows'][name] = dict(seconds=[float(seconds)])
            if token:
                row.update(ms_a_token=float(token), share_of_bandwidth=int(share) / 100)
                runs[-1]['seconds'] += float(took)
        elif line.startswith('   ') and row:
            row['parts'] = {name.strip(): float(ms) / 1e3 for name, ms in PART.findall(line)}
        elif line.strip():
            raise ValueError(f'this is no line of runs/speed.py: {line!r}')
    return runs


def source_at(commit: str) -> str:
    "The hash of the package's sources at a commit."
    words = ['git', '-C', str(ROOT), 'archive', commit, 'seed_story']
    with tempfile.TemporaryDirectory() as scratch:
        packed = subprocess.run(words, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(scratch, filter='data')
        return source_hash(Path(scratch, 'seed_story'))


def curves_of(runs: list[dict]) -> dict[str, list[float]]:
    "Every figure of every way, one number a run."
    found: dict[str, list[float]] = {}
    for name, (seconds, ratios) in by_way(runs).items():
        found[f'{name}: s a page'] = seconds
        found[f'{name}: times faster'] = ratios
    for run in runs:
        for name, row in run['rows'].items():
            parts = {f'{part}: ms': 1e3 * s for part, s in row.get('parts', {}).items()}
            known = dict(parts, **{k: row[k] for k in ('ms_a_token', 'share_of_bandwidth') if k in row})
            for what, value in known.items():
                found.setdefault(f'{name}: {what}', []).append(value)
    return {name: [round(x, 5) for x in values] for name, values in found.items() if values}


def write(runs: list[dict], path: Path, command: str, **more) -> None:
    "The record of some runs; `more`: fields that the runs do not know themselves."
    first = runs[0]
    curves = curves_of(runs)
    figures = {name: student_mean(values, least=0) for name, values in curves.items()}
    known = dict(settings=first.get('given'), code=first.get('code'), versions=first.get('versions'))
    known |= dict(hardware=first.get('hardware'), curves=curves, unit='processes')
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = sum(run['seconds'] for run in runs)
    write_record(path, command, figures, len(runs), None, seconds, **(known | more))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('file', type=Path)
    parser.add_argument('record', type=Path)
    for name in ('commit', 'date', 'torch', 'card', 'note'):
        parser.add_argument(f'--{name}', default='')
    args = parser.parse_args()
    text = args.file.read_text('utf-8')
    more: dict = dict(notes=args.note) | (dict(date=args.date) if args.date else {})
    if args.file.suffix == '.json':
        runs = json.loads(text)['runs']
    else:
        runs = read_log(text)
        more |= dict(code=dict(source=source_at(args.commit), commit=args.commit, dirty=False))
        more |= dict(versions=dict(python='not noted', torch=args.torch), hardware=dict(gpu=args.card))
        more |= dict(settings=dict(part='language', sizes='paper', dtype='bfloat16', pages=8))
    write(runs, args.record, 'PARTS=language runs/speed.sh', **more)


if __name__ == '__main__':
    main()
