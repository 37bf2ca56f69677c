# SPDX-License-Identifier: Apache-2.0
"""Requests in the queue before the model, and the thread that computes them."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
# What a runner gives for items: float32 (items, width), or a list.
Rows = Any

# A short request waits for the pass that runs when it arrives, so a pass takes about this time. One that begins
# with a request that is late takes four times as long: large passes compute more texts per second.
PASS_SECONDS, LATE_PASS_SECONDS = 0.05, 0.2
# A request that has waited so long is late.
PATIENCE_SECONDS = 0.2
# The least and the most characters of a pass, about 500 and 4,000 tokens: smaller passes take more time per text,
# and larger ones no less.
LEAST_PASS_CHARACTERS, PASS_CHARACTERS = 2048, 16384
# Requests of at most this size, about 128 tokens, do not wait for longer ones.
SHORT_CHARACTERS = 512
# The cost of a text that does not depend on its length, for example of special tokens.
ITEM_CHARACTERS = 8


class Runner(Protocol):
    """The interface of a model for the queue."""

    def size(self, item: Any) -> int:
        """The approximate number of characters of an item."""

    def run(self, items: Sequence[Any], group: Hashable) -> tuple[Rows, list[int]]:
        """A row for each item, and its number of tokens. group: the group of all items."""


class Output(NamedTuple):
    """The result of a request: rows in its order, and the number of tokens."""

    rows: Rows
    num_tokens: int


class Job:
    """A request: its items, how many of them were started, and the results."""

    def __init__(self, runner: Runner, items: Sequence[Any], group: Hashable) -> None:
        loop = asyncio.get_running_loop()
        self.runner, self.items, self.group = runner, items, group
        self.sizes = [runner.size(item) + ITEM_CHARACTERS for item in items]
        self.size_left = sum(self.sizes)
        self.short = self.size_left <= SHORT_CHARACTERS
        self.arrival = loop.time()
        self.taken = 0
        self.rows: list[Rows] = []
        self.num_tokens = 0
        self.done: asyncio.Future[Output] = loop.create_future()

    @property
    def num_left(self) -> int:
        return len(self.items) - self.taken

    @property
    def next_size(self) -> int:
        """Its size in the next pass. A request gets at most one pass before others get their turn."""
        return min(self.size_left, PASS_CHARACTERS)

    def add(self, rows: Rows, num_tokens: int) -> None:
        """Add the rows of the next items and their number of tokens. The last ones complete the request."""
        if self.done.done():
            return
        self.rows.append(rows)
        self.num_tokens += num_tokens
        if sum(map(len, self.rows)) == len(self.items):
            self.done.set_result(Output(_joined(self.rows), self.num_tokens))

    def fail(self, error: Exception) -> None:
        """End the request with an error, unless it has ended."""
        if not self.done.done():
            self.done.set_exception(error)


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [row for part in parts for row in part]


class Share(NamedTuple):
    """The part of a job in one pass: items[start:stop]."""

    job: Job
    start: int
    stop: int

    @property
    def items(self) -> Sequence[Any]:
        return self.job.items[self.start : self.stop]

    @property
    def size(self) -> int:
        return sum(self.job.sizes[self.start : self.stop])


# The rows and numbers of tokens of a share, or the exception.
Outcome = tuple[Rows, list[int]] | Exception


class Pass(NamedTuple):
    """A task of the computing thread."""

    shares: list[Share]
    loop: asyncio.AbstractEventLoop
    end: Callable[[list[Outcome], float], None]  # called in the event loop; time in seconds


def compute_passes(passes: queue.SimpleQueue[Pass | None]) -> None:
    """The computing thread; None ends it."""
    while (work := passes.get()) is not None:
        start = time.perf_counter()
        outcomes = _outcomes(work.shares)
        seconds = time.perf_counter() - start
        with contextlib.suppress(
            RuntimeError
        ):  # the event loop is closed, so nobody waits for the result
            work.loop.call_soon_threadsafe(work.end, outcomes, seconds)


def _outcomes(shares: Sequence[Share]) -> list[Outcome]:
    """Compute shares together. If a pass fails, its halves are computed separately, so that only the share
    that causes the error fails."""
    first = shares[0].job
    try:
        rows, counts = first.runner.run([i for share in shares for i in share.items], first.group)
    except Exception as error:  # noqa: BLE001  (any: it is the request's answer)
        if len(shares) == 1:
            return [error]
        middle = len(shares) // 2
        return _outcomes(shares[:middle]) + _outcomes(shares[middle:])
    outcomes: list[Outcome] = []
    begin = 0
    for _, start, stop in shares:
        end = begin + stop - start
        outcomes.append((rows[begin:end], counts[begin:end]))
        begin = end
    return outcomes
