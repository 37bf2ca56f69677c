# SPDX-License-Identifier: Apache-2.0
"""The keys of a JSON file: each is applied, known to have no effect, or reported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from simdformer.text.warning import warn_caller


def refuse_keys(path: Path, config: Mapping[str, Any], known: Collection[str]) -> None:
    """ValueError for keys that sentence-transformers refuses too, or that change what is computed."""
    if unknown := [name for name in config if name not in known]:
        raise ValueError(
            f"{path}: {', '.join(map(repr, unknown))}: not supported; known: {', '.join(known)}"
        )


def warn_keys(path: Path, config: Mapping[str, Any], known: Collection[str]) -> None:
    """Warn about keys that the reference does not read either."""
    if unknown := [name for name in config if name not in known]:
        warn_caller(f"{path}: {', '.join(map(repr, unknown))}: unknown, ignored")


def string(config: Mapping[str, Any], name: str, default: str | None) -> str | None:
    """A string; null is the default."""
    value = config.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {value!r}")
    return default if value is None else value
