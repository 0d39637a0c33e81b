"""Work is counted, not timed, and compared with `tests/work.json`: that of a told page, and the kernels of a step.

A count that goes up fails. Versions of the libraries differ by a few kernels, so those may differ by a fiftieth.

python tests/test_work.py     # writes the table anew, after work was saved, or added on purpose"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

TABLE = Path(__file__).with_name('work.json')
PAGES = 5
WAYS = ('dense', 'window:2', 'multimodal:2', 'reencode:2')
VARYING = ('kernels', 'MB')
NOT_NEEDED = ('pandas', 'matplotlib', 'torchmetrics', 'datasets', 'IPython', 'nbdev', 'pyarrow', 'pytest', 'sympy')
TELLING = """
import json, sys
from seed_story import cli
cli._alone = True  # as `main` says
assert cli.run(['tell', '--pages', '1', '--quiet', '--model', sys.argv[1], '--out', sys.argv[2]]) == 0
print(json.dumps(sorted(sys.modules)))
"""


def pipeline():
    "The `paper` preset in miniature with random weights; each of its texts has twelve tokens."
    from seed_story.models.presets import build, preset
    from seed_story.models.sequence import build_tokenizer
    from seed_story.pipeline.loading import quiet_libraries
    from seed_story.pipeline.story_pipeline import StoryPipeline

    config = preset('miniature')
    tokenizer = build_tokenizer(['A bear went to the sea.', 'The sea was wide and blue.'] * 8, 300, 16)
    settings = dict(num_inference_steps=2, min_text_tokens=12, max_text_tokens=12, repetition_tries=0)
    with quiet_libraries(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return StoryPipeline(tokenizer=tokenizer, **build(config, tokenizer), **(config['pipeline'] | settings))


def counted(pipe, attention: str, folder: Path) -> dict[str, int]:
    "What is done for a book: passes and tokens of the language model, calls of UNet and VAE, bytes of the cache."
    from PIL import Image
    from seed_story.pipeline import tell as telling
    from seed_story.sinks.cache import EvictingCache

    work = dict.fromkeys(('passes', 'tokens', 'UNet calls', 'VAE calls', 'pictures read', 'bytes of cache'), 0)

    def read(module, args, given, output) -> None:
        work['passes'] += 1
        work['tokens'] += output.last_hidden_state.shape[:2].numel()
        held = [sum(x.nbytes for x in value.layers) for value in given.values() if isinstance(value, EvictingCache)]
        work['bytes of cache'] = max([work['bytes of cache'], *held])

    def count(name):
        def hook(*_) -> None:
            work[name] += 1

        return hook

    opening = [telling.Opening(Image.new('RGB', (64, 64), 'teal'), 'A bear went to the sea.')]
    options = telling.TellOptions(pages=PAGES, seed=1, attention=attention)
    handles = [
        pipe.mllm.llm.base_model.register_forward_hook(read, with_kwargs=True),
        pipe.unet.register_forward_hook(count('UNet calls')),
        pipe.vae.decoder.register_forward_hook(count('VAE calls')),
        pipe.visual_tokenizer.register_forward_hook(count('pictures read')),
    ]
    settings = telling.story_settings(pipe, opening, options, None)
    with telling.torch_threads(1):
        telling.tell_book(pipe, None, folder, opening, settings, quiet=True)
    for handle in handles:
        handle.remove()
    return work


def imported(pipe, folder: Path) -> dict[str, int]:
    "How many of the package's own modules `seed-story tell` imports, and which ones that telling does not need."
    from seed_story.pipeline.loading import quiet_libraries

    with quiet_libraries():
        pipe.save_pretrained(folder / 'model')
    words = [sys.executable, '-c', TELLING, str(folder / 'model'), str(folder / 'story')]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout.splitlines()[-1])
    count = dict(own=sum(name.partition('.')[0] == 'seed_story' for name in modules))
    return count | {name: sum(module.partition('.')[0] == name for module in modules) for name in NOT_NEEDED}


def paper_sizes(names: list[str]) -> dict:
    "Parts of the paper's sizes in bfloat16, on the `meta` device: they take no memory and compute nothing."
    from seed_story.models.presets import build, preset
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = preset('paper')
    llm = dict(sizes['mllm']['llm_config'])
    with torch.device('meta'):
        parts = build(sizes, None, only=names)
        parts['llm'] = AutoModelForCausalLM.from_config(AutoConfig.for_model(llm.pop('model_type'), **llm))
    return {name: part.to(torch.bfloat16).eval() for name, part in parts.items()}


def kernels_of_steps() -> dict[str, dict[str, int]]:
    "What a token, a guided step of a picture and its decoding ask of a GPU, and the megabytes that they read."
    from seed_story.models.detokenizer import full_image_time_ids, predict_noise
    from seed_story.models.kernels import counted_kernels, use_fewer_kernels
    from seed_story.pipeline.graphs import step_kernels

    parts = paper_sizes(['feature_resampler', 'unet', 'vae'])
    use_fewer_kernels(parts['llm'])
    found = {f'a token of {rows} at once, paper': step_kernels(parts['llm'], rows) for rows in (1, 32)}
    with torch.device('meta'), torch.no_grad():
        latents = torch.empty(2, 4, 128, 128, dtype=torch.bfloat16)
        features = torch.empty(2, 64, parts['feature_resampler'].config.embedding_dim, dtype=torch.bfloat16)
        time = torch.empty((), dtype=torch.long)
        condition = parts['feature_resampler'](features)
        with counted_kernels() as found['a guided step of 1024 x 1024, paper']:
            predict_noise(latents, time, condition, parts['unet'], full_image_time_ids(latents))
        with counted_kernels() as found['decoding 1024 x 1024, paper']:
            parts['vae'].decode(latents[:1], return_dict=False)
    return {name: dict(kernels=one.total, MB=round(one.read / 1e6)) for name, one in found.items()}


def measure() -> dict[str, dict[str, int]]:
    "All rows of the table."
    pipe = pipeline()
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for how in ('', ', compiled'):
            if how:
                pipe.compile()
            for way in WAYS:
                row = f'{PAGES} pages, {way}{how}'
                rows[row] = counted(pipe, way, Path(scratch, row))
        rows['modules imported by tell'] = imported(pipe, Path(scratch))
    return rows | kernels_of_steps()


def test_no_page_takes_more_work_than_before():
    "Every row of the table, and no count above it."
    table = json.loads(TABLE.read_text())
    found = measure()
    more = [
        f'{row}: {name} went from {table.get(row, {}).get(name, 0)} to {value}'
        for row, counts in found.items()
        for name, value in counts.items()
        if value > table.get(row, {}).get(name, 0) * (1.02 if name in VARYING else 1)
    ]
    assert not more, '; '.join(more)
    assert found.keys() == table.keys()


def test_the_record_of_a_gpu_is_what_its_log_says(monkeypatch):
    from seed_story.records.record import read_record

    monkeypatch.syspath_prepend(TABLE.parent.parent / 'runs')
    import speed_record

    folder = TABLE.parent.parent / 'data' / 'results' / 'speed_h200'
    runs = speed_record.read_log((folder / 'language.log').read_text('utf-8'))
    record = read_record(folder / 'language.json')
    curves = speed_record.curves_of(runs)
    assert len(runs) == record.n == 2 and curves.keys() == record.curves.keys()
    for name, values in curves.items():
        assert record.curves[name] == pytest.approx(values, rel=1e-5), name


if __name__ == '__main__':
    rows = ',\n'.join(f' {json.dumps(name)}: {json.dumps(counts)}' for name, counts in measure().items())
    TABLE.write_text(f'{{\n{rows}\n}}\n')
