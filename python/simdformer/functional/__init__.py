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
from simdformer.functional.rows import (
    embedding,
    geglu,
    gelu,
    glu,
    linear,
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
    "attention",
    "batch_norm",
    "embedding",
    "geglu",
    "gelu",
    "glu",
    "layer_norm",
    "linear",
    "power_norm",
    "quick_gelu",
    "reglu",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "swiglu",
    "tanh",
    "varlen_attention",
]
