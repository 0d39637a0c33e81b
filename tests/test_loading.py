"Model folders that earlier commits saved are loaded."

import json
import os
import shutil
from dataclasses import replace

import pytest

from seed_story.models.presets import bundled_folder

FORMER = {  # components as the model_index.json of commit 9db5fef names them
    'tiny': dict(
        feature_resampler=['seed_story.detokenizer', 'FeatureResampler'],
        mllm=['seed_story.mllm', 'StoryMLLM'],
        visual_tokenizer=['seed_story.visual_tokenizer', 'VisualTokenizer'],
    ),
    'small': dict(
        feature_resampler=['seed_story.detokenizer', 'FeatureResampler'],
        mllm=['seed_story.adapter', 'AdaptedMLLM'],
        visual_tokenizer=['seed_story.visual_tokenizer', 'VisualTokenizer'],
    ),
}
SETTINGS = dict(  # and its other words; how far the model can look back is called otherwise today
    attention='dense@clamped',
    guidance_scale=2.0,
    max_text_tokens=120,
    min_text_tokens=1,
    num_inference_steps=12,
    pages=25,
    repetition_tries=3,
    separator='[INST]',
    temperature=0.8,
    top_p=0.95,
    window_pages=9,
)
REACH = dict(tiny=480, small=1200)


@pytest.fixture
def saved(tmp_path):
    "The bundled folders beside each other as commit 9db5fef saved them."
    for name, components in FORMER.items():
        shutil.copytree(bundled_folder(name), tmp_path / name, copy_function=os.link)
        file = tmp_path / name / 'model_index.json'
        present = json.loads(file.read_text())
        libraries = {k: v for k, v in present.items() if isinstance(v, list) and v[0] in ('diffusers', 'transformers')}
        index = dict(_class_name='StoryPipeline', _diffusers_version='0.42.1', reach=REACH[name])
        file.unlink()
        file.write_text(json.dumps(index | SETTINGS | libraries | components))
    return tmp_path


def test_tiny_saved_by_an_earlier_commit(saved):
    from seed_story.pipeline.loading import fingerprint, load_pipeline
    from seed_story.story.files import same_weights

    before, present = load_pipeline(str(saved / 'tiny')), load_pipeline('tiny')
    assert same_weights(fingerprint(before).split('-')[1], fingerprint(present)), 'all but the steps and the guidance'
    assert before.policy() == present.policy(), 'and it looks back as far'
    assert {k: before.config[k] for k in SETTINGS} == SETTINGS


def test_small_saved_by_an_earlier_commit(saved):
    "Its pre-trained language model is elsewhere, so another stands for it; the rest is shared with tiny."
    from seed_story.pipeline.loading import load_pipeline
    from seed_story.pipeline.story_pipeline import StoryPipeline

    tiny = load_pipeline('tiny')
    before = StoryPipeline.from_pretrained(saved / 'small', mllm=tiny.mllm, tokenizer=tiny.tokenizer)
    present = StoryPipeline.from_pretrained(bundled_folder('small'), mllm=tiny.mllm, tokenizer=tiny.tokenizer)
    assert before.policy() == present.policy() != tiny.policy()
    for part in ('visual_tokenizer', 'feature_resampler', 'unet', 'vae'):
        ours, theirs = getattr(before, part).state_dict(), getattr(present, part).state_dict()
        assert ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours), part


def test_saved_again_it_says_where_its_parts_are_now(saved, tmp_path):
    from seed_story.pipeline.loading import load_pipeline

    load_pipeline(str(saved / 'tiny')).save_pretrained(tmp_path / 'again')
    index = json.loads((tmp_path / 'again' / 'model_index.json').read_text())
    assert index['mllm'] == ['seed_story.models.mllm', 'StoryMLLM']


def test_a_bundled_model_by_its_name(tmp_path, monkeypatch):
    from seed_story import StoryPipeline

    monkeypatch.chdir(tmp_path)
    assert StoryPipeline.from_pretrained('tiny').mllm.config.num_slots == 16
    (tmp_path / 'tiny').mkdir()
    with pytest.raises(OSError, match='model_index.json'):  # a folder of that name comes first
        StoryPipeline.from_pretrained('tiny')


def test_the_kept_vae_is_unpacked_and_keeps_pictures(tmp_path):
    "The VAE of tiny is packed; unpacked it is a component of a run folder, as `--init-from` wants it."
    import torch

    from seed_story.models.detokenizer import decode_latents, encode_latents
    from seed_story.models.features import uint8_to_pixel_values
    from seed_story.story.packed import unpack_folder
    from seed_story.training.page_store import StoreFormat, storyland_shard
    from seed_story.training.runs import load_component

    unpack_folder(bundled_folder() / 'vae', tmp_path / 'vae')
    vae = load_component(tmp_path, 'vae').eval()
    images = uint8_to_pixel_values(torch.from_numpy(storyland_shard(2_000_000, 1, StoreFormat(pages=10)).images[0]))
    with torch.no_grad():
        latents = encode_latents(images, vae)
        error = ((decode_latents(latents, vae) - images) ** 2).mean()
    assert latents.shape == (10, 16, 32, 32) and -10 * torch.log10(error) > 33


def test_books_and_records_of_earlier_commits_know_the_weights(tmp_path):
    "They state a fingerprint that saw fewer bytes; it is compared by that, and replaced when a book goes on."
    from seed_story.pipeline.loading import fingerprint, load_pipeline
    from seed_story.records.record import find_valid_record, read_record
    from small_model import pages_of, small_model, tell

    weights = fingerprint(load_pipeline(str(small_model())))
    for name in ('whole', 'book'):
        assert tell(tmp_path / name, '--seed', 3, '--pages', 3 if name == 'whole' else 2)[0] == 0
    file = tmp_path / 'book' / '.state' / 'settings.json'
    settings = json.loads(file.read_text())
    assert settings['weights'] == weights
    file.write_text(json.dumps(settings | dict(weights='0123456789abcdef')))
    code, _, err = tell(tmp_path / 'book', '--resume', '--pages', 3)
    assert code == 2 and 'weights was' in err and err.count('\n') == 1
    file.write_text(json.dumps(settings | dict(weights=weights.split('-')[1])))
    assert tell(tmp_path / 'book', '--resume', '--pages', 3)[0] == 0
    assert pages_of(tmp_path / 'book') == pages_of(tmp_path / 'whole')
    assert json.loads(file.read_text())['weights'] == weights
    record = read_record(bundled_folder().parent / 'results' / 'compare_models' / 'tiny.json')
    record = replace(record, settings=record.settings | dict(weights='89e507f77d7c4054'))
    present = record.settings | dict(weights='99d564d4634e750d-0c0bdbd5834add1f')  # of the same writer, drawn otherwise
    assert find_valid_record(record, present, revision=record.revision).valid
    for other in (weights, fingerprint(load_pipeline('tiny'))):
        assert not find_valid_record(record, present | dict(weights=other), revision=record.revision).valid
