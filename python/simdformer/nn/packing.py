# SPDX-License-Identifier: Apache-2.0
"""Packed forms of modules for the kernels, kept until something that they depend on changes.

Each change of any module increments a global counter. If the counter has not changed since a packed form was
checked, the form is valid, so a call needs one comparison. Otherwise everything that it depends on is
compared with the objects from which it was packed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class _Changes:
    mark: object = object()
    # Packing is done only once, even if several threads ask for it.
    lock = threading.RLock()


def mark() -> object:
    """The counter at the last change."""
    return _Changes.mark


def mark_change() -> None:
    """Count a change. Call this after setting an attribute or a parameter."""
    _Changes.mark = object()


def lock() -> threading.RLock:
    """The lock to hold while packing or setting a parameter."""
    return _Changes.lock


def _renew_lock() -> None:
    # A thread that held the lock does not exist in a forked child, and its unfinished result was not kept.
    _Changes.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Kept:
    """Values by name, with the objects from which they were made."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[tuple[object, ...], Any]] = {}

    def get(self, name: str, inputs: tuple[object, ...], make: Callable[[], T]) -> T:
        """The value of this name. It is made again if `inputs` are other objects than before."""
        kept = self._values.get(name)
        if kept is None or not _same(kept[0], inputs):
            kept = (inputs, make())
            self._values[name] = kept
        value: T = kept[1]
        return value

    def copy(self) -> Kept:
        """The same values for a copy of the module. They are never modified."""
        other = Kept()
        other._values = dict(self._values)
        return other


def _same(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    return len(a) == len(b) and all(map(_is, a, b))


def _is(a: object, b: object) -> bool:
    # Equal sizes may be different int objects. Everything else is the same object unless it was set.
    return a is b or (type(a) is int and type(b) is int and a == b)
