# SPDX-License-Identifier: Apache-2.0
"""Read fields of config.json. Each has the right type and is in range, or a ValueError names it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

# Far above the sizes of any model and far below overflow: a false config fails here, not in malloc.
_LARGEST = 2**31 - 1
# Layers and heads are made before it is known whether the checkpoint has them.
_MOST_PARTS = 10_000


def positive_int(
    config: Mapping[str, Any], name: str, default: int | None = None, *, largest: int = _LARGEST
) -> int:
    """A size: an int in 1..largest."""
    value = _get(config, name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= largest:
        raise ValueError(f"config.json: {name} must be an int in 1..{largest}, got {value!r}")
    return value


def number_of(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A number of layers or heads: an int in 1..10,000."""
    return positive_int(config, name, default, largest=_MOST_PARTS)


def positive_float(config: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """A finite number above 0."""
    value = _get(config, name, default)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # an int may be too large for a float
    if not (is_number and 0 < value <= sys.float_info.max):
        shown = repr(value)
        raise ValueError(
            f"config.json: {name} must be a finite number above 0, got"
            f" {shown if len(shown) <= 100 else shown[:97] + '...'}"
        )
    return float(value)


def flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or false; null means the default."""
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"config.json: {name} must be true or false, got {value!r}")
    return default if value is None else value


def mapping(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object; null means an empty one."""
    value = config.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"config.json: {name} must be an object, got {value!r}")
    return value or {}


def non_negative_int(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A count or an id: an int in 0..2**31-1."""
    value = _get(config, name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise ValueError(f"config.json: {name} must be an int in 0..{_LARGEST}, got {value!r}")
    return value


def empty(config: Mapping[str, Any], name: str) -> None:
    """Require a field to be absent, null or an empty collection."""
    value = config.get(name)
    if any(value.values()) if isinstance(value, Mapping) else value:
        raise ValueError(f"config.json: {name} is not supported, got {value!r}")


def one_of(
    config: Mapping[str, Any], name: str, known: Sequence[object], default: object
) -> object:
    """One of a fixed list of values."""
    value = config.get(name, default)
    if value not in known:
        raise ValueError(
            f"config.json: unknown {name} {value!r}; known: {', '.join(map(repr, known))}"
        )
    return value


def _get(config: Mapping[str, Any], name: str, default: object) -> Any:
    if config.get(name, default) is None:
        raise ValueError(f"config.json: {name} is missing")
    return config.get(name, default)
