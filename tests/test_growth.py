"""Page 200 of a story costs what page 10 does under a policy that keeps a bounded number of tokens.

The work between two pages is counted, in instructions of Python and in numbers that torch handles, not timed."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, LlamaForCausalLM

from seed_story.pipeline import narrate as narrating
from seed_story.sinks.cache import SinkCache
from seed_story.sinks.memory import Memory, evict
from seed_story.sinks.policies import POLICIES, PageSpan, attention_policy
from seed_story.sinks.rotary import Rotary
from seed_story.sinks.static_cache import StaticSinkCache

EARLY, LATE = 10, 200  # pages that are compared
FLAT = [
    'window:2',
    'sink:2@contiguous',
    'capped:2,cap=3@clamped',
    'pinned:2@clamped',
    'heavy:2,heavy=10@clamped',
    'multimodal:2,cap=3,sentences=1',
]
GROWING = ['dense@clamped', 'multimodal:2,sentences=1@clamped', 'random:2']
REENCODING = ['reencode:2', 'lead:2,lead=1']
MARKERS = SimpleNamespace(boi=1, eoi=2)
PAGE = torch.tensor([[5, 5, 5, 7, 5, 5, 1, 3, 3, 3, 3, 2]])  # 7 ends a sentence, 3 is a slot
LLM = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
)


class Numbers(TorchFunctionMode):
    "Counts the numbers in all tensors that torch gives while this lasts."

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        self.count += found.numel() if isinstance(found, torch.Tensor) else 0
        return found


def work_of(call) -> dict[str, int]:
    "What `call` does."
    instructions = 0

    def trace(frame, event, argument):
        nonlocal instructions
        frame.f_trace_opcodes = True
        instructions += event == 'opcode'
        return trace

    before = sys.gettrace()
    with Numbers() as numbers:
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
    return dict(instructions=instructions, numbers=numbers.count)


def in_memory(policy):
    "A page after the other in the cache of the pipeline, without a model: (next page, tokens held, bytes)."
    memory, new = Memory.empty(1, 'cpu'), torch.ones(1, 1, PAGE.shape[1], 8)
    rotary = None if policy.position_mode == 'absolute' else Rotary.from_model(LLM)
    memory.cache.tracks_attention = policy.needs_attention

    def turn_page():
        start, length = int(memory.tokens_seen), PAGE.shape[1]
        memory.cache.update(new, new, 0)
        memory.positions = torch.cat([memory.positions, torch.arange(start, start + length)[None]], 1)
        memory.tokens_seen = memory.tokens_seen + length
        if policy.needs_attention:
            memory.cache.add_attention(torch.ones(1, memory.tokens_held), True)
        memory.pages[0].append(PageSpan(start, start + 6, start + 11, (start + 3,)))
        evict(memory, policy, rotary)

    return turn_page, lambda: (memory.tokens_held, sum(layer.nbytes for layer in memory.cache.layers))


def in_sink_cache(policy):
    "The same in a `SinkCache`."
    cache, new = SinkCache(LLM, policy, 1, MARKERS, {7}), torch.ones(1, 1, PAGE.shape[1], 8)
    cache.tracks_attention = policy.needs_attention

    def turn_page():
        cache.announce(PAGE)
        cache.update(new, new, 0)
        if policy.needs_attention:
            cache.add_attention(torch.ones(1, new.shape[2] + held), True)

    def state():
        nonlocal held
        held = cache.tokens_held
        return held, cache.nbytes

    held = 0
    return turn_page, state


def in_static_cache(policy):
    "The same in a `StaticSinkCache`."
    cache, new = StaticSinkCache(LLM, policy, 100, 1, MARKERS, {7}), torch.ones(1, 1, PAGE.shape[1], 8)

    def turn_page():
        cache.update(new, new, 0)
        cache.advance(PAGE)

    return turn_page, lambda: (cache.tokens_held, cache.nbytes)


@torch.no_grad()
def measured(form, name):
    "(work, tokens held, bytes) of page `EARLY`, and of page `LATE`."
    turn_page, state = form(attention_policy(name))
    found = []
    for number in range(1, LATE + 1):
        if number in (EARLY, LATE):
            work = work_of(turn_page)
            found.append((work, *state()))
        else:
            turn_page()
            state()
    return found


@pytest.mark.parametrize('name', FLAT)
def test_what_stays_bounded_costs_the_same_on_every_page(name):
    for form in (in_memory, in_sink_cache, in_static_cache):
        if form is in_static_cache and attention_policy(name).needs_attention:
            continue
        (early, *kept), (late, *kept_late) = measured(form, name)
        assert kept == kept_late, form
        for what, count in early.items():
            assert late[what] <= 1.01 * count, (form, what, early, late)


@pytest.mark.parametrize('name', GROWING)
def test_what_grows_costs_no_more_than_it_holds(name):
    (early, held, size), (late, held_late, size_late) = measured(in_memory, name)
    grown = held_late / held
    assert grown > 10 and size_late / size <= 1.5 * grown, 'a key that is moved is kept where it was read as well'
    for what, count in early.items():
        assert late[what] <= 1.1 * grown * count, (what, early, late)


def test_every_policy_is_measured():
    assert {name.partition(':')[0].partition('@')[0] for name in FLAT + GROWING + REENCODING} == set(POLICIES)


@pytest.mark.parametrize('name', REENCODING)
def test_a_page_that_is_read_anew_is_found_and_what_is_not_needed_goes(name):
    policy = attention_policy(name)
    encoder = SimpleNamespace(before_ids=lambda first=False, left=None: [] if first else [5])
    narrator: narrating.Narrator = SimpleNamespace(
        encoder=encoder,
        tokenizer=SimpleNamespace(bos_token_id=0),
        image_tokens=SimpleNamespace(num_slots=4),
        sentence_end_ids={7},
    )
    story, spans, found = [], [], []
    for number in range(LATE):
        page = narrating.NarratedPage(str(number), [5, 7, 5], torch.ones(1, 2), torch.ones(4, 2))
        if story:
            narrating.append_to_stories([story], [page], policy)
        else:
            story.append(page)
        if number + 1 in (EARLY, LATE):
            found.append(work_of(lambda: narrating._reencoded_pages(policy, narrator, story, spans)))
        again = narrating._reencoded_pages(policy, narrator, story, spans)
        assert [page.text for page in again] == [p.text for p in story[-policy.newest_pages :]]
        assert all(page.image_embeds is not None for page in again)
    early, late = (work['instructions'] for work in found)
    assert late <= 1.1 * early
    assert sum(page.image_embeds is not None for page in story) == policy.newest_pages
