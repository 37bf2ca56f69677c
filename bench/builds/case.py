"""A case: something with a name that both copies compute, and inputs that depend on names alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
# Of every process and machine: one that takes part alone, as many as a small machine has, and more.
THREADS = (2, 1, 16)


@dataclass(frozen=True)
class Case:
    """run: arrays by name, computed with so many threads; what is in one name's array may be less
    with other thread counts than THREADS[0], but never differ. threaded: whether they can be chosen.
    """

    name: str
    run: Callable[[int], Arrays]
    threaded: bool = True


def generator(*names: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()) for name in names])


def normal(name: str, *shape: int) -> np.ndarray:
    return generator(name).standard_normal(shape).astype(np.float32)


def filled(module: Any) -> Any:
    """The module, its parameters numbers that depend on their names alone."""
    state = dict(module.state_dict())
    for name, array in state.items():
        if array.dtype == np.float32:
            state[name] = _parameter(name, array.shape).astype(np.float32)
    module.load_state_dict(state)
    return module


def _parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = generator("parameter", name).standard_normal(shape)
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(noise)
    if len(shape) >= 2:
        return noise * shape[-1] ** -0.5
    if name.endswith("weight"):  # of a norm
        return 1 + 0.1 * noise
    return 0.1 * noise + (2.0 if name.endswith("logit_scale") else 0.0)
