# SPDX-License-Identifier: Apache-2.0
"""Attention, normalisations, activations and positions as functions of NumPy arrays.

Arrays are float32; a CPU torch tensor, or anything with __array__ or __dlpack__, is read in place.
Names, arguments and defaults are those of torch.nn.functional where it has the function.
"""

from __future__ import annotations

from simdformer.functional.attention import (
    attention,
    scaled_dot_product_attention,
    varlen_attention,
)
from simdformer.functional.norms import batch_norm, layer_norm, power_norm, rms_norm
from simdformer.functional.positions import (
    apply_rotary_embedding,
    relative_position_matrix,
    rotary_embedding,
    rotary_frequencies,
    sinusoidal_position_encoding,
)
from simdformer.functional.relative import (
    alibi_bias,
    alibi_slopes,
    deberta_attention,
    relative_bias_matrix,
    shaw_attention,
    t5_bucket,
    t5_relative_bias,
    transformer_xl_attention,
)
from simdformer.functional.rows import (
    embedding,
    geglu,
    gelu,
    glu,
    linear,
    log_softmax,
    normalize,
    quick_gelu,
    reglu,
    relu,
    sigmoid,
    silu,
    softmax,
    swiglu,
    tanh,
)

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
