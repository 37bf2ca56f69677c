"""Times cases with one copy: python -m builds.speed_worker COPY FIXTURES THREADS FD."""

from __future__ import annotations

import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from builds import installed, timed_cases
from builds.timed_cases import Timed
from worker_process import serve


class Worker:
    def __init__(self, fixtures: Path, threads: int) -> None:
        self._cases = timed_cases.cases(fixtures, threads)
        self._built: dict[str, Timed] = {}

    def names(self) -> list[str]:
        return list(self._cases)

    def time(self, name: str) -> tuple[float, float]:
        """Seconds per call: the best slice by the wall clock, and the best by the process's clock."""
        if name not in self._built:
            self._built[name] = self._cases[name]()
            self._slice(self._built[name])
        timed = self._built[name]
        slices = [self._slice(timed) for _ in range(timed.slices)]
        walls, processes = zip(*slices, strict=True)
        return min(walls), min(processes)

    @staticmethod
    def _slice(timed: Timed) -> tuple[float, float]:
        state = timed.prepare()
        wall, process = time.perf_counter(), time.process_time()
        for _ in range(timed.calls):
            timed.run(state)
        done = time.perf_counter(), time.process_time()
        return (done[0] - wall) / timed.calls, (done[1] - process) / timed.calls


if __name__ == "__main__":
    folder, given, count, descriptor = sys.argv[1:]
    os.dup2(2, 1)  # output of a copy must not mix with the table
    installed.check(Path(folder))
    serve(Worker(Path(given), int(count)), Connection(int(descriptor)))
