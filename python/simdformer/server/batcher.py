# SPDX-License-Identifier: Apache-2.0
"""The queue before the model: requests that wait together are computed together, by one thread.

That cannot change any answer, for a text's vector and a pair's score have the same bits in any company.
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

# What a pass counts in the mean of the passes' speed: a full one so much, others as far as they are full,
# but no less than the second; small ones are slower, by a factor of some two or three.
_PASS_WEIGHTS = 0.3, 0.03


class QueueFullError(Exception):
    """There is no room for the request now; there may be in `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the queue is full for {retry_after} s")
        self.retry_after = retry_after


class StoppedError(Exception):
    """The queue is closed; nothing that waits in it is computed any more."""


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
        self._queue: deque[Job] = deque()
        self._num_waiting = 0
        self._next_sizes: dict[Runner, int] = {}  # the sum of next_size of the jobs that wait
        self._seconds: dict[Runner, float] = {}  # of a character
        self._running: list[Share] = []
        self._oldest_first = False
        self._stopped = False
        self._work: queue.SimpleQueue[Pass | None] = queue.SimpleQueue()
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
        job = Job(runner, items, group)
        self._enqueue(job)
        self._num_waiting += len(items)
        job.done.add_done_callback(lambda _: self._forget(job))
        self._start_pass()
        return job.done

    def stop(self) -> None:
        """Refuse what waits and what comes with StoppedError; the pass under way is finished."""
        self._stopped = True
        self._refuse(self._queue, StoppedError())
        self._work.put(None)

    # --- the queue ---

    def _enqueue(self, job: Job) -> None:
        self._queue.append(job)
        self._next_sizes[job.runner] = self._next_sizes.get(job.runner, 0) + job.next_size

    def _leave(self, jobs: Sequence[Job]) -> None:
        """Take jobs out of the queue."""
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
                target=compute_passes, args=(self._work,), name="simdformer-server", daemon=True
            )
            self._thread.start()
        self._work.put(Pass(self._running, asyncio.get_running_loop(), self._end_pass))

    def _take(self) -> list[Share]:
        """A pass's work: the first job's, and as much of those that may join it as there is room for.

        Every other pass the job that came first of all is the first: a long one gets half of the time,
        however many come after it.
        """
        first = self._queue[0]
        if self._oldest_first:
            first = min(self._queue, key=lambda job: job.arrival)
        self._oldest_first = not self._oldest_first
        shares: list[Share] = []
        room = passes.PASS_CHARACTERS
        for job in (first, *self._queue):
            if room <= 0:
                break
            if (job.runner, job.group) != (first.runner, first.group) or (shares and job is first):
                continue
            stop = job.taken
            while stop < len(job.items) and room > 0:
                room -= job.sizes[stop]
                stop += 1
            shares.append(Share(job, job.taken, stop))
        self._leave([share.job for share in shares])
        for share in shares:
            share.job.taken = share.stop
            share.job.size_left -= share.size
            self._num_waiting -= share.stop - share.start
            if share.job.num_left:  # at the back: nobody waits for the whole of a long request
                self._enqueue(share.job)
        return shares

    def _end_pass(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """What the thread reports: an outcome for each share of the pass, and how long it took."""
        shares, self._running = self._running, []
        self._measure(shares[0].job.runner, sum(share.size for share in shares), seconds)
        self._start_pass()  # before anything else: the model should not wait for answers to be written
        for share, outcome in zip(shares, outcomes, strict=True):
            if isinstance(outcome, Exception):
                share.job.fail(outcome)  # and what is left of it leaves the queue
            else:
                share.job.add(outcome[0], sum(outcome[1]))

    def _measure(self, runner: Runner, size: int, seconds: float) -> None:
        if runner not in self._seconds:
            self._seconds[runner] = 0  # the first pass starts threads and finds the caches empty
            return
        mean = self._seconds[runner] or seconds / size
        weight = max(_PASS_WEIGHTS[0] * min(1, size / passes.PASS_CHARACTERS), _PASS_WEIGHTS[1])
        self._seconds[runner] = mean + weight * (seconds / size - mean)
