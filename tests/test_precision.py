"What a component gives in bfloat16 or float16 is near what it gives in float32, on the golden cases."

import json
from pathlib import Path

import pytest
import torch

import parity

GOLDEN = Path(__file__).parent / 'golden'
BOUNDS = {torch.bfloat16: 0.03, torch.float16: 0.004}  # ‖half − full‖ / ‖full‖


def case(name):
    return json.loads((GOLDEN / f'{name}.json').read_text()), parity.tensors_of(GOLDEN, name)


def visual_encoder(dtype):
    from seed_story.models.visual_tokenizer import VisualTokenizer

    about, tensors = case('visual_encoder')
    weights = parity.weights_of(tensors)
    model = VisualTokenizer(
        image_size=about['image_size'],
        patch_size=about['patch_size'],
        width=about['width'],
        layers=about['layers'],
        heads=about['heads'],
        mlp_ratio=about['mlp_ratio'],
        num_queries=about['n_queries'],
        output_dim=about['output_dim'],
        num_positions=len(weights['positional_embedding']),
    ).eval()
    model.load_state_dict(weights)
    return [model.to(dtype=dtype)(tensors['x'].to(dtype))]


def detokenizer_resampler(dtype):
    about, tensors = case('detokenizer_resampler')
    condition = parity.feature_resampler(about, parity.weights_of(tensors)).to(dtype=dtype)(tensors['x'].to(dtype))
    return [condition.prompt_embeds, condition.pooled_prompt_embeds]


def sdxl_adapter(dtype):
    from diffusers import UNet2DConditionModel
    from seed_story.models.detokenizer import predict_noise

    about, tensors = case('sdxl_adapter')
    unet = UNet2DConditionModel(**about['unet']).eval()
    unet.load_state_dict(parity.weights_of(tensors, 'w.unet.'))
    resampler = parity.feature_resampler(about['resampler'], parity.weights_of(tensors, 'w.resampler.')).to(dtype=dtype)
    return [
        predict_noise(
            tensors['noisy_latents'].to(dtype),
            tensors['timesteps'],
            resampler(tensors['image_embeds'].to(dtype)),
            unet.to(dtype=dtype),
            tensors['time_ids'],
        )
    ]


def mllm(dtype):
    about, tensors = case('mllm_forward')
    names = {'total_loss', 'lm_loss', 'rec_loss', 'recon_image_embeds'}
    inputs = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in tensors.items()
        if name not in names
    }
    output = parity.released_mllm(about, GOLDEN).to(dtype)(**inputs)
    return [output.loss, output.image_features]


@pytest.mark.parametrize('dtype', BOUNDS, ids=str)
@pytest.mark.parametrize(
    'component', (visual_encoder, detokenizer_resampler, sdxl_adapter, mllm), ids=lambda f: f.__name__
)
@torch.no_grad()
def test_half_precision_is_near(component, dtype):
    for half, full in zip(component(dtype), component(torch.float32), strict=True):
        apart = parity.relative_error(half.float(), full)
        assert 0 < apart < BOUNDS[dtype], f'{component.__name__} in {dtype}: {apart:.4f} apart'
