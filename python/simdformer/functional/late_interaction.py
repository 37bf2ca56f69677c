# SPDX-License-Identifier: Apache-2.0
"""Late interaction for lists of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simdformer import _core

Float32 = NDArray[np.float32]


def max_sim(queries: list[Float32], documents: list[Float32], mean: bool) -> Float32:
    """For each query and document: the largest product of each query vector with a document vector, summed or
    averaged over query vectors.

    queries, documents: float32 (vectors, dim) each. Returns: float32 (queries, documents).
    """
    if not queries or not documents:
        return np.zeros((len(queries), len(documents)), np.float32)
    (a, cu_a), (b, cu_b) = _packed(queries), _packed(documents)
    return _core.max_sim(a, cu_a, b, cu_b, mean=mean)


def _packed(texts: list[Float32]) -> tuple[Float32, NDArray[np.int32]]:
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    return (texts[0] if len(texts) == 1 else np.concatenate(texts)), offsets
