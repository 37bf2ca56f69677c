# SPDX-License-Identifier: Apache-2.0
"""Attention, normalization, activations and positions as functions of NumPy arrays.

Arrays are float32. A CPU torch tensor, or any object with `__array__` or `__dlpack__`, is read
without a copy. Names, arguments and defaults follow torch.nn.functional where it has the function.
Every function with an `out` argument writes its result there if `out` is given: a float32 array of
the result's shape. A wrong dtype raises TypeError, a wrong shape or value ValueError.
"""

from __future__ import annotations

from simdformer.functional.activations import gelu, quick_gelu, relu, sigmoid, silu, tanh
from simdformer.functional.attention import attention, scaled_dot_product_attention
from simdformer.functional.channel_norms import batch_norm, power_norm
from simdformer.functional.distance_bias import (
    alibi_bias,
    alibi_slopes,
    relative_bias_matrix,
    t5_bucket,
    t5_relative_bias,
)
from simdformer.functional.gated import geglu, glu, reglu, swiglu
from simdformer.functional.norms import layer_norm, rms_norm
from simdformer.functional.positions import (
    relative_position_matrix,
    sinusoidal_position_encoding,
)
from simdformer.functional.relative import (
    deberta_attention,
    shaw_attention,
    transformer_xl_attention,
)
from simdformer.functional.rotary import (
    apply_rotary_embedding,
    rotary_embedding,
    rotary_frequencies,
)
from simdformer.functional.rows import embedding, linear, log_softmax, normalize, softmax
from simdformer.functional.varlen import varlen_attention

__all__ = [
    "alibi_bias",
    "alibi_slopes",
    "apply_rotary_embedding",
    "attention",
    "batch_norm",
    "deberta_attention",
    "embedding",
    "geglu",
    "gelu",
    "glu",
    "layer_norm",
    "linear",
    "log_softmax",
    "normalize",
    "power_norm",
    "quick_gelu",
    "reglu",
    "relative_bias_matrix",
    "relative_position_matrix",
    "relu",
    "rms_norm",
    "rotary_embedding",
    "rotary_frequencies",
    "scaled_dot_product_attention",
    "shaw_attention",
    "sigmoid",
    "silu",
    "sinusoidal_position_encoding",
    "softmax",
    "swiglu",
    "t5_bucket",
    "t5_relative_bias",
    "tanh",
    "transformer_xl_attention",
    "varlen_attention",
]
