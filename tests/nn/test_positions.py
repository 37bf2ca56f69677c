"""Positions added to embeddings, and rotary positions of every kind inside an attention."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import nn
from simdformer.functional import rotary_frequencies
from tests import oracle
from tests.oracle import positions as oracle_positions
from tests.oracle.scores import attend, scaled_dot
from tests.support import assert_same_bits, assert_within, normal

E, H, D = 24, 2, 12
SCALINGS = [
    None,
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 16},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
]  # fmt: skip


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: str(s and s["rope_type"]))
@pytest.mark.parametrize(("dim", "interleaved"), [(12, False), (12, True), (4, False), (6, True)])
def test_rotary_embedding_turns_queries_and_keys(rng, scaling, dim, interleaved):
    position = nn.RotaryEmbedding(dim, interleaved=interleaved, scaling=scaling)
    module = nn.MultiheadAttention(E, H, batch_first=True, position=position)
    w = {k: normal(rng, *v.shape, scale=0.4) for k, v in module.state_dict().items()}
    module.load_state_dict(w)
    x = normal(rng, 1, 40, E)
    q, k, v = (
        oracle.linear(x[0], w["in_proj_weight"][i * E :][:E], w["in_proj_bias"][i * E :][:E])
        .reshape(40, H, D)
        .swapaxes(0, 1)
        for i in range(3)
    )
    inv_freq, factor = rotary_frequencies(dim, scaling=scaling, seq_len=40)

    def turn(heads):
        rotated = oracle_positions.rotary(heads, np.arange(40), inv_freq, interleaved)
        rotated[..., :dim] *= factor  # yarn's attention factor
        return rotated

    context = attend(scaled_dot(turn(q), turn(k)), v)[0].swapaxes(0, 1).reshape(40, E)
    exact = oracle.linear(context, w["out_proj.weight"], w["out_proj.bias"])
    assert_within(module(x, x, x)[0][0], exact, 3e-6 * np.abs(exact).max())


# Added to embeddings


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"freq": "t2t", "layout": "concat", "base": 500.0},
        {"first": 2},
        {"scale": 0.5},
    ],
    ids=str,
)
def test_sinusoids_are_added(rng, options):
    encoding = nn.SinusoidalPositionalEncoding(E, batch_first=True, **options)
    x = normal(rng, 2, 9, E)
    first, scale = options.pop("first", 0), options.pop("scale", 1.0)
    table = scale * oracle_positions.sinusoidal(np.arange(9) + first, E, **options)
    assert_within(encoding(x), x + table, 4e-7)


@pytest.mark.parametrize("offset", [0, 2])
def test_learned_positions_are_rows_of_a_table(rng, offset):
    positions = nn.LearnedPositionalEmbedding(20, E, batch_first=True, offset=offset)
    x = normal(rng, 2, 9, E)
    assert_same_bits(positions(x), x + positions.weight[offset : offset + 9])


def test_positions_beyond_the_table_are_refused():
    positions = nn.LearnedPositionalEmbedding(5, E)
    with pytest.raises(IndexError, match=r"positions must be in \[0, 5\), got values from 0 to 5"):
        positions(np.zeros((6, E), np.float32))


@pytest.mark.parametrize(
    "make",
    [
        lambda **layout: nn.SinusoidalPositionalEncoding(E, **layout),
        lambda **layout: nn.LearnedPositionalEmbedding(50, E, **layout),
    ],
)
def test_layouts_and_offsets_of_added_positions_agree(rng, make):
    x = normal(rng, 2, 9, E)
    by_batch, by_length = make(batch_first=True), make()
    by_length.load_state_dict(by_batch.state_dict())
    whole = by_batch(x)
    assert_same_bits(by_length(x.swapaxes(0, 1)).swapaxes(0, 1), whole)
    assert_same_bits(by_batch(x[0]), whole[0].copy())
    packed = by_batch(np.concatenate([x[0, :4], x[1, :7]]), cu_seqlens=[0, 4, 11])
    assert_same_bits(packed, np.concatenate([whole[0, :4], whole[1, :7]]))
    later = by_batch(np.concatenate([x[0, 4:6], x[1, 7:]]), cu_seqlens=[0, 2, 4], offset=[4, 7])
    assert_same_bits(later, np.concatenate([whole[0, 4:6], whole[1, 7:]]))
    turned = by_batch(x, positions=np.arange(9)[::-1])
    assert_same_bits(turned, by_batch(x[:, ::-1].copy())[:, ::-1].copy())


def test_distances_between_encodings_are_the_same_at_any_length():
    encoding = nn.SinusoidalPositionalEncoding(64)
    table = encoding.encode(np.arange(4000)).astype(np.float64)
    for step in (1, 40, 900):
        distances = np.linalg.norm(table[step:] - table[:-step], axis=1)
        assert np.ptp(distances) < 1e-5


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_follow_the_longest_sequence_of_each_call(rng, kind):
    scaling = {"type": kind, "factor": 4.0, "original_max_position_embeddings": 16}
    if kind == "longrope":
        scaling |= {"short_factor": [1.0, 1.5], "long_factor": [3.0, 5.0]}
    nn.manual_seed(0)
    position = nn.RotaryEmbedding(8, scaling={**scaling, "partial_rotary_factor": 0.5})
    attention = nn.MultiheadAttention(16, 2, batch_first=True, position=position)
    inputs = {length: normal(rng, 1, length, 16) for length in (9, 16, 17, 40)}
    alone = {}
    for length, x in inputs.items():
        nn.manual_seed(0)
        fresh = nn.RotaryEmbedding(8, scaling={**scaling, "partial_rotary_factor": 0.5})
        own = nn.MultiheadAttention(16, 2, batch_first=True, position=fresh)
        alone[length] = own(x, x, x)[0]
    for length in (40, 9, 17, 16, 9):
        x = inputs[length]
        assert_same_bits(attention(x, x, x)[0], alone[length])


def test_frequencies_that_depend_on_a_call_have_no_maximum_length(rng):
    scaling = {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 16}
    position = nn.RotaryEmbedding(8, scaling=scaling, max_positions=32)
    x = normal(rng, 1, 4, 16)
    with pytest.raises(ValueError, match="max_positions must be None with rope_type 'dynamic'"):
        nn.MultiheadAttention(16, 2, position=position)(x, x, x)
