# SPDX-License-Identifier: Apache-2.0
"""Checks that each key of a JSON file is applied, known to have no effect, or reported."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from simdformer.text.warning import warn_caller

D = TypeVar("D")


def refuse_keys(path: Path, config: Mapping[str, Any], known: Collection[str]) -> None:
    """ValueError for keys that sentence-transformers rejects too, or that would change the result."""
    if unknown := [name for name in config if name not in known]:
        raise ValueError(
            f"{path}: {', '.join(map(repr, unknown))}: not supported; known: {', '.join(known)}"
        )


def warn_keys(path: Path, config: Mapping[str, Any], known: Collection[str]) -> None:
    """Warn about keys that the reference ignores too."""
    if unknown := [name for name in config if name not in known]:
        warn_caller(f"{path}: {', '.join(map(repr, unknown))}: unknown, ignored")


def strings(config: Mapping[str, Any], name: str, default: D) -> Sequence[str] | D:
    """A list of strings, or one string; null means the default."""
    value = config.get(name)
    if value is None:
        return default
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise ValueError(f"{name} must be a list of strings, got {value!r}")
    return values


def token_ids(config: Mapping[str, Any], name: str) -> Sequence[int] | None:
    """A list of token ids; None for null."""
    values = config.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or not all(type(each) is int for each in values):
        raise ValueError(f"{name} must be a list of token ids, got {values!r}")
    return values


def string(config: Mapping[str, Any], name: str, default: str | None) -> str | None:
    """A string; null means the default."""
    value = config.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {value!r}")
    return default if value is None else value
