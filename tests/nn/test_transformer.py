"""Transformer layers and stacks, compared with torch's stored results and definitions in float64, and bit
identities."""

from __future__ import annotations

import copy
import json
import pickle
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from simdformer import nn
from tests.oracle import nn as oracle_nn
from tests.support import TESTS, assert_same_bits, normal
from tests.support.torch_files import write_torch

TOLERANCE = 2e-6  # relative to the output's largest element
GOLDEN = json.loads((TESTS / "data" / "torch_transformer.json").read_text())


def randomize(module, rng):
    state = {}
    for name, value in module.state_dict().items():
        state[name] = normal(rng, *value.shape, scale=0.2)
        if name.endswith(("norm1.weight", "norm2.weight", "norm3.weight", "running_var")):
            state[name] = 1 + np.abs(state[name])
        if name.endswith("num_batches_tracked"):
            state[name] = value
    module.load_state_dict(state)
    return module, state


def encoder(rng, **options):
    options = {"dim_feedforward": 37, "batch_first": True, **options}
    return randomize(nn.TransformerEncoderLayer(24, 4, **options), rng)


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()


# Stored results of torch


def cosine_weights(module):
    module.load_state_dict(
        {k: np.cos(np.arange(v.size)).reshape(v.shape) for k, v in module.state_dict().items()}
    )
    return module


def array(numbers):
    return np.array(numbers, np.float32)


def mask(numbers):
    return None if numbers is None else np.array(numbers, bool)


def golden_error(out, expected, padding):
    """The largest error at tokens. At padding our result is 0."""
    real = np.ones(out.shape[:2], bool) if padding is None else ~np.array(padding, bool).T
    assert not out[~real].any()
    return np.abs(out - array(expected))[real].max()


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("case", GOLDEN["encoder"], ids=range(len(GOLDEN["encoder"])))
def test_encoder_gives_torchs_numbers(case):
    module = cosine_weights(nn.TransformerEncoderLayer(4, 2, 16, 0.0, case["activation"]))
    if case["layers"]:
        norm = nn.LayerNorm(4) if case["norm"] else None
        module = nn.TransformerEncoder(module, case["layers"], norm)
    padding = case["src_key_padding_mask"]
    out = module(array(case["src"]), src_key_padding_mask=mask(padding))
    assert golden_error(out, case["output"], padding) <= 1e-5


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("case", GOLDEN["decoder"], ids=range(len(GOLDEN["decoder"])))
def test_decoder_gives_torchs_numbers(case):
    module = cosine_weights(nn.TransformerDecoderLayer(4, 2, 16, 0.0, case["activation"]))
    out = module(
        array(case["tgt"]),
        array(case["memory"]),
        tgt_key_padding_mask=mask(case["tgt_key_padding_mask"]),
        memory_key_padding_mask=mask(case["memory_key_padding_mask"]),
    )
    assert golden_error(out, case["output"], case["tgt_key_padding_mask"]) <= 1e-5


# Options that torch lacks, compared with the definitions


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["gelu", "swiglu", "geglu"])
@pytest.mark.parametrize(("alpha", "residual"), [(1.0, True), (1.7, True), (1.0, False)])
def test_options_combine(rng, norm, norm_first, activation, alpha, residual):
    layer, w = encoder(
        rng, norm=norm, norm_first=norm_first, activation=activation, alpha=alpha, residual=residual
    )
    x = normal(rng, 2, 7, 24)
    gate = {"swiglu": "silu", "geglu": "gelu"}.get(activation)
    for i, out in enumerate(layer(x)):
        expected = oracle_nn.layer(
            x[i], w, 4, kind=norm, norm_first=norm_first, alpha=alpha, residual=residual,
            activation=activation, gate=gate,
        )  # fmt: skip
        assert_close(out, expected)


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("output_norm", [True, "residual"])
@pytest.mark.parametrize("norm", ["layer", "rms", "batch"])
@pytest.mark.parametrize(
    "options", [{"norm_first": True}, {"alpha": 1.7}, {"residual": False}], ids=str
)
def test_outputs_of_sublayers_may_be_normalized(rng, output_norm, norm, options):
    layer, w = encoder(rng, norm=norm, output_norm=output_norm, activation="geglu", **options)
    x = normal(rng, 2, 7, 24)
    for i, out in enumerate(layer(x)):
        expected = oracle_nn.layer(
            x[i], w, 4, kind=norm, output_norm=output_norm, gate="gelu", **options
        )
        assert_close(out, expected)


def test_an_output_norm_of_one_sublayer_may_be_left_out(rng):
    layer, w = encoder(rng, output_norm="residual", norm="rms")
    layer.output_norm2 = nn.Identity()
    x = normal(rng, 7, 24)
    attended = oracle_nn.layer(x, w, 4, kind="rms", output_norm="residual", only="norm1")
    expected = oracle_nn.layer(attended, w, 4, kind="rms", only="norm2")
    assert_close(layer(x), expected)


def test_decoder_layer_with_every_option(rng):
    layer, w = randomize(
        nn.TransformerDecoderLayer(
            24, 4, 37, batch_first=True, norm="rms", alpha=1.3, activation="swiglu",
            position=nn.RotaryEmbedding(6), num_kv_heads=2, output_norm=True,
        ),
        rng,
    )  # fmt: skip
    x, memory = normal(rng, 2, 5, 24), normal(rng, 2, 8, 24)
    out = layer(x, memory, tgt_mask=~np.tri(5, dtype=bool))
    for i in range(2):
        expected = oracle_nn.layer(
            x[i], w, 4, memory=memory[i], kind="rms", alpha=1.3, gate="silu", rotary=True,
            kv_heads=2, bias=oracle_nn.causal(5), output_norm=True,
        )  # fmt: skip
        assert_close(out[i], expected)


@pytest.mark.parametrize("position", [nn.ALiBi(4), nn.RelativePositionBias(4)])
def test_relative_biases(rng, position):
    layer, w = encoder(rng, position=position)
    x = normal(rng, 1, 40, 24)
    if isinstance(position, nn.ALiBi):
        slopes = 2.0 ** -np.arange(2, 9, 2)
        bias = -slopes[:, None, None] * np.abs(np.arange(40)[:, None] - np.arange(40))
    else:
        table, distance = w["self_attn.position.weight"], np.arange(40) - np.arange(40)[:, None]
        n = np.abs(distance)
        large = 8 + (np.log(np.maximum(n, 1) / 8) / np.log(128 / 8) * 8).astype(int)
        bucket = np.where(n < 8, n, np.minimum(large, 15)) + 16 * (distance > 0)
        bias = table[bucket].transpose(2, 0, 1)
    assert_close(layer(x)[0], oracle_nn.layer(x[0], w, 4, bias=bias))


# Padding, packing, batches, threads


def ragged(rng, lengths=(5, 0, 9, 1), features=24):
    padded = normal(rng, len(lengths), max(lengths), features)
    padding = np.arange(max(lengths)) >= np.array(lengths)[:, None]
    return padded, padding, np.concatenate([[0], np.cumsum(lengths)])


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize("norm_first", [False, True])
def test_padded_packed_and_alone_are_the_same_bits(rng, norm_first):
    layer, _ = encoder(rng, norm_first=norm_first)
    stack = nn.TransformerEncoder(layer, 2, nn.LayerNorm(24))
    x, padding, cu = ragged(rng)
    out = stack(x, src_key_padding_mask=padding)
    assert not out[padding].any()
    assert_same_bits(stack(x[~padding], cu_seqlens=cu), out[~padding])
    for i, length in enumerate(np.diff(cu)):
        if length:
            assert_same_bits(stack(x[i, :length]), out[i, :length])


def test_values_at_padding_have_no_effect(rng):
    layer, _ = encoder(rng)
    x, padding, _ = ragged(rng)
    out = layer(x, src_key_padding_mask=padding)
    x[padding] = np.nan
    assert_same_bits(layer(x, src_key_padding_mask=padding), out)


@pytest.mark.parametrize("shape", [(0, 5, 24), (2, 0, 24)])
def test_empty_input_gives_empty_output(rng, shape):
    layer, _ = encoder(rng)
    assert layer(np.zeros(shape, np.float32)).shape == shape
    assert layer(np.zeros((0, 24), np.float32), cu_seqlens=[0, 0]).shape == (0, 24)


def test_an_empty_memory_equals_a_fully_masked_one(rng):
    layer, _ = randomize(nn.TransformerDecoderLayer(24, 4, 37, batch_first=True), rng)
    x, memory = normal(rng, 2, 5, 24), normal(rng, 2, 3, 24)
    masked = layer(x, memory, memory_key_padding_mask=np.ones((2, 3), bool))
    assert_same_bits(layer(x, memory[:, :0]), masked)


def test_left_padding_gives_the_result_of_right_padding(rng):
    layer, _ = encoder(rng)
    x, padding, _ = ragged(rng, (5, 3, 9))
    out = layer(x, src_key_padding_mask=padding)
    left = np.ascontiguousarray(padding[:, ::-1])
    shifted = np.zeros_like(x)
    shifted[~left] = x[~padding]
    got = layer(shifted, src_key_padding_mask=left)
    assert not got[left].any()
    np.testing.assert_allclose(got[~left], out[~padding], rtol=1e-5, atol=1e-6)


def test_batch_first_changes_the_layout_only(rng):
    layer, w = encoder(rng)
    x = normal(rng, 3, 7, 24)
    other = nn.TransformerEncoderLayer(24, 4, 37)
    other.load_state_dict(w)
    seq_first = np.ascontiguousarray(x.transpose(1, 0, 2))
    assert_same_bits(other(seq_first).transpose(1, 0, 2).copy(), layer(x))


@pytest.mark.parametrize("lengths", [(40, 300, 7, 130), (1,), (17,)])
def test_threads_do_not_change_bits(rng, lengths):
    layer, _ = encoder(rng, activation="swiglu")
    stack = nn.TransformerEncoder(layer, 2)
    x, padding, cu = ragged(rng, lengths)
    one = stack(x[~padding], cu_seqlens=cu, num_threads=1)
    for threads in (2, 3):
        assert_same_bits(stack(x[~padding], cu_seqlens=cu, num_threads=threads), one)


def test_the_transformer_equals_encoder_and_decoder(rng):
    model, _ = randomize(nn.Transformer(24, 4, 2, 2, 37, batch_first=True), rng)
    src, padding, cu = ragged(rng, (5, 9))
    tgt = normal(rng, 2, 4, 24)
    out = model(src, tgt, src_key_padding_mask=padding, memory_key_padding_mask=padding)
    memory = model.encoder(src[~padding], cu_seqlens=cu)
    alone = model.decoder(tgt.reshape(8, 24), memory, cu_seqlens=[0, 4, 8], memory_cu_seqlens=cu)
    assert_same_bits(alone.reshape(out.shape), out)


def test_weights_of_every_layer(rng):
    layer, w = encoder(rng)
    stack = nn.TransformerEncoder(layer, 2)
    x, padding, _ = ragged(rng, (5, 9))
    out, weights = stack(x, src_key_padding_mask=padding, need_weights=True)
    assert_same_bits(out, stack(x, src_key_padding_mask=padding))
    assert [a.shape for a in weights] == [(2, 4, 9, 9)] * 2
    a = oracle_nn.part(w, "self_attn")
    expected = oracle_nn.multihead_attention(x[0, :5], x[0, :5], x[0, :5], a, 4)[1]
    assert_close(weights[0][0, :, :5, :5], expected)
    assert not weights[0][0, :, 5:].any()
    assert not weights[0][0, :, :, 5:].any()


def test_there_is_one_head_mask_per_layer(rng):
    layer, _ = encoder(rng)
    x = normal(rng, 2, 5, 24)
    stack = nn.TransformerEncoder(layer, 2)
    off = np.array([0, 1, 1, 1], np.float32)
    got = stack(x, head_mask=[off, None])
    assert_same_bits(got, layer(layer(x, head_mask=off)))
    with pytest.raises(ValueError, match="head_mask must have one entry per layer, 2, got 1"):
        stack(x, head_mask=[off])


# The cache


@pytest.mark.usefixtures("active_isa")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_first": True, "norm": "rms", "activation": "swiglu"},
        {"num_kv_heads": 2, "position": nn.RotaryEmbedding(6)},
        {"position": nn.ALiBi(4)},
        {"position": nn.RelativePositionBias(4)},
        {"score": "euclidean"},
        {"score": "cosine"},
        {"score": "additive"},
        {"score": "bilinear", "softcap": 2.0},
    ],
    ids=lambda options: re.sub(" object at 0x[0-9a-f]+", "", str(options)),
)
def test_cached_is_uncached_to_the_bit(rng, options):
    layer, _ = randomize(nn.TransformerDecoderLayer(24, 4, 37, batch_first=True, **options), rng)
    stack = nn.TransformerDecoder(layer, 2)
    tgt, memory = normal(rng, 2, 70, 24), normal(rng, 2, 9, 24)
    padding = np.arange(9) >= np.array([[9], [4]])
    whole = stack(tgt, memory, tgt_mask=~np.tri(70, dtype=bool), memory_key_padding_mask=padding)
    cache = nn.DecoderCache(2)
    first = stack(tgt[:, :40], memory, memory_key_padding_mask=padding, cache=cache)
    steps = [stack(tgt[:, i : i + 1], None, cache=cache) for i in range(40, 55)]
    rest = stack(tgt[:, 55:], None, cache=cache)
    assert cache.lengths == [70, 70]
    assert_same_bits(np.concatenate([first, *steps, rest], axis=1), whole)


def test_a_ragged_cache_has_the_bits_of_each_sequence_alone(rng):
    layer, _ = encoder(rng, position=nn.RotaryEmbedding(6))
    stack = nn.TransformerEncoder(layer, 2)
    prompts, padding, cu = ragged(rng, (5, 9, 1))
    step = normal(rng, 3, 1, 24)
    cache = nn.DecoderCache(3)
    out = stack(prompts[~padding], cu_seqlens=cu, cache=cache)
    after = stack(step, cache=cache)
    assert cache.lengths == [6, 10, 2]
    for i, length in enumerate(np.diff(cu)):
        alone = nn.DecoderCache(1)
        one = stack(prompts[i : i + 1, :length], cache=alone)
        assert_same_bits(one[0], out[cu[i] : cu[i + 1]])
        assert_same_bits(stack(step[i : i + 1], cache=alone)[0], after[i])


def test_selected_sequences_are_independent(rng):
    layer, _ = encoder(rng)
    x, a, b = normal(rng, 2, 5, 24), normal(rng, 3, 1, 24), normal(rng, 3, 1, 24)
    cache = nn.DecoderCache(2)
    layer(x, cache=cache)
    cache.select([1, 1, 0])
    first, second = layer(a, cache=cache), layer(b, cache=cache)
    for i, origin in enumerate([1, 1, 0]):
        alone = nn.DecoderCache(1)
        layer(x[[origin]], cache=alone)
        assert_same_bits(layer(a[[i]], cache=alone), first[[i]])
        assert_same_bits(layer(b[[i]], cache=alone), second[[i]])


def test_cache_errors(rng):
    layer, _ = encoder(rng)
    x, cache = normal(rng, 2, 5, 24), nn.DecoderCache(3)
    with pytest.raises(ValueError, match="the cache holds 3 sequences, the call has 2"):
        layer(x, cache=cache)
    with pytest.raises(ValueError, match="src_mask must be None"):
        layer(x, src_mask=np.zeros((5, 5), bool), cache=nn.DecoderCache(2))
    with pytest.raises(ValueError, match="cache has 3 sequences, index is 3"):
        cache.select([3])
    decoder = nn.TransformerDecoderLayer(24, 4, batch_first=True)
    with pytest.raises(ValueError, match="memory is required"):
        decoder(x, None)
    filled = nn.DecoderCache(2)
    layer(x, cache=filled)
    with pytest.raises(ValueError, match="cache holds keys of 1 layers, the decoder has 2"):
        nn.TransformerEncoder(layer, 2)(x, cache=filled)


# Parameters


def test_state_dict_has_torchs_names():
    model = nn.Transformer(24, 4, 1, 1, 37)
    attention = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    linears = [f"{n}.{p}" for n in ("linear1", "linear2") for p in ("weight", "bias")]

    def norms(count):
        return [f"norm{i + 1}.{p}" for i in range(count) for p in ("weight", "bias")]

    expected = [f"encoder.layers.0.self_attn.{p}" for p in attention]
    expected += [f"encoder.layers.0.{p}" for p in linears + norms(2)]
    expected += ["encoder.norm.weight", "encoder.norm.bias"]
    expected += [
        f"decoder.layers.0.{a}.{p}" for a in ("self_attn", "multihead_attn") for p in attention
    ]
    expected += [f"decoder.layers.0.{p}" for p in linears + norms(3)]
    expected += ["decoder.norm.weight", "decoder.norm.bias"]
    assert list(model.state_dict()) == expected


def test_bias_false_leaves_out_every_bias():
    layer = nn.TransformerDecoderLayer(24, 4, bias=False)
    assert not [name for name in layer.state_dict() if "bias" in name]


def test_a_state_dict_can_be_saved_and_loaded_by_safetensors(rng, tmp_path):
    layer, state = encoder(rng, norm="batch")
    save_file(state, tmp_path / "layer.safetensors")
    other = nn.TransformerEncoderLayer(24, 4, 37, batch_first=True, norm="batch")
    other.load_state_dict(tmp_path / "layer.safetensors")
    x = normal(rng, 2, 5, 24)
    assert_same_bits(other(x), layer(x))


def test_state_dict_is_read_from_pytorchs_file(rng, tmp_path):
    layer, state = encoder(rng, norm="batch")
    write_torch(tmp_path / "layer.pt", state)
    other = nn.TransformerEncoderLayer(24, 4, 37, batch_first=True, norm="batch")
    other.load_state_dict(tmp_path / "layer.pt")
    x = normal(rng, 2, 5, 24)
    assert_same_bits(other(x), layer(x))


def test_loading_changes_the_result_and_copies(rng):
    layer, state = encoder(rng)
    x = normal(rng, 2, 5, 24)
    before = layer(x)
    state["linear1.weight"] *= 2
    assert_same_bits(layer(x), before)
    layer.load_state_dict(state)
    assert (layer(x) != before).any()
    assert_same_bits(layer(x), layer(x))


def test_parameters_are_read_only(rng):
    layer, _ = encoder(rng)
    with pytest.raises(ValueError, match="read-only"):
        layer.linear1.weight[0, 0] = 1.0
    layer.linear1.weight = np.zeros((37, 24), np.float32)
    with pytest.raises(ValueError, match=r"weight must have shape \(37, 24\), got \(24, 37\)"):
        layer.linear1.weight = np.zeros((24, 37), np.float32)


def test_load_errors_name_all_keys_and_change_nothing(rng):
    layer, state = encoder(rng)
    x = normal(rng, 1, 5, 24)
    before = layer(x)
    bad = dict(state)
    del bad["norm1.weight"]
    bad["surplus"] = np.zeros(1, np.float32)
    bad["linear1.bias"] = np.zeros(36, np.float32)
    bad["linear2.bias"] = np.zeros(24, np.float32)
    message = (
        "state_dict does not fit TransformerEncoderLayer: missing keys: norm1.weight; "
        r"unexpected keys: surplus; linear1.bias has shape \(36,\), the module needs \(37,\)"
    )
    with pytest.raises(ValueError, match=message):
        layer.load_state_dict(bad)
    assert_same_bits(layer(x), before)
    del bad["linear1.bias"]
    assert layer.load_state_dict(bad, strict=False) == (
        ["linear1.bias", "norm1.weight"],
        ["surplus"],
    )


def test_weights_that_are_not_floats_are_refused(rng):
    layer, state = encoder(rng)
    with pytest.raises(TypeError, match=r"linear1\.bias must be an array of floats, got int64"):
        layer.load_state_dict({**state, "linear1.bias": np.zeros(37, np.int64)})


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(rng, clone):
    layer, state = encoder(rng)
    x = normal(rng, 2, 5, 24)
    before = layer(x)
    other = clone(layer)
    assert_same_bits(other(x), before)
    other.load_state_dict({k: v * 2 for k, v in state.items()})
    assert_same_bits(layer(x), before)


def test_a_seed_repeats_initial_parameters():
    nn.manual_seed(3)
    first = nn.TransformerEncoderLayer(24, 4).state_dict()
    nn.manual_seed(3)
    for name, value in nn.TransformerEncoderLayer(24, 4).state_dict().items():
        np.testing.assert_array_equal(value, first[name])


ERRORS = [
    ({"activation": "mish"}, "unknown activation 'mish'; known: .*gelu.*swiglu"),
    ({"norm": "group"}, "unknown norm 'group'; known: layer, rms, batch"),
    ({"dropout": -1.0}, "dropout must be in"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=lambda x: str(x)[:30])
def test_constructor_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        nn.TransformerEncoderLayer(24, 4, **arguments)


CALLS = [
    ({"src": np.zeros((2, 5, 23), np.float32)}, ValueError, "src must have 24 features"),
    ({"src": np.zeros((2, 5, 24))}, TypeError, "src must be float32, got float64"),
    ({"cu_seqlens": [0, 10]}, ValueError, r"src must have shape \(total_tokens, 24\)"),
    ({"is_causal": True}, ValueError, "is_causal is a hint about src_mask"),
    ({"src_mask": np.zeros((4, 5), bool)}, ValueError, r"src_mask must have shape \(5, 5\)"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), CALLS, ids=lambda x: str(x)[:40])
def test_call_errors(rng, arguments, error, message):
    layer, _ = encoder(rng)
    with pytest.raises(error, match=message):
        layer(**{"src": normal(rng, 2, 5, 24), **arguments})


@pytest.mark.parametrize("cu", [[0, 4], [1, 5], [0, 4, 3, 5], []])
def test_wrong_offsets_are_refused(rng, cu):
    layer, _ = encoder(rng)
    with pytest.raises((ValueError, TypeError), match="cu_seqlens must"):
        layer(normal(rng, 5, 24), cu_seqlens=cu)


def test_a_stack_accepts_only_its_kind_of_layer():
    with pytest.raises(TypeError, match="TransformerDecoder takes a TransformerDecoderLayer"):
        nn.TransformerDecoder(nn.TransformerEncoderLayer(24, 4), 2)
