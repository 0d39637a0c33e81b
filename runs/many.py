"""Pages a second of many stories at once, random weights: see runs/many.sh. A record a card: OUT/many_CARD.json."""

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from random import Random
from statistics import median

import torch
from speed import WORDS, clocked, made

from seed_story.pipeline import many_stories, narrate as narrating
from seed_story.pipeline.many_stories import StoryRequest, narrate_many
from seed_story.sinks.policies import attention_policy

LEAST = 10  # tokens of a text
MOST = 120  # tokens of a text
MEAN = 40  # tokens of a text, about
NEW_PAGES = range(2, 11)  # of a story


def text_ends(usual, boi: int):
    "A sampler whose texts end with chance, as the random numbers of a page say: the same lengths in whatever batch."

    def sample(logits, uniforms, temperature, top_p):
        ends = (uniforms < 1 / (MEAN - LEAST)) & (logits[:, boi] > -torch.inf)
        return torch.where(ends, boi, usual(logits, uniforms, 0, top_p))

    return sample


class Stories:
    "A narrator of random weights, and the stories that every way tells."

    def __init__(self, options, share: int):
        config, tokenizer, found = made(options, ['mllm'])
        mllm = found['mllm']
        self.narrator = narrating.Narrator(mllm, tokenizer)
        self.policy = attention_policy(options.attention)
        self.sampling = narrating.Sampling(max_text_tokens=MOST, min_text_tokens=LEAST)
        boi = self.narrator.image_tokens.boi
        mllm.llm.get_output_embeddings().weight.data[boi] = 0  # no text ends but by chance
        for module in (narrating, many_stories):
            module.sample_tokens = text_ends(module.sample_tokens, boi)
        resampler = config['mllm']['input_resampler']
        grid = config['mllm']['output_resampler']['grid_size']
        shape = (options.stories, grid * grid, resampler.get('kv_dim') or resampler['embed_dim'])
        features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(options.device, mllm.dtype)
        pages = [1 + Random(seed).choice(NEW_PAGES) for seed in range(options.stories)]
        every = [StoryRequest(WORDS, features[k], pages[k], k) for k in range(options.stories)]
        self.requests = every[share :: options.cards]
        self.new_pages = sum(request.pages - 1 for request in self.requests)

    def in_step(self, rows: int) -> int:
        "As many new pages as were told by `narrate`, so many stories at a time, each batch as long as its longest."
        pages_told = 0
        for first in range(0, len(self.requests), rows):
            part = self.requests[first : first + rows]
            given = [request.text for request in part], torch.stack([request.features for request in part])
            pages = max(request.pages for request in part)
            how = dict(policy=self.policy, sampling=self.sampling, seeds=[request.seed for request in part])
            for _ in narrating.narrate(self.narrator, *given, pages, **how):
                pages_told += len(part)
        return pages_told - len(self.requests)

    def in_rows(self, rows: int, turn_at: int, graphs: bool, block: int) -> int:
        "As many new pages as were told by `narrate_many`."
        how = dict(turn_at=turn_at, graphs=graphs, block=block)
        groups = narrate_many(self.narrator, self.requests, rows, self.policy, self.sampling, **how)
        return sum(told.number > 0 for group in groups for told in group)


def ways(stories: Stories, rows: list[int], device: str):
    "(name, call) of each way, from the most to the fewest rows: what fills the card comes first."
    for count in sorted(rows, reverse=True):
        turns = sorted({1, max(1, count // 8), max(1, count // 4), max(1, count // 2)})
        for turn_at in turns:
            yield f'rows {count}, turned at {turn_at}', lambda c=count, t=turn_at: stories.in_rows(c, t, False, 1)
        if device != 'cpu':
            at = max(1, count // 4)
            yield f'rows {count}, turned at {at}, graph', lambda c=count, t=at: stories.in_rows(c, t, True, 4)
        yield f'in step {count}', lambda c=count: stories.in_step(c)


@torch.no_grad()
def measure(options, share: int) -> dict:
    "Seconds, CPU seconds and pages a second of every way, for the stories of this share."
    if options.device != 'cpu':
        options.device = f'cuda:{share}'
        torch.cuda.set_device(share)
    stories = Stories(options, share)
    rows: dict[str, dict] = {}
    began = time.monotonic()
    for name, call in ways(stories, options.rows, options.device):
        if time.monotonic() - began > options.limit:
            print(f'{name}: not measured: the time is up')
            continue
        found: dict[str, list] = dict(seconds=[], cpu_seconds=[])
        told: list[int] = []
        for _ in range(options.times):
            cpu = resource.getrusage(resource.RUSAGE_SELF)
            found['seconds'].append(clocked(lambda call=call, told=told: told.append(call()), options.device))
            now = resource.getrusage(resource.RUSAGE_SELF)
            found['cpu_seconds'].append(now.ru_utime + now.ru_stime - cpu.ru_utime - cpu.ru_stime)
        wanted = stories.new_pages  # in step, shorter stories are told on until the longest has ended
        rows[name] = found | dict(pages=wanted, passed_pages=told[-1])
        rows[name]['pages_a_second'] = [wanted / seconds for seconds in found['seconds']]
        fast, cheap = (wanted / median(found[what]) for what in ('seconds', 'cpu_seconds'))
        print(f'{name:32} {fast:9.2f} pages/s, {cheap:9.2f} a CPU second')
    return rows


def one_card(options, share: int) -> None:
    "Measure a share, and write its record."
    rows = measure(options, share)
    card = torch.cuda.get_device_name() if options.device != 'cpu' else 'cpu'
    peak = torch.cuda.max_memory_allocated() if options.device != 'cpu' else None
    given = {name: str(value) for name, value in vars(options).items()}
    record = dict(card=card, torch=torch.__version__, given=given, peak_bytes=peak, rows=rows)
    (options.out / f'many_{share}.json').write_text(json.dumps(record, indent=1) + '\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--sizes', default='paper')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--dtype', default='bfloat16')
    parser.add_argument('--rows', type=int, nargs='+', default=[1, 8, 32, 64])
    parser.add_argument('--stories', type=int, default=96)
    parser.add_argument('--attention', default='window:8')
    parser.add_argument('--times', type=int, default=2)
    parser.add_argument('--limit', type=float, default=480, help='seconds after which no further way is begun')
    parser.add_argument('--cards', type=int, default=1, help='processes, each with a card and a share of the stories')
    options = parser.parse_args()
    if options.cards == 1:
        one_card(options, 0)
        return
    context = multiprocessing.get_context('spawn')
    processes = [context.Process(target=one_card, args=(options, share)) for share in range(options.cards)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if failed := [str(k) for k, process in enumerate(processes) if process.exitcode]:
        raise SystemExit(f'no record of card {", ".join(failed)}: its process has ended with an error')


if __name__ == '__main__':
    main()
