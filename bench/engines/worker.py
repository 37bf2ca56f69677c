"""The process of an engine: python -m engines.worker NAME FD answers requests on the pipe FD.

Requests and answers are dicts. An answer has "error" if the request failed.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Engine, EngineOptions, Float32
from worker_process import serve


class Worker:
    def __init__(self, name: str) -> None:
        self._name = name
        self._engine: Engine | None = None
        self._sets: dict[str, tuple[list[str], int | None]] = {}

    def load(self, options: dict[str, Any], sets: dict[str, tuple[list[str], int | None]]) -> Any:
        paths = {key: Path(options[key]) for key in ("model", "converted")}
        start = time.perf_counter()
        module = importlib.import_module(f"engines.{self._name.replace('-', '_')}")
        self._engine = module.Engine(EngineOptions(**{**options, **paths}))
        self._sets = sets
        return {"variants": self._engine.variants, "seconds": time.perf_counter() - start}

    def vectors(self, set_name: str, variant: str) -> Float32:
        """One untimed pass, which warms up all shapes of the set and returns the vectors to compare."""
        texts, call_size = self._sets[set_name]
        return np.concatenate([self._encode(c, variant) for c in _calls(texts, call_size)])

    def time(self, set_name: str, variant: str, min_seconds: float, clock: str) -> list[float]:
        """Seconds of each pass over the set: at least one pass, and at least `min_seconds` in total.

        clock: "wall", or "cpu" for the CPU seconds of this process.
        """
        now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
        texts, call_size = self._sets[set_name]
        calls = _calls(texts, call_size)
        passes: list[float] = []
        while not passes or sum(passes) < min_seconds:
            start = now()
            for call in calls:
                self._encode(call, variant)
            passes.append(now() - start)
        return passes

    def peak_rss(self) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _encode(self, texts: Sequence[str], variant: str) -> Float32:
        if self._engine is None:
            raise RuntimeError("load the engine first")
        return self._engine.encode(texts, variant)


def _calls(texts: list[str], call_size: int | None) -> list[list[str]]:
    size = call_size or len(texts)
    return [texts[start : start + size] for start in range(0, len(texts), size)]


if __name__ == "__main__":
    os.dup2(2, 1)  # output of an engine must not mix with the benchmark's
    serve(Worker(sys.argv[1]), Connection(int(sys.argv[2])))
