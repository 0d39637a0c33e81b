"""Seconds a page with random weights: see runs/speed.sh. Every figure is a median with its spread, and a ratio."""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

from seed_story.models.presets import build, preset
from seed_story.models.sequence import build_tokenizer

WORDS = 'A bear went to the sea. The sea was wide and blue.'
TEXT_TOKENS = 40  # of a page


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
    "Seconds of each of the last pages: the first ones make room and record."
    next(pages)
    seconds = [clocked(lambda: next(pages), device) for _ in range(count - 1)]
    return seconds[len(seconds) // 2 :]


def made(options, parts: list[str]) -> tuple:
    "Tokenizer and components of random weights, on the device."
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


@torch.no_grad()
def language(options) -> dict[str, list[float]]:
    "The language model: texts of 40 tokens, pictures' features, and what is read between the pages."
    from seed_story.pipeline.graphs import TextWriter
    from seed_story.pipeline.narrate import Narrator, narrate, narrate_as_released
    from seed_story.pipeline.sampling import Sampling
    from seed_story.sinks.policies import attention_policy

    config, tokenizer, found = made(options, ['mllm'])
    mllm, device, pages = found['mllm'], options.device, options.pages
    seen = config['mllm']['input_resampler']
    grid = config['mllm']['output_resampler']['grid_size']
    shape = (max(options.batches), grid * grid, seen.get('kv_dim') or seen['embed_dim'])
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, mllm.dtype)
    sampling = Sampling(max_text_tokens=TEXT_TOKENS, min_text_tokens=TEXT_TOKENS)
    steps = TEXT_TOKENS + config['num_slots'] + 1  # the release writes its image tokens one by one
    seconds = {}
    released = narrate_as_released(Narrator(mllm, tokenizer), WORDS, features[:1], pages, 8, steps)
    seconds['released'] = told(released, pages, device)
    ways = dict(eager=None, static=TextWriter(mllm, tokenizer, graphs=False), graph=TextWriter(mllm, tokenizer))
    for attention in ('reencode:8', 'window:8'):
        for way, writer in ways.items():
            for stories in options.batches if way == 'graph' else options.batches[:1]:
                narrator = Narrator(mllm, tokenizer)
                narrator.writer = writer
                policy = attention_policy(attention)
                rows = narrate(narrator, [WORDS] * stories, features[:stories], pages + 1, policy, sampling)
                next(rows)
                name = f'{attention} {way} × {stories}'
                seconds[name] = [s / stories for s in told(rows, pages, device)]
                print(name, f'{median(seconds[name]):.4f} s a page')
    return seconds


@torch.no_grad()
def pictures(options) -> dict[str, list[float]]:
    "The de-tokenizer: guided steps and the VAE, plain and with the UNet as one graph."
    from seed_story.models.detokenizer import DetokenizerParts, detokenize
    from seed_story.pipeline.graphs import GraphedUNet

    config, _, found = made(options, ['feature_resampler', 'unet', 'vae', 'scheduler'])
    width = config['feature_resampler']['embedding_dim']
    features = torch.randn(1, 64, width, generator=torch.Generator().manual_seed(0))
    features = features.to(options.device, getattr(torch, options.dtype))
    seconds = {}
    for way, unet in dict(eager=found['unet'], graph=GraphedUNet(found['unet'])).items():
        parts = DetokenizerParts(found['feature_resampler'], unet, found['vae'], found['scheduler'])

        def draw(output):
            generators = [torch.Generator().manual_seed(0)]
            detokenize(features, parts, torch.zeros_like(features), options.steps, 7.5, generators, output=output)

        draw('latent')  # plans, and records
        for output in ('latent', 'pt'):
            name = f'{way}, {options.steps} guided steps{", VAE" if output == "pt" else ""}'
            try:
                seconds[name] = [clocked(lambda: draw(output), options.device) for _ in range(3)]
            except ValueError as error:  # random weights may give no finite picture
                print(name, 'not measured:', error)
                continue
            print(name, f'{median(seconds[name]):.3f} s')
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('part', choices=['language', 'pictures'])
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--sizes', default='paper')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--dtype', default='bfloat16')
    parser.add_argument('--pages', type=int, default=12)
    parser.add_argument('--steps', type=int, default=50)
    parser.add_argument('--batches', type=int, nargs='+', default=[1, 8, 32])
    options = parser.parse_args()
    seconds = dict(language=language, pictures=pictures)[options.part](options)
    base = median(next(iter(seconds.values())))
    rows = {name: dict(seconds=sorted(s), base_over_this=base / median(s)) for name, s in seconds.items()}
    card = torch.cuda.get_device_name() if options.device != 'cpu' else 'cpu'
    given = {name: str(value) for name, value in vars(options).items()}
    options.out.write_text(json.dumps(dict(card=card, torch=torch.__version__, given=given, rows=rows), indent=1))
    for name, row in rows.items():
        s = row['seconds']
        print(f'{name:36} {median(s):8.4f} s  ({s[0]:.4f} to {s[-1]:.4f})  {row["base_over_this"]:6.2f} ×')


if __name__ == '__main__':
    main()
