# SPDX-License-Identifier: Apache-2.0
"""Packed forms of modules for the kernels, kept until something that they depend on changes.

Each change of any module increments a global counter. A packed form that was checked at the current
count is valid, so a call needs one comparison. At another count everything that it depends on is
compared with what it was packed from.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class _Changes:
    mark: object = object()
    # Packing is done once, however many threads ask first.
    lock = threading.RLock()


def mark() -> object:
    """The mark of the last change."""
    return _Changes.mark


def mark_change() -> None:
    """Say that an attribute or a parameter of some module was set, after it was."""
    _Changes.mark = object()


def lock() -> threading.RLock:
    """Held while something is packed or a parameter is set."""
    return _Changes.lock


def _renew_lock() -> None:
    # A thread that held it does not exist in a forked child; what it was making was not kept yet.
    _Changes.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Kept:
    """Values by name, each with the objects that it was made of."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[tuple[object, ...], Any]] = {}

    def get(self, name: str, inputs: tuple[object, ...], make: Callable[[], T]) -> T:
        """The value of this name, made anew if it is of other objects than `inputs`."""
        kept = self._values.get(name)
        if kept is None or not _same(kept[0], inputs):
            kept = (inputs, make())
            self._values[name] = kept
        value: T = kept[1]
        return value

    def copy(self) -> Kept:
        """The same values, which no one changes, for a copy of the module."""
        other = Kept()
        other._values = dict(self._values)
        return other


def _same(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    return len(a) == len(b) and all(map(_is, a, b))


def _is(a: object, b: object) -> bool:
    # Sizes are numbers that may be computed anew; all else that was not set is the same object.
    return a is b or (type(a) is int and type(b) is int and a == b)
