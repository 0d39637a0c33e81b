"Separator, countdown and text are encoded apart, with any tokenizer; what is told has the ids that were trained."

import functools
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from seed_story.models.sequence import (
    BOI,
    EOI,
    IGNORE_INDEX,
    SEPARATOR,
    PageEncoder,
    add_image_tokens,
    build_branched_batch,
    build_tokenizer,
)
from seed_story.storyland.plot import write_plot

DATA = Path(__file__).parents[1] / 'data'
SIGNS = ['"Come in!" he said.', '(Nobody.)', '“Who?” asked Ärä.', "'No' — 12 …", '🐸 sat.', '[a] b', '-> c', ' d ']
NAMES = ['<pad>', '<s>', '</s>']


@functools.cache
def true_texts() -> list[str]:
    return [page.text for seed in range(36) for page in write_plot(1_500_000 + seed, 30).pages][:1000]


def finished(core: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token='<s>', eos_token='</s>', pad_token='<pad>', clean_up_tokenization_spaces=False
    )
    add_image_tokens(tokenizer, 4)
    return tokenizer


def trained(core: Tokenizer, **options) -> PreTrainedTokenizerFast:
    texts = [SEPARATOR + text for text in [*SIGNS, *true_texts()[:200]]]
    core.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=NAMES, show_progress=False, **options))
    return finished(core)


def smollm_like() -> PreTrainedTokenizerFast:
    "Byte-level BPE whose words may be several signs, so that `]` and a quotation mark are one token; digits alone."
    core = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r'\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s+'), 'isolated')
    core.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    return trained(core, vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))


def llama_like() -> PreTrainedTokenizerFast:
    "BPE over a text whose blanks are `▁`, one before it; what is not known falls back to bytes."
    core = Tokenizer(models.BPE(unk_token='<unk>', byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    core.decoder = decoders.Sequence(
        [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    texts = [SEPARATOR + text for text in [*SIGNS[:2], *true_texts()[:60]]]
    special = [*NAMES, '<unk>', *(f'<0x{n:02X}>' for n in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=special, show_progress=False, max_token_length=16)
    core.train_from_iterator(texts, trainer)
    return finished(core)


TOKENIZERS = {
    'tiny': lambda: AutoTokenizer.from_pretrained(DATA / 'tiny' / 'tokenizer'),
    'built': lambda: build_tokenizer(true_texts()[:200], 800, num_slots=4),
    'smollm-like': smollm_like,
    'llama-like': llama_like,
}


@functools.cache
def encoder(name: str) -> PageEncoder:
    return PageEncoder(TOKENIZERS[name]())


def joint(tokenizer, text: str) -> list[int]:
    "The ids of a page as part of one string: how pages were trained before."
    return tokenizer(EOI + SEPARATOR + text + BOI, add_special_tokens=False)['input_ids'][1:-1]


def test_ids_of_tiny_are_those_it_was_trained_with():
    texts = true_texts()
    assert len(set(texts)) > 900
    tiny = encoder('tiny')
    for text, page, opening in zip(texts, tiny(texts, [False] * 1000), tiny(texts, [True] * 1000)):
        assert page.tolist() == joint(tiny.tokenizer, text)
        assert opening.tolist() == tiny.tokenizer(text + BOI, add_special_tokens=False)['input_ids'][:-1]


@pytest.mark.parametrize('name', TOKENIZERS)
def test_a_page_is_what_is_read_before_its_text_and_the_text(name):
    encode = encoder(name)
    texts = [*SIGNS, *true_texts()[:50]]
    numbers = [(None, 0, 7, 29, 30, -1)[k % 6] for k in range(len(texts))]
    pages = encode(texts, [False] * len(texts), numbers)
    for text, left, page in zip(texts, numbers, pages):
        [alone] = encode([text])
        assert page.tolist() == [*encode.separator_ids, *encode.countdown_ids(left), *alone]
        assert encode.tokenizer.decode(alone).strip() == text.strip(), 'nothing of the text is lost'
        told = left in range(30)
        assert encode.tokenizer.decode(encode.countdown_ids(left)).strip() == (f'({left})' if told else '')


def test_a_tokenizer_that_joins_the_separator_and_a_quotation_mark_is_among_them():
    joined = {name: joint(encoder(name).tokenizer, SIGNS[0]) != encoder(name)(SIGNS[:1], [False])[0].tolist()
              for name in TOKENIZERS}  # fmt: skip
    assert joined['smollm-like'] and not joined['tiny'] and not joined['built']


@pytest.mark.parametrize('name', TOKENIZERS)
@pytest.mark.parametrize('left', [None, [[9, 8, 7, 6], [31, 30, 29]]])
def test_labels_are_the_pages_without_their_countdown(name, left):
    encode = encoder(name)
    chunks = [SIGNS[:4], SIGNS[3:6]]
    for last in (False, True):
        batch = build_branched_batch(chunks, encode, 4, ends=[True, False], left=left, last=last, first_target=0)
        plain = build_branched_batch(chunks, encode, 4, ends=[True, False], last=last, first_target=0)
        for row in range(2):
            labels = batch.labels[row]
            there = labels != IGNORE_INDEX
            assert labels[there].tolist() == plain.labels[row][plain.labels[row] != IGNORE_INDEX].tolist()
            assert batch.input_ids[row, : len(labels)][there].equal(labels[there])
            numbers = None if left is None else left[row]
            parts = encode(chunks[row], None, numbers)
            texts = batch.input_ids[row][: batch.trunk_length][batch.page[row][: batch.trunk_length] >= 0].tolist()
            at = 0
            for part in parts:
                assert texts[at : at + len(part) + 1] == [*part, encode.image.boi]
                at += len(part) + 2 + encode.image.num_slots
