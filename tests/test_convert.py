"""`seed-story convert`: what is wrong with a released file is said in one line before anything is written.

A conversion that is killed at any step on the disk goes on to the same bytes, and is no pipeline until it is whole."""

import json
import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import pytest

from fuzzing import PAGE, POINTER, clear
from kills import contents, killed_at
from small_model import command


@pytest.fixture(scope='module')
def released(tmp_path_factory) -> Path:
    "Released files of the sizes `miniature`."
    from seed_story.models.presets import preset
    from seed_story.models.sequence import build_tokenizer
    from seed_story.released.convert import write_random_release

    words = 'a monkey sat in a red house and looked out of the window'
    tokenizer = build_tokenizer([words] * 3, vocab_size=300, num_slots=16)
    return write_random_release(tmp_path_factory.mktemp('release') / 'pretrained', preset('miniature'), tokenizer)


BRAIN = 'seed_story/george_sft/pytorch_model.bin'
EYE = 'visual_tokenizer/qwen_vit_G.pt'
PEN = 'detokenizer/detokenizer_george_adapted/checkpoint-4000/pytorch_model.bin'
SDXL = 'stable-diffusion-xl-base-1.0'
VAE = f'{SDXL}/vae/diffusion_pytorch_model.safetensors'
TOKENIZER = 'cvlm_llama2_tokenizer'


class Evil:
    def __reduce__(self):
        return (os.system, ('touch evil',))


def write(name: str, data: bytes):
    return lambda folder: (folder / name).write_bytes(data)


def other(name: str, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def fifo(name: str):
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def tensors(name: str, change):
    def changed(folder: Path) -> None:
        import torch

        torch.save(change(torch.load(folder / name)), folder / name)

    return changed


def settings(name: str, **changes):
    def change(folder: Path) -> None:
        kept = json.loads((folder / name).read_text('utf-8'))
        (folder / name).write_text(json.dumps(kept | changes))

    return change


BROKEN = dict(
    pointer=(write(BRAIN, POINTER), BRAIN, 'Git-LFS pointer'),
    page=(write(EYE, PAGE), EYE, 'web page'),
    empty=(write(PEN, b''), PEN, 'is empty'),
    words=(write(PEN, b'Entry not found'), PEN, 'no file of weights'),
    cut=(other(BRAIN, lambda data: data[:-99]), BRAIN, 'cut off'),
    cut_vae=(other(VAE, lambda data: data[:-9]), VAE, 'cut off'),
    plain=(write(EYE, pickle.dumps([1, 2])), EYE, 'no file of weights'),
    evil=(write(EYE, pickle.dumps(dict(a=Evil()), protocol=2)), EYE, 'more than weights', 'system'),
    legacy=(write(EYE, pickle.dumps(dict(a=1), protocol=0)), EYE, 'no file of weights'),
    fifo=(fifo(PEN), PEN, 'no regular file'),
    numbers=(tensors(EYE, lambda held: dict(enumerate(held.values()))), EYE, 'no name of a weight'),
    sparse=(tensors(EYE, lambda held: {k: t.to_sparse() for k, t in held.items()}), EYE, 'sparse'),
    whole=(tensors(EYE, lambda held: {k: t.long() for k, t in held.items()}), EYE, 'of type torch.int64'),
    step=(tensors(PEN, lambda held: held | dict(step=3)), PEN, 'step is 3'),
    lost=(tensors(PEN, lambda held: dict(list(held.items())[1:])), PEN, 'lacks 1 of the'),
    swapped=(lambda folder: shutil.copy(folder / EYE, folder / BRAIN), BRAIN, 'lacks 76 of the 76'),
    tokenizer=(write(f'{TOKENIZER}/tokenizer.json', b'[]'), TOKENIZER, 'no tokenizer'),
    tokenizer_config=(write(f'{TOKENIZER}/tokenizer_config.json', b'[]'), TOKENIZER, 'no tokenizer'),
    vae_config=(write(f'{SDXL}/vae/config.json', b'null'), 'vae/config.json', 'an object'),
    vae_layers=(settings(f'{SDXL}/vae/config.json', layers_per_block=10**9), 'layers_per_block is 1000000000'),
    vae_scale=(settings(f'{SDXL}/vae/config.json', scaling_factor=0), 'scaling_factor must be'),
    schedule=(write(f'{SDXL}/scheduler/scheduler_config.json', b'[]'), 'scheduler_config.json', 'an object'),
    betas=(settings(f'{SDXL}/scheduler/scheduler_config.json', beta_start='x'), 'holds no EulerDiscreteScheduler'),
    no_folder=(lambda folder: shutil.rmtree(folder / TOKENIZER), 'lacks tokenizer'),
)


@pytest.mark.parametrize('name', BROKEN)
def test_broken_files(name, released, tmp_path):
    change, *parts = BROKEN[name]
    shutil.copytree(released, tmp_path / 'in')
    change(tmp_path / 'in')
    code, out, err = command('convert', tmp_path / 'in', tmp_path / 'out', '--preset', 'miniature')
    assert code == 2 and not out and err.count('\n') == 1, err
    clear(err.removeprefix('seed-story: ').rstrip('\n'))
    assert all(part in err for part in parts), err
    assert [p.name for p in tmp_path.iterdir()] == ['in'] and not Path('evil').exists()


OPTIONS = [
    (['--shard', 'inf'], '--shard'),
    (['--shard', 'nan'], '--shard'),
    (['--shard', '0'], '--shard'),
    (['--dtype', 'int8'], '--dtype'),
    (['--preset', 'nothing'], 'unknown preset'),
    (['--preset', 'small'], 'nothing to convert'),
    (['--preset', 'paper'], 'of another model'),
]


@pytest.mark.parametrize('words,part', OPTIONS, ids=[' '.join(words) for words, _ in OPTIONS])
def test_options(words, part, released, tmp_path):
    code, out, err = command('convert', released, tmp_path / 'out', '--preset', 'miniature', *words)
    assert code == 2 and not out and err.count('\n') == 1 and part in err, err
    assert not list(tmp_path.iterdir())


def test_foreign_folders(released, tmp_path):
    (tmp_path / 'file').touch()
    notes = dict(mine=('letter.txt', 'dear'), list=('convert.json', '[]'), files=('convert.json', '{"files": []}'))
    for name, (file, text) in notes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
    before = contents(tmp_path)
    for name in ('file', *notes):
        code, _, err = command('convert', released, tmp_path / name, '--preset', 'miniature')
        assert code == 2 and err.count('\n') == 1 and name in err, err
    assert contents(tmp_path) == before


def test_two_at_once(released, tmp_path):
    from seed_story.story.files import claim

    with claim(tmp_path / 'out'):
        code, _, err = command('convert', released, tmp_path / 'out', '--preset', 'miniature')
    assert code == 2 and 'out' in err and not (tmp_path / 'out').exists(), err


def test_a_kill_loses_nothing(released, tmp_path):
    "Killed at each of its steps, each time a little later, it always goes on with what is there."
    from seed_story.pipeline.story_pipeline import StoryPipeline
    from seed_story.released.convert import convert_release

    convert = partial(convert_release, released, config='miniature')
    whole = contents(convert(tmp_path / 'whole'))
    step = 0
    while killed_at(step, lambda: convert(tmp_path / 'out')):
        step += 7 if (tmp_path / 'out' / 'convert.json').exists() else 1
        if (tmp_path / 'out' / 'model_index.json').exists():  # the last file but the note of what was written
            assert whole.items() - {('convert.json', whole['convert.json'])} <= contents(tmp_path / 'out').items()
            continue
        with pytest.raises(ValueError):
            StoryPipeline.from_pretrained(tmp_path / 'out')
    assert step > 20 and contents(tmp_path / 'out') == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out', 'whole']


def test_other_files_of_the_same_size(released, tmp_path):
    "What was made of other files does not pass for what is made of these."
    from seed_story.released.convert import convert_release

    shutil.copytree(released, tmp_path / 'in')
    convert_release(tmp_path / 'in', tmp_path / 'out', 'miniature')
    tensors(EYE, lambda held: held | dict(proj=held['proj'] + 1))(tmp_path / 'in')
    with pytest.raises(ValueError, match='begun with another visual_tokenizer'):
        convert_release(tmp_path / 'in', tmp_path / 'out', 'miniature')
