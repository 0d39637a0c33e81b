"""The cache used otherwise than it was meant: under a wrapper, as a copy, with another model, a mask or positions that
do not fit, a text that was not reset, after a pass that broke off.

Each is right, or a ValueError that says what to do."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from accelerate import cpu_offload
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM
from seed_story.models.sequence import ImageTokens
from seed_story.sinks.cache import EvictingCache, SinkCache, track_attention, trained_distance
from seed_story.sinks.cache_names import cache_argument
from seed_story.sinks.static_cache import StaticSinkCache

SIZES = dict(
    vocab_size=100,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    initializer_range=0.3,
    pad_token_id=0,
    eos_token_id=None,
)
IMAGE = ImageTokens(90, 91, (80, 81, 82))
IDS = torch.randint(10, 80, (2, 10), generator=torch.Generator().manual_seed(1))
MASK = torch.ones(2, 10, dtype=torch.long)
MASK[1, :4] = 0
POLICY = 'sink:tokens=6,first=2@cache'


def model_of(**options):
    torch.manual_seed(0)
    return (
        AutoModelForCausalLM.from_config(AutoConfig.for_model('llama', **SIZES | options)).eval().requires_grad_(False)
    )


def tell(model, cache, ids=IDS, mask=None, new=8, **options):
    given = {} if mask is None else dict(attention_mask=mask)
    inner = getattr(model, 'module', model)
    return inner.generate(
        input_ids=ids, **given, **cache_argument(model, cache), max_new_tokens=new, do_sample=False, **options
    )


def adapted(model, **more):
    whole = get_peft_model(model, LoraConfig(r=4, target_modules=['q_proj'], task_type='CAUSAL_LM', **more))
    for name, p in whole.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(p, std=0.3)
    return whole.eval()


WRAPPERS = dict(
    peft=adapted,
    trained_rows=lambda model: adapted(model, trainable_token_indices=dict(embed_tokens=[3, 4])),
    data_parallel=torch.nn.DataParallel,
    offloaded=lambda model: cpu_offload(model, execution_device=torch.device('cpu')),
    peft_in_parallel=lambda model: torch.nn.DataParallel(adapted(model)),
)


@pytest.mark.parametrize('wrapper', WRAPPERS)
@torch.no_grad()
def test_padding_and_pages_are_seen_through_a_wrapper(wrapper):
    "F4: a padded row is what it is alone, and pages are counted, whether the cache is given the wrapper or the model."
    model = model_of()
    whole = WRAPPERS[wrapper](model)
    inner = getattr(whole, 'module', whole)
    told = tell(whole, SinkCache(whole, POLICY), mask=MASK)
    assert told.equal(tell(whole, SinkCache(model, POLICY), mask=MASK))
    for row, ids in enumerate((IDS[:1], IDS[1:, 4:])):
        assert tell(whole, SinkCache(whole, POLICY), ids)[0, -8:].equal(told[row, -8:]), row
    story = torch.cat([IDS[:1, :6], torch.tensor([[90, 80, 81, 82, 91]])] * 6, 1)
    for given in (whole, model):
        cache = SinkCache(given, 'window:2', image_tokens=IMAGE)
        logits = whole(input_ids=story, **cache_argument(inner, cache)).logits
        assert logits.shape[1] == 66 and len(cache.inputs.pages(0)) == 6 and cache.tokens_held == 22
        static = StaticSinkCache(given, 'window:2', 80, 8, image_tokens=IMAGE)
        assert torch.allclose(whole(input_ids=story, **cache_argument(inner, static)).logits, logits, atol=1e-4)


@torch.no_grad()
def read(model, cache, ids, **given):
    logits = model(input_ids=ids, **given, **cache_argument(model, cache)).logits
    if isinstance(cache, StaticSinkCache):
        cache.advance(ids)
    return logits


def pages(start, stop):
    draw = torch.Generator().manual_seed(5)
    words = torch.randint(10, 80, (12, 6), generator=draw)
    return torch.cat([torch.cat([words[n], torch.tensor([90, 80, 81, 82, 91])]) for n in range(start, stop)])[None]


@pytest.mark.parametrize('form', ['moving', 'static', 'heavy'])
@pytest.mark.parametrize('copied', [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
@torch.no_grad()
def test_a_copy_goes_on_by_itself(form, copied):
    "F5: pages and attention are counted in a copy, too, and what is read with it changes nothing in the original."
    model = model_of(**dict(attn_implementation='eager') if form == 'heavy' else {})

    def new():
        if form == 'static':
            return StaticSinkCache(model, 'window:2@cache', 64, 1, image_tokens=IMAGE)
        cache = SinkCache(model, 'heavy:2,heavy=5' if form == 'heavy' else 'window:2@cache', image_tokens=IMAGE)
        return track_attention(cache, model) if form == 'heavy' else cache

    first = new()
    for at in range(3):
        read(model, first, pages(at, at + 1))
    other = copied(first)
    if form != 'static' and not other.model_ids:
        with pytest.raises(ValueError, match=r'come from another process; call attach\(model\)'):
            read(model, other, pages(3, 4))
        other = copied(first)
        other.attach(model)
    whole = new()
    for at in range(6):
        wanted = read(model, whole, pages(at, at + 1))
    for cache in (first, other):
        for at in range(3, 6):
            found = read(model, cache, pages(at, at + 1))
        assert torch.allclose(found, wanted, atol=1e-5) and cache.tokens_held == whole.tokens_held < 66


def test_a_cache_filled_with_gradients_is_not_copied():
    model = model_of().requires_grad_(True)
    cache = SinkCache(model, 'dense')
    model(input_ids=IDS, **cache_argument(model, cache))
    with pytest.raises(ValueError, match=r'filled with gradients .*torch.no_grad\(\)'):
        copy.deepcopy(cache)


def refused(match, run):
    with pytest.raises(ValueError, match=match) as caught:
        run()
    assert len(str(caught.value)) < 260 and '\n' not in str(caught.value)


@pytest.mark.parametrize('form', [SinkCache, lambda model, policy: StaticSinkCache(model, policy, 96, 4)])
@torch.no_grad()
def test_another_text_needs_a_reset(form):
    "F19: a text that is not longer than what was read, by `generate` and by a forward pass with its mask or positions."
    model = model_of()
    long = torch.randint(10, 80, (1, 30), generator=torch.Generator().manual_seed(2))
    cache = form(model, 'dense')
    more = dict(stopping_criteria=[cache.advance_criteria()]) if hasattr(cache, 'advance_criteria') else {}
    told = tell(model, cache, long, **more)
    for other in (long[:, :12].flip(1), torch.cat([long, long], 1)[:, :36].flip(1)):
        refused(r'call reset\(\)', lambda: tell(model, cache, other, **more))
        refused(r'call reset\(\)', lambda: tell(model, cache, other, torch.ones_like(other), **more))
    read_twice = dict(attention_mask=torch.ones(1, 4)), dict(position_ids=torch.arange(4)[None])
    for given in read_twice:
        refused(r'call reset\(\)', lambda: read(model, cache, long[:, :4], **given))
    cache.reset()
    assert tell(model, cache, long, **more).equal(told)
    cache.reset()
    short = tell(model, form(model, 'dense'), long[:, :12], new=3) if not more else None
    assert short is None or tell(model, cache, long[:, :12], new=3).equal(short)


@torch.no_grad()
def test_positions_and_masks_that_do_not_fit():
    model = model_of()
    cache = SinkCache(model, POLICY)
    refused(
        'position_ids begin with 3, and 0 tokens',
        lambda: read(model, cache, IDS, position_ids=torch.arange(3, 13)[None]),
    )
    refused('pad on the left', lambda: read(model, cache, IDS, attention_mask=MASK.flip(1)))
    refused('mask is of 12 tokens, and 0 were', lambda: read(model, cache, IDS, attention_mask=torch.ones(2, 12)))
    assert not cache.ledger.rows and not cache.layers, 'what is refused is not entered'
    read(model, cache, IDS, attention_mask=MASK)
    refused('first tokens of this batch were padding', lambda: read(model, cache, IDS[:, :1]))
    refused(
        'padding of this batch is no longer', lambda: read(model, cache, IDS[:, :1], attention_mask=torch.ones(2, 11))
    )
    refused('holds 2 texts, and 1 are read', lambda: read(model, cache, IDS[:1, :1], attention_mask=torch.ones(1, 11)))
    again = SinkCache(model, POLICY)
    read(model, again, IDS, attention_mask=MASK)
    mask = torch.cat([MASK, torch.ones(2, 1)], 1)
    places = mask.long().cumsum(1)[:, -1:] - 1
    left = read(model, cache, IDS[:, :1], attention_mask=mask)
    refused(
        'not given with every pass', lambda: read(model, again, IDS[:, :1], attention_mask=mask, position_ids=places)
    )
    again.reset()
    read(model, again, IDS, attention_mask=MASK, position_ids=(MASK.cumsum(1) - 1).clamp(min=0))
    assert torch.allclose(left, read(model, again, IDS[:, :1], attention_mask=mask, position_ids=places), atol=1e-4)


@torch.no_grad()
def test_another_model_is_found_out():
    model, other = model_of(), model_of(num_hidden_layers=3)
    for policy in ('dense', POLICY):
        cache = SinkCache(model, policy)
        refused(r'made for another model.*call attach\(model\)', lambda: read(other, cache, IDS))
        SinkCache(other, policy)  # which listens now, too
        refused(r'made for another model.*call attach\(model\)', lambda: read(other, cache, IDS))
        read(model, cache, IDS)
    turning = model_of(rope_parameters=dict(rope_type='default', rope_theta=100.0))
    refused('turns its keys otherwise', lambda: cache.attach(turning))
    cache.reset()
    cache.attach(turning)
    assert torch.allclose(read(turning, cache, IDS), turning(IDS).logits, atol=1e-4)
    for wrong in (torch.nn.Linear(2, 2), None, 'llama'):
        refused('language model of transformers', lambda: SinkCache(wrong))
        refused('language model of transformers', lambda: StaticSinkCache(wrong, 'dense', 9))
    t5 = AutoConfig.for_model('t5', vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    from transformers import T5ForConditionalGeneration

    refused('holds none without an encoder', lambda: SinkCache(T5ForConditionalGeneration(t5)))


@torch.no_grad()
def test_a_pass_that_broke_off():
    "Ctrl-C in the middle of a pass: the layers hold different tokens, and the next pass says so."
    model = model_of()
    cache = SinkCache(model, POLICY)
    read(model, cache, IDS)

    def stop(*args):
        raise KeyboardInterrupt

    handle = model.model.layers[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        read(model, cache, IDS[:, :1])
    handle.remove()
    refused(r'an earlier pass broke off.*call reset\(\)', lambda: read(model, cache, IDS[:, :1]))
    cache.reset()
    assert torch.allclose(read(model, cache, IDS), model(IDS).logits, atol=1e-4)


@torch.no_grad()
def test_pages_need_ids_and_heavy_hitters_attention():
    model = model_of(attn_implementation='eager')
    embeds = model.get_input_embeddings()(IDS)
    cache = SinkCache(model, 'window:2', image_tokens=IMAGE)
    refused(
        'counts pages, and inputs_embeds show none', lambda: model(inputs_embeds=embeds, **cache_argument(model, cache))
    )
    refused(r'call track_attention\(cache, model\)', lambda: read(model, SinkCache(model, 'heavy:tokens=4'), IDS))
    tracked = track_attention(SinkCache(model, 'heavy:tokens=4,heavy=2'), model)
    read(model, tracked, IDS)
    assert tracked.tokens_held == 6
    tracked.measured_at = 3  # as if the hooks had been taken off
    refused('needs measured attention', lambda: read(model, tracked, IDS[:, :1]))
    bert = AutoModelForCausalLM.from_config(AutoConfig.for_model('bert', **SIZES)).eval()  # both ways: is_decoder=False
    refused('BertLMHeadModel reads in both directions', lambda: SinkCache(bert, 'dense'))
    unread = SinkCache(model, 'dense')
    unread.update = lambda keys, values, layer_idx, **kwargs: (keys, values)  # as where checkpoints take the cache away
    refused('LlamaForCausalLM has read nothing into this cache', lambda: read(model, unread, IDS))


@torch.no_grad()
def test_padding_in_the_static_form():
    "F11: refused in `generate` and in passes of one's own, with every attention kernel."
    for kernel in ('sdpa', 'eager'):
        model = model_of(attn_implementation=kernel)
        for run in (tell, lambda model, cache, mask, **_: read(model, cache, IDS, attention_mask=mask)):
            cache = StaticSinkCache(model, POLICY, 64, 8)
            keeper = dict(stopping_criteria=[cache.advance_criteria()])
            refused(
                'hides tokens: the static form serves no padding; use SinkCache',
                lambda: run(model, cache, mask=MASK, **keeper),
            )
            cache.reset()
            run(model, cache, mask=torch.ones_like(MASK), **keeper)
    step = torch.compile(
        lambda ids, mask, cache: model(input_ids=ids, attention_mask=mask, **cache_argument(model, cache)),
        backend='eager',
    )
    cache = StaticSinkCache(model, POLICY, 64, 8)
    step(IDS, MASK, cache)
    refused('hides tokens', lambda: cache.advance(IDS))
    refused('is a number of ids|was given ids', lambda: StaticSinkCache(model, POLICY, 64).advance(IDS))


@pytest.mark.parametrize('policy', ['sink:tokens=6,first=2@cache', 'window:tokens=7', 'window:1'])
@torch.no_grad()
def test_assisted_decoding_takes_tokens_back(policy):
    "Candidates that are taken back leave no trace: what is told is what one pass after another tells."
    model = model_of()
    ids = torch.cat([IDS[:1], torch.tensor([[90, 80, 81, 82, 91]])] * 3, 1)

    def new(every):
        return SinkCache(model, policy, every, image_tokens=IMAGE)

    told = tell(model, new(1), ids, new=24)
    found = new(1)
    looked_up = tell(model, found, ids, new=24, prompt_lookup_num_tokens=1)
    assert looked_up.shape == told.shape and found.get_seq_length() == ids.shape[1] + 23
    assert tell(model, new(1), ids, new=24, assistant_model=model_of(num_hidden_layers=1)).shape == told.shape
    alone = new(1)
    logits = read(model, alone, ids)[0, -1]
    assert logits.argmax() == looked_up[0, ids.shape[1]]


@torch.no_grad()
def test_taking_back():
    model = model_of()
    cache, never = (SinkCache(model, 'sink:tokens=6,first=2@cache', image_tokens=IMAGE) for _ in range(2))
    cache.crop(-3)  # of nothing
    for c in (cache, never):
        read(model, c, IDS)
    refused('cannot take back 1 tokens', lambda: cache.crop(-1))
    cache.activate_past_recording()
    assert cache.is_croppable
    read(model, cache, IDS[:, :5])
    cache.crop(-2)
    read(model, never, IDS[:, :3])
    assert torch.allclose(read(model, cache, IDS[:, 5:6]), read(model, never, IDS[:, 5:6]), atol=1e-5)
    assert cache.get_seq_length() == never.get_seq_length() == 14
    cache.crop(13)  # so many stay, as earlier transformers say it
    assert cache.get_seq_length() == 13
    refused('tokens_to_remove must be at least -13, not -99', lambda: cache.crop(-99))
    refused('cannot forget what it has measured', lambda: SinkCache(model, 'heavy:tokens=3').activate_past_recording())
    still = StaticSinkCache(model, 'sink:tokens=6', 64)
    assert not still.is_croppable
    refused('use SinkCache', still.activate_past_recording)


@torch.no_grad()
def test_a_page_that_was_taken_back_is_read_again():
    model = model_of()
    cache = SinkCache(model, 'window:1', evict_every=999, image_tokens=IMAGE)
    read(model, cache, pages(0, 2))
    assert len(cache.inputs.pages(0)) == 2
    cache.crop(-3)
    read(model, cache, torch.tensor([[82, 91, 7]]))
    assert [p.eoi for p in cache.inputs.pages(0)] == [10, 20]


class OneDevice(TorchDispatchMode):
    "Refuses to compute with tensors of different devices, as a GPU does."

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = torch.utils._pytree.tree_leaves((args, kwargs or {}))
        devices = {x.device.type for x in found if isinstance(x, torch.Tensor) and x.ndim}
        assert len(devices) < 2 or 'copy' in func.__name__, f'{func} of tensors on {devices}'
        return func(*args, **(kwargs or {}))


def on_meta(x):
    if isinstance(x, torch.Tensor):
        return x.to('meta')
    return type(x)(map(on_meta, x)) if isinstance(x, (tuple, list)) else x


@pytest.mark.parametrize('policy', ['sink:tokens=6,first=2@cache', 'window:tokens=4', 'dense@clamped:5'])
@torch.no_grad()
def test_layers_on_several_devices(policy):
    """F10: what stays and how far it moves is found where the first layer is, and done where each layer's keys are.

    The second device is `meta`, which computes shapes."""
    model = model_of(num_hidden_layers=3)
    cache, whole = SinkCache(model, policy), SinkCache(model, policy)
    for part in IDS.split([5, 1, 1, 3], 1):
        read(model, whole, part)

    def move(module, args, kwargs):
        return on_meta(args), {name: on_meta(value) for name, value in kwargs.items()}

    for module in (*model.model.layers[1:], model.model.norm, model.lm_head):
        module.to('meta').register_forward_pre_hook(move, with_kwargs=True)
    for part in IDS.split([5, 1, 1, 3], 1):
        with OneDevice():
            read(model, cache, part)
    assert [layer.keys.device.type for layer in cache.layers] == ['cpu', 'meta', 'meta']
    assert [layer.keys.shape for layer in cache.layers] == [layer.keys.shape for layer in whole.layers]
    assert torch.equal(cache.layers[0].keys, whole.layers[0].keys)
    with OneDevice():
        cache.reorder_cache(torch.tensor([1, 1]))
    cache.batch_repeat_interleave(2)
    assert {layer.values.shape[0] for layer in cache.layers} == {4}


def test_attention_of_several_devices():
    cache = EvictingCache()
    cache.add_attention(torch.ones(1, 3, device='meta'), False)
    cache.add_attention(torch.ones(1, 3), True)
    assert cache.attention_mass.device.type == 'meta'


@torch.no_grad()
def test_a_prompt_in_chunks():
    "The first chunk of a row may be nothing but padding."
    model = model_of()
    for policy in ('dense', 'dense@cache'):
        told = tell(model, SinkCache(model, policy), mask=MASK)
        for size in (2, 3, 4, 7):
            assert told.equal(tell(model, SinkCache(model, policy), mask=MASK, prefill_chunk_size=size)), size


@torch.no_grad()
def test_odd_arguments():
    model = model_of()
    cache = SinkCache(model, 'dense')
    cache.reorder_cache(torch.tensor([0]))  # of nothing
    read(model, cache, IDS)
    for rows in ([0, 2], [-1], [], [0.0, 1.0], [True], ['x']):
        with pytest.raises((ValueError, TypeError)):
            cache.batch_select_indices(torch.tensor(rows))
    for repeats in (0, -1, 1.5, 'x'):
        refused('repeats must be', lambda: cache.batch_repeat_interleave(repeats))
    for tokens in ('x', None, -1.5, -11):
        refused('tokens_to_remove must be', lambda: cache.crop(tokens))
    refused(
        '2 texts are given, and an attention mask of 1',
        lambda: read(model, cache, IDS, attention_mask=torch.ones(1, 20)),
    )
    refused('0 texts are given', lambda: read(model, cache, IDS[:0]))
    for wrong in ((90, 91), 'x', SimpleNamespace(boi=1)):
        refused('image_tokens must say', lambda: SinkCache(model, 'dense', image_tokens=wrong))
    for wrong in (5, None, 'x', [0.5]):
        refused('sentence_end_ids must be', lambda: SinkCache(model, 'dense', sentence_end_ids=wrong))
    for given in (
        (None, model),
        (StaticSinkCache(model, 'dense', 9), model),
        (cache, None),
        (cache, torch.nn.Linear(2, 2)),
    ):
        refused('attention is measured by|no attention layers', lambda: track_attention(*given))
    still = StaticSinkCache(model, 'dense', 64)
    refused(r'call advance\(ids\) after each pass', lambda: tell(model, still))
    refused('advance takes a tensor', lambda: still.advance([[1, 2]]))
    for every in (0, -1, 1.5, True, 'x', None):
        refused('evict_every must be', lambda: SinkCache(model, 'dense', every))
        refused('evict_every must be', lambda: StaticSinkCache(model, 'dense', 9, every))
    for capacity in (0, 1, -4, 2.5, None, 'x'):
        refused('capacity must be', lambda: StaticSinkCache(model, 'dense', capacity))
    config = SimpleNamespace(model_type='odd')
    refused('write the distance, as in clamped:480', lambda: trained_distance(config))
