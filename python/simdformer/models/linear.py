# SPDX-License-Identifier: Apache-2.0
"""How an architecture's linear layers come to be, which decides on their arithmetic."""

from __future__ import annotations

from collections.abc import Callable

from simdformer._core import Linear
from simdformer.checkpoint import Float32

# (name, weight (out, in), bias (out,)) -> the layer. The name is the checkpoint's, without the end.
MakeLinear = Callable[[str, Float32, Float32], Linear]


def float32_linear(name: str, weight: Float32, bias: Float32) -> Linear:  # noqa: ARG001
    """The weights as they are."""
    return Linear(weight, bias)
