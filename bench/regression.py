"""Hold two builds of simdformer against each other, kernel by kernel: which one lost speed?

    python bench/regression.py OLD NEW

OLD and NEW are folders that hold an installed `simdformer` (as `pip install --target FOLDER .` makes
them). Each build runs in a process of its own; the two take turns many times, a kernel's figure is
its best time by the thread's own clock, and what counts is the ratio of the two. Other load on the
machine and its changing clock hit both alike, so that noise does not fail a build and a real loss does.

Exits with 1 if a kernel of NEW takes more than --threshold longer than that of OLD.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

_CASES = {
    "gemm 128x1536x384": ("time_gemm", 128, 1536, 384),
    "gemm 14x384x1536": ("time_gemm", 14, 384, 1536),
    "gemm 1x1152x384": ("time_gemm", 1, 1152, 384),
    "attention 128, head_dim 32": ("time_attention", 128, 128, 32),
    "attention 512, head_dim 64": ("time_attention", 512, 512, 64),
    "layer_norm 128x384": ("time_rows", "layer_norm", 128, 384),
    "softmax 128x512": ("time_rows", "softmax", 128, 512),
    "gelu 128x1536": ("time_rows", "gelu", 128, 1536),
    "embedding_sum 128x384": ("time_rows", "embedding_sum", 128, 384),
}
_SLICE_SECONDS = 0.004
_ISAS = ("avx2", "avx512")


def serve() -> None:
    """Time the case that each line of standard input names; a line [isa, case] in, seconds out."""
    from simdformer import _core

    for line in sys.stdin:
        isa, case = json.loads(line)
        method, *sizes = _CASES[case]
        call = getattr(_core.KernelTable(isa), method)
        repeats = max(1, int(_SLICE_SECONDS / max(call(*sizes, 1), 1e-8)))
        print(call(*sizes, repeats), flush=True)


class Build:
    """A worker process that imports simdformer from one folder."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, isa: str, case: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([isa, case]) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def measure(old: Build, new: Build, rounds: int, isas: list[str]) -> dict[str, float]:
    """Ratio new / old of best times, by kernel and level."""
    ratios = {}
    for isa in isas:
        for case in _CASES:
            times = [(old.seconds(isa, case), new.seconds(isa, case)) for _ in range(rounds)]
            best_old, best_new = (min(column) for column in zip(*times, strict=True))
            ratios[f"{isa}: {case}"] = best_new / best_old
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path, nargs="?")
    parser.add_argument("new", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threshold", type=float, default=0.10)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    if arguments.new is None:
        parser.error("OLD and NEW are needed")

    from simdformer import _core

    isas = [isa for isa in _ISAS if isa in _core.available_isas()]
    old, new = Build(arguments.old), Build(arguments.new)
    try:
        ratios = measure(old, new, arguments.rounds, isas)
        slow = [name for name, ratio in ratios.items() if ratio > 1 + arguments.threshold]
        # A second look at what seems slower: a burst of load may have met one side alone.
        if slow:
            again = measure(old, new, 3 * arguments.rounds, isas)
            ratios.update({name: min(ratios[name], again[name]) for name in slow})
    finally:
        old.close()
        new.close()
    for name, ratio in ratios.items():
        print(f"{name:40s} {ratio:5.2f}x the time before")
    lost = [name for name, ratio in ratios.items() if ratio > 1 + arguments.threshold]
    for name in lost:
        print(f"slower by more than {arguments.threshold:.0%}: {name}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
