"The recipe of `small` from the command line, with a stand-in for the pre-trained language model: trained to told."

import json

import pytest

from seed_story.models import presets
from seed_story.cli import run
from seed_story.story.format import read_stories


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    "`small`'s configuration around a random two-layer Llama in a local folder."
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from seed_story.storyland.plot import write_plot

    base = tmp_path_factory.mktemp('base')
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    raw.train_from_iterator(
        [page.text for page in write_plot(1).pages],
        trainers.BpeTrainer(
            vocab_size=500,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=['<|start|>', '<|end|>'],
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token='<|start|>', eos_token='<|end|>')
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            max_position_embeddings=8192,
        )
    ).save_pretrained(base)
    tokenizer.save_pretrained(base)

    def small():
        config = _small()
        config['backbone'] = str(base)
        config['mllm']['input_resampler'] |= dict(embed_dim=64, num_heads=4)
        config['mllm']['output_resampler'] |= dict(kv_dim=64)
        return config

    _small, presets.PRESETS['small'] = presets.PRESETS['small'], small
    yield base
    presets.PRESETS['small'] = _small


@pytest.fixture(scope='module')
def trained(recipe, tmp_path_factory):
    "A run folder of `small` after two steps, beside `tiny`'s parts."
    import shutil

    store, out = tmp_path_factory.mktemp('store'), tmp_path_factory.mktemp('run')
    for part in ('visual_tokenizer', 'vae', 'unet', 'feature_resampler'):
        shutil.copytree(presets.bundled_folder('tiny') / part, out / part)
    for words in (
        ['render', '--stories', '3', '--workers', '1'],
        ['words'],
        ['encode'],
        ['mllm', '--steps', '2', '--batch', '2', '--eviction', 'multimodal'],
        ['assemble'],
    ):
        assert (
            run(['train', words[0], '--preset', 'small', '--store', str(store), '--out', str(out), *words[1:]]) == 0
        ), words
    return store, out


def test_what_was_trained_is_what_is_there(trained):
    out = trained[1]
    assert not (out / 'unet').exists() and not (out / 'tokenizer').exists(), 'shared with tiny'
    assert set(json.loads((out / 'shared.json').read_text())) == {
        'vae',
        'visual_tokenizer',
        'feature_resampler',
        'unet',
        'scheduler',
    }
    held = {p.relative_to(out).as_posix() for p in out.rglob('*.safetensors')}
    assert held == {'mllm/adapter/adapter_model.safetensors', 'mllm/resamplers.safetensors'}


def test_a_book_is_told_by_it(trained, tmp_path):
    assert (
        run(['tell', '--model', str(trained[1]), '--pages', '3', '--steps', '2', '--out', str(tmp_path / 'book')]) == 0
    )
    [story] = read_stories(tmp_path / 'book' / 'story.jsonl', tmp_path / 'book' / 'images')
    assert len(story) == 3 and all(page.text and page.image is not None for page in story)


def test_it_is_told_with_the_adapters_folded_in(trained):
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from seed_story.pipeline.story_pipeline import StoryPipeline
    from seed_story.pipeline.loading import load_pipeline

    folded, plain = load_pipeline(str(trained[1])), StoryPipeline.from_pretrained(str(trained[1]))

    def layers(pipe):
        return [m.merged for m in pipe.mllm.modules() if isinstance(m, BaseTunerLayer)]

    assert all(layers(folded)) and not any(layers(plain)) and len(layers(plain)) > 14
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.allclose(folded.mllm(ids).logits, plain.mllm(ids).logits, atol=1e-4)


def test_going_on_from_the_adapter(trained, tmp_path):
    import shutil
    import torch
    from seed_story.training.runs import load_component

    store, out = trained
    copy = tmp_path / 'run'
    shutil.copytree(out, copy)
    assert run(['train', 'words', '--preset', 'small', '--store', str(store), '--out', str(copy)]) == 0
    before = load_component(copy, 'mllm').state_dict()
    assert (
        run(
            [
                'train',
                'mllm',
                '--preset',
                'small',
                '--store',
                str(store),
                '--out',
                str(copy),
                '--steps',
                '1',
                '--batch',
                '2',
                '--init-from',
                '--lr',
                '1e-4',
            ]
        )
        == 0
    )
    after = load_component(copy, 'mllm').state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert (
        any('lora_B' in k for k in changed)
        and any('trainable_tokens_delta' in k for k in changed)
        and not any('base_layer' in k for k in changed)
    )


def test_what_is_missing_is_said(trained, tmp_path, capsys):
    import shutil

    copy = tmp_path / 'run'
    shutil.copytree(trained[1], copy)
    (copy / 'shared.json').write_text(json.dumps(dict(vae='../nowhere')))
    assert run(['tell', '--model', str(copy), '--pages', '2', '--out', str(tmp_path / 'book')]) == 2
    assert 'shares its vae with' in capsys.readouterr().err
