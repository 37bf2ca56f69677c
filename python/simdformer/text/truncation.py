# SPDX-License-Identifier: Apache-2.0
"""How many tokens two texts keep, if they are too long together."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """The number of tokens that two texts keep if they do not fit into `room` together ("longest_first").

    The longer one is truncated, but not below the length of the shorter one. If that is not enough, each
    keeps half of `room`.
    """
    shorter, longer = sorted((first, second))
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = room - shorter
    return (shorter, longer) if first <= second else (longer, shorter)


# Of transformers: the number of tokens that each of two texts keeps; None if nothing can be cut so.
TRUNCATIONS: Mapping[str, Callable[[int, int, int], tuple[int, int] | None]] = {
    "longest_first": longest_first,
    "only_first": lambda _, second, room: (room - second, second) if second < room else None,
    "only_second": lambda first, _, room: (first, room - first) if first < room else None,
    "do_not_truncate": lambda *_: None,
}
