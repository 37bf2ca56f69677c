"""A case: a named computation that both copies run. Its inputs depend only on names."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
# The numbers of threads on every machine: a single one, that of a small machine, and more.
THREADS = (2, 1, 16)


@dataclass(frozen=True)
class Case:
    """run: returns arrays by name, computed with the given number of threads. With other numbers than
    THREADS[0], an array may be shorter, but must not differ. threaded: whether the number can be set."""

    name: str
    run: Callable[[int], Arrays]
    threaded: bool = True


def generator(*names: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()) for name in names])


def normal(name: str, *shape: int) -> np.ndarray:
    return generator(name).standard_normal(shape).astype(np.float32)


def filled(module: Any) -> Any:
    """The module with parameters that depend only on their names."""
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
