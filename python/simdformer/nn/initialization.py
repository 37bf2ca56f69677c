# SPDX-License-Identifier: Apache-2.0
"""What parameters hold before a state_dict is loaded: torch's distributions, our own numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

_generator = np.random.default_rng()


def manual_seed(seed: int) -> None:
    """Make the initial parameters of modules that are built from now on repeatable."""
    global _generator  # noqa: PLW0603  (the one source of numbers, as in torch)
    _generator = np.random.default_rng(seed)


def uniform(bound: float, *shape: int) -> Float32:
    """Numbers in [-bound, bound)."""
    return _generator.uniform(-bound, bound, shape).astype(np.float32)


def xavier_uniform(*shape: int) -> Float32:
    """Glorot and Bengio 2010: uniform with bound sqrt(6 / (in + out)). shape: (out, in)."""
    return uniform(float(np.sqrt(6.0 / (shape[0] + shape[1]))), *shape)


def xavier_normal(*shape: int) -> Float32:
    """Glorot and Bengio 2010: normal of variance 2 / (fan_in + fan_out), as torch counts fans."""
    receptive = int(np.prod(shape[2:]))
    deviation = np.sqrt(2.0 / ((shape[0] + shape[1]) * receptive))
    return normal(float(deviation), *shape)


def normal(deviation: float, *shape: int) -> Float32:
    """Normal numbers of mean 0."""
    return (_generator.standard_normal(shape) * deviation).astype(np.float32)


def zeros(*shape: int) -> Float32:
    """All 0."""
    return np.zeros(shape, np.float32)


def full(value: float, *shape: int) -> Float32:
    """All of one value."""
    return np.full(shape, value, np.float32)


def ones(*shape: int) -> Float32:
    """All 1."""
    return np.ones(shape, np.float32)


def identities(count: int, size: int) -> Float32:
    """count identity matrices."""
    return np.tile(np.eye(size, dtype=np.float32), (count, 1, 1))
