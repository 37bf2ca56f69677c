"""The errors of native layers for bad input: what was given, and what was expected."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from simdformer import _core
from tests.support import assert_same_bits
from tests.support.tiny_bert import (
    native_encoder,
    post_norm_layer,
    random_batch,
    random_weights,
    self_attention,
)


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


# Batches


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
        native_encoder().encode(ids, np.array(cu_seqlens, np.int32))


@pytest.mark.parametrize("bad", [-1, 61, 2**31 - 1, -(2**31)])
def test_a_token_id_out_of_range_is_named_with_its_place(bad):
    ids, cu_seqlens = random_batch([6])
    ids[4] = bad
    with pytest.raises((IndexError, ValueError), match=rf"input_ids\[4\].*{bad}.*61"):
        native_encoder().encode(ids, cu_seqlens)


@pytest.mark.parametrize("bad", [-1, 2])
def test_a_token_type_id_out_of_range_is_named_with_its_place(bad):
    ids, cu_seqlens = random_batch([6])
    types = zeros(6, dtype=np.int32)
    types[4] = bad
    with pytest.raises((IndexError, ValueError), match=rf"token_type_ids\[4\].*{bad}.*2"):
        native_encoder().encode(ids, cu_seqlens, types)


def test_token_type_ids_must_be_as_many_as_the_ids():
    ids, cu_seqlens = random_batch([6])
    with pytest.raises(ValueError, match=r"token_type_ids.*5.*6"):
        native_encoder().encode(ids, cu_seqlens, zeros(5, dtype=np.int32))


def test_a_sequence_longer_than_the_position_table_is_refused():
    ids, cu_seqlens = random_batch([3, 131])
    with pytest.raises(ValueError, match=r"131.*130"):
        native_encoder().encode(ids, cu_seqlens)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, ">i4"])
def test_ids_may_be_of_any_integer_type(dtype):
    encoder = native_encoder()
    ids, cu_seqlens = random_batch([6])
    out = encoder.encode(ids.astype(dtype), cu_seqlens.astype(dtype), ids.astype(dtype) % 2)
    assert_same_bits(out, encoder.encode(ids, cu_seqlens, ids % 2))


def test_ids_may_be_a_list():
    encoder = native_encoder()
    assert_same_bits(
        encoder.encode([5, 6], [0, 2]), encoder.encode(*map(np.array, ([5, 6], [0, 2])))
    )


def test_an_id_beyond_32_bits_is_not_truncated():
    with pytest.raises((IndexError, ValueError), match=rf"input_ids\[1\].*{2**32 + 5}"):
        native_encoder().encode(np.array([5, 2**32 + 5]), [0, 2])


@pytest.mark.parametrize("dtype", [np.float32, bool, object, "U1"])
def test_ids_that_are_not_integers_are_a_type_error(dtype):
    ids, cu_seqlens = random_batch([6])
    with pytest.raises(TypeError, match=r"input_ids.*integer"):
        native_encoder().encode(ids.astype(dtype), cu_seqlens)


def test_ids_must_be_one_dimensional():
    ids, cu_seqlens = random_batch([6])
    with pytest.raises(ValueError, match="input_ids"):
        native_encoder().encode(ids[None], cu_seqlens)


@pytest.mark.parametrize("num_threads", [-1, -(2**31)])
def test_a_negative_number_of_threads_is_refused(num_threads):
    with pytest.raises(ValueError, match=f"num_threads.*{num_threads}"):
        native_encoder().encode(*random_batch([6]), num_threads=num_threads)


# Constructors


def linear(n=4, k=4):
    return _core.Linear(zeros(n, k))


def norm(n=4):
    return _core.LayerNorm(zeros(n))


def attention(qkv=None, output=None, num_heads=2, **options):
    return self_attention(qkv or linear(12, 4), output or linear(), num_heads, **options)


def feed_forward(d=4):
    return _core.FeedForward(linear(8, d), linear(d, 8), activation="gelu")


def layer(d=4, **options):
    attends = attention(linear(3 * d, d), linear(d, d), **options)
    return post_norm_layer(attends, norm(d), feed_forward(d), norm(d))


def biased_layer():
    """A layer for at most 3 tokens."""
    return layer(position=_core.Positions(relative=zeros(2, 5), relative_center=2))


def rotary_layer(pairs=1, d=4):
    """A layer for at most 3 tokens."""
    return layer(d, position=_core.Positions(cos=zeros(3, pairs), sin=zeros(3, pairs)))


def stack(layers=(), embeddings=None, norm=None):
    return _core.TransformerStack(list(layers), norm, embeddings or _core.Embeddings(zeros(5, 4)))


# Wrong arguments: how to build the layer, and the words that the message must contain.
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
    "Positions: distance 0 is outside": (
        lambda: _core.Positions(relative=zeros(2, 4), relative_center=4),
        "4 distances",
    ),
    "Positions: cos of one dimension": (
        lambda: _core.Positions(cos=zeros(3), sin=zeros(3, 1)),
        "cos 2 (3,)",
    ),
    "Positions: sin of other positions": (
        lambda: _core.Positions(cos=zeros(3, 2), sin=zeros(4, 2)),
        "cos (3, 2) sin (4, 2)",
    ),
    "Positions: sin of other pairs": (
        lambda: _core.Positions(cos=zeros(3, 2), sin=zeros(3, 1)),
        "cos (3, 2) sin (3, 1)",
    ),
    "Positions: no position": (
        lambda: _core.Positions(cos=zeros(0, 2), sin=zeros(0, 2)),
        "cos empty",
    ),
    "Positions: no pair": (lambda: _core.Positions(cos=zeros(3, 0), sin=zeros(3, 0)), "cos empty"),
    "MultiheadAttention: bias of other heads": (
        lambda: attention(position=_core.Positions(relative=zeros(3, 5), relative_center=2)),
        "position 3 2",
    ),
    "MultiheadAttention: more pairs than a head has": (
        lambda: rotary_layer(pairs=2),
        "position 2 pairs head_dim 2",
    ),
    "MultiheadAttention: heads do not divide": (lambda: attention(num_heads=3), "num_heads 3"),
    "MultiheadAttention: no head": (lambda: attention(num_heads=0), "num_heads 0"),
    "MultiheadAttention: no projection": (
        lambda: _core.MultiheadAttention(
            [], linear(), num_heads=2, num_kv_heads=2, softmax_scale=1.0
        ),
        "projections 0 1 3",
    ),
    "MultiheadAttention: a group of nothing": (
        lambda: _core.MultiheadAttention(
            [[]], linear(), num_heads=2, num_kv_heads=2, softmax_scale=1.0
        ),
        "projections empty",
    ),
    "MultiheadAttention: qkv not three times as wide": (
        lambda: attention(linear(7, 4)),
        "projections 7 2",
    ),
    "MultiheadAttention: output of another size": (
        lambda: attention(output=linear(4, 5)),
        "output 5 2",
    ),
    "FeedForward: down does not take what up gives": (
        lambda: _core.FeedForward(linear(8, 4), linear(4, 7), activation="gelu"),
        "down 7 8",
    ),
    "FeedForward: unknown activation": (
        lambda: _core.FeedForward(linear(8, 4), linear(4, 8), activation="gelux"),
        "activation gelux quick_gelu",
    ),
    "FeedForward: gate_up of another order": (
        lambda: _core.FeedForward.joined(linear(15, 4), linear(4, 8), activation="gelu"),
        "gate_up 15 gated_rows(8)",
    ),
    "TransformerLayer: norm of another size": (
        lambda: post_norm_layer(attention(), norm(5), feed_forward(), norm()),
        "self_norm 5 4",
    ),
    "Linear: no output": (lambda: _core.Linear(zeros(0, 4)), "weight 0 4"),
    "Linear: no input": (lambda: _core.Linear(zeros(4, 0)), "weight 4 0"),
    "Embeddings: no token": (lambda: _core.Embeddings(zeros(0, 4)), "word"),
    "TransformerStack: nothing": (lambda: _core.TransformerStack([]), "no layers"),
    "TransformerStack: layer of another size": (
        lambda: stack([layer(4), layer(6)]),
        "layers[1] 6 4",
    ),
    "TransformerStack: rotary layer of another size": (
        lambda: stack([layer(4), rotary_layer(d=6)]),
        "layers[1] 6 4",
    ),
    "TransformerStack: norm of another size": (
        lambda: stack(norm=_core.Norm.rms(zeros(5), eps=1e-6)),
        "norm 5 4",
    ),
    "PooledStack: no embeddings": (
        lambda: _core.PooledStack(_core.TransformerStack([layer()]), ["mean"]),
        "embeddings",
    ),
    "PooledStack: no pooling": (lambda: _core.PooledStack(stack(), []), "pooling"),
    "PooledStack: unknown pooling": (
        lambda: _core.PooledStack(stack(), ["median"]),
        "pooling median weightedmean",
    ),
    "PooledStack: dense of another size": (
        lambda: _core.PooledStack(stack(), ["mean"], [_core.Dense(linear(3, 5))]),
        "dense 5 4",
    ),
    "Dense: norm of another size": (
        lambda: _core.PooledStack(stack(), ["mean"], [_core.Dense(linear(3, 4), norm=norm(4))]),
        "dense[0] norm 4 3",
    ),
    "Dense: residual between different sizes": (
        lambda: _core.PooledStack(stack(), ["mean"], [_core.Dense(linear(3, 4), residual=True)]),
        "dense[0] residual 4 3",
    ),
}


@pytest.mark.parametrize(("build", "words"), CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_the_constructor_names_what_does_not_match(build, words):
    with pytest.raises(ValueError, match=r"\w") as error:
        build()
    missing = [word for word in words.split() if word not in str(error.value)]
    assert missing == [], str(error.value)


@pytest.mark.parametrize("make", [biased_layer, rotary_layer])
@pytest.mark.parametrize("positions", [None, 9])
def test_a_sequence_longer_than_a_layers_positions_is_refused(make, positions):
    table = None if positions is None else zeros(positions, 4)
    encoder = stack([layer(), make()], _core.Embeddings(zeros(5, 4), table))
    assert encoder.max_positions == 3
    assert encoder.encode(zeros(6, dtype=np.int32), [0, 3, 6]).shape == (6, 4)
    with pytest.raises(ValueError, match="sequence 1 has 4 tokens, the model serves 3 positions"):
        encoder.encode(zeros(6, dtype=np.int32), [0, 2, 6])


def test_embeddings_with_fewer_positions_than_a_layer_set_the_limit():
    encoder = stack([rotary_layer()], _core.Embeddings(zeros(5, 4), zeros(2, 4)))
    assert encoder.max_positions == 2


def test_weights_of_float64_are_a_type_error():
    with pytest.raises(TypeError, match=r"weight must be float32, got float64"):
        _core.Linear(np.zeros((4, 3)))


def test_weights_of_the_other_byte_order_are_a_type_error():
    with pytest.raises(TypeError, match=r"weight must be float32, got >f4"):
        _core.Linear(zeros(4, 3, dtype=">f4"))


def test_pickled_weights_are_accepted():
    # Their dtype equals float32 but is not the same object.
    w = pickle.loads(pickle.dumps(random_weights()))
    ids, cu_seqlens = random_batch([6])
    expected = native_encoder().encode(ids, cu_seqlens)
    assert_same_bits(native_encoder(w=w).encode(ids, cu_seqlens), expected)


def test_a_layer_must_not_be_none():
    with pytest.raises(TypeError):
        stack([None])
