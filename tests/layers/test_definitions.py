"""Native layers compared with the oracle at every level. Bad input is tested in test_errors.py."""

from __future__ import annotations

import numpy as np
import pytest

from simdformer import _core
from tests import oracle
from tests.oracle.positions import roberta_position_ids, t5_bias, t5_bucket
from tests.support import (
    EPS,
    assert_same_bits,
    assert_within,
    every_other,
    misaligned,
    normal,
    tiny_bert,
)
from tests.support.tiny_bert import (
    Config,
    native_embeddings,
    native_encoder,
    random_batch,
    random_weights,
)

LENGTHS = [1, 2, 17, 5, 64, 3]

# The hidden states of a post-norm encoder are of order 1. Each layer adds a few dozen rounding errors, and
# norms keep the error from growing. Measured: below 40 EPS for these sizes.
TOLERANCE = 100 * EPS


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def expected_of(config, w, ids, cu_seqlens, token_type_ids=None):
    c = config
    return oracle.bert(
        ids, w, cu_seqlens, c.num_layers, c.num_heads, token_type_ids, c.activation, c.eps
    )


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(hidden_size=1, num_heads=1, intermediate_size=1),
        Config(hidden_size=33, num_heads=3, intermediate_size=130),
        Config(hidden_size=64, num_heads=2, intermediate_size=256),
        Config(num_layers=0),
        *[Config(activation=name) for name in _core.activations() if name != "identity"],
    ],
    ids=str,
)
def test_encoder_follows_the_oracle(active_isa, config):  # noqa: ARG001
    w = random_weights(config)
    ids, cu_seqlens = random_batch(LENGTHS)
    out = native_encoder(config, w).encode(ids, cu_seqlens)
    assert out.shape == (len(ids), config.hidden_size)
    assert out.dtype == np.float32
    assert_within(out, expected_of(config, w, ids, cu_seqlens), TOLERANCE)


def test_encoder_follows_the_oracle_at_the_sizes_of_minilm(active_isa):  # noqa: ARG001
    config = tiny_bert.MINILM
    w = random_weights(config)
    ids, cu_seqlens = random_batch([3, 130, 19], config.vocab_size)
    out = native_encoder(config, w).encode(ids, cu_seqlens)
    assert_within(out, expected_of(config, w, ids, cu_seqlens), TOLERANCE)


def test_encoder_uses_token_type_ids(active_isa):  # noqa: ARG001
    w = random_weights()
    ids, cu_seqlens = random_batch(LENGTHS)
    types = (np.arange(len(ids)) % 2).astype(np.int32)
    out = native_encoder(w=w).encode(ids, cu_seqlens, types)
    assert_within(out, expected_of(Config(), w, ids, cu_seqlens, types), TOLERANCE)


def test_positions_start_after_the_padding_idx(active_isa):  # noqa: ARG001
    # RoBERTa's first token has position padding_idx + 1 = 2; padding tokens do not count.
    w = random_weights()
    name = "embeddings.{}_embeddings.weight".format
    norm = _core.LayerNorm(
        w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], eps=1e-12
    )
    embeddings = _core.Embeddings(w[name("word")], w[name("position")], None, norm, padding_idx=1)
    encoder = _core.TransformerStack([], embeddings=embeddings)
    assert encoder.max_positions == embeddings.max_positions == Config().max_positions - 2
    ids, cu_seqlens = random_batch([128, 3, 7, 1, 5, 0, 2])
    ids[[0, 40, 41, 130, 131, 137, 138, 143]] = 1
    without_types = {k: v for k, v in w.items() if "token_type" not in k}
    expected = oracle.bert_embeddings(
        ids, without_types, cu_seqlens, positions=roberta_position_ids(ids, cu_seqlens, 1)
    )
    assert_within(encoder.encode(ids, cu_seqlens), expected, TOLERANCE)


def test_encoder_adds_the_relative_bias_of_each_head(active_isa):  # noqa: ARG001
    config, w = Config(), random_weights()
    longest = config.max_positions
    table = normal(np.random.default_rng(1), 32, config.num_heads)
    rows = [t5_bucket(distance) for distance in range(1 - longest, longest)]
    bias = _core.Positions(relative=table[rows].T, relative_center=longest - 1)
    ids, cu_seqlens = random_batch([*LENGTHS, longest])
    expected = oracle.bert(
        ids,
        w,
        cu_seqlens,
        config.num_layers,
        config.num_heads,
        bias=lambda length: t5_bias(table, length),
    )
    out = native_encoder(config, w, position=bias).encode(ids, cu_seqlens)
    assert_within(out, expected, TOLERANCE)
    without = native_encoder(config, w).encode(ids, cu_seqlens)
    assert np.abs(without - expected).max() > 0.1


def test_embeddings_without_norm_are_plain_sums(active_isa):  # noqa: ARG001
    word = normal(np.random.default_rng(0), 61, 20)
    ids, cu_seqlens = random_batch(LENGTHS)
    encoder = _core.TransformerStack([], embeddings=_core.Embeddings(word))
    assert_same_bits(encoder.encode(ids, cu_seqlens), word[ids])


def test_the_encoder_has_its_sizes_as_attributes():
    encoder = native_encoder()
    assert (encoder.hidden_size, encoder.vocab_size, encoder.max_positions) == (20, 61, 130)


def test_linear_has_its_sizes_as_attributes():
    linear = _core.Linear(zeros(3, 7))
    assert (linear.in_features, linear.out_features) == (7, 3)


def test_layers_copy_their_weights(active_isa):  # noqa: ARG001
    w = random_weights()
    encoder = native_encoder(w=w)
    ids, cu_seqlens = random_batch(LENGTHS)
    before = encoder.encode(ids, cu_seqlens)
    for array in w.values():
        array.fill(np.nan)
    assert_same_bits(encoder.encode(ids, cu_seqlens), before)


def test_layers_may_be_shared_between_encoders():
    w = random_weights()
    embeddings = native_embeddings(Config(), w)
    layer = tiny_bert.native_layer(Config(), w, "encoder.layer.0")
    twice, once = (
        _core.TransformerStack(layers, embeddings=embeddings)
        for layers in ([layer, layer], [layer])
    )
    ids, cu_seqlens = random_batch([4])
    states = oracle.bert_embeddings(ids, w, cu_seqlens)
    for encoder, times in ((once, 1), (twice, 2)):
        expected = states
        for _ in range(times):
            expected = oracle.bert_layer(expected, w, "encoder.layer.0", cu_seqlens, 5)
        assert_within(encoder.encode(ids, cu_seqlens), expected, TOLERANCE)


# SentenceEncoder


@pytest.mark.parametrize("start", [0, 3])
def test_sentence_encoder_pools_as_the_oracle(active_isa, start):  # noqa: ARG001
    w, modes = random_weights(), _core.pooling_modes()
    ids, cu_seqlens = random_batch([4, 5, 17, 64])
    model = _core.PooledStack(native_encoder(w=w), modes)
    assert model.embedding_dimension == 20 * len(modes)
    states = expected_of(Config(), w, ids, cu_seqlens)
    expected = oracle.pool_sequences(modes, states, cu_seqlens, start)
    out = model.encode(ids, cu_seqlens, pooling_start=start)
    assert out.shape == expected.shape
    # mean_sqrt_len_tokens multiplies a mean by sqrt(tokens) <= 8.
    assert_within(out, expected, 8 * TOLERANCE)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ["identity", "tanh"])
def test_sentence_encoder_applies_dense_then_normalizes(active_isa, activation, residual):  # noqa: ARG001
    rng = np.random.default_rng(1)
    w, weight, bias = random_weights(), normal(rng, 20, 20), normal(rng, 20)
    ids, cu_seqlens = random_batch(LENGTHS)
    dense = _core.Dense(_core.Linear(weight, bias), activation=activation, residual=residual)
    model = _core.PooledStack(native_encoder(w=w), ["mean"], [dense], normalize=True)
    pooled = oracle.pool_sequences(["mean"], expected_of(Config(), w, ids, cu_seqlens), cu_seqlens)
    expected = oracle.ACTIVATIONS[activation](oracle.linear(pooled, weight, bias))
    expected = oracle.l2_normalize(expected + (pooled if residual else 0))
    assert_within(model.encode(ids, cu_seqlens), expected, TOLERANCE)


def test_sentence_encoder_of_one_text_has_unit_length():
    model = _core.PooledStack(native_encoder(), ["cls"], normalize=True)
    vector = model.encode(*random_batch([9]))[0].astype(np.float64)
    assert abs(np.linalg.norm(vector) - 1) < 4 * EPS


# Forms of batches


def test_empty_batch_gives_no_rows():
    ids, cu_seqlens = zeros(0, dtype=np.int32), zeros(1, dtype=np.int32)
    assert native_encoder().encode(ids, cu_seqlens).shape == (0, 20)
    model = _core.PooledStack(native_encoder(), ["mean"])
    assert model.encode(ids, cu_seqlens).shape == (0, 20)


def test_an_empty_sequence_changes_nothing_for_the_others():
    encoder = native_encoder()
    ids, cu_seqlens = random_batch([3, 0, 4, 0])
    without = np.array([0, 3, 7], np.int32)
    assert_same_bits(encoder.encode(ids, cu_seqlens), encoder.encode(ids, without))


@pytest.mark.parametrize("mode", _core.pooling_modes())
def test_a_sequence_without_tokens_to_pool_is_a_row_of_zeros(mode):
    model = _core.PooledStack(native_encoder(), [mode], normalize=True)
    ids, cu_seqlens = random_batch([3, 0, 5])
    out = model.encode(ids, cu_seqlens, pooling_start=3)
    np.testing.assert_array_equal(out[:2], 0)
    assert np.abs(out[2]).max() > 0


def test_ids_may_be_misaligned_or_strided():
    encoder = native_encoder()
    ids, cu_seqlens = random_batch(LENGTHS)
    expected = encoder.encode(ids, cu_seqlens)
    for layout in (misaligned, lambda x: np.repeat(x, 2)[::2]):
        assert_same_bits(encoder.encode(layout(ids), layout(cu_seqlens)), expected)


def test_weights_may_be_strided_or_misaligned():
    w = random_weights()
    ids, cu_seqlens = random_batch(LENGTHS)
    expected = native_encoder(w=w).encode(ids, cu_seqlens)
    for layout in (misaligned, every_other):
        changed = {name: layout(array) for name, array in w.items()}
        assert_same_bits(native_encoder(w=changed).encode(ids, cu_seqlens), expected)
