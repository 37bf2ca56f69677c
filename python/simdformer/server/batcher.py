# SPDX-License-Identifier: Apache-2.0
"""The queue before the model: requests that wait together are computed together, by one thread.

That cannot change any answer, for a text's vector and a pair's score have the same bits in any company.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

# Characters in one pass over the model, some 4,000 tokens: enough for every core, and little enough
# that a short request waits for tenths of a second behind a long one, and Ctrl-C no longer.
_PASS_CHARACTERS = 16384
# A text has its special tokens, and costs something by itself.
_ITEM_CHARACTERS = 8
# What a pass counts in the mean of the passes' speed: a full one so much, others as far as they are full,
# but no less than the second; small ones are slower, by a factor of some two or three.
_PASS_WEIGHTS = 0.3, 0.03


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
    """There is no room for the request now; there may be in `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full for {retry_after} s")
        self.retry_after = retry_after


class StoppedError(Exception):
    """The queue is closed; nothing that waits in it is computed any more."""


class _Job:
    """A request: its items, how many of them were handed out, and what came back."""

    def __init__(self, runner: Runner, items: Sequence[Any], group: Hashable) -> None:
        loop = asyncio.get_running_loop()
        self.runner, self.items, self.group = runner, items, group
        self.sizes = [runner.size(item) + _ITEM_CHARACTERS for item in items]
        self.size_left = sum(self.sizes)
        self.arrival = loop.time()
        self.taken = 0
        self.rows: list[Float32] = []
        self.num_tokens = 0
        self.done: asyncio.Future[Output] = loop.create_future()

    @property
    def num_left(self) -> int:
        return len(self.items) - self.taken

    @property
    def next_size(self) -> int:
        """What it takes of the next pass, of which nobody gets more than one before others do."""
        return min(self.size_left, _PASS_CHARACTERS)


class _Share(NamedTuple):
    """What one pass computes of a job: items[start:stop]."""

    job: _Job
    start: int
    stop: int

    @property
    def items(self) -> Sequence[Any]:
        return self.job.items[self.start : self.stop]

    @property
    def size(self) -> int:
        return sum(self.job.sizes[self.start : self.stop])


# A share's rows and numbers of tokens, or what went wrong.
_Outcome = tuple[Float32, list[int]] | Exception


class Batcher:
    """A queue bounded in items and in time; a request of several passes takes turns with the rest.

    Everything but the model's work happens in the event loop that submits, so there are no locks.
    """

    def __init__(self, max_queue: int, max_wait: float = math.inf) -> None:
        """max_queue: how many items may wait, not counting those that are being computed.

        max_wait: for how many seconds of work a request may wait before its own begins, as the passes
        so far make one expect; what has waited twice as long is refused after all.
        """
        self._max_queue, self._max_wait = max_queue, max_wait
        self._queue: deque[_Job] = deque()
        self._num_waiting = 0
        self._next_sizes: dict[Runner, int] = {}  # the sum of next_size of the jobs that wait
        self._seconds: dict[Runner, float] = {}  # of a character
        self._running: list[_Share] = []
        self._oldest_first = False
        self._stopped = False
        self._passes: queue.SimpleQueue[_Pass | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def num_waiting(self) -> int:
        """How many items wait."""
        return self._num_waiting

    @property
    def num_running(self) -> int:
        """How many items are being computed."""
        return sum(stop - start for _, start, stop in self._running)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def expected_wait(self) -> float:
        """After how many seconds a request that comes now would begin to be computed."""
        seconds = sum(size * self._seconds.get(r, 0) for r, size in self._next_sizes.items())
        if self._running:
            runner = self._running[0].job.runner
            seconds += sum(s.size for s in self._running) * self._seconds.get(runner, 0)
        return seconds

    def submit(
        self, runner: Runner, items: Sequence[Any], group: Hashable = None
    ) -> asyncio.Future[Output]:
        """Queue items; group: only what has the same one may be computed together.

        Cancelling the future takes what still waits out of the queue.

        Errors: QueueFullError, StoppedError. The future raises what the model raises.
        """
        if self._stopped:
            raise StoppedError
        wait = self.expected_wait()
        if self._num_waiting + len(items) > self._max_queue or wait > self._max_wait:
            raise QueueFullError(math.ceil(max(1, wait - self._max_wait)))
        job = _Job(runner, items, group)
        self._enqueue(job)
        self._num_waiting += len(items)
        job.done.add_done_callback(lambda _: self._forget(job))
        self._start_pass()
        return job.done

    def stop(self) -> None:
        """Refuse what waits and what comes with StoppedError; the pass under way is finished."""
        self._stopped = True
        self._refuse(self._queue, StoppedError())
        self._passes.put(None)

    # --- the queue ---

    def _enqueue(self, job: _Job) -> None:
        self._queue.append(job)
        self._next_sizes[job.runner] = self._next_sizes.get(job.runner, 0) + job.next_size

    def _leave(self, jobs: Sequence[_Job]) -> None:
        """Take jobs out of the queue."""
        gone = set(map(id, jobs))
        self._queue = deque(job for job in self._queue if id(job) not in gone)
        for job in jobs:
            self._next_sizes[job.runner] -= job.next_size

    def _refuse(self, jobs: Sequence[_Job], error: Exception) -> None:
        jobs = list(jobs)
        self._leave(jobs)
        for job in jobs:
            self._num_waiting -= job.num_left
            _fail(job, error)

    def _forget(self, job: _Job) -> None:
        if job.num_left and job in self._queue:
            self._leave([job])
            self._num_waiting -= job.num_left

    def _refuse_expired(self) -> None:
        """The passes were slower than expected."""
        limit = asyncio.get_running_loop().time() - 2 * self._max_wait
        if expired := [job for job in self._queue if not job.taken and job.arrival < limit]:
            self._refuse(expired, QueueFullError(math.ceil(max(1, self.expected_wait()))))

    # --- passes ---

    def _start_pass(self) -> None:
        if self._running or self._stopped:
            return
        self._refuse_expired()
        if not self._queue:
            return
        self._running = self._take()
        if self._thread is None:
            # A daemon: the end of the process does not wait for a pass.
            self._thread = threading.Thread(
                target=_work, args=(self._passes,), name="simdformer-server", daemon=True
            )
            self._thread.start()
        self._passes.put(_Pass(self._running, asyncio.get_running_loop(), self))

    def _take(self) -> list[_Share]:
        """A pass's work: the first job's, and as much of those that may join it as there is room for.

        Every other pass the job that came first of all is the first: a long one gets half of the time,
        however many come after it.
        """
        first = self._queue[0]
        if self._oldest_first:
            first = min(self._queue, key=lambda job: job.arrival)
        self._oldest_first = not self._oldest_first
        shares: list[_Share] = []
        room = _PASS_CHARACTERS
        for job in (first, *self._queue):
            if room <= 0:
                break
            if (job.runner, job.group) != (first.runner, first.group) or (shares and job is first):
                continue
            stop = job.taken
            while stop < len(job.items) and room > 0:
                room -= job.sizes[stop]
                stop += 1
            shares.append(_Share(job, job.taken, stop))
        self._leave([share.job for share in shares])
        for share in shares:
            share.job.taken = share.stop
            share.job.size_left -= share.size
            self._num_waiting -= share.stop - share.start
            if share.job.num_left:  # at the back: nobody waits for the whole of a long request
                self._enqueue(share.job)
        return shares

    def end_pass(self, outcomes: Sequence[_Outcome], seconds: float) -> None:
        """What the thread reports: an outcome for each share of the pass, and how long it took."""
        shares, self._running = self._running, []
        self._measure(shares[0].job.runner, sum(share.size for share in shares), seconds)
        self._start_pass()  # before anything else: the model should not wait for answers to be written
        for share, outcome in zip(shares, outcomes, strict=True):
            if isinstance(outcome, Exception):
                _fail(share.job, outcome)  # and what is left of it leaves the queue
            else:
                _add(share.job, outcome[0], sum(outcome[1]))

    def _measure(self, runner: Runner, size: int, seconds: float) -> None:
        if runner not in self._seconds:
            self._seconds[runner] = 0  # the first pass starts threads and finds the caches empty
            return
        mean = self._seconds[runner] or seconds / size
        weight = max(_PASS_WEIGHTS[0] * min(1, size / _PASS_CHARACTERS), _PASS_WEIGHTS[1])
        self._seconds[runner] = mean + weight * (seconds / size - mean)


class _Pass(NamedTuple):
    """What the computing thread is given."""

    shares: list[_Share]
    loop: asyncio.AbstractEventLoop
    batcher: Batcher


def _work(passes: queue.SimpleQueue[_Pass | None]) -> None:
    """The computing thread: ends with a None."""
    while (work := passes.get()) is not None:
        start = time.perf_counter()
        outcomes = _outcomes(work.shares)
        seconds = time.perf_counter() - start
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            work.loop.call_soon_threadsafe(work.batcher.end_pass, outcomes, seconds)


def _outcomes(shares: Sequence[_Share]) -> list[_Outcome]:
    """Shares computed together; those of a pass that fails in halves, so that only the one that is
    to blame fails."""
    first = shares[0].job
    try:
        rows, counts = first.runner.run([i for share in shares for i in share.items], first.group)
    except Exception as error:  # noqa: BLE001  (any: it is the request's answer)
        if len(shares) == 1:
            return [error]
        middle = len(shares) // 2
        return _outcomes(shares[:middle]) + _outcomes(shares[middle:])
    outcomes: list[_Outcome] = []
    begin = 0
    for _, start, stop in shares:
        end = begin + stop - start
        outcomes.append((rows[begin:end], counts[begin:end]))
        begin = end
    return outcomes


def _add(job: _Job, rows: Float32, num_tokens: int) -> None:
    if job.done.done():
        return
    job.rows.append(rows)
    job.num_tokens += num_tokens
    if sum(map(len, job.rows)) == len(job.items):
        whole = job.rows[0] if len(job.rows) == 1 else np.concatenate(job.rows)
        job.done.set_result(Output(whole, job.num_tokens))


def _fail(job: _Job, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)
