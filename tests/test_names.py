"""Stories with any names: what a tokenizer makes of them."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from seed_story.storyland.plot import write_plot

TOKENIZER = Path(__file__).parents[1] / 'data' / 'tiny' / 'tokenizer' / 'tokenizer.json'
MOST_TOKENS = 62  # of a text in training: 64 with the separator


@pytest.mark.parametrize('names', ['any', 'unseen'])
def test_texts_with_any_name_go_through_the_tokenizer(names):
    "Encoded and decoded, a text is what it was; fewer than one in a thousand is so long that training cuts it."
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    stories = [write_plot(seed, (10, 30)[seed % 2], seed % 4, names=names) for seed in range(3_000, 3_240)]
    texts = [page.text for story in stories for page in story.pages]
    ids = [found.ids for found in tokenizer.encode_batch(texts)]
    assert [text.lstrip(' ') for text in tokenizer.decode_batch(ids)] == texts
    assert sum(len(found) > MOST_TOKENS for found in ids) < len(texts) / 1000
    called = [c.name for story in stories for c in story.cast]
    assert sum(len(tokenizer.encode(name).ids) > 1 for name in called) > 0.9 * len(called), 'few are known as a whole'
