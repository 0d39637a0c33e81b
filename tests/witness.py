"""Two books that must not change when only the code's shape does: one by `tiny`, one by a toy of the `paper` preset.

    python tests/witness.py [--pages 6]     # prints a hash of every file of both books, and one of each book

The hashes hold for one machine and one set of library versions: compare two commits on the same machine."""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def book_hashes(folder: Path) -> dict[str, str]:
    "SHA-256 (16 digits) of story.jsonl, index.html and each picture of a book."
    files = sorted(
        p for p in folder.rglob('*') if p.is_file() and '.state' not in p.parts and not p.name.startswith('.')
    )
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in files}


def toy_paper(folder: Path) -> Path:
    "A model folder of the `paper` preset in miniature, with random weights of a fixed seed."
    from seed_story.models.presets import build, preset
    from seed_story.models.sequence import build_tokenizer
    from seed_story.pipeline.story_pipeline import StoryPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = preset('miniature')
        tokenizer = build_tokenizer(['A bear went to the sea.', 'The sea was wide and blue.'] * 8, 300, 16)
        parts = build(config, tokenizer)
    StoryPipeline(
        tokenizer=tokenizer, **parts, pages=4, **dict(config['pipeline'], num_inference_steps=2)
    ).save_pretrained(folder)
    return folder


def tell(folder: Path, *words: str) -> dict[str, str]:
    command = [
        sys.executable,
        '-c',
        'from seed_story.cli import main; main()',
        'tell',
        '--out',
        str(folder),
        '--quiet',
        *words,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return book_hashes(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--pages', type=int, default=6)
    pages = str(parser.parse_args().pages)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        Image.new('RGB', (64, 64), (200, 120, 40)).save(scratch / 'opening.png')
        opening = ('--image', str(scratch / 'opening.png'), '--text', 'A bear went to the sea.')
        books = dict(
            tiny=tell(scratch / 'tiny', '--pages', pages, '--seed', '1', '--threads', '1'),
            paper=tell(
                scratch / 'paper',
                '--pages',
                '4',
                '--seed',
                '1',
                '--threads',
                '1',
                '--model',
                str(toy_paper(scratch / 'toy')),
                *opening,
            ),
        )
    for name, hashes in books.items():
        for file, value in hashes.items():
            print(f'{name:6} {value} {file}')
        print(f'{name:6} {hashlib.sha256(repr(hashes).encode()).hexdigest()[:16]} (all)')


if __name__ == '__main__':
    main()
