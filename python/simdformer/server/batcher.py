# SPDX-License-Identifier: Apache-2.0
"""The queue before the model: requests that wait together are computed together, by one thread.

That cannot change any answer, for a text's vector and a pair's score have the same bits in any company.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# Characters in one pass over the model, some 4,000 tokens: enough for every core, and little enough
# that a short request waits for tenths of a second behind a long one, and Ctrl-C no longer.
_PASS_CHARACTERS = 16384
# A text has its special tokens, and costs something by itself.
_ITEM_CHARACTERS = 8


class Runner(Protocol):
    """A model as the queue sees it."""

    def size(self, item: Any) -> int:
        """About how many characters an item has."""

    def run(self, items: Sequence[Any], group: Hashable) -> tuple[Float32, list[int]]:
        """A row for each item, float32 (len(items), width), and each one's number of tokens.

        group: the one that all these items were submitted with.
        """


class Output(NamedTuple):
    """What a request gets: rows float32 (items, width) in its order, and their tokens' number."""

    rows: Float32
    num_tokens: int


class QueueFullError(Exception):
    """There is no room for the request now."""


class StoppedError(Exception):
    """The queue is closed; nothing that waits in it is computed any more."""


class _Job:
    """A request: its items, how many of them were handed out, and what came back."""

    def __init__(self, runner: Runner, items: Sequence[Any], group: Hashable) -> None:
        self.runner, self.items, self.group = runner, items, group
        self.taken = 0
        self.rows: list[Float32] = []
        self.num_tokens = 0
        self.done: asyncio.Future[Output] = asyncio.get_running_loop().create_future()

    @property
    def num_left(self) -> int:
        return len(self.items) - self.taken


class _Share(NamedTuple):
    """What one pass computes of a job: items[start:stop]."""

    job: _Job
    start: int
    stop: int


class Batcher:
    """A bounded queue, first come first served; a request of several passes takes turns with the rest.

    Everything but the model's work happens in the event loop that submits, so there are no locks.
    """

    def __init__(self, max_queue: int) -> None:
        """max_queue: how many items may wait, not counting those that are being computed."""
        self._max_queue = max_queue
        self._queue: deque[_Job] = deque()
        self._num_waiting = 0
        self._running = False
        self._stopped = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="simdformer-server")

    @property
    def num_waiting(self) -> int:
        """How many items wait."""
        return self._num_waiting

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def submit(
        self, runner: Runner, items: Sequence[Any], group: Hashable = None
    ) -> asyncio.Future[Output]:
        """Queue items; group: only what has the same one may be computed together.

        Cancelling the future takes what still waits out of the queue.

        Errors: QueueFullError, StoppedError. The future raises what the model raises.
        """
        if self._stopped:
            raise StoppedError
        if self._num_waiting + len(items) > self._max_queue:
            raise QueueFullError
        job = _Job(runner, items, group)
        self._queue.append(job)
        self._num_waiting += len(items)
        job.done.add_done_callback(lambda _: self._forget(job))
        self._start_pass()
        return job.done

    def stop(self) -> None:
        """Refuse what waits and what comes with StoppedError; the pass under way is finished."""
        self._stopped = True
        for job in self._queue:
            _fail(job, StoppedError())
        self._queue.clear()
        self._num_waiting = 0
        self._executor.shutdown(wait=False)

    def _forget(self, job: _Job) -> None:
        if job.num_left and job in self._queue:
            self._queue.remove(job)
            self._num_waiting -= job.num_left

    def _start_pass(self) -> None:
        if self._running or self._stopped or not self._queue:
            return
        shares = self._take()
        self._running = True
        items = [item for job, start, stop in shares for item in job.items[start:stop]]
        first = shares[0].job
        work = asyncio.get_running_loop().run_in_executor(
            self._executor, first.runner.run, items, first.group
        )
        work.add_done_callback(partial(self._end_pass, shares))

    def _take(self) -> list[_Share]:
        """A pass's work: the first job's, and as much of those that may join it as there is room for."""
        first = self._queue[0]
        shares: list[_Share] = []
        room = _PASS_CHARACTERS
        for job in self._queue:
            if room <= 0:
                break
            if (job.runner, job.group) != (first.runner, first.group):
                continue
            start = job.taken
            while job.num_left and room > 0:
                room -= job.runner.size(job.items[job.taken]) + _ITEM_CHARACTERS
                job.taken += 1
            shares.append(_Share(job, start, job.taken))
            self._num_waiting -= job.taken - start
        taken = {id(share.job) for share in shares}
        rest = [share.job for share in shares if share.job.num_left]
        # What needs another pass goes to the back: nobody waits for the whole of a long request.
        self._queue = deque([*(job for job in self._queue if id(job) not in taken), *rest])
        return shares

    def _end_pass(
        self, shares: list[_Share], work: asyncio.Future[tuple[Float32, list[int]]]
    ) -> None:
        self._running = False
        self._start_pass()  # before anything else: the model should not wait for answers to be written
        error = None if work.cancelled() else work.exception()
        if work.cancelled() or error is not None:
            for job, _, _ in shares:
                _fail(job, error or StoppedError())
            return
        rows, counts = work.result()
        begin = 0
        for job, start, stop in shares:
            end = begin + stop - start
            _add(job, rows[begin:end], sum(counts[begin:end]))
            begin = end


def _add(job: _Job, rows: Float32, num_tokens: int) -> None:
    if job.done.done():
        return
    job.rows.append(rows)
    job.num_tokens += num_tokens
    if sum(map(len, job.rows)) == len(job.items):
        whole = job.rows[0] if len(job.rows) == 1 else np.concatenate(job.rows)
        job.done.set_result(Output(whole, job.num_tokens))


def _fail(job: _Job, error: BaseException) -> None:
    if not job.done.done():
        job.done.set_exception(error)
