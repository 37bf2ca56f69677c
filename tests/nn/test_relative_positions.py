"""Positions inside attention with scores that depend on content: Shaw, Transformer-XL, DeBERTa."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from simdformer import nn
from tests import oracle
from tests.oracle import f64
from tests.oracle import nn as oracle_nn
from tests.oracle.positions import deberta_bucket
from tests.oracle.scores import (
    attend,
    clipped_distances,
    disentangled,
    relative_scores,
    shaw_attention,
    transformer_xl,
)
from tests.support import assert_same_bits, normal

E, H, D = 24, 4, 6
TOLERANCE = 2e-6


def make(kind, **options):
    if kind == "shaw":
        return nn.ShawRelativePosition(D, 5, **options)
    if kind == "shaw keys":
        return nn.ShawRelativePosition(D, 7, 2, values=False, **options)
    if kind == "transformer-xl":
        return nn.TransformerXLRelativePosition(E, H, **options)
    if kind == "c2p":
        return nn.DisentangledRelativePosition(E, H, pos_att_type=["c2p"], **options)
    return nn.DisentangledRelativePosition(
        E, H, max_relative_positions=64, position_buckets=8, **options
    )


KINDS = ["shaw", "shaw keys", "transformer-xl", "c2p", "deberta"]


def randomized(module, rng):
    state = {k: normal(rng, *v.shape, scale=0.4) for k, v in module.state_dict().items()}
    module.load_state_dict(state)
    return module, state


def heads_of(x, w, which, kv_heads=H):
    """Query, key or value heads (h, L, D) of rows x, in float64."""
    bounds = np.cumsum([0, H * D, kv_heads * D, kv_heads * D])
    rows = slice(bounds[which], bounds[which + 1])
    y = oracle.linear(x, w["in_proj_weight"][rows], w["in_proj_bias"][rows])
    return y.reshape(len(x), -1, D).swapaxes(0, 1)


def sinusoids(distances):
    half = E // 2
    angles = f64(distances)[:, None] * 10000.0 ** (-np.arange(half) / half)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def expected_heads(kind, q, k, v, w, keep):
    """Each head's output (H, L, D) and weights by the papers' formulas."""
    p = oracle_nn.part(w, "position")
    length, keys = q.shape[1], k.shape[1]
    if kind == "shaw":
        return shaw_attention(q, k, v, p["keys"], p["values"], keep=keep)
    if kind == "shaw keys":
        index = np.clip(np.arange(keys) - np.arange(length)[:, None], -7, 2) + 7
        return attend(
            (q @ k.swapaxes(1, 2) + relative_scores(q, p["keys"], index)) / D**0.5, v, keep
        )
    if kind == "transformer-xl":
        r = sinusoids(np.arange(1 - keys, keys)) @ f64(p["projection.weight"]).T
        r = r.reshape(-1, H, D).swapaxes(0, 1)
        scores = transformer_xl(q, k, p["content_bias"], p["position_bias"], r)
        return attend(scores / D**0.5, v, keep)
    distance = np.arange(length)[:, None] - np.arange(keys)
    if kind == "deberta":
        distance = np.vectorize(lambda d: deberta_bucket(d, 8, 64))(distance)
    span = len(p["weight"]) // 2
    index = np.clip(distance + span, 0, 2 * span - 1)
    position_keys = heads_of(p["weight"], w, 1)
    position_queries = heads_of(p["weight"], w, 0) if kind == "deberta" else None
    scores = disentangled(q, k, position_keys, position_queries, index, index)
    return attend(scores / (D * (3 if kind == "deberta" else 2)) ** 0.5, v, keep)


def expected(kind, x, w, keep=None):
    q, k, v = (heads_of(f64(x), w, i) for i in range(3))
    context, weights = expected_heads(kind, q, k, v, w, keep)
    joined = context.swapaxes(0, 1).reshape(len(x), -1)
    return oracle.linear(joined, w["out_proj.weight"], w["out_proj.bias"]), weights


def assert_close(actual, exact):
    assert actual.shape == exact.shape
    assert np.abs(actual - exact).max() <= TOLERANCE * np.abs(exact).max()


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 2, 33, 300])
def test_it_is_the_papers_formula(rng, kind, length):
    module, w = randomized(nn.MultiheadAttention(E, H, batch_first=True, position=make(kind)), rng)
    x = normal(rng, 2, length, E)
    out, weights = module(x, x, x, average_attn_weights=False)
    for i in range(2):
        exact, exact_weights = expected(kind, x[i], w)
        assert_close(out[i], exact)
        assert_close(weights[i], exact_weights)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_biases_are_applied(rng, kind):
    module, w = randomized(nn.MultiheadAttention(E, H, batch_first=True, position=make(kind)), rng)
    x = normal(rng, 1, 20, E)
    keep = np.tri(20, dtype=bool) & (np.arange(20) < 17)
    padding = np.arange(20)[None] >= 17
    out = module(x, x, x, padding, attn_mask=~np.tri(20, dtype=bool), need_weights=False)[0]
    assert_close(out[0], expected(kind, x[0], w, keep)[0])
    by_bias = np.where(keep, np.float32(0), np.float32(-np.inf))
    assert_close(module(x, x, x, attn_mask=by_bias)[0][0], expected(kind, x[0], w, keep)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("polarity", ["bool", "float"])
def test_nan_at_a_masked_key_does_not_spread(rng, kind, polarity):
    module, _ = randomized(nn.MultiheadAttention(E, H, batch_first=True, position=make(kind)), rng)
    x = normal(rng, 1, 9, E)
    poisoned = x.copy()
    poisoned[0, 4] = np.nan
    mask = np.zeros((9, 9), bool)
    mask[:, 4] = True
    if polarity == "float":
        mask = np.where(mask, np.float32(-np.inf), np.float32(0))
    clean = module(x, x, x, attn_mask=mask)[0]
    got = module(poisoned, poisoned, poisoned, attn_mask=mask)[0]
    others = np.arange(9) != 4
    assert_same_bits(got[:, others].copy(), clean[:, others].copy())


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_without_keys_gives_zeros(rng, kind):
    module, w = randomized(nn.MultiheadAttention(E, H, batch_first=True, position=make(kind)), rng)
    x = normal(rng, 1, 5, E)
    mask = np.zeros((5, 5), bool)
    mask[2] = True
    out, weights = module(x, x, x, attn_mask=mask)
    assert not weights[0, 2].any()
    np.testing.assert_array_equal(out[0, 2], w["out_proj.bias"])


@pytest.mark.parametrize("kind", KINDS)
def test_padded_packed_and_alone_are_the_same_bits(rng, kind):
    layer, _ = randomized(
        nn.TransformerEncoderLayer(E, H, 37, batch_first=True, position=make(kind)), rng
    )
    stack = nn.TransformerEncoder(layer, 2)
    lengths = np.array([40, 1, 300, 7])
    x = normal(rng, 4, 300, E)
    padding = np.arange(300) >= lengths[:, None]
    cu = np.concatenate([[0], np.cumsum(lengths)])
    padded = stack(x, src_key_padding_mask=padding)
    packed = stack(x[~padding], cu_seqlens=cu, num_threads=1)
    assert_same_bits(packed, padded[~padding])
    assert_same_bits(stack(x[~padding], cu_seqlens=cu, num_threads=3), packed)
    for i, length in enumerate(lengths):
        assert_same_bits(stack(x[i : i + 1, :length])[0], padded[i, :length].copy())


@pytest.mark.parametrize("kind", ["shaw", "shaw keys", "transformer-xl", "c2p"])
def test_cached_is_uncached_to_the_bit(rng, kind):
    layer, _ = randomized(
        nn.TransformerDecoderLayer(E, H, 37, batch_first=True, position=make(kind)), rng
    )
    stack = nn.TransformerDecoder(layer, 2)
    tgt, memory = normal(rng, 2, 70, E), normal(rng, 2, 9, E)
    whole = stack(tgt, memory, tgt_mask=~np.tri(70, dtype=bool))
    cache = nn.DecoderCache(2)
    first = stack(tgt[:, :40], memory, cache=cache)
    steps = [stack(tgt[:, i : i + 1], None, cache=cache) for i in range(40, 55)]
    rest = stack(tgt[:, 55:], None, cache=cache)
    assert_same_bits(np.concatenate([first, *steps, rest], axis=1), whole)


def test_a_cache_refuses_position_to_content(rng):
    layer = nn.TransformerEncoderLayer(E, H, 37, batch_first=True, position=make("deberta"))
    with pytest.raises(ValueError, match="cannot be used with a cache"):
        layer(normal(rng, 1, 5, E), cache=nn.DecoderCache(1))


@pytest.mark.parametrize("kind", KINDS)
def test_pruned_heads_are_masked_heads(rng, kind):
    module, _ = randomized(nn.MultiheadAttention(E, H, batch_first=True, position=make(kind)), rng)
    x = normal(rng, 2, 11, E)
    masked = module(x, x, x, head_mask=np.array([1, 0, 1, 0], np.float32))[0]
    module(x, x, x)
    module.prune_heads([1, 3])
    np.testing.assert_allclose(module(x, x, x)[0], masked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["shaw", "shaw keys", "transformer-xl", "c2p", "deberta"])
def test_grouped_queries_are_repeated_heads(rng, kind):
    grouped, w = randomized(
        nn.MultiheadAttention(E, H, num_kv_heads=2, batch_first=True, position=make(kind)), rng
    )
    whole = nn.MultiheadAttention(E, H, batch_first=True, position=make(kind))
    query, key, value = np.split(w["in_proj_weight"], [E, E + 12])
    bias = np.split(w["in_proj_bias"], [E, E + 12])

    def repeat(x):
        return np.repeat(x.reshape(2, D, -1), 2, axis=0).reshape(E, -1)

    w["in_proj_weight"] = np.concatenate([query, repeat(key), repeat(value)])
    w["in_proj_bias"] = np.concatenate([bias[0], repeat(bias[1])[:, 0], repeat(bias[2])[:, 0]])
    whole.load_state_dict(w)
    x = normal(rng, 1, 13, E)
    np.testing.assert_allclose(grouped(x, x, x)[0], whole(x, x, x)[0], rtol=1e-5, atol=1e-5)


def test_unshared_projections_have_parameters_of_their_own(rng):
    shared, w = randomized(
        nn.MultiheadAttention(E, H, batch_first=True, position=make("deberta")), rng
    )
    own = nn.MultiheadAttention(
        E, H, batch_first=True, position=make("deberta", share_att_key=False)
    )
    weight, bias = w["in_proj_weight"], w["in_proj_bias"]
    w["position.pos_query_proj.weight"], w["position.pos_query_proj.bias"] = weight[:E], bias[:E]
    w["position.pos_key_proj.weight"] = weight[E : 2 * E]
    w["position.pos_key_proj.bias"] = bias[E : 2 * E]
    own.load_state_dict(w)
    x = normal(rng, 1, 13, E)
    assert_same_bits(own(x, x, x)[0], shared(x, x, x)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(rng, kind, clone):
    module, w = randomized(nn.MultiheadAttention(E, H, batch_first=True, position=make(kind)), rng)
    x = normal(rng, 1, 13, E)
    before = module(x, x, x)[0]
    other = clone(module)
    assert_same_bits(other(x, x, x)[0], before)
    other.load_state_dict({k: 2 * v for k, v in w.items()})
    assert (other(x, x, x)[0] != before).any()
    assert_same_bits(module(x, x, x)[0], before)


@pytest.mark.parametrize("name", ["keys", "values"])
def test_a_new_table_is_used(rng, name):
    module, w = randomized(
        nn.MultiheadAttention(E, H, batch_first=True, position=make("shaw")), rng
    )
    x = normal(rng, 1, 13, E)
    before = module(x, x, x)[0]
    setattr(module.position, name, 2 * w[f"position.{name}"])
    assert (module(x, x, x)[0] != before).any()


def test_distances_beyond_the_table_use_its_last_rows(rng):
    """Two distant keys with the same content have the same weight."""
    module, _ = randomized(
        nn.MultiheadAttention(E, H, batch_first=True, position=make("shaw")), rng
    )
    x = np.repeat(normal(rng, 1, 1, E), 40, axis=1)
    weights = module(x, x, x)[1][0, 20]
    assert len(np.unique(weights[:16])) == 1
    assert len(np.unique(weights[25:])) == 1
    assert len(np.unique(weights[15:26])) == 11
    np.testing.assert_array_equal(clipped_distances(40, 40, 5)[20, 15:26], np.arange(11))


ERRORS = [
    ({"position": nn.ShawRelativePosition(5, 3)}, "has head_dim 5, the attention has 6"),
    ({"position": make("transformer-xl"), "score": "cosine"}, "needs score 'scaled_dot' or 'dot'"),
    ({"position": nn.TransformerXLRelativePosition(24, 3)}, "is of 3 heads, the attention has 4"),
    (
        {"position": nn.TransformerXLRelativePosition(20, 4)},
        "has embed_dim 20, the attention has 24",
    ),
    (
        {"position": make("deberta"), "kdim": 20, "vdim": 20},
        "share_att_key needs keys of embed_dim",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=lambda x: str(x)[:40])
def test_positions_of_other_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.MultiheadAttention(E, H, **arguments)


@pytest.mark.parametrize("terms", [[], ["p2p"], ["c2p", "p2p"]])
def test_unknown_terms_are_refused(terms):
    with pytest.raises(ValueError, match="pos_att_type must contain only 'c2p' and 'p2c'"):
        nn.DisentangledRelativePosition(E, H, pos_att_type=terms)


@pytest.mark.parametrize("shared", [True, False])
def test_debertas_table_may_be_normalized(rng, shared):
    """The result is the same as with a table that was normalized before loading."""
    normed, state = randomized(
        nn.MultiheadAttention(
            E, H, position=make("deberta", share_att_key=shared, norm=nn.LayerNorm(E))
        ),
        rng,
    )
    plain = nn.MultiheadAttention(E, H, position=make("deberta", share_att_key=shared))
    norm, table = normed.position.norm, "position.weight"
    kept = {name: array for name, array in state.items() if "position.norm" not in name}
    plain.load_state_dict(kept | {table: norm(state[table])})
    x = normal(rng, 9, E)
    assert_same_bits(normed(x, x, x)[0], plain(x, x, x)[0])
    normed.position.norm = nn.LayerNorm(E)
    assert np.abs(normed(x, x, x)[0] - plain(x, x, x)[0]).max() > 1e-3


def test_sequences_beyond_max_positions_are_refused(rng):
    position = make("deberta", max_positions=8)
    layer = nn.TransformerEncoderLayer(E, H, 37, batch_first=True, position=position)
    x = normal(rng, 1, 9, E)
    assert layer(x[:, :8]).shape == (1, 8, E)
    with pytest.raises(ValueError, match="8"):
        layer(x)
