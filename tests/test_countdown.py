"Separator, countdown and text are encoded apart, with any tokenizer; what is told has the ids that were trained."

import functools
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import seed_story.pipeline.tell
from fuzzing import cases
from seed_story.models.mllm import StoryMLLM, StoryMLLMConfig, branched_loss
from seed_story.models.sequence import (
    BOI,
    EOI,
    IGNORE_INDEX,
    SEPARATOR,
    PageEncoder,
    add_image_tokens,
    build_branched_batch,
    build_tokenizer,
    with_num_slots,
)
from seed_story.pipeline.narrate import NarratedPage, Narrator, narrate, tokenize_story
from seed_story.pipeline.reading import read_teacher_forced
from seed_story.pipeline.sampling import Sampling
from seed_story.sinks.ledger import PageTracker
from seed_story.sinks.policies import Layout, attention_policy
from seed_story.story.book import open_book, read_page_states
from seed_story.story.lines import clean_text
from seed_story.storyland.plot import write_plot
from seed_story.training.eviction import page_spans
from small_model import command, pages_of, small_model, tell

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


# --- models: what is read page by page is what was trained at once


def toy(tokenizer, seed: int = 0) -> StoryMLLM:
    "A small random model that is told how many pages follow."
    llm = dict(model_type='llama', vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48,
               num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
               initializer_range=0.3)  # fmt: skip
    sizes = dict(input_resampler=dict(grid_size=2, embed_dim=32, num_heads=4, kv_dim=24),
                 output_resampler=dict(grid_size=3, embed_dim=24, num_heads=4, kv_dim=32))  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return StoryMLLM(StoryMLLMConfig(llm_config=llm, feature_norm=24**0.5, page_countdown=True, **sizes)).eval()


def without_separators(batch, count: int) -> torch.Tensor:
    "The labels of a batch without those of separators of so many tokens, which are given when a story is told."
    labels = batch.labels.clone()
    for row, pages in zip(labels, batch.page[:, : batch.trunk_length]):
        for number in range(1, int(pages.max()) + 1):
            start = int((pages == number).int().argmax())
            row[start : start + count] = IGNORE_INDEX
    return labels


@pytest.mark.parametrize('name', TOKENIZERS)
@pytest.mark.parametrize('left', [[3, 2, 1, 0], [31, 30, 29, 28], [None, 2, None, 0]])
@torch.no_grad()
def test_what_is_read_is_what_was_trained(name, left):
    encode = PageEncoder(with_num_slots(encoder(name).tokenizer, 4))
    model = toy(encode.tokenizer)
    narrator = Narrator(model, encode.tokenizer)
    stories = [[clean_text(text) for text in SIGNS[:4]], [clean_text(text) for text in SIGNS[4:8]]]
    true = torch.randn(2, 4, 9, 24, generator=torch.Generator().manual_seed(1))
    batch = build_branched_batch(stories, encode, 4, features=true, left=[left] * 2)
    batch.labels[:] = without_separators(batch, len(encode.separator_ids))
    at_once = branched_loss(model, batch)
    along = list(read_teacher_forced(narrator, stories, true, left=left))
    tokens = sum(page.tokens.sum() for page in along)
    assert tokens == (batch.labels != IGNORE_INDEX).sum()
    assert torch.allclose(sum(page.nats.sum() for page in along) / tokens, at_once.lm_loss, atol=1e-4)
    assert torch.allclose(torch.stack([page.features for page in along], 1), at_once.image_features, atol=1e-3)
    for row, story in enumerate(stories):
        pages = [narrator.encode_text(text, n) for text, n in zip(story, left)]
        ids, spans = tokenize_story(narrator, pages)
        boi = spans[-1].boi  # the trunk ends there
        assert ids[: boi + 1] == batch.input_ids[row, : boi + 1].tolist(), 'a story that is read anew'
        assert spans == page_spans(batch, encode.image, narrator.sentence_end_ids)[row], 'and its pages stand there'
        tracker = PageTracker(encode.image, narrator.sentence_end_ids)
        tracker.read(ids)
        assert tracker.pages == spans, 'for a cache that finds pages by itself'


# --- policies: a page begins with its separator, countdown or not


@pytest.mark.parametrize('name', ['tiny', 'smollm-like'])
def test_policies_keep_of_a_page_what_they_kept_without_its_countdown(name):
    encode = encoder(name)
    narrator = Narrator(toy(encode.tokenizer), encode.tokenizer)
    texts = [page.text for page in write_plot(1_500_000, 10).pages]
    layouts = []
    for left in (None, *range(9, -1, -1)), [None] * 10:
        pages = [narrator.encode_text(text, n) for text, n in zip(texts, left[-10:])]
        ids, spans = tokenize_story(narrator, pages)
        layouts.append((ids, spans, Layout(tuple(spans), len(ids), [0.0] * len(ids))))
    for policy in ('dense', 'window:3', 'reencode:3', 'lead:2', 'sink:pages=2,first=1', 'multimodal:2', 'capped:2',
                   'multimodal:pages=2,first=1,sentences=1', 'pinned:2'):  # fmt: skip
        kept = []
        for ids, spans, layout in layouts:
            at = [i for r in attention_policy(policy).keep(layout) for i in r]
            of_page = [[i for i in at if span.start <= i < span.stop] for span in spans]
            countdowns = [encode.countdown_ids(9 - n) if ids is layouts[0][0] else [] for n in range(10)]
            found = []
            for number, (span, places) in enumerate(zip(spans, of_page)):
                begin = span.start + (len(encode.separator_ids) if number else 1)
                given = range(begin, begin + len(countdowns[number]))
                assert [ids[i] for i in given] == countdowns[number]
                found.append([ids[i] for i in places if i not in given])
            kept.append(found)
        assert kept[0] == kept[1] or policy == 'multimodal:2' or policy == 'capped:2', policy
        if policy in ('multimodal:2', 'capped:2'):  # `first` counts the tokens of the story, whatever they say
            assert kept[0][1:] == kept[1][1:] and len(kept[0][0]) <= len(kept[1][0])


# --- stories and books


PICTURE = torch.randn(1, 9, 24, generator=torch.Generator().manual_seed(2))
OPENINGS = ['the rabbit walks', 'a bear', 'the monkey finds a red kite and runs home']


@functools.cache
def story_teller() -> Narrator:
    tokenizer = build_tokenizer(OPENINGS * 3, 320, num_slots=4)
    return Narrator(toy(tokenizer, 3), tokenizer)


def told(pages, policy, seeds, known=()) -> list[tuple]:
    "Stories as a book keeps them: a list of (ids, left, features) for each seed."
    openings = [OPENINGS[seed % 3] for seed in seeds]
    rows = narrate(story_teller(), openings, PICTURE.expand(len(seeds), -1, -1), pages, attention_policy(policy),
                   Sampling(1.0, 0.9, 6, repetition_tries=1), seeds, known)  # fmt: skip
    return [[NarratedPage(p.text, p.ids, p.features, left=p.left) for p in story] for story in zip(*rows)]


def exactly(one, other) -> bool:
    return [(p.ids, p.left) for p in one] == [(p.ids, p.left) for p in other] and all(
        torch.equal(p.features, q.features) for p, q in zip(one, other)
    )


@cases(6)
@given(
    st.integers(2, 6),
    st.lists(st.integers(0, 99), min_size=1, max_size=3),
    st.sampled_from(['dense', 'window:2', 'reencode:3', 'multimodal:2@clamped:60', 'sink:2@cache']),
    st.integers(0, 4),
)
def test_stories_of_any_length_go_on_as_they_would_have(pages, seeds, policy, more):
    whole = told(pages, policy, seeds)
    assert all([page.left for page in story] == [*range(pages - 1, -1, -1)] for story in whole)
    for stop in range(1, pages):
        known = [list(page) for page in zip(*(story[1:stop] for story in whole))]
        assert all(map(exactly, told(pages, policy, seeds, known), whole)), stop
    known = [list(page) for page in zip(*(story[1:] for story in whole))]
    longer = told(pages + more, policy, seeds, known)
    for story, before in zip(longer, whole):
        assert exactly(story[:pages], before)
        assert [page.left for page in story[pages:]] == [*range(more - 1, -1, -1)]


@pytest.fixture
def counting_model(monkeypatch):
    "The small model of the command line, which now was trained to be told how many pages follow."
    from seed_story.pipeline.loading import load_pipeline

    pipe = load_pipeline(str(small_model()))
    monkeypatch.setattr(seed_story.pipeline.tell, 'load_pipeline', lambda *_: pipe)
    pipe.mllm.config.page_countdown = True
    return pipe


def files_of(book: Path) -> dict[str, bytes]:
    return {p.relative_to(book).as_posix(): p.read_bytes() for p in book.rglob('*') if p.is_file()}


def lefts(book: Path) -> list[int | None]:
    return [state[3] for state in read_page_states(open_book(book))]


def test_an_interrupted_book_ends_as_the_whole_one(counting_model, tmp_path, monkeypatch):
    words = ['--seed', 5, '--steps', 1, '--quiet']
    assert tell(tmp_path / 'whole', '--pages', 3, *words)[0] == 0
    assert lefts(tmp_path / 'whole') == [1, 0]
    real = seed_story.pipeline.tell.save_page
    for stop in (1, 2):
        book = tmp_path / str(stop)

        def save_page(*page, stop=stop):
            if len(page[0]) == stop:
                raise KeyboardInterrupt
            return real(*page)

        monkeypatch.setattr(seed_story.pipeline.tell, 'save_page', save_page)
        assert tell(book, '--pages', 3, *words)[0] == 130
        monkeypatch.setattr(seed_story.pipeline.tell, 'save_page', real)
        assert command('tell', '--resume', '--out', book, '--quiet')[0] == 0
        assert files_of(book) == files_of(tmp_path / 'whole'), stop


def test_a_finished_book_goes_on_to_another_end(counting_model, tmp_path):
    book = tmp_path / 'book'
    assert tell(book, '--pages', 2, '--seed', 5, '--steps', 1, '--quiet')[0] == 0
    begun = pages_of(book)
    assert command('tell', '--resume', '--out', book, '--pages', 4, '--quiet')[0] == 0
    assert pages_of(book)[:2] == begun and lefts(book) == [0, 1, 0]
    code, _, error = command('tell', '--resume', '--out', book, '--pages', 6, '--no-ending', '--quiet')
    assert code and 'ending was True, now False' in error and error.count('\n') == 1


def test_an_ending_can_be_left_out_and_not_be_asked_of_a_model_without(counting_model, tmp_path):
    words = ['--pages', 2, '--seed', 5, '--steps', 1, '--quiet']
    assert tell(tmp_path / 'ends', '--ending', *words)[0] == 0 and lefts(tmp_path / 'ends') == [0]
    assert tell(tmp_path / 'silent', '--no-ending', *words)[0] == 0 and lefts(tmp_path / 'silent') == [None]
    counting_model.mllm.config.page_countdown = False
    assert tell(tmp_path / 'plain', *words)[0] == 0
    assert pages_of(tmp_path / 'silent') == pages_of(tmp_path / 'plain') != pages_of(tmp_path / 'ends')
    code, _, error = tell(tmp_path / 'refused', '--ending', *words)
    assert code and error.count('\n') == 1 and 'not trained to be told how many pages follow' in error
    assert not (tmp_path / 'refused').exists()


def test_a_book_of_an_earlier_version_goes_on(counting_model, tmp_path):
    counting_model.mllm.config.page_countdown = False
    for name, pages in ('book', 2), ('whole', 3):
        assert tell(tmp_path / name, '--pages', pages, '--seed', 5, '--steps', 1, '--quiet')[0] == 0
    file = tmp_path / 'book' / '.state' / 'settings.json'
    settings = json.loads(file.read_text('utf-8'))
    assert settings.pop('ending') is False
    file.write_text(json.dumps(settings), 'utf-8')
    assert command('tell', '--resume', '--out', tmp_path / 'book', '--pages', 3, '--quiet')[::2] == (0, '')
    assert files_of(tmp_path / 'book') == files_of(tmp_path / 'whole')
