"A pipeline of the real classes with small random weights, saved in a folder, for tests of the command line."

import contextlib
import functools
import io
import tempfile
from pathlib import Path

from PIL import Image

WORDS = 'the a rabbit bear monkey walks runs to from river hill and finds red blue kite home again happy with'


@functools.cache
def small_model() -> Path:
    "The folder of the saved pipeline; its pictures take two denoising steps, its pages at most ten tokens."
    import torch
    from seed_story.pipeline.story_pipeline import StoryPipeline
    from seed_story.models.presets import build, preset
    from seed_story.models.sequence import build_tokenizer

    torch.manual_seed(0)
    config = preset('tiny')
    config['mllm']['llm_config'].update(num_hidden_layers=2, initializer_range=0.2, max_position_embeddings=1024)
    tokenizer = build_tokenizer([WORDS] * 3, vocab_size=320, num_slots=config['num_slots'])
    options = {**config['pipeline'], 'max_text_tokens': 10, 'num_inference_steps': 2, 'temperature': 1.0, 'pages': 4}
    pipe = StoryPipeline(tokenizer=tokenizer, **build(config, tokenizer), **options)
    folder = Path(tempfile.mkdtemp(prefix='small-model-'))
    pipe.save_pretrained(folder, safe_serialization=True)
    (folder / 'opening').mkdir()
    Image.new('RGB', (120, 120), (90, 160, 220)).save(folder / 'opening' / 'opening.png')
    (folder / 'opening' / 'opening.txt').write_text('the rabbit walks to the river\n')
    return folder


def command(*words):
    "Run `seed-story` in this process; returns its exit code, stdout and stderr."
    from seed_story.cli import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(w) for w in words])
    return code, out.getvalue(), err.getvalue()


def tell(out, *words, model=None):
    "`seed-story tell` with the small model."
    return command('tell', '--model', model or small_model(), '--out', out, *words)


def pages_of(out) -> list[tuple[str, bytes]]:
    "(text, bytes of the picture file) of every page of a book."
    from seed_story.story.format import read_stories

    [story] = read_stories(Path(out) / 'story.jsonl')
    return [(page.text, Path(page.image).read_bytes()) for page in story]
