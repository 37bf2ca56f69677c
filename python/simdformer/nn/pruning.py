# SPDX-License-Identifier: Apache-2.0
"""Removes heads of an attention permanently: which parts of its parameters remain."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.nn.heads import Heads
from simdformer.nn.projections import APART, BIAS, JOINED

_BY_HEAD = ("bilinear_weight", "additive_weight", "logit_scale")
_EXTRA_KEYS = ("bias_k", "bias_v")


def kept_features(heads: Heads, gone: Collection[int]) -> NDArray[np.int64]:
    """The features of the remaining heads among those of all heads."""
    size = heads.head_dim
    return (_kept(heads, gone)[:, None] * size + np.arange(size)).reshape(-1)


def kept_parts(heads: Heads, gone: Collection[int]) -> Iterator[tuple[str, Any]]:
    """For each parameter of an attention, its name and the index of the part that remains."""
    features = kept_features(heads, gone)
    triple = np.concatenate([features + i * heads.query_dim for i in range(3)])
    yield JOINED, triple
    yield BIAS, triple
    for name in APART:
        yield name, features
    for name in _BY_HEAD:
        yield name, _kept(heads, gone)
    for name in _EXTRA_KEYS:
        yield name, (..., features)


def _kept(heads: Heads, gone: Collection[int]) -> NDArray[np.int64]:
    return np.array([h for h in range(heads.num_heads) if h not in set(gone)])
