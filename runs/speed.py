"""Seconds a page with random weights: see runs/speed.sh. Every figure is a median with its spread, and a ratio."""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from seed_story.models.presets import build, preset
from seed_story.models.sequence import build_tokenizer
from seed_story.pipeline import narrate as narrating

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


@torch.no_grad()
def language(options) -> dict[str, dict]:
    "The language model: texts of 40 tokens, pictures' features, and what is read between the pages."
    from seed_story.pipeline.graphs import TextWriter

    model = Language(options)
    print(f'{model.read_bytes / 1e9:.2f} GB of weights a token, {model.bandwidth / 1e12:.2f} TB/s when copied')
    narrator = narrating.Narrator(model.mllm, model.tokenizer)
    steps = TEXT_TOKENS + model.slots + 1  # the release writes its image tokens one by one
    released = narrating.narrate_as_released(narrator, WORDS, model.features[:1], IN_MEMORY + 2, IN_MEMORY, steps)
    rows: dict[str, dict] = {'released': dict(seconds=told(released, IN_MEMORY + 2, model.device)[-2:])}
    print(f'released: {median(rows["released"]["seconds"]):.4f} s a page')
    graph = TextWriter(narrator)
    ways = [
        ('eager', None, 'reencode:8', 1, SLOW_PAGES),
        ('buffers', TextWriter(narrator, graphs=False), 'reencode:8', 1, SLOW_PAGES),
        *(('graph', graph, 'reencode:8', stories, options.pages) for stories in options.batches),
        ('graph', graph, 'window:8', 1, options.pages),
        ('fused', TextWriter(narrator, fuse=options.fuse), 'reencode:8', 1, options.pages),
    ]
    for way, writer, attention, stories, count in ways:
        name = f'{attention} {way} × {stories}'
        if way == 'fused' and not options.fuse:
            continue
        began = time.perf_counter()
        try:
            rows[name] = model.measure(writer, attention, stories, count)
        except Exception as error:  # a way that fails on this card must not cost the others' figures
            print(f'{name}: not measured: {type(error).__name__}: {str(error).splitlines()[0]}')
            continue
        row = rows[name]
        print(f'{name}: {median(row["seconds"]):.4f} s a page, {row["ms_a_token"]:.2f} ms a token, ', end='')
        print(f'{row["share_of_bandwidth"]:.0%} of the bandwidth; measured in {time.perf_counter() - began:.0f} s')
        print('   ' + ', '.join(f'{part} {1e3 * s:.1f} ms' for part, s in row['parts'].items()))
    return rows


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
def pictures(options) -> dict[str, dict]:
    "The de-tokenizer: guided steps and the VAE, plain and as graphs, with less work, and several at once."
    from seed_story.models.detokenizer import detokenize

    config, _, found = made(options, ['feature_resampler', 'unet', 'vae', 'scheduler'])
    width = config['feature_resampler']['embedding_dim']
    features = torch.randn(1, 64, width, generator=torch.Generator().manual_seed(0))
    features = features.to(options.device, getattr(torch, options.dtype))
    rows = {}
    for way, parts, steps, count in picture_ways(found, options.steps):

        def draw(output, steps=steps):
            generators = [torch.Generator().manual_seed(number) for number in range(count)]
            nothing = torch.zeros_like(features)
            detokenize(features.expand(count, -1, -1), parts, nothing, steps, 7.5, generators, output=output)

        for output in ('latent', 'pt'):
            name = f'{way}, {steps} steps{", VAE" if output == "pt" else ""}{f", {count} at once" if count > 1 else ""}'
            try:
                first = clocked(lambda: draw(output), options.device)  # plans, and records
                seconds = [clocked(lambda: draw(output), options.device) / count for _ in range(3)]
            except Exception as error:  # random weights may give no finite picture; another way may
                print(f'{name}: not measured: {type(error).__name__}: {str(error).splitlines()[0]}')
                continue
            rows[name] = dict(seconds=seconds, first=first, ms_a_step=1e3 * median(seconds) / steps)
            print(f'{name}: {median(seconds):.3f} s a picture, {rows[name]["ms_a_step"]:.1f} ms a step; first {first:.1f} s')
    return rows


def story(options) -> dict[str, dict]:
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
    rows = {}
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
        count = 4 if way == 'eager' else 2 * options.pages
        try:
            pages = pipe.stream(Image.new('RGB', (64, 64)), WORDS, count + 1, seed=0, num_inference_steps=steps)
            next(pages)  # the opening
            seconds = told(pages, count, 'cpu')  # a picture is on the CPU already; to wait would end the overlap
        except Exception as error:
            print(f'{name}: not measured: {type(error).__name__}: {str(error).splitlines()[0]}')
            continue
        rows[name] = dict(seconds=seconds)
        print(f'{name}: {median(seconds):.3f} s a page')
    return rows


def main() -> None:
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
    options = parser.parse_args()
    rows = dict(language=language, pictures=pictures, story=story)[options.part](options)
    base = median(next(iter(rows.values()))['seconds'])
    for row in rows.values():
        row.update(seconds=sorted(row['seconds']), base_over_this=base / median(row['seconds']))
    card = torch.cuda.get_device_name() if options.device != 'cpu' else 'cpu'
    given = {name: str(value) for name, value in vars(options).items()}
    options.out.write_text(json.dumps(dict(card=card, torch=torch.__version__, given=given, rows=rows), indent=1))
    for name, row in rows.items():
        s = row['seconds']
        print(f'{name:36} {median(s):8.4f} s  ({s[0]:.4f} to {s[-1]:.4f})  {row["base_over_this"]:6.2f} ×')


if __name__ == '__main__':
    main()
