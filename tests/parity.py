"""Agreement with the released code: `python tests/parity.py DIR` checks every golden case in DIR, one line each.

A case is NAME.json beside NAME.safetensors, or that packed as NAME.safetensors.xz: `w.*` are weights under the
released names, the rest inputs and expected outputs. All sizes are read from the json.
Numbers must agree to 1e-4 relative (‖a − b‖ / ‖b‖), token ids, labels and masks exactly. The exit status is 1 if
any case misses, 2 if DIR holds none.
"""

import json
import lzma
import math
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch
from PIL import Image
from safetensors.torch import load, load_file

LIMIT = 1e-4


def relative_error(ours, theirs) -> float:
    "‖ours − theirs‖ / ‖theirs‖; infinite where the shapes differ."
    if math.prod(ours.shape) != math.prod(theirs.shape):
        return math.inf
    ours, theirs = ours.double().flatten(), theirs.double().flatten()
    return ((ours - theirs).norm() / theirs.norm().clamp(min=1e-30)).item()


def exact(ours, theirs) -> float:
    "0 if equal, else infinite. Tensors, or anything that can be compared."
    if not isinstance(theirs, torch.Tensor):
        return 0.0 if ours == theirs else math.inf
    ours = torch.as_tensor(ours).flatten()
    return 0.0 if len(ours) == theirs.numel() and torch.equal(ours.long(), theirs.flatten().long()) else math.inf


def weights_of(tensors, prefix="w."):
    "Tensors under a prefix, without it."
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def tokenizer_of(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    # the transformers of the released code took the spaces before punctuation out of decoded text wherever the
    # tokenizer's configuration says so
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = (
        tokenizer.clean_up_tokenization_spaces
    )
    return tokenizer


# -- resamplers, visual tokenizer, de-tokenizer ------------------------------------------------------------------------


def resampler(case, tensors, folder):
    from seed_story.models.resampler import Resampler

    model = Resampler(case["grid_size"], case["embed_dim"], case["num_heads"], case["kv_dim"]).eval()
    fixed = model.pos_embed.clone()
    model.load_state_dict(weights_of(tensors))
    return [
        ("y", relative_error(model(tensors["x"]), tensors["y"])),
        ("pos_embed", relative_error(fixed, tensors["w.pos_embed"])),
    ]


def visual_encoder(case, tensors, folder):
    from seed_story.models.visual_tokenizer import VisualTokenizer

    weights = weights_of(tensors)
    model = VisualTokenizer(
        image_size=case["image_size"],
        patch_size=case["patch_size"],
        width=case["width"],
        layers=case["layers"],
        heads=case["heads"],
        mlp_ratio=case["mlp_ratio"],
        num_queries=case["n_queries"],
        output_dim=case["output_dim"],
        num_positions=len(weights["positional_embedding"]),
    ).eval()
    model.load_state_dict(weights)
    return [("y", relative_error(model(tensors["x"]), tensors["y"]))]


def feature_resampler(sizes, weights):
    from seed_story.models.detokenizer import FeatureResampler

    model = FeatureResampler(**{name: value for name, value in sizes.items() if name != "module"}).eval()
    model.load_state_dict(weights)
    return model


def detokenizer_resampler(case, tensors, folder):
    condition = feature_resampler(case, weights_of(tensors))(tensors["x"])
    return [
        ("prompt_embeds", relative_error(condition.prompt_embeds, tensors["prompt_embeds"])),
        ("pooled_embeds", relative_error(condition.pooled_prompt_embeds, tensors["pooled_embeds"])),
    ]


def sdxl_adapter(case, tensors, folder):
    from diffusers import UNet2DConditionModel
    from seed_story.models.detokenizer import noise_loss, predict_noise, trainable_parameter_names

    resampler, unet = (
        feature_resampler(case["resampler"], weights_of(tensors, "w.resampler.")),
        UNet2DConditionModel(**case["unet"]).eval(),
    )
    unet.load_state_dict(weights_of(tensors, "w.unet."))
    noise = predict_noise(
        tensors["noisy_latents"], tensors["timesteps"], resampler(tensors["image_embeds"]), unet, tensors["time_ids"]
    )
    return [
        ("noise_pred", relative_error(noise, tensors["noise_pred"])),
        ("loss", relative_error(noise_loss(noise, tensors["noise"]), tensors["loss"])),
        ("trainable", exact(sorted(trainable_parameter_names(unet, resampler, "released")), sorted(case["trainable"]))),
    ]


# -- sequence, multimodal language model -------------------------------------------------------------------------------


def training_items(case, tensors, folder):
    from seed_story.released.names import released_time_ids
    from seed_story.models.sequence import story_text, training_item

    tokenizer, found = tokenizer_of(folder), []
    stories = {
        story["id"]: story for story in map(json.loads, (folder / "stories.jsonl").read_text().splitlines()) if story
    }
    for number, wanted in enumerate(case["items"]):
        story, given = stories[wanted["story"]], wanted["num_image_given"]
        item = training_item(story["captions"], tokenizer, given, case["max_length"])
        if item is None:
            return [(f"{number}", math.inf)]
        found += [(f"{number}.{name}", exact(value, tensors[f"{number}.{name}"])) for name, value in item.items()]
        found.append(
            (
                f"{number}.text",
                exact(story_text(story["captions"][: given + 2], case["num_img_tokens"]), wanted["text"]),
            )
        )
        if f"{number}.time_ids" in tensors:
            wanted_ids = tensors[f"{number}.time_ids"]
            with Image.open(folder / "images" / story["images"][given + 1]) as image:
                size = image.size
            found.append(
                (f"{number}.time_ids", exact(released_time_ids(*size, resolution=int(wanted_ids[-1])), wanted_ids))
            )
    return found


def released_mllm(case, folder, lora=True):
    "The case's checkpoint in our class, with its adapters or with them folded in."
    from seed_story.models.mllm import StoryMLLM, StoryMLLMConfig
    from seed_story.released.names import merge_released_lora, load_agent

    sizes, weights = case["config"], tensors_of(folder, Path(case["checkpoint"]).stem)
    base = folder / "llama_base" / "config.json"
    llm_config = {
        "model_type": "llama",
        **(json.loads(base.read_text()) if base.exists() else {}),
        **sizes["llama"],
        "vocab_size": sizes["vocab_size"],
    }
    same = {name: sizes[name] for name in ("input_resampler", "output_resampler", "lm_loss_scale", "rec_loss_scale")}
    mllm = StoryMLLM(StoryMLLMConfig(llm_config=llm_config, lora=sizes["lora"] if lora else None, **same)).eval()
    return load_agent(mllm, weights if lora else merge_released_lora(weights, sizes["lora"]))


def mllm_forward(case, tensors, folder):
    names = {"total_loss": "loss", "lm_loss": "lm_loss", "rec_loss": "rec_loss", "recon_image_embeds": "image_features"}
    inputs, found = {name: value for name, value in tensors.items() if name not in names}, []
    for lora in (True, False):
        output = released_mllm(case, folder, lora)(**inputs)
        found += [
            (theirs if lora else f"{theirs} (folded)", relative_error(output[ours], tensors[theirs]))
            for theirs, ours in names.items()
        ]
    return found


def image_token_logits(case, tensors, folder):
    from seed_story.models.mllm import ImageTokenLogits
    from seed_story.models.sequence import ImageTokens

    image = ImageTokens.from_tokenizer(tokenizer_of(folder))
    processed = ImageTokenLogits(image)(tensors["input_ids"], tensors["scores"])
    return [
        ("ids", exact([image.boi, image.eoi, image.num_slots], [case["boi"], case["eoi"], case["num_img_tokens"]])),
        ("processed", relative_error(processed, tensors["processed"])),
        ("argmax", exact(processed.argmax(-1), tensors["processed"].argmax(-1))),
    ]


def story_generation(case, tensors, folder):
    from seed_story.pipeline.narrate import Narrator, narrate_as_released

    mllm, tokenizer = released_mllm(case, folder), tokenizer_of(folder)
    pages = sum(name.endswith(".prompt_ids") for name in tensors)
    longest = max(value.shape[-1] for name, value in tensors.items() if name.endswith(".generated_ids"))
    told = list(
        narrate_as_released(
            Narrator(mllm, tokenizer),
            case["opening_text"],
            tensors["first_image_features"],
            pages,
            case["window_images"],
            max(500, longest),
        )
    )
    found = [("pages", exact(len(told), pages))]
    for page, (prompt_ids, generated_ids, features) in enumerate(told):
        found += [
            (f"{page}.prompt_ids", exact(prompt_ids, tensors[f"{page}.prompt_ids"])),
            (f"{page}.generated_ids", exact(generated_ids, tensors[f"{page}.generated_ids"])),
            (f"{page}.image_features", relative_error(features, tensors[f"{page}.image_features"])),
        ]
    return found


CASES = {
    "resampler_*": resampler,
    "visual_encoder": visual_encoder,
    "detokenizer_resampler": detokenizer_resampler,
    "sdxl_adapter": sdxl_adapter,
    "training_items": training_items,
    "mllm_forward": mllm_forward,
    "image_token_logits": image_token_logits,
    "story_generation": story_generation,
}


def cases_in(folder) -> list[str]:
    "Names of the cases in a folder: every json that has tensors beside it."
    return sorted(
        path.stem
        for path in Path(folder).glob("*.json")
        if any(path.with_suffix(end).exists() for end in (".safetensors", ".safetensors.xz"))
    )


def tensors_of(folder, name) -> dict:
    "The tensors of a case, packed or not."
    plain = Path(folder) / f"{name}.safetensors"
    return (
        load_file(plain) if plain.exists() else load(lzma.decompress(plain.with_name(f"{plain.name}.xz").read_bytes()))
    )


@torch.no_grad()
def check(folder, name) -> list[tuple[str, float]]:
    "The errors of one case, `[(what, error)]`; KeyError if no function here knows the case."
    folder = Path(folder)
    function = next((function for pattern, function in CASES.items() if fnmatch(name, pattern)), None)
    if function is None:
        raise KeyError(f"no parity function for the case {name!r}; known: {', '.join(CASES)}")
    return function(json.loads((folder / f"{name}.json").read_text()), tensors_of(folder, name), folder)


def misses(errors) -> list[str]:
    "What lies above the limit (or is not a number)."
    return [f"{what} {error:.1e}" for what, error in errors if not error <= LIMIT]


def main(folder) -> int:
    names, failed = cases_in(folder), 0
    if not names:
        print(
            f"no golden cases (NAME.json beside NAME.safetensors or NAME.safetensors.xz) in {folder}", file=sys.stderr
        )
        return 2
    for name in names:
        try:
            errors = check(folder, name)
        except Exception as error:  # one broken case must not hide the others
            print(f"{name:24} FAIL  {type(error).__name__}: {error}")
            failed += 1
            continue
        worst, wrong = max(errors, key=lambda item: item[1] if item[1] == item[1] else math.inf), misses(errors)
        print(
            f"{name:24} {'FAIL' if wrong else 'ok  '}  {worst[1]:.1e}  "
            + (f"wrong: {', '.join(wrong[:4])}" if wrong else f"largest of {len(errors)}, {worst[0]}")
        )
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/parity.py DIR")
    sys.exit(main(sys.argv[1]))
