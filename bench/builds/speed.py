"""Compares the speed of the new copy with the old one. Rounds alternate, and the ratio of each round
counts."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

import report
from builds import fixtures, installed
from worker_process import WorkerProcess

_RESAMPLES = 10_000
CLOCKS = ("wall", "cpu")


def median_interval(ratios: list[float], seed: int = 0) -> tuple[float, float, float]:
    """The median and its 95% interval by the bootstrap (Efron 1979)."""
    rng = np.random.default_rng(seed)
    draws = rng.choice(np.asarray(ratios), (_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return statistics.median(ratios), float(low), float(high)


def summary(rounds: list[dict[str, list[float]]], reach: float, clock: str) -> dict[str, Any]:
    """rounds: the seconds of "old" and "new", by both clocks. A ratio above 1 means that new is faster."""
    row: dict[str, Any] = {"rounds": rounds}
    for i, name in enumerate(CLOCKS):
        ratios = [one["old"][i] / one["new"][i] for one in rounds]
        seconds = {which: statistics.median(r[which][i] for r in rounds) for which in rounds[0]}
        row[name] = {"ratio": median_interval(ratios), "seconds": seconds}
    row["reached"] = row[clock]["ratio"][2] >= reach
    return row


@contextmanager
def busy_cpu() -> Iterator[None]:
    """Another process that never sleeps, on our last CPU."""
    cpu = max(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, [{cpu}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield
        finally:
            process.kill()


def run(
    old: Path,
    new: Path,
    *,
    rounds: int,
    threads: int,
    only: str,
    reach: float,
    clock: str,
    neighbour: bool,
) -> dict[str, Any]:
    """Both copies stay alive, and one computes at a time. The order alternates between rounds."""
    with ExitStack() as stack:
        if neighbour:
            stack.enter_context(busy_cpu())
        given = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fixtures.write(given, ("timed",))
        workers = {}
        for which, folder in (("old", old), ("new", new)):
            arguments = [str(folder.resolve()), str(given), str(threads)]
            workers[which] = WorkerProcess(
                which, "builds.speed_worker", arguments, installed.environment(folder)
            )
            stack.callback(workers[which].close)
        # Both get the same requests, because the addresses of arrays depend on all earlier ones.
        known = [worker.request("names") for worker in workers.values()]
        names = [name for name in known[0] if fnmatchcase(name, only)]
        for name in names:
            for worker in workers.values():
                worker.request("time", name=name)
        taken: dict[str, list[dict[str, list[float]]]] = {name: [] for name in names}
        for number in range(rounds):
            order = ["old", "new"] if number % 2 == 0 else ["new", "old"]
            for name in names:
                turn = {which: list(workers[which].request("time", name=name)) for which in order}
                taken[name].append(turn)
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    cases = {name: summary(found, reach, clock) for name, found in taken.items()}
    asked = {"threads": threads, "reach": reach, "clock": clock, "neighbour": neighbour}
    return {**asked, "cases": cases}


def failed(result: dict[str, Any]) -> bool:
    return not result["cases"] or not all(row["reached"] for row in result["cases"].values())


def to_text(result: dict[str, Any]) -> str:
    header = ["speed, new / old", "old ms", "new ms"]
    header += [f"{clock} [95% interval]" for clock in CLOCKS]
    lines = []
    for name, row in result["cases"].items():
        seconds = row[result["clock"]]["seconds"]
        cells = [name, *(f"{1e3 * seconds[which]:.2f}" for which in ("old", "new"))]
        for clock in CLOCKS:
            median, low, high = row[clock]["ratio"]
            cells.append(f"{median:.3f} [{low:.3f}, {high:.3f}]")
        verdict = "yes" if row["reached"] else "NO"
        lines.append([*cells, verdict])
    return report.markdown_table([*header, f"reaches {result['reach']}"], lines)
