"""Every attention policy × position mode × model family × form of the cache, on small random models.

What must hold is stated in nbs/4_sinks/05_cache.ipynb: in a model of one layer a key depends on its token and its
place alone, so a step over the cache equals one pass over the kept tokens at their places; in `absolute` mode a
masked pass over the whole text equals it in any depth; the static form equals the dynamic one."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache
from seed_story.sinks.cache import SinkCache, track_attention
from seed_story.sinks.cache_names import CACHE_NAMES, cache_argument, cache_name
from seed_story.sinks.ledger import PageTracker
from seed_story.models.sequence import ImageTokens
from seed_story.sinks.policies import POLICIES, POSITION_MODES, Layout, PositionedPolicy, attention_policy
from seed_story.sinks.static_cache import StaticSinkCache

SIZES = dict(
    vocab_size=100,
    hidden_size=32,
    intermediate_size=48,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    initializer_range=0.3,
)
SLIDING = dict(head_dim=8, sliding_window=256)
FAMILIES = dict(
    llama={},
    qwen2={},
    qwen3=dict(head_dim=8),
    gemma2=SLIDING,
    gemma3_text=SLIDING,
    phi=dict(partial_rotary_factor=0.5),
    glm=dict(head_dim=8, pad_token_id=0),
    deepseek_v3=dict(
        num_key_value_heads=4, head_dim=4, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8, kv_lora_rank=8
    )
    | dict(q_lora_rank=8, n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=2, first_k_dense_replace=9),
)
NAMES = [name for name, made in POLICIES.items() if not made.reencodes]
WORDS = dict(
    multimodal='multimodal:pages=1,slots=8,sentences=1',
    capped='capped:pages=1,slots=8,cap=2',
    random='random:pages=1,slots=8',
    heavy='heavy:tokens=8,heavy=6',
    window='window:tokens=9',
    sink='sink:tokens=9',
    pinned='pinned:1',
)
IMAGE = ImageTokens(90, 91, (80, 81, 82))
MAX_DISTANCE = 18


def model_of(family, layers, **options):
    torch.manual_seed(0)
    kinds = dict(layer_types=['sliding_attention', 'full_attention'][:layers]) if family == 'gemma3_text' else {}
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **{**SIZES, **FAMILIES[family], **kinds, **options, 'num_hidden_layers': layers})
    ).eval()


def story():
    draw = torch.Generator().manual_seed(3)
    return torch.cat(
        [
            torch.cat([torch.randint(10, 80, (5 + p % 2,), generator=draw), torch.tensor([90, 80, 81, 82, 91])])
            for p in range(4)
        ]
    )[None]


def cache_of(model, name, mode, form=SinkCache, **options):
    policy = attention_policy(WORDS.get(name, name))
    placed = PositionedPolicy(policy, mode, MAX_DISTANCE if mode == 'clamped' else 0)
    cache = form(model, placed, image_tokens=IMAGE, **options)
    return track_attention(cache, model) if name == 'heavy' else cache


def masked_pass(model, ids, policy):
    "Logits of one pass in which each token sees what the policy kept before it was read."
    reader, there, mask = (
        PageTracker(IMAGE),
        torch.zeros(ids.shape[1], dtype=torch.bool),
        torch.zeros(ids.shape[1], ids.shape[1], dtype=torch.bool),
    )
    for t, token in enumerate(ids[0].tolist()):
        mask[t], mask[t, t] = there, True
        reader.read([token])
        keep = torch.zeros_like(there)
        for r in policy.keep(Layout(tuple(reader.pages), t + 1)):
            keep[r.start : r.stop] = True
        there = keep & (there | (torch.arange(len(there)) == t))
    additive = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[None, None]
    if 'sliding_attention' in (getattr(model.config, 'layer_types', None) or ()):
        additive = dict.fromkeys(('full_attention', 'sliding_attention'), additive)
    return model(ids, attention_mask=additive, position_ids=torch.arange(ids.shape[1])[None]).logits


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('family', FAMILIES)
@torch.no_grad()
def test_what_is_read_is_what_is_kept(family, name):
    ids, options = story(), dict(attn_implementation='eager') if name == 'heavy' else {}
    one, two = (model_of(family, layers, **options) for layers in (1, 2))
    for mode in POSITION_MODES:
        flat, deep, told = cache_of(one, name, mode), cache_of(two, name, mode), []
        for t in range(ids.shape[1]):
            token = ids[:, t : t + 1]
            at, place = (
                (flat.ledger.kept_positions, flat.ledger.key_positions)
                if t
                else (torch.empty(1, 0, dtype=torch.long),) * 2
            )
            again = one(
                torch.cat([ids[:, at[0]], token], 1), position_ids=torch.cat([place, torch.tensor([[t]])], 1)
            ).logits[:, -1]
            assert torch.allclose(one(input_ids=token, **cache_argument(one, flat)).logits[:, -1], again, atol=2e-4), (
                mode,
                t,
            )
            told.append(two(input_ids=token, **cache_argument(two, deep)).logits)
        fresh = DynamicCache()
        two(ids[:, deep.ledger.kept_positions[0]], position_ids=deep.ledger.key_positions, **cache_argument(two, fresh))
        assert torch.allclose(deep.layers[0].keys, fresh.layers[0].keys, atol=1e-5) and torch.allclose(
            deep.layers[0].values, fresh.layers[0].values, atol=1e-5
        ), mode
        assert name == 'dense' or deep.tokens_held < ids.shape[1] == deep.get_seq_length()
        if mode == 'absolute' and name != 'heavy':
            assert torch.allclose(torch.cat(told, 1), masked_pass(two, ids, deep.policy), atol=2e-4)


@pytest.mark.parametrize('name', [name for name in NAMES if name != 'heavy'])
@pytest.mark.parametrize('family', FAMILIES)
@torch.no_grad()
def test_one_buffer_gives_the_same(family, name):
    ids, model = story(), model_of(family, 2)
    for mode in POSITION_MODES:
        moving, still, parts = (
            cache_of(model, name, mode, evict_every=5),
            cache_of(model, name, mode, StaticSinkCache, capacity=64, evict_every=5),
            [],
        )
        for part in ids.split([7] + [1] * (ids.shape[1] - 7), 1):
            parts.append(
                (
                    model(input_ids=part, **cache_argument(model, moving)).logits,
                    model(input_ids=part, **cache_argument(model, still)).logits,
                )
            )
            still.advance(part)
        assert all(torch.allclose(a, b, atol=2e-4) for a, b in parts), mode
        assert still.kept_positions.sort(1).values.equal(moving.ledger.kept_positions) and still.key_positions.sort(
            1
        ).values.equal(moving.ledger.key_positions), mode


@pytest.mark.parametrize(
    'family, options, why',
    [
        ('gpt2', dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=100), 'no rotary'),
        ('llama', dict(rope_parameters=dict(rope_type='dynamic', rope_theta=1e4, factor=2.0)), "'dynamic'"),
        (
            'llama',
            dict(
                rope_parameters=dict(
                    rope_type='longrope',
                    rope_theta=1e4,
                    factor=2.0,
                    original_max_position_embeddings=64,
                    short_factor=[1.0] * 4,
                    long_factor=[2.0] * 4,
                )
            ),
            "'longrope'",
        ),
    ],
)
def test_models_whose_keys_cannot_be_moved_are_refused(family, options, why):
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, **{**SIZES, 'num_hidden_layers': 2, **options})
    ).eval()
    for mode in ('contiguous', 'clamped'):
        with pytest.raises(ValueError, match=why):
            SinkCache(model, f'sink:tokens=9@{mode}')
        with pytest.raises(ValueError, match=why):
            StaticSinkCache(model, f'sink:tokens=9@{mode}', 32)


def model_that_takes(name):
    "A small model whose forward pass takes its cache as the fourth argument, called `name`."
    model = model_of('llama', 2)
    inner, own = model.forward, cache_name(model)

    def new(input_ids=None, attention_mask=None, position_ids=None, cache=None):
        return inner(input_ids, attention_mask, position_ids, **{own: cache})

    def old(input_ids=None, attention_mask=None, position_ids=None, past_key_values=None):
        return inner(input_ids, attention_mask, position_ids, **{own: past_key_values})

    model.forward = dict(cache=new, past_key_values=old)[name]
    return model


def read(model, cache, ids, mask, by_position):
    "Logits [B, L] of a padded batch, read piece by piece."
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits, at = [], 0
    for part in ids.split([12] + [1] * (ids.shape[1] - 12), 1):
        to = at + part.shape[1]
        given = (part, mask[:, :to], positions[:, at:to])
        output = (
            model(*given, cache)
            if by_position
            else model(
                **dict(zip(('input_ids', 'attention_mask', 'position_ids'), given)), **cache_argument(model, cache)
            )
        )
        logits.append(output.logits)
        at = to
    return torch.cat(logits, 1)


@pytest.mark.parametrize('by_position', [False, True])
@pytest.mark.parametrize('name', CACHE_NAMES)
@torch.no_grad()
def test_ids_and_padding_are_seen_whatever_the_cache_is_called(name, by_position):
    model, ids = model_that_takes(name), story()
    assert cache_name(model) == name
    for policy, paddings in (('window:pages=1', (4, 4)), ('sink:tokens=9', (4, 0))):
        rows = [torch.nn.functional.pad(ids[0, p:], (p, 0)) for p in paddings]
        masks = [(torch.arange(len(row)) >= p).long() for row, p in zip(rows, paddings)]
        together = SinkCache(model, policy, image_tokens=IMAGE)
        found = read(model, together, torch.stack(rows), torch.stack(masks), by_position)
        for row, padding in enumerate(paddings):
            alone = SinkCache(model, policy, image_tokens=IMAGE)
            text = rows[row][padding:][None]
            logits = read(model, alone, text, torch.ones_like(text), by_position)
            assert torch.allclose(found[row, -8:], logits[0, -8:], atol=2e-4), (policy, padding)
            assert alone.tokens_held == together.tokens_held < 20
        if 'pages' in policy:
            assert [len(together.inputs.pages(row)) for row in range(2)] == [4, 4]


def test_generate_is_seen():
    model, ids = model_of('llama', 2), story()
    cache = SinkCache(model, 'window:pages=1', image_tokens=IMAGE)
    told = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        min_new_tokens=3,
        max_new_tokens=3,
        do_sample=False,
        **cache_argument(model, cache),
    )
    assert (
        told.shape[1] == ids.shape[1] + 3 == cache.get_seq_length() + 1
        and len(cache.inputs.pages(0)) == 4
        and cache.tokens_held < 20
    )
