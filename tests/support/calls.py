"""A call of every public function of functional and every module of nn that takes arrays, for the tests of
arguments. New functions and modules must be added (tests/nn/test_array_arguments.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import simdformer.functional as F
from simdformer import nn
from tests.support import normal


class Call(NamedTuple):
    """function(**arrays) returns an array or a tuple of arrays."""

    function: Callable[..., Any]
    arrays: dict[str, np.ndarray]


# Objects that take no arrays or are not called.
WITHOUT_ARRAYS = {
    "MixtureOfExperts",
    "alibi_bias", "alibi_slopes", "relative_position_matrix", "rotary_frequencies",
    "ALiBi", "DecoderCache", "IncompatibleKeys", "Module", "ModuleList", "RelativePositionBias",
    "RotaryEmbedding", "ShawRelativePosition", "DisentangledRelativePosition", "TextEmbeddings",
    "TransformerXLRelativePosition", "manual_seed",
}  # fmt: skip

_rng = np.random.default_rng(7)
_f = partial(normal, _rng)
_mask = np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]], bool)  # (N, L)
_pairs = np.tril(np.ones((4, 4), bool), 1)
_bias = np.where(_pairs, _f(4, 4), np.float32(-np.inf))
_cu = np.array([0, 3, 3, 12])
_ids = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8])
_packed = {"src": _f(12, 8), "cu_seqlens": _cu}


def _functional() -> dict[str, Call]:
    qkv = {name: _f(3, 2, 4, 6) for name in ("query", "key", "value")}
    rows = {"input": _f(3, 4, 6)}
    channels = {"weight": _f(6), "bias": _f(6)}
    moments = {"running_mean": _f(4), "running_var": np.abs(_f(4)) + 1}
    calls = {
        "attention": Call(
            partial(F.attention, return_weights=True), {**qkv, "attn_mask": _pairs, "attn_bias": _f(4, 4)}
        ),
        "scaled_dot_product_attention": Call(F.scaled_dot_product_attention, {**qkv, "attn_mask": _bias}),
        "varlen_attention": Call(
            F.varlen_attention,
            {"q": _f(12, 2, 6), "k": _f(12, 1, 6), "v": _f(12, 1, 6), "cu_seqlens_q": _cu,
             "cu_seqlens_k": _cu, "alibi_slopes": np.abs(_f(2))},
        ),
        "shaw_attention": Call(
            F.shaw_attention, {**qkv, "relative_keys": _f(5, 6), "relative_values": _f(2, 5, 6)}
        ),
        "transformer_xl_attention": Call(
            F.transformer_xl_attention,
            {**qkv, "content_bias": _f(2, 6), "position_bias": _f(2, 6), "relative_keys": _f(7, 6)},
        ),
        "deberta_attention": Call(
            F.deberta_attention, {**qkv, "position_keys": _f(8, 6), "position_queries": _f(2, 8, 6)}
        ),
        "layer_norm": Call(partial(F.layer_norm, normalized_shape=6), {**rows, **channels}),
        "rms_norm": Call(partial(F.rms_norm, normalized_shape=6), {**rows, "weight": _f(6)}),
        "batch_norm": Call(F.batch_norm, {**rows, **moments, "weight": _f(4), "bias": _f(4)}),
        "power_norm": Call(F.power_norm, {**rows, "running_phi": np.abs(_f(4)), "weight": _f(4)}),
        "linear": Call(F.linear, {**rows, "weight": _f(5, 6), "bias": _f(5)}),
        "embedding": Call(F.embedding, {"input": _ids, "weight": _f(10, 6)}),
        "rotary_embedding": Call(F.rotary_embedding, {**rows, "positions": np.arange(4)}),
        "apply_rotary_embedding": Call(
            F.apply_rotary_embedding, {**rows, "cos": _f(4, 3), "sin": _f(4, 3)}
        ),
        "sinusoidal_position_encoding": Call(
            partial(F.sinusoidal_position_encoding, dim=6), {"positions": _ids}
        ),
        "t5_bucket": Call(F.t5_bucket, {"relative_position": _ids - 4}),
        "t5_relative_bias": Call(
            partial(F.t5_relative_bias, query_length=4, key_length=5), {"table": _f(32, 2)}
        ),
        "relative_bias_matrix": Call(
            partial(F.relative_bias_matrix, query_length=4, key_length=3), {"bias": _f(2, 6)}
        ),
    }  # fmt: skip
    names = ["gelu", "quick_gelu", "relu", "sigmoid", "silu", "tanh", "softmax", "log_softmax",
             "normalize", "glu", "geglu", "reglu", "swiglu"]  # fmt: skip
    return calls | {name: Call(getattr(F, name), rows) for name in names}


def _modules() -> dict[str, Call]:
    nn.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    decoder = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    lm = nn.LanguageModel(nn.Embedding(11, 8), nn.TransformerEncoder(layer, 1))
    text = nn.TextEncoder(nn.TextEmbeddings(11, 8, 20, 2, nn.LayerNorm(8)), [layer])
    rows = {"input": _f(3, 4, 8)}
    src = {"src": _f(3, 4, 8)}
    memory = {"tgt": _f(3, 4, 8), "memory": _f(3, 5, 8)}
    calls = {
        "MultiheadAttention": Call(
            nn.MultiheadAttention(8, 2, batch_first=True),
            {"query": _f(3, 4, 8), "key": _f(3, 4, 8), "value": _f(3, 4, 8),
             "key_padding_mask": _mask, "attn_mask": _bias, "head_mask": _f(3, 2)},
        ),
        "TransformerEncoderLayer": Call(layer, {**src, "src_mask": ~_pairs, "src_key_padding_mask": _mask}),
        "TransformerEncoder": Call(nn.TransformerEncoder(layer, 1), {**src, "mask": np.tile(~_pairs, (6, 1, 1))}),
        "TransformerDecoderLayer": Call(decoder, {**memory, "tgt_mask": _bias}),
        "TransformerDecoder": Call(
            nn.TransformerDecoder(decoder, 1),
            {**memory, "memory_mask": _f(4, 5), "memory_key_padding_mask": np.pad(_mask, ((0, 0), (0, 1)))},
        ),
        "Transformer": Call(
            nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
            {**src, "tgt": _f(3, 4, 8), "src_key_padding_mask": _mask, "memory_key_padding_mask": _mask},
        ),
        "LanguageModel": Call(lm, {"input_ids": _ids, "cu_seqlens": np.array([0, 3, 12])}),
        "TextEncoder": Call(text, {"input_ids": _ids, "cu_seqlens": _cu, "token_type_ids": _ids % 2}),
        "Linear": Call(nn.Linear(8, 5), rows),
        "Embedding": Call(nn.Embedding(11, 4), {"input": _ids.reshape(3, 4)}),
        "LayerNorm": Call(nn.LayerNorm(8), rows),
        "RMSNorm": Call(nn.RMSNorm((4, 8)), rows),
        "BatchNorm1d": Call(nn.BatchNorm1d(4), rows),
        "SinusoidalPositionalEncoding": Call(
            nn.SinusoidalPositionalEncoding(8, batch_first=True), {"x": _f(3, 4, 8), "positions": np.arange(4)}
        ),
        "LearnedPositionalEmbedding": Call(
            nn.LearnedPositionalEmbedding(9, 8, batch_first=True), {"x": _f(3, 4, 8), "offset": np.arange(3)}
        ),
        "Sequential": Call(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), rows),
        "packed TransformerEncoderLayer": Call(layer, _packed),
        "sequence first TransformerEncoder": Call(
            nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1),
            {"src": _f(4, 3, 8), "src_key_padding_mask": _mask},
        ),
    }  # fmt: skip
    names = ["Identity", "Dropout", "ReLU", "GELU", "SiLU", "Sigmoid", "Tanh"]
    return calls | {name: Call(getattr(nn, name)(), rows) for name in names}


CALLS = {**_functional(), **_modules()}
ARGUMENTS = [(name, argument) for name, call in CALLS.items() for argument in call.arrays]
