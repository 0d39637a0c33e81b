"""Where the CPU seconds and the memory of `seed-story tell` go, stage by stage, one thread, one stage after the other.

python runs/start.py [--model tiny] [--pages 8]     # CPU seconds: what a busy machine hardly changes"""

import argparse
import json
import resource
from collections.abc import Callable

STAGES: dict[str, tuple[float, int]] = {}  # name → CPU seconds, peak memory in MB after it


def used() -> tuple[float, int]:
    "CPU seconds and peak memory (MB; ru_maxrss counts kB on Linux) of this process so far."
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime + now.ru_stime, now.ru_maxrss // 1024


def stage(name: str, make: Callable[[], object]):
    "What `make` gives; its cost is noted."
    before = used()[0]
    result = make()
    after, peak = used()
    STAGES[name] = round(after - before, 2), peak
    return result


def command() -> None:
    import seed_story.cli
    import seed_story.pipeline.tell  # noqa: F401


def libraries() -> None:
    from seed_story.pipeline.imports import import_little

    import_little()
    import seed_story.pipeline.story_pipeline  # noqa: F401


def told(pipe, opening, pages: int) -> list:
    "The pages after the opening, without pictures."
    return [page for page in pipe.narrate(*opening, pages, seed=1)][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='tiny')
    parser.add_argument('--pages', type=int, default=8)
    options = parser.parse_args()
    STAGES['Python'] = round(used()[0], 2), used()[1]
    stage('the command', command)
    from seed_story.pipeline import tell

    with tell.collection_paused():
        stage('torch', lambda: __import__('torch'))
        stage('transformers, diffusers', libraries)
        opening = tell.bundled_opening(tell.model_folder(options.model))
        pipe = stage('weights unpacked and loaded', lambda: tell.load_pipeline(options.model))
    settings = stage(
        'checks', lambda: tell.story_settings(pipe, [opening], tell.TellOptions(), None) | dict(x=pipe.check_drawing())
    )
    with tell.torch_threads(settings['threads']):
        pages = stage('texts', lambda: told(pipe, opening, options.pages))
        nothing = pipe.unconditional()
        one_by_one = lambda: [pipe.illustrate(page.features[None], [1], unconditional=nothing) for page in pages]  # noqa: E731
        stage('pictures', one_by_one)
    for name, (seconds, peak) in STAGES.items():
        print(f'{name:30} {seconds:6.2f} s of CPU   {peak:5} MB at most so far')
    print(json.dumps(dict(pages=len(pages), stages=STAGES)))


if __name__ == '__main__':
    main()
