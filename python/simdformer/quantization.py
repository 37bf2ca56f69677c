# SPDX-License-Identifier: Apache-2.0
"""The older name of functions in simdformer.util."""

from __future__ import annotations

import warnings

from simdformer.util import quantize_embeddings

__all__ = ["quantize_embeddings"]

warnings.warn(
    "simdformer.quantization is deprecated: import quantize_embeddings from simdformer.util",
    DeprecationWarning,
    stacklevel=2,
)
