"""Seconds a page with random weights: see runs/speed.sh. Every figure is a median with its spread, and a ratio.

The file is written after every way. A further call adds a further run to it; a run that was stopped keeps its ways."""

import argparse
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from seed_story.models.presets import build, preset
from seed_story.models.sequence import build_tokenizer
from seed_story.pipeline import narrate as narrating
from seed_story.records.record import code_state, describe_hardware, installed_versions
from seed_story.story.files import write_atomic

WORDS = 'A bear went to the sea. The sea was wide and blue.'
TEXT_TOKENS = 40  # of a page
IN_MEMORY = 8  # pages, before the first one that is timed
SLOW_PAGES = 4  # of a way that waits for its launches
PARTED_PAGES = 3  # whose parts are timed, each with a wait before and after it
PARTS = dict(  # functions of `narrate` that make up a page
    begin_page='pages that are read',
    begin_text='before the text',
    generate_text='text',
    regress_image='slots',
    with_image_embeds='image embeddings',
)


Row = tuple[str, dict]  # what is written of a way, by its name


def is_chosen(name: str, options) -> bool:
    "Whether a way of this name is to be measured: all are, unless `ways` has words; then those with one of them."
    return not options.ways or bool({*options.ways} & {*re.split('[ ,]+', name)})


def clocked(make, device: str) -> float:
    "Seconds that `make` takes, the device's work included."
    if device != 'cpu':
        torch.cuda.synchronize()
    began = time.perf_counter()
    make()
    if device != 'cpu':
        torch.cuda.synchronize()
    return time.perf_counter() - began


def told(pages, count: int, device: str) -> list[float]:
    "Seconds of each of the last of `count` pages: the first ones make room and record."
    seconds = [clocked(lambda: next(pages), device) for _ in range(count)]
    return seconds[len(seconds) // 2 :]


@contextmanager
def parts_clocked(device: str) -> Iterator[dict[str, list[float]]]:
    "Seconds of every call of each of the `PARTS`, while this lasts."
    found: dict[str, list[float]] = {part: [] for part in PARTS.values()}
    usual = {name: getattr(narrating, name) for name in PARTS}

    def timed(name):
        def call(*args, **given):
            result = []
            seconds = clocked(lambda: result.append(usual[name](*args, **given)), device)
            found[PARTS[name]].append(seconds)
            return result[0]

        return call

    for name in PARTS:
        setattr(narrating, name, timed(name))
    try:
        yield found
    finally:
        for name, function in usual.items():
            setattr(narrating, name, function)


def copy_bandwidth(device: str) -> float:
    "Bytes a second that are read and written when a large tensor is copied."
    size = 2**31 if device != 'cpu' else 2**26
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * size / min(clocked(lambda: target.copy_(source), device) for _ in range(5))


def made(options, parts: list[str] | None) -> tuple:
    "Tokenizer and components (None: all) of random weights, on the device."
    config = preset(options.sizes)
    config['mllm']['lora'] = None
    tokenizer = build_tokenizer([WORDS] * 8, 400, config['num_slots'])
    missing = config['mllm']['llm_config']['vocab_size'] - len(tokenizer)
    tokenizer.add_tokens([f'word{k}' for k in range(max(0, missing))])
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, options.dtype))
    try:
        with torch.device(options.device):
            found = build(config, tokenizer, only=parts)
    finally:
        torch.set_default_dtype(before)
    models = {k: v for k, v in found.items() if hasattr(v, 'parameters')}
    for module in models.values():
        module.to(options.device, getattr(torch, options.dtype)).eval()
    return config, tokenizer, found


class Language:
    "The language model of random weights, and pages that it tells."

    def __init__(self, options):
        config, self.tokenizer, found = made(options, ['mllm'])
        self.mllm = found['mllm']
        self.options = options
        self.device = options.device
        self.slots = config['num_slots']
        seen = config['mllm']['input_resampler']
        grid = config['mllm']['output_resampler']['grid_size']
        shape = (max(options.batches), grid * grid, seen.get('kv_dim') or seen['embed_dim'])
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(shape, generator=generator).to(self.device, self.mllm.dtype)
        self.bandwidth = copy_bandwidth(self.device)
        embedded = self.mllm.get_input_embeddings().weight
        ends = [self.tokenizer.eos_token_id, self.tokenizer.convert_tokens_to_ids('<img>')]
        self.mllm.llm.get_output_embeddings().weight.data[ends] = 0  # no text ends before its last token
        weights = {id(p): p.nbytes for p in self.mllm.llm.parameters()}
        output = self.mllm.llm.get_output_embeddings().weight
        self.read_bytes = sum(weights.values()) - (embedded.nbytes if embedded is not output else 0)  # for a token

    def pages(self, writer, attention: str, stories: int, count: int):
        "So many new pages of each story, behind those that are in memory."
        from seed_story.sinks.policies import attention_policy

        narrator = narrating.Narrator(self.mllm, self.tokenizer)
        narrator.writer = writer
        ids = narrator.encode_text((WORDS + ' ') * 4).ids[:TEXT_TOKENS]
        known = [
            [narrating.NarratedPage(f'{number}', ids, f) for f in self.features[:stories]]
            for number in range(IN_MEMORY - 1)
        ]
        sampling = narrating.Sampling(max_text_tokens=TEXT_TOKENS, min_text_tokens=TEXT_TOKENS)
        rows = narrating.narrate(
            narrator,
            [WORDS] * stories,
            self.features[:stories],
            IN_MEMORY + count,
            attention_policy(attention),
            sampling,
            known_pages=known,
        )
        for _ in range(IN_MEMORY):
            next(rows)
        return rows

    def measure(self, writer, attention: str, stories: int, count: int) -> dict:
        "Seconds a page, its parts, milliseconds a token, and the share of the bandwidth that a token's reading has."
        pages = self.pages(writer, attention, stories, count + PARTED_PAGES)
        seconds = told(pages, count, self.device)
        with parts_clocked(self.device) as parts:
            for _ in range(PARTED_PAGES):
                next(pages)
        token = median(parts['text']) / TEXT_TOKENS
        found = dict(seconds=[s / stories for s in seconds], ms_a_token=1e3 * token)
        found['parts'] = {name: median(calls) for name, calls in parts.items() if calls}
        return found | dict(share_of_bandwidth=self.read_bytes / token / self.bandwidth)


def language_ways(options, narrator) -> list[tuple[str, object, str, int, int]]:
    "(name, writer, attention, stories, pages) of each way to write, those first that matter most."
    from seed_story.pipeline.graphs import TextWriter

    graph = TextWriter(narrator)
    fused = TextWriter(narrator, fuse=options.fuse) if options.fuse else None
    ways = [
        *(('graph', graph, 'reencode:8', stories, options.pages) for stories in options.batches[:1]),
        *([('fused', fused, 'reencode:8', 1, options.pages)] if fused else []),
        ('graph', graph, 'window:8', 1, options.pages),
        *(('graph', graph, 'reencode:8', stories, options.pages) for stories in options.batches[1:]),
        ('buffers', TextWriter(narrator, graphs=False), 'reencode:8', 1, SLOW_PAGES),
        ('eager', None, 'reencode:8', 1, SLOW_PAGES),
    ]
    return [(f'{attention} {way} × {stories}', writer, attention, stories, n) for way, writer, attention, stories, n in ways]


@torch.no_grad()
def language(options) -> Iterator[Row]:
    "The language model: texts of 40 tokens, pictures' features, and what is read between the pages."
    model = Language(options)
    print(f'{model.read_bytes / 1e9:.2f} GB of weights a token, {model.bandwidth / 1e12:.2f} TB/s when copied')
    narrator = narrating.Narrator(model.mllm, model.tokenizer)
    steps = TEXT_TOKENS + model.slots + 1  # the release writes its image tokens one by one
    if is_chosen('released', options):  # before a writer changes how the model computes
        pages = narrating.narrate_as_released(narrator, WORDS, model.features[:1], IN_MEMORY + 2, IN_MEMORY, steps)
        seconds = told(pages, IN_MEMORY + 2, model.device)[-2:]
        print(f'released: {median(seconds):.4f} s a page')
        yield 'released', dict(seconds=seconds)
    for name, writer, attention, stories, count in language_ways(options, narrator):
        if not is_chosen(name, options):
            continue
        try:
            row = model.measure(writer, attention, stories, count)
        except Exception as error:  # a way that fails on this card must not cost the others' figures
            print(f'{name}: not measured: {type(error).__name__}: {str(error).splitlines()[0]}')
            continue
        print(f'{name}: {median(row["seconds"]):.4f} s a page, {row["ms_a_token"]:.2f} ms a token, ', end='')
        print(f'{row["share_of_bandwidth"]:.0%} of the bandwidth')
        print('   ' + ', '.join(f'{part} {1e3 * s:.1f} ms' for part, s in row['parts'].items()))
        yield name, row


def picture_ways(found: dict, steps: int) -> Iterator[tuple[str, object, int, int]]:
    "(name, parts, steps, pictures at once) of each way to draw."
    from diffusers import DPMSolverMultistepScheduler

    from seed_story.models.detokenizer import DetokenizerParts, Shortcuts
    from seed_story.pipeline.graphs import GraphedDrawing

    plain = DetokenizerParts(found['feature_resampler'], found['unet'], found['vae'], found['scheduler'])
    drawing = GraphedDrawing(found['unet'], found['vae'])
    graphs = plain._replace(unet=drawing.unet, vae=drawing.vae)
    yield 'eager', plain, steps, 1
    yield 'graphs', graphs, steps, 1
    yield 'graphs, guided in the first half', graphs._replace(shortcuts=Shortcuts(guidance_stop=0.5)), steps, 1
    yield 'graphs, deep features of every 3rd step', graphs._replace(shortcuts=Shortcuts(cache_interval=3)), steps, 1
    solver = DPMSolverMultistepScheduler.from_config(found['scheduler'].config, use_karras_sigmas=True)
    yield 'graphs, DPM-Solver++', graphs._replace(scheduler=solver), max(1, steps * 2 // 5), 1
    yield 'graphs, DPM-Solver++', graphs._replace(scheduler=solver), max(1, steps // 5), 1
    yield 'graphs', graphs, steps, 4


@torch.no_grad()
def pictures(options) -> Iterator[Row]:
    "The de-tokenizer: guided steps and the VAE, plain and as graphs, with less work, and several at once."
    from seed_story.models.detokenizer import detokenize

    config, _, found = made(options, ['feature_resampler', 'unet', 'vae', 'scheduler'])
    width = config['feature_resampler']['embedding_dim']
    features = torch.randn(1, 64, width, generator=torch.Generator().manual_seed(0))
    features = features.to(options.device, getattr(torch, options.dtype))
    for way, parts, steps, count in picture_ways(found, options.steps):

        def draw(output, steps=steps):
            generators = [torch.Generator().manual_seed(number) for number in range(count)]
            nothing = torch.zeros_like(features)
            detokenize(features.expand(count, -1, -1), parts, nothing, steps, 7.5, generators, output=output)

        for output in ('latent', 'pt'):
            name = f'{way}, {steps} steps{", VAE" if output == "pt" else ""}{f", {count} at once" if count > 1 else ""}'
            if not is_chosen(name, options):
                continue
            try:
                first = clocked(lambda: draw(output), options.device)  # plans, and records
                seconds = [clocked(lambda: draw(output), options.device) / count for _ in range(3)]
            except Exception as error:  # random weights may give no finite picture; another way may
                print(f'{name}: not measured: {type(error).__name__}: {str(error).splitlines()[0]}')
                continue
            row = dict(seconds=seconds, first=first, ms_a_step=1e3 * median(seconds) / steps)
            print(f'{name}: {median(seconds):.3f} s a picture, {row["ms_a_step"]:.1f} ms a step; first {first:.1f} s')
            yield name, row


def story(options) -> Iterator[Row]:
    "Pages end to end, picture and all: eager; with graphs, one thing after the other; each picture beside a later text."
    from diffusers import DPMSolverMultistepScheduler
    from PIL import Image

    from seed_story.pipeline.story_pipeline import StoryPipeline

    _, tokenizer, found = made(options, None)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids('<img>')]
    found['mllm'].llm.get_output_embeddings().weight.data[ends] = 0  # no text ends before its last token
    texts = dict(min_text_tokens=TEXT_TOKENS, max_text_tokens=TEXT_TOKENS, repetition_tries=0)
    pipe = StoryPipeline(tokenizer=tokenizer, **found, **texts, attention='reencode:8', num_inference_steps=options.steps)
    fast = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    few = max(1, options.steps * 2 // 5)
    for way, steps, beside in (
        ('eager', options.steps, False),
        ('graphs', options.steps, False),
        ('graphs, beside', options.steps, True),
        ('graphs, beside, DPM-Solver++', few, True),
    ):
        if way == 'graphs':
            pipe.compile()
        if steps == few:
            pipe.scheduler = fast
        pipe.draws_beside = lambda beside=beside: beside
        name = f'{way}, {steps} steps'
        if not is_chosen(name, options):
            continue
        count = 4 if way == 'eager' else 2 * options.pages
        try:
            pages = pipe.stream(Image.new('RGB', (64, 64)), WORDS, count + 1, seed=0, num_inference_steps=steps)
            next(pages)  # the opening
            seconds = told(pages, count, 'cpu')  # a picture is on the CPU already; to wait would end the overlap
        except Exception as error:
            print(f'{name}: not measured: {type(error).__name__}: {str(error).splitlines()[0]}')
            continue
        print(f'{name}: {median(seconds):.3f} s a page')
        yield name, dict(seconds=seconds)


def known_runs(path: Path) -> list[dict]:
    "What earlier calls have written to `path`."
    return json.loads(path.read_text('utf-8'))['runs'] if path.exists() else []


def measure(options) -> list[dict]:
    "A further run of a part: its ways are measured one by one, and written at once. All runs of the file."
    part = dict(language=language, pictures=pictures, story=story)[options.part]
    given = {name: str(value) for name, value in vars(options).items()}
    run: dict = dict(given=given, code=code_state())
    run |= dict(versions=installed_versions(), hardware=describe_hardware(), seconds=0.0, rows={})
    runs = [*known_runs(options.out), run]
    began = last = time.perf_counter()
    for name, row in part(options):
        now = time.perf_counter()
        run['rows'][name] = row | dict(seconds=sorted(row['seconds']), took=round(now - last, 1))
        run['seconds'] = round(now - began, 1)
        print(f'   {now - last:.0f} s, {now - began:.0f} s in all')
        last = now
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(options.out, json.dumps(dict(runs=runs), indent=1, ensure_ascii=False))
    return runs


def by_way(runs: list[dict]) -> dict[str, tuple[list[float], list[float]]]:
    "For each way the median seconds of every run, and how many times faster it was than the base of its run: the released way, or the eager one."
    found: dict[str, tuple[list[float], list[float]]] = {}
    for run in runs:
        rows = run['rows']
        base = next((rows[name] for name in ('released', *(n for n in rows if n.startswith('eager'))) if name in rows), None)
        for name, row in rows.items():
            seconds, ratios = found.setdefault(name, ([], []))
            seconds.append(median(row['seconds']))
            ratios += [median(base['seconds']) / seconds[-1]] if base else []
    return found


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('part', choices=['language', 'pictures', 'story'])
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--sizes', default='paper')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--dtype', default='bfloat16')
    parser.add_argument('--pages', type=int, default=8)
    parser.add_argument('--steps', type=int, default=50)
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8, 32])
    parser.add_argument('--fuse', default='inductor', help='a backend of torch.compile; empty: that way is left out')
    parser.add_argument('--ways', nargs='*', default=[], help='words of the names of ways: released graph fused …; none: all')
    return parser


def main() -> None:
    runs = measure(make_parser().parse_args())
    print(f'{len(runs)} runs: seconds, median of each run; times faster than the base of its run')
    for name, (seconds, ratios) in by_way(runs).items():
        print(f'{name:36} {", ".join(f"{s:.4f}" for s in seconds)} s; {", ".join(f"{r:.2f}" for r in ratios) or "–"} ×')


if __name__ == '__main__':
    main()
