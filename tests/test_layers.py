"""Native layers against the oracle at every level, and what they say of bad input."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import oracle
import tiny_bert
from oracle_positions import roberta_position_ids, t5_bias, t5_bucket
from simdformer import _core
from simdformer.precision import FLOAT32
from support import EPS, assert_same_bits, assert_within, every_other, misaligned, normal
from tiny_bert import Config, native_embeddings, native_encoder, random_batch, random_weights

LENGTHS = [1, 2, 17, 5, 64, 3]

# The hidden states of a post-norm encoder are of size 1; each layer rounds a few dozen times in a
# row and the norms after it keep the error from growing. Measured: below 40 EPS for these sizes.
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
    out = native_encoder(config, w).forward(ids, cu_seqlens)
    assert out.shape == (len(ids), config.hidden_size)
    assert out.dtype == np.float32
    assert_within(out, expected_of(config, w, ids, cu_seqlens), TOLERANCE)


def test_encoder_follows_the_oracle_at_the_sizes_of_minilm(active_isa):  # noqa: ARG001
    config = tiny_bert.MINILM
    w = random_weights(config)
    ids, cu_seqlens = random_batch([3, 130, 19], config.vocab_size)
    out = native_encoder(config, w).forward(ids, cu_seqlens)
    assert_within(out, expected_of(config, w, ids, cu_seqlens), TOLERANCE)


def test_encoder_uses_token_type_ids(active_isa):  # noqa: ARG001
    w = random_weights()
    ids, cu_seqlens = random_batch(LENGTHS)
    types = (np.arange(len(ids)) % 2).astype(np.int32)
    out = native_encoder(w=w).forward(ids, cu_seqlens, types)
    assert_within(out, expected_of(Config(), w, ids, cu_seqlens, types), TOLERANCE)


def test_embeddings_count_positions_from_behind_the_padding_idx(active_isa):  # noqa: ARG001
    # RoBERTa's first token stands at padding_idx + 1 = 2; padding tokens are not counted.
    w = random_weights()
    name = "embeddings.{}_embeddings.weight".format
    norm = _core.LayerNorm(
        w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], eps=1e-12
    )
    embeddings = _core.Embeddings(w[name("word")], w[name("position")], None, norm, padding_idx=1)
    encoder = _core.Encoder(embeddings, [])
    assert encoder.max_positions == embeddings.max_positions == Config().max_positions - 2
    ids, cu_seqlens = random_batch([128, 3, 7, 1, 5, 0, 2])
    ids[[0, 40, 41, 130, 131, 137, 138, 143]] = 1
    without_types = {k: v for k, v in w.items() if "token_type" not in k}
    expected = oracle.bert_embeddings(
        ids, without_types, cu_seqlens, positions=roberta_position_ids(ids, cu_seqlens, 1)
    )
    assert_within(encoder.forward(ids, cu_seqlens), expected, TOLERANCE)


def test_encoder_adds_the_relative_bias_of_each_head(active_isa):  # noqa: ARG001
    config, w = Config(), random_weights()
    longest = config.max_positions
    table = normal(np.random.default_rng(1), 32, config.num_heads)
    rows = [t5_bucket(distance) for distance in range(1 - longest, longest)]
    bias = _core.RelativeBias(table[rows].T)
    ids, cu_seqlens = random_batch([*LENGTHS, longest])
    expected = oracle.bert(
        ids,
        w,
        cu_seqlens,
        config.num_layers,
        config.num_heads,
        bias=lambda length: t5_bias(table, length),
    )
    out = native_encoder(config, w, relative_bias=bias).forward(ids, cu_seqlens)
    assert_within(out, expected, TOLERANCE)
    without = native_encoder(config, w).forward(ids, cu_seqlens)
    assert np.abs(without - expected).max() > 0.1


def test_embeddings_without_norm_are_plain_sums(active_isa):  # noqa: ARG001
    word = normal(np.random.default_rng(0), 61, 20)
    ids, cu_seqlens = random_batch(LENGTHS)
    encoder = _core.Encoder(_core.Embeddings(word), [])
    assert_same_bits(encoder.forward(ids, cu_seqlens), word[ids])


def test_encoder_tells_its_sizes():
    encoder = native_encoder()
    assert (encoder.hidden_size, encoder.vocab_size, encoder.max_positions) == (20, 61, 130)


def test_linear_tells_its_sizes():
    linear = _core.Linear(zeros(3, 7))
    assert (linear.in_features, linear.out_features) == (7, 3)


def test_layers_copy_the_weights_they_are_given(active_isa):  # noqa: ARG001
    w = random_weights()
    encoder = native_encoder(w=w)
    ids, cu_seqlens = random_batch(LENGTHS)
    before = encoder.forward(ids, cu_seqlens)
    for array in w.values():
        array.fill(np.nan)
    assert_same_bits(encoder.forward(ids, cu_seqlens), before)


def test_layers_may_be_shared_between_encoders():
    w = random_weights()
    embeddings = native_embeddings(Config(), w)
    layer = tiny_bert.native_layer(Config(), w, "encoder.layer.0", FLOAT32)
    twice, once = _core.Encoder(embeddings, [layer, layer]), _core.Encoder(embeddings, [layer])
    ids, cu_seqlens = random_batch([4])
    states = oracle.bert_embeddings(ids, w, cu_seqlens)
    for encoder, times in ((once, 1), (twice, 2)):
        expected = states
        for _ in range(times):
            expected = oracle.bert_layer(expected, w, "encoder.layer.0", cu_seqlens, 5)
        assert_within(encoder.forward(ids, cu_seqlens), expected, TOLERANCE)


# SentenceEncoder


@pytest.mark.parametrize("start", [0, 3])
def test_sentence_encoder_pools_as_the_oracle(active_isa, start):  # noqa: ARG001
    w, modes = random_weights(), _core.pooling_modes()
    ids, cu_seqlens = random_batch([4, 5, 17, 64])
    model = _core.SentenceEncoder(native_encoder(w=w), modes)
    assert model.embedding_dimension == 20 * len(modes)
    states = expected_of(Config(), w, ids, cu_seqlens)
    expected = oracle.pool_sequences(modes, states, cu_seqlens, start)
    out = model.forward(ids, cu_seqlens, pooling_start=start)
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
    model = _core.SentenceEncoder(native_encoder(w=w), ["mean"], [dense], normalize=True)
    pooled = oracle.pool_sequences(["mean"], expected_of(Config(), w, ids, cu_seqlens), cu_seqlens)
    expected = oracle.ACTIVATIONS[activation](oracle.linear(pooled, weight, bias))
    expected = oracle.l2_normalize(expected + (pooled if residual else 0))
    assert_within(model.forward(ids, cu_seqlens), expected, TOLERANCE)


def test_sentence_encoder_of_one_text_has_unit_length():
    model = _core.SentenceEncoder(native_encoder(), ["cls"], normalize=True)
    vector = model.forward(*random_batch([9]))[0].astype(np.float64)
    assert abs(np.linalg.norm(vector) - 1) < 4 * EPS


# What a batch may look like


def test_empty_batch_gives_no_rows():
    ids, cu_seqlens = zeros(0, dtype=np.int32), zeros(1, dtype=np.int32)
    assert native_encoder().forward(ids, cu_seqlens).shape == (0, 20)
    model = _core.SentenceEncoder(native_encoder(), ["mean"])
    assert model.forward(ids, cu_seqlens).shape == (0, 20)


def test_an_empty_sequence_changes_nothing_for_the_others():
    encoder = native_encoder()
    ids, cu_seqlens = random_batch([3, 0, 4, 0])
    without = np.array([0, 3, 7], np.int32)
    assert_same_bits(encoder.forward(ids, cu_seqlens), encoder.forward(ids, without))


@pytest.mark.parametrize("mode", _core.pooling_modes())
def test_a_sequence_without_tokens_to_pool_is_a_row_of_zeros(mode):
    model = _core.SentenceEncoder(native_encoder(), [mode], normalize=True)
    ids, cu_seqlens = random_batch([3, 0, 5])
    out = model.forward(ids, cu_seqlens, pooling_start=3)
    np.testing.assert_array_equal(out[:2], 0)
    assert np.abs(out[2]).max() > 0


def test_ids_may_be_misaligned_or_strided():
    encoder = native_encoder()
    ids, cu_seqlens = random_batch(LENGTHS)
    expected = encoder.forward(ids, cu_seqlens)
    for layout in (misaligned, lambda x: np.repeat(x, 2)[::2]):
        assert_same_bits(encoder.forward(layout(ids), layout(cu_seqlens)), expected)


def test_weights_may_be_strided_or_misaligned():
    w = random_weights()
    ids, cu_seqlens = random_batch(LENGTHS)
    expected = native_encoder(w=w).forward(ids, cu_seqlens)
    for layout in (misaligned, every_other):
        changed = {name: layout(array) for name, array in w.items()}
        assert_same_bits(native_encoder(w=changed).forward(ids, cu_seqlens), expected)


# Bad input: what was given, what was expected


@pytest.mark.parametrize(
    ("cu_seqlens", "message"),
    [
        ([], "cu_seqlens"),
        ([1, 6], "cu_seqlens must start at 0.*1"),
        ([0, 5], "cu_seqlens must end with.*6.*5"),
        ([0, 7], "cu_seqlens must end with.*6.*7"),
        ([0, 4, 2, 6], "cu_seqlens.*4.*2"),
        ([0, -1, 6], "cu_seqlens.*-1"),
        ([0, 2**31 - 1, 6], "cu_seqlens"),
        ([[0, 6]], "cu_seqlens"),
    ],
    ids=str,
)
def test_cu_seqlens_must_describe_the_ids(cu_seqlens, message):
    ids, _ = random_batch([6])
    with pytest.raises(ValueError, match=message):
        native_encoder().forward(ids, np.array(cu_seqlens, np.int32))


@pytest.mark.parametrize("bad", [-1, 61, 2**31 - 1, -(2**31)])
def test_a_token_id_out_of_range_is_named_with_its_place(bad):
    ids, cu_seqlens = random_batch([6])
    ids[4] = bad
    with pytest.raises((IndexError, ValueError), match=rf"input_ids\[4\].*{bad}.*61"):
        native_encoder().forward(ids, cu_seqlens)


@pytest.mark.parametrize("bad", [-1, 2])
def test_a_token_type_id_out_of_range_is_named_with_its_place(bad):
    ids, cu_seqlens = random_batch([6])
    types = zeros(6, dtype=np.int32)
    types[4] = bad
    with pytest.raises((IndexError, ValueError), match=rf"token_type_ids\[4\].*{bad}.*2"):
        native_encoder().forward(ids, cu_seqlens, types)


def test_token_type_ids_must_be_as_many_as_the_ids():
    ids, cu_seqlens = random_batch([6])
    with pytest.raises(ValueError, match=r"token_type_ids.*5.*6"):
        native_encoder().forward(ids, cu_seqlens, zeros(5, dtype=np.int32))


def test_a_sequence_longer_than_the_position_table_is_refused():
    ids, cu_seqlens = random_batch([3, 131])
    with pytest.raises(ValueError, match=r"131.*130"):
        native_encoder().forward(ids, cu_seqlens)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, ">i4"])
def test_ids_may_be_of_any_integer_type(dtype):
    encoder = native_encoder()
    ids, cu_seqlens = random_batch([6])
    out = encoder.forward(ids.astype(dtype), cu_seqlens.astype(dtype), ids.astype(dtype) % 2)
    assert_same_bits(out, encoder.forward(ids, cu_seqlens, ids % 2))


def test_ids_may_be_a_list():
    encoder = native_encoder()
    assert_same_bits(
        encoder.forward([5, 6], [0, 2]), encoder.forward(*map(np.array, ([5, 6], [0, 2])))
    )


def test_an_id_beyond_32_bits_is_not_cut_down():
    with pytest.raises((IndexError, ValueError), match=rf"input_ids\[1\].*{2**32 + 5}"):
        native_encoder().forward(np.array([5, 2**32 + 5]), [0, 2])


@pytest.mark.parametrize("dtype", [np.float32, bool, object, "U1"])
def test_ids_that_are_not_integers_are_a_type_error(dtype):
    ids, cu_seqlens = random_batch([6])
    with pytest.raises(TypeError, match=r"input_ids.*integer"):
        native_encoder().forward(ids.astype(dtype), cu_seqlens)


def test_ids_must_be_one_dimensional():
    ids, cu_seqlens = random_batch([6])
    with pytest.raises(ValueError, match="input_ids"):
        native_encoder().forward(ids[None], cu_seqlens)


@pytest.mark.parametrize("num_threads", [-1, -(2**31)])
def test_a_negative_number_of_threads_is_refused(num_threads):
    with pytest.raises(ValueError, match=f"num_threads.*{num_threads}"):
        native_encoder().forward(*random_batch([6]), num_threads=num_threads)


def linear(n=4, k=4):
    return _core.Linear(zeros(n, k))


def norm(n=4):
    return _core.LayerNorm(zeros(n))


def layer(d=4):
    attention = _core.SelfAttention(linear(3 * d, d), linear(d, d), num_heads=2)
    feed_forward = _core.FeedForward(linear(8, d), linear(d, 8), activation="gelu")
    return _core.PostNormLayer(attention, norm(d), feed_forward, norm(d))


def biased_layer():
    """Of at most 3 tokens."""
    bias = _core.RelativeBias(zeros(2, 5))
    attention = _core.SelfAttention(linear(12, 4), linear(), num_heads=2, relative_bias=bias)
    feed_forward = _core.FeedForward(linear(8, 4), linear(4, 8), activation="gelu")
    return _core.PostNormLayer(attention, norm(), feed_forward, norm())


def embeddings(d=4):
    return _core.Embeddings(zeros(5, d))


# What is wrong: how it is built, and the words that its message has to hold.
CONSTRUCTORS = {
    "Linear: weight of one dimension": (lambda: _core.Linear(zeros(4)), "weight 2 (4,)"),
    "Linear: bias too long": (lambda: _core.Linear(zeros(4, 3), zeros(5)), "bias 5 4"),
    "LayerNorm: bias too short": (lambda: _core.LayerNorm(zeros(4), zeros(3)), "bias 3 4"),
    "LayerNorm: negative eps": (lambda: _core.LayerNorm(zeros(4), eps=-1e-5), "eps -1e-05"),
    "LayerNorm: eps not a number": (lambda: _core.LayerNorm(zeros(4), eps=np.nan), "eps nan"),
    "Embeddings: position narrower": (
        lambda: _core.Embeddings(zeros(5, 4), zeros(9, 3)),
        "position 3 4",
    ),
    "Embeddings: token_type wider": (
        lambda: _core.Embeddings(zeros(5, 4), None, zeros(2, 5)),
        "token_type 5 4",
    ),
    "Embeddings: norm of another size": (
        lambda: _core.Embeddings(zeros(5, 4), norm=norm(3)),
        "norm 3 4",
    ),
    "Embeddings: no position behind padding_idx": (
        lambda: _core.Embeddings(zeros(5, 4), zeros(9, 4), padding_idx=8),
        "padding_idx 8",
    ),
    "RelativeBias: no middle": (lambda: _core.RelativeBias(zeros(2, 4)), "bias odd 4"),
    "RelativeBias: no heads": (lambda: _core.RelativeBias(zeros(0, 5)), "bias"),
    "SelfAttention: bias of other heads": (
        lambda: _core.SelfAttention(
            linear(12, 4), linear(), num_heads=2, relative_bias=_core.RelativeBias(zeros(3, 5))
        ),
        "relative_bias 3 2",
    ),
    "Encoder: more positions than a bias serves": (
        lambda: _core.Encoder(_core.Embeddings(zeros(5, 4), zeros(9, 4)), [biased_layer()]),
        "layers[0] 3 9",
    ),
    "Encoder: a bias and no limit": (
        lambda: _core.Encoder(embeddings(), [biased_layer()]),
        "layers[0] 3 limit",
    ),
    "SelfAttention: heads do not divide": (
        lambda: _core.SelfAttention(linear(12, 4), linear(), num_heads=3),
        "num_heads 3",
    ),
    "SelfAttention: no head": (
        lambda: _core.SelfAttention(linear(12, 4), linear(), num_heads=0),
        "num_heads 0",
    ),
    "SelfAttention: qkv not three times as wide": (
        lambda: _core.SelfAttention(linear(8, 4), linear(), num_heads=2),
        "qkv 8",
    ),
    "SelfAttention: output of another size": (
        lambda: _core.SelfAttention(linear(12, 4), linear(4, 5), num_heads=2),
        "output 5 4",
    ),
    "FeedForward: down does not take what up gives": (
        lambda: _core.FeedForward(linear(8, 4), linear(4, 7), activation="gelu"),
        "down 7 8",
    ),
    "FeedForward: unknown activation": (
        lambda: _core.FeedForward(linear(8, 4), linear(4, 8), activation="gelux"),
        "activation gelux quick_gelu",
    ),
    "PostNormLayer: norm of another size": (
        lambda: _core.PostNormLayer(
            _core.SelfAttention(linear(12, 4), linear(), num_heads=2),
            norm(5),
            _core.FeedForward(linear(8, 4), linear(4, 8), activation="gelu"),
            norm(4),
        ),
        "attention_norm 5 4",
    ),
    "Linear: no output": (lambda: _core.Linear(zeros(0, 4)), "weight 0 4"),
    "Linear: no input": (lambda: _core.Linear(zeros(4, 0)), "weight 4 0"),
    "Embeddings: no token": (lambda: _core.Embeddings(zeros(0, 4)), "word"),
    "Encoder: layer of another size": (
        lambda: _core.Encoder(embeddings(4), [layer(4), layer(6)]),
        "layers[1] 6 4",
    ),
    "SentenceEncoder: no pooling": (
        lambda: _core.SentenceEncoder(_core.Encoder(embeddings(), []), []),
        "pooling",
    ),
    "SentenceEncoder: unknown pooling": (
        lambda: _core.SentenceEncoder(_core.Encoder(embeddings(), []), ["median"]),
        "pooling median weightedmean",
    ),
    "SentenceEncoder: dense of another size": (
        lambda: _core.SentenceEncoder(
            _core.Encoder(embeddings(), []), ["mean"], [_core.Dense(linear(3, 5))]
        ),
        "dense 5 4",
    ),
    "Dense: residual between different sizes": (
        lambda: _core.SentenceEncoder(
            _core.Encoder(embeddings(), []), ["mean"], [_core.Dense(linear(3, 4), residual=True)]
        ),
        "dense[0] residual 4 3",
    ),
}


@pytest.mark.parametrize(("build", "words"), CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_constructor_says_what_does_not_fit(build, words):
    with pytest.raises(ValueError, match=r"\w") as error:
        build()
    missing = [word for word in words.split() if word not in str(error.value)]
    assert missing == [], str(error.value)


def test_weights_of_float64_are_a_type_error():
    with pytest.raises(TypeError, match=r"weight must be float32, got float64"):
        _core.Linear(np.zeros((4, 3)))


def test_weights_of_the_other_byte_order_are_a_type_error():
    with pytest.raises(TypeError, match=r"weight must be float32, got >f4"):
        _core.Linear(zeros(4, 3, dtype=">f4"))


def test_weights_that_were_pickled_are_taken():
    # Their dtype equals float32 but is not the same object.
    w = pickle.loads(pickle.dumps(random_weights()))
    ids, cu_seqlens = random_batch([6])
    expected = native_encoder().forward(ids, cu_seqlens)
    assert_same_bits(native_encoder(w=w).forward(ids, cu_seqlens), expected)


def test_a_layer_must_not_be_none():
    with pytest.raises(TypeError):
        _core.Encoder(embeddings(), [None])
