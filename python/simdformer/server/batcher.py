# SPDX-License-Identifier: Apache-2.0
"""The queue before the model. One thread computes waiting requests together.

This does not change results: a vector or a score has the same bits in any batch.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

from simdformer.server import passes
from simdformer.server.passes import (
    Job,
    Outcome,
    Output,
    Pass,
    Runner,
    Share,
    compute_passes,
)

# Weights of a pass in the mean speed. The first is for a full pass, and is scaled down for smaller ones, to
# the second at least. Small passes are slower by a factor of two to three.
_PASS_WEIGHTS = 0.3, 0.03


class QueueFullError(Exception):
    """The queue is full; try again after `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full for {retry_after} s")
        self.retry_after = retry_after


class StoppedError(Exception):
    """The queue is closed; pending items will not be computed."""


class Batcher:
    """A queue bounded in items and time. A request that needs several passes takes turns with others.

    Everything except the model runs in the caller's event loop, so no locks are needed.
    """

    def __init__(self, max_queue: int, max_wait: float = math.inf) -> None:
        """max_queue: number of items that may wait, without those being computed.

        max_wait: seconds of work before a request starts, estimated from previous passes. A request that
        has waited twice as long is refused.
        """
        self.max_queue, self._max_wait = max_queue, max_wait
        self._queue: deque[Job] = deque()
        self._num_waiting = 0
        self._next_sizes: dict[Runner, int] = {}  # the sum of next_size of the waiting jobs
        self._seconds: dict[Runner, float] = {}  # per character
        self._running: list[Share] = []
        self._late_next = False
        self._stopped = False
        self._work: queue.SimpleQueue[Pass | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def num_waiting(self) -> int:
        """Number of waiting items."""
        return self._num_waiting

    @property
    def num_running(self) -> int:
        """Number of items being computed."""
        return sum(stop - start for _, start, stop in self._running)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    @property
    def ready(self) -> bool:
        """Whether a request of one item would be accepted now."""
        room = self._num_waiting < self.max_queue and self.expected_wait() <= self._max_wait
        return room and not self._stopped

    def expected_wait(self) -> float:
        """The expected seconds before a new request starts."""
        seconds = sum(size * self._seconds.get(r, 0) for r, size in self._next_sizes.items())
        if self._running:
            runner = self._running[0].job.runner
            seconds += sum(s.size for s in self._running) * self._seconds.get(runner, 0)
        return seconds

    def submit(
        self, runner: Runner, items: Sequence[Any], group: Hashable = None
    ) -> asyncio.Future[Output]:
        """Queue items. Only items of the same group are computed together.

        Cancelling the future removes its waiting items from the queue.

        Errors: QueueFullError, StoppedError. The future raises the model's exception.
        """
        if self._stopped:
            raise StoppedError
        wait = self.expected_wait()
        if self._num_waiting + len(items) > self.max_queue or wait > self._max_wait:
            raise QueueFullError(math.ceil(max(1, wait - self._max_wait)))
        job = Job(runner, items, group)
        self._enqueue(job)
        self._num_waiting += len(items)
        job.done.add_done_callback(lambda _: self._forget(job))
        self._start_pass()
        return job.done

    def stop(self) -> None:
        """Reject waiting and new requests with StoppedError. The running pass is finished."""
        self._stopped = True
        self._refuse(self._queue, StoppedError())
        self._work.put(None)

    # --- the queue ---

    def _enqueue(self, job: Job) -> None:
        self._queue.append(job)
        self._next_sizes[job.runner] = self._next_sizes.get(job.runner, 0) + job.next_size

    def _leave(self, jobs: Sequence[Job]) -> None:
        """Remove jobs from the queue."""
        gone = set(map(id, jobs))
        self._queue = deque(job for job in self._queue if id(job) not in gone)
        for job in jobs:
            self._next_sizes[job.runner] -= job.next_size

    def _refuse(self, jobs: Sequence[Job], error: Exception) -> None:
        jobs = list(jobs)
        self._leave(jobs)
        for job in jobs:
            self._num_waiting -= job.num_left
            job.fail(error)

    def _forget(self, job: Job) -> None:
        if job.num_left and job in self._queue:
            self._leave([job])
            self._num_waiting -= job.num_left

    def _refuse_expired(self) -> None:
        """Reject requests that have waited too long, because passes were slower than expected."""
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
            # a daemon thread does not delay the end of the process
            self._thread = threading.Thread(
                target=compute_passes, args=(self._work,), name="simdformer-server", daemon=True
            )
            self._thread.start()
        self._work.put(Pass(self._running, asyncio.get_running_loop(), self._end_pass))

    def _next_late(self) -> Job | None:
        """The oldest job for every other pass if it is late, so that it gets half of the passes."""
        oldest = min(self._queue, key=lambda job: job.arrival)
        late = asyncio.get_running_loop().time() - oldest.arrival > passes.PATIENCE_SECONDS
        self._late_next = late and not self._late_next
        return oldest if self._late_next else None

    def _room(self, runner: Runner, seconds: float) -> int:
        """The number of characters that a model computes in this time, within the limits of a pass."""
        speed = self._seconds.get(runner, 0)
        room = int(seconds / speed) if speed else passes.PASS_CHARACTERS
        return min(max(room, passes.LEAST_PASS_CHARACTERS), passes.PASS_CHARACTERS)

    def _take(self) -> list[Share]:
        """The work of a pass: short jobs, else long ones; in every other pass, while a job is late, that job
        and any others in their order. All can be computed together."""
        first, seconds, mixed = self._next_late(), passes.LATE_PASS_SECONDS, True
        if first is None:
            first = next((job for job in self._queue if job.short), self._queue[0])
            seconds, mixed = passes.PASS_SECONDS, False
        room = self._room(first.runner, seconds)
        shares: list[Share] = []
        for job in (first, *self._queue):
            if room <= 0:
                break
            fits = (job.runner, job.group) == (first.runner, first.group)
            if not fits or (shares and job is first) or not (mixed or job.short == first.short):
                continue
            stop = job.taken
            while stop < len(job.items) and room > 0:
                room -= job.sizes[stop]
                stop += 1
            shares.append(Share(job, job.taken, stop))
        self._begin(shares)
        return shares

    def _begin(self, shares: Sequence[Share]) -> None:
        """Take shares from the queue. The rest of a job goes to the end, so that others do not wait for all of it."""
        self._leave([share.job for share in shares])
        for share in shares:
            share.job.taken = share.stop
            share.job.size_left -= share.size
            self._num_waiting -= share.stop - share.start
            if share.job.num_left:
                self._enqueue(share.job)

    def _end_pass(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Handle the report of the thread: one outcome per share of the pass, and the time."""
        shares, self._running = self._running, []
        self._measure(shares[0].job.runner, sum(share.size for share in shares), seconds)
        self._start_pass()  # first, so that the model does not wait while responses are written
        for share, outcome in zip(shares, outcomes, strict=True):
            if isinstance(outcome, Exception):
                share.job.fail(outcome)  # its remaining items leave the queue
            else:
                share.job.add(outcome[0], sum(outcome[1]))

    def _measure(self, runner: Runner, size: int, seconds: float) -> None:
        if runner not in self._seconds:
            self._seconds[runner] = 0  # not the first pass: it starts threads, and caches are cold
            return
        mean = self._seconds[runner] or seconds / size
        weight = max(
            _PASS_WEIGHTS[0] * min(1, size / self._room(runner, passes.PASS_SECONDS)),
            _PASS_WEIGHTS[1],
        )
        self._seconds[runner] = mean + weight * (seconds / size - mean)
