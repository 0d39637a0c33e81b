"""What `seed-story tell` takes on this machine: 25 pages, in fresh processes, one after the other; a record with the spread.

python runs/laptop.py [OUT] [--model tiny] [--times 5] [--pages 25] [--cores 2]     # OUT: data/results/laptop

Seconds count from the start of the process: to the first told page in index.html, and to the end. CPU seconds and peak
memory are of the whole process, as the system counted them. One process tells and draws; it has no children. The first
time is left out of the record: it reads the libraries from the disk. A machine that does other things gives its CPU
seconds and its memory, not its seconds."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = 'import sys; from seed_story.cli import main; main()'
FIGURES = ('seconds', 'seconds to the first told page', 'CPU seconds', 'MB')


def is_shown(book: Path, page: int) -> bool:
    "Is `index.html` newer than the picture of this page (0: the first)?"
    try:
        return (book / 'index.html').stat().st_mtime_ns > (book / f'images/{page:04d}.png').stat().st_mtime_ns
    except FileNotFoundError:
        return False


def told(model: str, pages: int, seed: int, cores: int) -> dict[str, float]:
    "One story by a fresh process: its `FIGURES`."
    with tempfile.TemporaryDirectory() as scratch:
        book = Path(scratch, 'book')
        words = [sys.executable, '-c', COMMAND, 'tell', '--quiet', '--model', model, '--pages', str(pages)]
        words += ['--seed', str(seed), '--out', str(book)]
        paths = [str(ROOT), *os.environ.get('PYTHONPATH', '').split(os.pathsep)]
        env = os.environ | dict(PYTHONPATH=os.pathsep.join(filter(None, paths)))
        usable = sorted(os.sched_getaffinity(0))[:cores]
        with open(Path(scratch, 'said'), 'w+') as said:
            began = time.monotonic()
            child = subprocess.Popen(words, env=env, stdout=said, stderr=said, cwd=scratch)
            os.sched_setaffinity(child.pid, usable)
            first = None
            while not (ended := os.wait4(child.pid, os.WNOHANG))[0]:
                if first is None and is_shown(book, 1):
                    first = time.monotonic() - began
                time.sleep(0.01)
            seconds = time.monotonic() - began
            child.returncode = os.waitstatus_to_exitcode(ended[1])
            if child.returncode:
                said.seek(0)
                raise SystemExit(said.read())
    used = ended[2]
    figures = seconds, seconds if first is None else first, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
    return dict(zip(FIGURES, figures))


def write(args: argparse.Namespace, rows: list[dict[str, float]], seconds: float) -> None:
    "The record: the mean of each figure with its 95 % interval, all values as curves."
    from seed_story.pipeline.loading import fingerprint, load_pipeline
    from seed_story.records.estimates import student_mean
    from seed_story.records.record import write_record

    curves = {name: [round(row[name], 3) for row in rows] for name in FIGURES}
    figures = {name: student_mean(values, least=0) for name, values in curves.items()}
    settings = dict(model=args.model, pages=args.pages, cores=args.cores, weights=fingerprint(load_pipeline(args.model)))
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f'{args.model}.json'
    command = f'python runs/laptop.py --model {args.model} --times {args.times} --pages {args.pages}'
    more = dict(settings=settings, curves=curves, unit='processes')
    write_record(path, command, figures, len(rows), args.seed, seconds, **more)
    print(f'{path}: ' + ', '.join(f'{name} {figure}' for name, figure in figures.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, nargs='?', default=ROOT / 'data' / 'results' / 'laptop')
    parser.add_argument('--model', default='tiny', help='a bundled model')
    parser.add_argument('--times', type=int, default=5)
    parser.add_argument('--pages', type=int, default=25)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--cores', type=int, default=2)
    args = parser.parse_args()
    began = time.monotonic()
    rows = []
    for number in range(-1, args.times):
        row = told(args.model, args.pages, args.seed, args.cores)
        print('warm' if number < 0 else number + 1, ', '.join(f'{name} {row[name]:.2f}' for name in FIGURES), flush=True)
        rows += [row] if number >= 0 else []
    write(args, rows, time.monotonic() - began)


if __name__ == '__main__':
    main()
