# SPDX-License-Identifier: Apache-2.0
"""Initial values of parameters: the distributions of torch, with this library's own generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simdformer.nn.parameters import Empty

__all__ = ["deferred"]  # the public name; `nn` has manual_seed

Initial: TypeAlias = "NDArray[np.float32] | Empty"

_generator = np.random.default_rng()
_deferred: ContextVar[bool] = ContextVar("deferred", default=False)


def manual_seed(seed: int) -> None:
    """Set the seed of the initial parameters of modules that are built from now on.

    Parameters
    ----------
    seed
        An integer.

    Examples
    --------
    >>> from simdformer import nn
    >>> nn.manual_seed(0)
    >>> first = nn.Linear(2, 2).weight
    >>> nn.manual_seed(0)
    >>> bool((nn.Linear(2, 2).weight == first).all())
    True
    """
    global _generator  # noqa: PLW0603  (the one source of numbers, as in torch)
    _generator = np.random.default_rng(seed)


@contextmanager
def deferred() -> Iterator[None]:
    """Build modules in this block without values of parameters, which must be loaded later.

    Yields
    ------
    None
        A parameter without a value has a shape only; using it is a ValueError.

    Examples
    --------
    >>> from simdformer import nn
    >>> with nn.initialization.deferred():
    ...     layer = nn.Linear(2, 3)
    >>> loaded = layer.load_state_dict(nn.Linear(2, 3).state_dict())
    >>> layer.weight.shape
    (3, 2)
    """
    before = _deferred.set(True)
    try:
        yield
    finally:
        _deferred.reset(before)


def _made(shape: tuple[int, ...], make: Callable[[], NDArray[Any]]) -> Initial:
    return Empty(shape) if _deferred.get() else make().astype(np.float32, copy=False)


def uniform(bound: float, *shape: int) -> Initial:
    """Random numbers in [-bound, bound)."""
    return _made(shape, lambda: _generator.uniform(-bound, bound, shape))


def xavier_uniform(*shape: int) -> Initial:
    """Glorot and Bengio 2010: uniform in the bound sqrt(6 / (in + out)). shape: (out, in)."""
    return uniform(float(np.sqrt(6.0 / (shape[0] + shape[1]))), *shape)


def xavier_normal(*shape: int) -> Initial:
    """Glorot and Bengio 2010: normal with variance 2 / (fan_in + fan_out), where fans are counted as in
    torch."""
    receptive = int(np.prod(shape[2:]))
    deviation = np.sqrt(2.0 / ((shape[0] + shape[1]) * receptive))
    return normal(float(deviation), *shape)


def normal(deviation: float, *shape: int) -> Initial:
    """Normal random numbers with mean 0."""
    return _made(shape, lambda: _generator.standard_normal(shape) * deviation)


def full(value: float, *shape: int) -> Initial:
    """An array filled with one value."""
    return _made(shape, lambda: np.full(shape, value, np.float32))


def zeros(*shape: int) -> Initial:
    """An array of zeros."""
    return full(0.0, *shape)


def ones(*shape: int) -> Initial:
    """An array of ones."""
    return full(1.0, *shape)


def identities(count: int, size: int) -> Initial:
    """`count` identity matrices."""
    return _made((count, size, size), lambda: np.tile(np.eye(size), (count, 1, 1)))
