# SPDX-License-Identifier: Apache-2.0
"""Checks that each key of a JSON file is applied, known to have no effect, or reported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from simdformer.text.warning import warn_caller


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


def string(config: Mapping[str, Any], name: str, default: str | None) -> str | None:
    """A string; null means the default."""
    value = config.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {value!r}")
    return default if value is None else value
