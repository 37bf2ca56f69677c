"""Checks that no kernel is slower in a new build.

The two builds run alternately many times. The figure of a kernel is its best time by the thread's clock, and
the ratio of the two builds is compared. Other load on the machine and changes of its clock rate affect both
builds, so noise does not fail a build and a real loss does.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import report
from builds import installed
from worker_process import WorkerProcess, serve

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
_SLICES = 5  # per turn; other processes on the core lengthen some slices, but not all
_ISAS = ("avx2", "avx512")


class Worker:
    """Runs in a build's process."""

    def isas(self) -> list[str]:
        from simdformer import _core

        return [isa for isa in _ISAS if isa in _core.available_isas()]

    def seconds(self, isa: str, case: str) -> float:
        from simdformer import _core

        method, *sizes = _CASES[case]
        call = getattr(_core.KernelTable(isa), method)
        repeats = max(1, int(_SLICE_SECONDS / max(call(*sizes, 1), 1e-8)))
        return float(min(call(*sizes, repeats) for _ in range(_SLICES)))


def measure(
    old: WorkerProcess, new: WorkerProcess, rounds: int, isas: list[str]
) -> dict[str, float]:
    """The ratio new / old of best times, by kernel and level."""
    ratios = {}
    for isa in isas:
        for case in _CASES:
            times: dict[str, list[float]] = {"old": [], "new": []}
            for number in range(rounds):
                # The order alternates, because the second may run at another clock rate.
                for build in (old, new) if number % 2 == 0 else (new, old):
                    times[build.name].append(build.request("seconds", isa=isa, case=case))
            best_old, best_new = min(times["old"]), min(times["new"])
            ratios[f"{isa}: {case}"] = best_new / best_old
    return ratios


def run(old: Path, new: Path, *, rounds: int, threshold: float) -> dict[str, Any]:
    with ExitStack() as stack:
        builds = []
        for name, folder in (("old", old), ("new", new)):
            environment = installed.environment(folder)
            builds.append(WorkerProcess(name, "builds.kernels", [str(folder)], environment))
            stack.callback(builds[-1].close)
        # Both get the same requests, because the addresses of arrays depend on all earlier ones.
        known = [build.request("isas") for build in builds]
        isas = [isa for isa in known[0] if isa in known[1]]
        ratios = measure(*builds, rounds, isas)
        slow = [name for name, ratio in ratios.items() if ratio > 1 + threshold]
        # Kernels that seem slower are measured again, because a burst of load may have affected one build
        # only.
        if slow:
            again = measure(*builds, 3 * rounds, isas)
            ratios.update({name: min(ratios[name], again[name]) for name in slow})
    return {"threshold": threshold, "ratios": ratios}


def failed(result: dict[str, Any]) -> bool:
    return any(ratio > 1 + result["threshold"] for ratio in result["ratios"].values())


def to_text(result: dict[str, Any]) -> str:
    lines = [
        [name, f"{ratio:.2f}", "NO" if ratio > 1 + result["threshold"] else "yes"]
        for name, ratio in result["ratios"].items()
    ]
    header = ["time, new / old", "ratio", f"within {1 + result['threshold']:.2f}"]
    return report.markdown_table(header, lines)


if __name__ == "__main__":
    os.dup2(2, 1)  # output of a build must not mix with the table
    installed.check(Path(sys.argv[1]))
    serve(Worker(), Connection(int(sys.argv[2])))
