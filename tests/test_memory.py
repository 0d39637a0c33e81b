"Training that is made to fit: the same losses, refused in time, and shards of both dtypes."

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from seed_story.models.presets import bundled_folder
from seed_story.training.options import stage_options
from seed_story.training.runs import run_stage

LORA = dict(r=4, lora_dropout=0.1, target_modules=['q_proj', 'up_proj'])
SMALL = {'mllm.lora': LORA, 'mllm.llm_config.num_hidden_layers': 2}


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    "Drawn and encoded pages, with `tiny`'s encoders in a run folder."
    import shutil

    store, out = tmp_path_factory.mktemp('store'), tmp_path_factory.mktemp('run')
    for part in ('visual_tokenizer', 'vae', 'tokenizer', 'unet', 'feature_resampler'):
        shutil.copytree(bundled_folder('tiny') / part, out / part)
    train('render', store, out, stories=2, workers=1, pages='10')
    for what in ('features', 'latents'):
        train('encode', store, out, what=what)
    return store, out


def train(stage, store, out, **words):
    return run_stage(stage_options(stage, dict(store=str(store), out=str(out), **words)))


def losses(store, tmp_path, stage, name, **words):
    "The losses of three steps, and the run folder."
    import shutil

    out = tmp_path / name
    shutil.copytree(store[1], out)
    train(stage, store[0], out, steps=3, batch=2, log_every=1, **words)
    log = 'mllm' if stage == 'mllm' else stage
    return [json.loads(line)['loss'] for line in (out / 'logs' / f'{log}.jsonl').read_text().splitlines()], out


def weights(folder):
    return {name: value for file in folder.glob('*.safetensors') for name, value in load_file(file).items()}


@pytest.mark.parametrize('stage', ['mllm', 'detokenizer'])
def test_losses_agree_with_fp32(store, tmp_path, stage):
    more = dict(set=SMALL, pages=4) if stage == 'mllm' else dict(trainable='released')
    plain, before = losses(store, tmp_path, stage, 'plain', **more)
    again, after = losses(store, tmp_path, stage, 'again', checkpointing=True, **more)
    assert again == plain
    part = 'mllm' if stage == 'mllm' else 'unet'
    kept = weights(before / part)
    assert all(value.equal(kept[name]) for name, value in weights(after / part).items())
    rounded, out = losses(store, tmp_path, stage, 'rounded', frozen='bf16', checkpointing=True, **more)
    assert rounded != plain and max(abs(a - b) / b for a, b in zip(rounded, plain)) < 0.01
    written = weights(out / part)
    frozen = [k for k in kept if 'base_layer' in k or 'conv1' in k]
    assert frozen and all(kept[k].equal(written[k]) for k in frozen), 'what is not trained is written as it was'


def test_what_does_not_fit_is_refused_before_training(store, tmp_path, caplog):
    with pytest.raises(ValueError, match=r'--memory 0.001 GB is not enough: --batch 2 takes .* --batch 1 takes'):
        losses(store, tmp_path, 'mllm', 'refused', memory=0.001, set=SMALL, pages=4)
    assert not (tmp_path / 'refused' / 'mllm').exists()
    losses(store, tmp_path, 'mllm', 'fits', memory=1, set=SMALL, pages=4)
    assert 'memory 1: --frozen bf16: about 0.' in caplog.text


SCRIPT = """
import json, signal, sys, os
from seed_story.training.loop import Interrupted
from seed_story.training.options import stage_options
from seed_story.training.runs import run_stage
import torch
torch.set_num_threads(1)
words = json.loads(sys.argv[1])
stop = words.pop('stop')
log = lambda row: os.kill(os.getpid(), signal.SIGTERM) if row['step'] == stop else None
try:
    run_stage(stage_options('mllm', words), log)
except Interrupted:
    print('stopped')
"""


def test_a_run_goes_on_with_as_many_processes_and_with_another_number(store, tmp_path):
    import shutil

    (tmp_path / 'train.py').write_text(SCRIPT)
    two = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--standalone']
    fsdp = {'ACCELERATE_USE_FSDP': 'true', 'FSDP_VERSION': '2'}
    how = dict(steps=4, batch=2, log_every=1, pages=4, frozen='bf16', checkpointing=True, ema_decay=0.9, lr=1e-4)

    def words(name, **more):
        return dict(store=str(store[0]), out=str(tmp_path / name), **how, **more)

    def go(stop, env, options):
        env = {**os.environ, 'ACCELERATE_USE_CPU': 'true', 'OMP_NUM_THREADS': '1', **env}
        call = [*two, str(tmp_path / 'train.py'), json.dumps(dict(options, stop=stop))]
        done = subprocess.run(call, capture_output=True, text=True, timeout=120, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
        assert ('stopped' in done.stdout) == (stop > 0), done.stdout

    def rows(name):
        lines = (tmp_path / name / 'logs' / 'mllm.jsonl').read_text().splitlines()
        return [json.loads(line)['loss'] for line in lines]

    for name in ('whole', 'data', 'shards', 'alone'):
        shutil.copytree(store[1], tmp_path / name)
    go(0, {}, words('whole', set=SMALL))
    go(2, {}, words('data', set=SMALL))
    go(0, {}, words('data', set=SMALL, resume=True))
    assert rows('data') == rows('whole') and len(rows('whole')) == 4, 'dropout of both processes goes on as well'
    quiet = dict(set=SMALL | {'mllm.lora': dict(LORA, lora_dropout=0.0)}, noise=0, scheduled_sampling=0)
    go(2, fsdp, words('shards', **quiet))
    run_stage(stage_options('mllm', words('shards', **quiet, accumulate=2, resume=True)))
    run_stage(stage_options('mllm', words('alone', **quiet, accumulate=2)))
    assert len(rows('shards')) == 4
    assert max(abs(a - b) / b for a, b in zip(rows('shards'), rows('alone'))) < 1e-4
