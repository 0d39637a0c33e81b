"""Training at full size, measured: random weights in the paper's sizes, a step of the loop that trains, a record each.

memory.py OUT NAME… [--sizes paper] [--device cuda] [--steps 8] [--known]: NAME is STAGE_GB (mllm_24, whole_40, released_80) or, under
torchrun, cards_WAY (cards_one, cards_data, cards_shards). A record that is there already is kept."""

import argparse
import contextlib
import gc
import logging
import os
import tempfile
import time
from pathlib import Path

import torch

from seed_story.models.presets import build, preset
from seed_story.models.sequence import SEPARATOR, add_image_tokens
from seed_story.records.estimates import Estimate
from seed_story.records.record import find_record, read_record, write_record
from seed_story.training.loop import ProcessShare, Saving
from seed_story.training.options import Conditioning, DetokenizerConditioning, MemoryOptions, Optimisation
from seed_story.training.runs import launched_accelerator
from seed_story.training.stages import ChunkData, DetokenizerPairs, train_detokenizer, train_mllm, with_seed

RATE = 989e12  # bf16 operations a second of an H200, without sparsity
BATCHES = dict(mllm={24: 1, 40: 4, 80: 4}, whole={24: 1, 40: 2, 80: 4}, released={24: 4, 40: 8, 80: 8})
PLAIN = MemoryOptions(frozen='fp32')


def words_of(vocabulary: int, slots: int):
    "A tokenizer of so many tokens."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ['<unk>', '<s>', '</s>', SEPARATOR, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f'w{k}' for k in range(vocabulary - slots - 2 - len(names))]
    raw = Tokenizer(models.BPE({name: k for k, name in enumerate(names)}, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token='<unk>', bos_token='<s>', eos_token='</s>', pad_token='<unk>'
    )
    add_image_tokens(tokenizer, slots)
    return tokenizer


def free(device):
    "Give back what earlier runs have taken."
    gc.collect()
    if torch.device(device).type == 'cuda':
        torch.cuda.empty_cache()
        torch._dynamo.reset()


class Clock:
    "Called with each line of a log: losses, seconds of steps after the first ones, and the memory at most."

    def __init__(self, device, every=1):
        self.every = every  # steps to a line
        self.gpu = torch.device(device).type == 'cuda'
        self.losses, self.ends = [], []
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()

    def __call__(self, row):
        if self.gpu:
            torch.cuda.synchronize()
        self.losses.append(row['loss'])
        self.ends.append(time.perf_counter())

    def seconds(self):
        "Of a step: the median, compiling left out."
        gaps = sorted(b - a for a, b in zip(self.ends, self.ends[1:]))
        return gaps[len(gaps) // 2] / self.every

    def gigabytes(self):
        return torch.cuda.max_memory_allocated() / 1e9 if self.gpu else 0.0


def draw(config, device, *parts, tokenizer=()):
    "Components with random start values, made on `device` (a GPU draws 7 billion numbers in a second)."
    with (
        torch.device(device),
        torch.random.fork_rng([torch.device(device).index or 0] if 'cuda' in str(device) else []),
    ):
        torch.manual_seed(0)
        made = build(config, tokenizer, only=parts)
    return {name: part.cpu() for name, part in made.items()}  # as trained weights come


def stage_two(config, batch, args, memory, accelerator=None, every=1):
    "One training of stage 2; its clock and the tokens of a step of one process."
    device = str(accelerator.device) if accelerator else args.device
    tokenizer = words_of(config['mllm']['llm_config']['vocab_size'], config['num_slots'])
    mllm = draw(config, device, 'mllm', tokenizer=tokenizer)['mllm']
    read = config['mllm']['output_resampler']
    texts = [[['the small fox ran on over the hill ' for _ in range(12)]] for _ in range(8)]
    features = with_seed(1, torch.randn, 8, 12, read['grid_size'] ** 2, read['embed_dim'])
    data = ChunkData(
        tokenizer, texts, features, pages=config['pages'], max_text_tokens=50 if args.sizes == 'paper' else 16
    )
    how = Optimisation(steps=args.steps, batch=batch, lr=1e-5, warmup=0, device=device, ema_decay=0.0)
    free(device)
    clock = Clock(device, every)
    with tempfile.TemporaryDirectory() as out, unsaved():
        quiet = Conditioning(scheduled_sampling=0)
        saving = Saving(log_every=every, save_seconds=1e9, log=clock)
        train_mllm(mllm, data, out, how, quiet, saving, accelerator, memory)
    chunk = data.chunks(config['num_slots'], how, quiet, ProcessShare())
    tokens = batch * (chunk.shape.length + (config['pages'] - 1) * config['num_slots'])
    return clock, tokens, sum(p.numel() for p in mllm.llm.parameters())


@contextlib.contextmanager
def unsaved():
    "Nothing is written: 14 GB a run would be most of its time."
    from unittest import mock

    with mock.patch('seed_story.training.stages.save_module'):
        yield


def drawing(config, batch, args, memory, trainable):
    "One training of the de-tokenizer."
    parts = draw(config, args.device, 'unet', 'feature_resampler') | build(config, (), only=('scheduler',))
    unet, side = parts['unet'], parts['unet'].config.sample_size
    sizes = config['visual_tokenizer']['num_queries'], config['visual_tokenizer']['output_dim']
    features = with_seed(1, torch.randn, 16, *sizes).to(args.device)
    latents = with_seed(2, torch.randn, 16, unet.config.in_channels, side, side).to(args.device)
    pairs = DetokenizerPairs(features, latents, features[:1] * 0)
    how = Optimisation(steps=args.steps, batch=batch, lr=1e-6, warmup=0, device=args.device, ema_decay=0.0)
    clock = Clock(args.device)
    with tempfile.TemporaryDirectory() as out, unsaved():
        conditioning = DetokenizerConditioning(trainable=trainable)
        saving = Saving(log_every=1, save_seconds=1e9, log=clock)
        train_detokenizer(pairs, parts, out, how, conditioning, saving, memory=memory)
    return clock


def one_run(stage, config, batch, args, memory):
    "Its clock, what a step learns, and the weights that count for the rate."
    free(args.device)
    if stage == 'mllm':
        return stage_two(config, batch, args, memory)
    return drawing(config, batch, args, memory, stage), batch, 0


PLAIN_RUNS = {}  # (stage, batch) → losses, seconds of a step and GB with fp32 weights


def plain_run(stage, config, batch, args):
    if (stage, batch) not in PLAIN_RUNS:
        clock = one_run(stage, config, batch, args, PLAIN)[0]
        PLAIN_RUNS[stage, batch] = clock.losses, clock.seconds(), clock.gigabytes()
    return PLAIN_RUNS[stage, batch]


def measure(name, config, args):
    "The record of STAGE_GB: within the limit, and the same steps with everything kept in fp32."
    stage, _, limit = name.rpartition('_')
    batch = BATCHES[stage][int(limit)] if args.sizes == 'paper' else 2
    began = time.time()
    lines = []
    said = logging.Handler()
    said.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger('seed_story.training.footprint').addHandler(said)
    try:
        clock, learned, weights = one_run(stage, config, batch, args, MemoryOptions(memory=int(limit)))
    finally:
        logging.getLogger('seed_story.training.footprint').removeHandler(said)
    losses, seconds, gigabytes = plain_run(stage, config, batch, args)
    unit = 'tokens/s' if stage == 'mllm' else 'pictures/s'
    figures = {'batch': batch, 'GB': clock.gigabytes(), unit: learned / clock.seconds()}
    if stage == 'mllm':
        figures['share'] = 4 * weights * learned / clock.seconds() / RATE
    figures['difference'] = max(abs(a - b) / abs(b) for a, b in zip(clock.losses, losses))
    figures |= {f'fp32/{unit}': learned / seconds, 'fp32/GB': gigabytes, 'loss': clock.losses[0]}
    return dict(figures=figures, options=lines[-1].split(': ')[1], estimate=lines[-1], seconds=time.time() - began)


def settings(args):
    return dict(sizes=args.sizes, steps=args.steps)


def cards(name, config, args):
    "The record of a way to share stage 2 among the processes of torchrun (or of one, alone)."
    accelerator = launched_accelerator()
    memory = MemoryOptions(frozen='bf16', checkpointing=args.checkpointing or None)
    batch = args.batch if args.sizes == 'paper' else 2
    began = time.time()
    clock, tokens, weights = stage_two(config, batch, args, memory, accelerator, max(1, args.steps // 5))
    world = accelerator.num_processes if accelerator else 1
    if accelerator and not accelerator.is_main_process:
        return None
    rate = world * tokens / clock.seconds()
    figures = dict(batch=batch, cards=world, GB=clock.gigabytes(), share=4 * weights * rate / RATE / world)
    figures |= {'tokens/s': rate, 'loss': clock.losses[-1]}
    return dict(figures=figures, options=memory_words(memory), seconds=time.time() - began)


def memory_words(memory):
    return f'--frozen {memory.frozen}' + (' --checkpointing' if memory.checkpointing else '')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('out', type=Path)
    parser.add_argument('names', nargs='+')
    parser.add_argument('--sizes', default='paper')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--steps', type=int, default=8)
    parser.add_argument('--batch', type=int, default=4)
    parser.add_argument('--checkpointing', action='store_true')
    parser.add_argument('--limit', type=float, default=400, help='seconds after which no further record is begun')
    args = parser.parse_args()
    began = time.time()
    config = preset(args.sizes)
    if args.sizes == 'tiny':
        config['mllm']['lora'] = dict(r=4, target_modules=['q_proj', 'up_proj'])
    for name in args.names:
        path = args.out / f'{name}.json'
        held = read_record(path).settings if find_record(path) else {}
        if held.items() >= settings(args).items():
            print(f'{name}: there already', flush=True)
            continue
        if time.time() - began > args.limit:
            print(f'{name}: left for the next call', flush=True)
            continue
        try:
            found = (cards if name.startswith('cards') else measure)(name, config, args)
        except (ValueError, RuntimeError) as error:
            if int(os.environ.get('WORLD_SIZE', 1)) > 1:
                raise
            print(f'{name}: {str(error).splitlines()[0][:300]}', flush=True)
            continue
        if found:
            write(path, found, args)


def write(path, found, args):
    "The record; a line says what is in it."
    figures = {name: Estimate(float(value)) for name, value in found['figures'].items()}
    more = dict(settings(args), options=found['options'])
    path.parent.mkdir(parents=True, exist_ok=True)
    command = 'runs/cards.sh' if path.stem.startswith('cards') else 'runs/memory.sh'
    write_record(path, command, figures, args.steps, 0, found['seconds'], settings=more)
    shown = ', '.join(f'{name} {value:.4g}' for name, value in found['figures'].items())
    print(f'{path.stem}: {found.get("estimate", found["options"])}; {shown}; {found["seconds"]:.0f} s', flush=True)


if __name__ == '__main__':
    main()
