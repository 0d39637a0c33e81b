"""What is wrong with a model's folder is said in one line before anything of it is loaded.

The line names the file, what was found, and what to do; in Python it names the argument."""

import json
import math
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuzzing import PAGE, POINTER, UNCLEAR
from small_model import small_model


def clear(error: BaseException, *parts: str) -> None:
    "One line without a library's own words, and with all of `parts`."
    message = str(error)
    assert '\n' not in message and len(message) < 700 and not UNCLEAR.search(message), message
    for part in parts:
        assert part in message, message


def edit(name: str, **changes):
    "Other words in a JSON file; `…` takes one out."

    def change(folder: Path) -> None:
        kept = json.loads((folder / name).read_text('utf-8')) | changes
        (folder / name).write_text(json.dumps({k: v for k, v in kept.items() if v is not ...}))

    return change


def llm(**changes):
    def change(folder: Path) -> None:
        file = folder / 'mllm' / 'config.json'
        config = json.loads(file.read_text('utf-8'))
        file.write_text(json.dumps(config | dict(llm_config=config['llm_config'] | changes)))

    return change


def write(name: str, content: bytes | str | dict):
    def change(folder: Path) -> None:
        content_ = json.dumps(content) if isinstance(content, dict) else content
        (folder / name).write_bytes(content_ if isinstance(content_, bytes) else content_.encode())

    return change


def weights(part: str, change):
    "Other tensors in the file of a part; `change` gets them by name."

    def changed(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        [file] = (folder / part).glob('*.safetensors')
        held = load_file(file)
        save_file(change(held) or held, file, metadata=dict(format='pt'))

    return changed


def other(name: str, change):
    "The bytes of a file, changed."

    def changed(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return changed


ONE, TWO = 'one.safetensors', 'two.safetensors'


def shards(change):
    "The UNet in two files; `change` gets both, and the index."

    def changed(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        place = folder / 'unet'
        [file] = place.glob('*.safetensors')
        held = list(load_file(file).items())
        file.unlink()
        parts = {ONE: dict(held[:9]), TWO: dict(held[9:])}
        index = {name: file for file, part in parts.items() for name in part}
        change(parts, index)
        for file, part in parts.items():
            save_file(part, place / file)
        write('diffusion_pytorch_model.safetensors.index.json', dict(metadata={}, weight_map=index))(place)

    return changed


def fifo(name: str):
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def pickled(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    [file] = (folder / 'vae').glob('*.safetensors')
    torch.save(load_file(file), file.with_suffix('.bin'))
    file.unlink()


def foreign_tokenizer(folder: Path) -> None:
    from seed_story.models.presets import bundled_folder

    shutil.rmtree(folder / 'tokenizer')
    shutil.copytree(bundled_folder('tiny') / 'tokenizer', folder / 'tokenizer')


def shared(content):
    def change(folder: Path) -> None:
        shutil.rmtree(folder / 'vae')
        write('shared.json', content)(folder)

    return change


INDEX = 'model_index.json'
UNET = 'unet/diffusion_pytorch_model.safetensors'
SCHEDULE = 'scheduler/scheduler_config.json'
FOLDERS = dict(
    pointer=(write(UNET, POINTER), UNET, 'Git-LFS pointer', 'git lfs pull'),
    page=(write('mllm/model.safetensors', PAGE), 'model.safetensors', 'web page'),
    empty=(write(UNET, b''), UNET, 'is empty'),
    cut=(other(UNET, lambda data: data[:-9]), UNET, 'cut off'),
    longer=(other(UNET, lambda data: data + b'x'), UNET, 'cut off, damaged'),
    header=(other(UNET, lambda data: data[:8] + b'{{' + data[10:]), UNET, 'damaged'),
    fifo=(fifo(UNET), UNET, 'no regular file'),
    fifo_config=(fifo('vae/config.json'), 'vae/config.json', 'no regular file'),
    pickle=(pickled, 'vae', 'as pickles', 'safetensors'),
    part=(lambda d: shutil.rmtree(d / 'vae'), 'vae is missing'),
    lost=(weights('vae', lambda w: dict(sorted(w.items())[1:])), 'vae lacks 1 of the 72'),
    renamed=(weights('vae', lambda w: {f'x.{k}': t for k, t in w.items()}), 'vae lacks 72'),
    extra=(weights('unet', lambda w: w | dict(more=w['conv_in.bias'] + 1)), 'unet holds 1', '(more)'),
    whole=(weights('unet', lambda w: {k: t.int() for k, t in w.items()}), 'of type I32'),
    flat=(weights('unet', lambda w: {k: t.flatten() for k, t in w.items()}), 'is needed', 'other sizes'),
    nan=(weights('unet', lambda w: w | {'conv_in.bias': w['conv_in.bias'] * math.nan}), 'not finite'),
    lost_shard=(shards(lambda parts, index: parts.pop(TWO)), 'two.safetensors is missing'),
    doubled=(shards(lambda parts, index: parts[TWO].update(parts[ONE])), 'stands in one.safetensors and in two'),
    moved=(shards(lambda parts, index: index.update({next(iter(parts[ONE])): TWO})), 'index.json says two.safetensors'),
    outside=(shards(lambda parts, index: index.update(x='../../vae/x.safetensors')), 'no .safetensors file beside it'),
    index_list=(write(INDEX, '[]'), INDEX, 'an object'),
    index_cut=(write(INDEX, '{"a": '), INDEX, 'no JSON (line 1, column 7)'),
    index_latin=(write(INDEX, b'{"a": "\xff"}'), INDEX, 'UTF-8'),
    other_pipeline=(write(INDEX, dict(_class_name='FluxPipeline')), INDEX, 'FluxPipeline'),
    misspelt=(edit(INDEX, temprature=0.5), INDEX, "'temprature'", 'settings are'),
    module=(edit(INDEX, vae=['antigravity', 'x']), INDEX, 'antigravity.x'),
    function=(edit(INDEX, vae=['os', 'system']), INDEX, 'os.system'),
    kind=(edit(INDEX, vae=['diffusers', 'EulerDiscreteScheduler']), INDEX, 'for vae'),
    pages=(edit(INDEX, pages=2.5), INDEX, 'pages must be a whole number', '2.5'),
    steps=(edit(INDEX, num_inference_steps='x'), INDEX, "num_inference_steps must be", "'x'"),
    guidance=(edit(INDEX, guidance_scale=1e30), INDEX, 'guidance_scale must be a number from 0 to 100'),
    temperature=(edit(INDEX, temperature=[1]), INDEX, 'temperature must be'),
    tokens=(edit(INDEX, max_text_tokens=True), INDEX, 'max_text_tokens must be'),
    tries=(edit(INDEX, repetition_tries=10**12), INDEX, 'repetition_tries must be'),
    attention=(edit(INDEX, attention=5), INDEX, 'attention must be'),
    unknown=(edit(INDEX, attention='sinking'), INDEX, "unknown attention 'sinking'"),
    window=(edit(INDEX, window_pages=0), INDEX, 'window_pages must be'),
    distance=(edit(INDEX, max_distance='far'), INDEX, 'max_distance must be'),
    separator=(edit(INDEX, separator=''), 'separator must be'),
    config=(write('unet/config.json', 'null'), 'unet/config.json', 'an object'),
    layers=(llm(num_hidden_layers=900_000_000), 'num_hidden_layers is 900000000', '42 tensors'),
    width=(llm(hidden_size=10**9), 'mllm/config.json', '1000000000'),
    word=(llm(num_hidden_layers='x'), 'mllm/config.json', 'describes no StoryMLLM'),
    blocks=(edit('unet/config.json', layers_per_block=10**9), 'layers_per_block is 1000000000'),
    depth=(edit('feature_resampler/config.json', depth=10**9), 'depth is 1000000000'),
    norm=(edit('mllm/config.json', feature_norm=0), 'feature_norm must be a number above 0'),
    scale=(edit('vae/config.json', scaling_factor=0), 'scaling_factor must be a number above 0'),
    deviation=(edit('visual_tokenizer/config.json', image_std=[0, 1, 1]), 'image_std must be'),
    size=(edit('unet/config.json', sample_size=10**6), 'sample_size must be'),
    picture=(edit('visual_tokenizer/config.json', image_size=10**9), 'image_size must be'),
    schedule=(edit(SCHEDULE, num_train_timesteps=10**12), SCHEDULE, 'num_train_timesteps must be'),
    betas=(edit(SCHEDULE, beta_start='x'), 'scheduler holds no DPMSolverMultistepScheduler'),
    tokenizer=(foreign_tokenizer, 'tokenizer has', 'of another model'),
    tokens_list=(write('tokenizer/tokenizer.json', '[]'), 'tokenizer holds no'),
    no_begin=(edit('tokenizer/tokenizer_config.json', bos_token=None), 'bos_token'),
    shared=(shared(dict(vae='../../../etc')), 'shared.json', 'leaves the folder'),
    shared_list=(shared('[]'), 'shared.json', 'an object'),
    shared_gone=(shared(dict(vae='gone')), 'shares its vae', 'not there'),
)  # fmt: skip


@pytest.mark.parametrize('name', FOLDERS)
def test_folders(name, tmp_path):
    from seed_story.pipeline.story_pipeline import StoryPipeline

    change, *parts = FOLDERS[name]
    shutil.copytree(small_model(), tmp_path / 'model')
    change(tmp_path / 'model')
    with pytest.raises(ValueError) as refused:
        StoryPipeline.from_pretrained(tmp_path / 'model')
    clear(refused.value, *parts)
    assert 'antigravity' not in sys.modules


def test_sharded_folders_are_loaded(tmp_path):
    from seed_story.pipeline.story_pipeline import StoryPipeline

    shutil.copytree(small_model(), tmp_path / 'model')
    shards(lambda parts, index: None)(tmp_path / 'model')
    loaded, plain = (StoryPipeline.from_pretrained(folder) for folder in (tmp_path / 'model', small_model()))
    assert all(a.equal(b) for a, b in zip(loaded.unet.state_dict().values(), plain.unet.state_dict().values()))


@pytest.fixture(scope='module')
def pipe():
    from seed_story.pipeline.story_pipeline import StoryPipeline

    return StoryPipeline.from_pretrained(small_model())


PICTURE = Image.new('RGB', (20, 16), 'teal')
NOTHING = [True, 2.5, math.nan, 'x', b'x', [], {}, object(), print, PICTURE]
CALLS = dict(
    image=[
        None,
        5,
        b'x',
        [PICTURE],
        {},
        Image.new('L', (0, 0)),
        np.zeros((4, 4, 3), np.uint8),
        'gone.png',
        'a\0b',
        '.',
    ],
    text=[None, 5, b'x', ['a bear'], {}, '', ' ', '\ud800', 'rabbit ' * 9000],
    pages=[*NOTHING, 0, -1, 10**30],
    attention=[5, True, {}, [], 'sinking', '', print],
    seed=[*NOTHING, 10**30],
    num_inference_steps=[*NOTHING, 0, -1, 1001, 10**9],
    guidance_scale=[True, math.nan, math.inf, -1, 1e30, 'x', [], print],
    temperature=[True, math.nan, math.inf, -1, 1e30, 1e-30, 'x', [], print],
    top_p=[True, 0, 2, math.nan, 'x', []],
    max_text_tokens=[*NOTHING, 0, 10**9],
    progress=[5, 'x', []],
)


@pytest.mark.parametrize('name', CALLS)
def test_calls(name, pipe):
    "Refused at once, before a page is asked for."
    for value in CALLS[name]:
        with pytest.raises(ValueError) as refused:
            pipe.stream(**dict(image=PICTURE, text='the rabbit walks', pages=2, seed=1) | {name: value})
        clear(refused.value, name)


def test_numbers_of_numpy_and_torch(pipe):
    import torch

    numbers = dict(
        pages=np.int64(2), seed=torch.tensor(3), num_inference_steps=np.uint8(1), guidance_scale=np.float32(2)
    )
    assert len(pipe(PICTURE, 'the rabbit walks', temperature=torch.tensor(0.5), **numbers)) == 2


MANY = dict(image=[PICTURE] * 2, text=['a bear', 'a rabbit'], pages=2, seed=[1, 2])


def test_many_stories(pipe):
    import torch

    told = list(pipe.narrate(**MANY))
    again = list(pipe.narrate((p for p in MANY['image']), (t for t in MANY['text']), 2, seed=np.array([1, 2])))
    assert [[page.text for page in row] for row in told] == [[page.text for page in row] for row in again]
    assert len(list(pipe.narrate(**MANY | dict(seed=3)))) == 2, 'one seed for all'
    features = torch.zeros(2, 36, 128)
    wrong = dict(
        image=[[PICTURE], [], PICTURE, 'a.png', None, [5, 5]],
        text=[['a bear'], [], ['a bear', ''], ['a bear', 5], None, 5, {}],
        seed=[[1], [1, 'x'], [1, 2.5], 'ab', {1, 2}],
        sampling=[5, dict(temperature=1), print],
        features=[features[:1], features[0], features * math.nan, features[..., :3], [1, 2], features.to('meta')],
        known_pages=[5, 'ab', [5], [[5, 5]], [told[1][:1]], {}],
    )
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError) as refused:
                pipe.narrate(**MANY | {name: value})
            clear(refused.value, name)


def test_illustrate(pipe):
    import torch

    features = torch.zeros(2, 36, 128)
    wrong = dict(
        features=[features[0], features[:0], features * math.nan, features[..., :3], features.numpy(), None, [1]],
        seeds=[[1], [1, 2.5], [1, 'x'], 'ab', 5, [1, None]],
        num_inference_steps=[0, 1001, 2.5, True],
        guidance_scale=[-1, math.nan, 1e30, 'x'],
        batch_size=[0, -1, 2.5, True, 'x'],
        output_type=['np', 5, [], features],
        unconditional=[5, features],
        progress=[5, features],
    )
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError) as refused:
                pipe.illustrate(**dict(features=features, seeds=[1, 2], num_inference_steps=1) | {name: value})
            clear(refused.value, name.removesuffix('s'))
    pipe.unet.conv_out.bias.data[0] = math.inf
    with pytest.raises(ValueError, match='not finite'):  # not black
        pipe.illustrate(features, [1, 2], 1)
    pipe.unet.conv_out.bias.data[0] = 0


def test_places_and_devices(pipe, tmp_path):
    from seed_story.pipeline.story_pipeline import StoryPipeline

    (tmp_path / 'file').touch()
    for place in (None, 5, '', b'x', tmp_path / 'file', tmp_path / 'file' / 'below', '/proc/nowhere/x'):
        with pytest.raises(ValueError) as refused:
            pipe.save_pretrained(place)
        clear(refused.value)
    with pytest.raises(ValueError, match='safetensors only'):
        pipe.save_pretrained(tmp_path / 'saved', safe_serialization=False)
    assert [p.name for p in tmp_path.iterdir()] == ['file']
    for device in ('toaster', 'meta', '', 5, 2.5, []):
        with pytest.raises(ValueError, match='cannot be used'):
            pipe.to(device)
    for model in (None, 5, '', './gone', '~nosuch/x', 'a\0b', 'x' * 5000, tmp_path, 'paper'):
        with pytest.raises((ValueError, OSError)) as refused:
            StoryPipeline.from_pretrained(model)
        clear(refused.value)
    for wrong in (
        dict(dtype='int8'),
        dict(dtype=16),
        dict(pages='x'),
        dict(vae=5),
        dict(tokenizer='x'),
        dict(variant=5),
    ):
        with pytest.raises(ValueError) as refused:
            StoryPipeline.from_pretrained(small_model(), **wrong)
        clear(refused.value, next(iter(wrong)))


def test_components_of_other_kinds(pipe):
    from seed_story.pipeline.story_pipeline import StoryPipeline

    for name, value in dict(vae=5, unet='x', tokenizer=pipe.unet, scheduler=pipe.vae, mllm=print).items():
        with pytest.raises(ValueError) as refused:
            StoryPipeline(**pipe.components | {name: value})
        clear(refused.value, name)
    for name, value in dict(pages=0, temperature='x', attention=5, separator='<img>').items():
        with pytest.raises(ValueError) as refused:
            StoryPipeline(**pipe.components | {name: value})
        clear(refused.value, name)
    blind = StoryPipeline.from_pretrained(small_model(), vae=None, unet=None)  # texts alone need no pictures
    assert len(list(blind.narrate(PICTURE, 'the rabbit walks', 2, seed=1))) == 2


def test_a_save_that_is_cut_off_is_no_model(pipe, tmp_path, monkeypatch):
    "Neither a new folder nor an old one is taken for a pipeline before it is whole."
    from seed_story.pipeline.story_pipeline import StoryPipeline

    pipe.save_pretrained(tmp_path / 'old')

    def refuse(*args, **options):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(type(pipe.vae), 'save_pretrained', refuse)
    for name in ('new', 'old'):
        with pytest.raises((ValueError, OSError), match='No space left'):
            pipe.save_pretrained(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ['old']
    with pytest.raises(ValueError, match='no model_index.json'):
        StoryPipeline.from_pretrained(tmp_path / 'old')
