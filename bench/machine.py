"""The machine: its description, and its measured peaks, to which figures are compared."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from simdformer import _core

# A peak is the best rate of several short slices: another process on the same core lengthens some of them,
# but not all.
_SLICE_SECONDS = 0.004
_SLICES = 6
_READ_BYTES = 256 * 2**20  # larger than the caches that one tenant can expect to have

# By vendor, family and model, as in the manufacturers' manuals and Linux's arch/x86/include/asm.
_AMD, _INTEL = "AuthenticAMD", "GenuineIntel"
_CPU_CLASSES = (
    ("zen", _AMD, 0x17, range(0x30)),
    ("zen2", _AMD, 0x17, range(0x30, 0x100)),
    ("zen3", _AMD, 0x19, (*range(0x10), *range(0x20, 0x60))),
    ("zen4", _AMD, 0x19, (*range(0x10, 0x20), *range(0x60, 0xB0))),
    ("zen5", _AMD, 0x1A, range(0x100)),
    ("skylake-server", _INTEL, 6, (0x55,)),
    ("ice-lake-server", _INTEL, 6, (0x6A, 0x6C)),
    ("sapphire-rapids", _INTEL, 6, (0x8F, 0xCF)),
    ("granite-rapids", _INTEL, 6, (0xAD, 0xAE)),
)


def limit_to(threads: int) -> list[int]:
    """Limit this process and its children to `threads` of the CPUs that it may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        raise SystemExit(f"--threads must be at most {len(allowed)} on this machine, got {threads}")
    os.sched_setaffinity(0, allowed[:threads])
    return allowed[:threads]


def results(name: str) -> Path:
    """The folder for a benchmark's results: one per class of CPUs."""
    return Path(__file__).parent / "results" / cpu_class() / name


def cpu_class() -> str:
    """For example "zen3"; vendor, family and model as numbers for unknown CPUs."""
    vendor, family, model = (
        _first_value("/proc/cpuinfo", key) for key in ("vendor_id", "cpu family", "model\t")
    )
    if vendor is None or family is None or model is None:
        return platform.machine().lower()
    for name, known_vendor, known_family, models in _CPU_CLASSES:
        if (vendor, int(family)) == (known_vendor, known_family) and int(model) in models:
            return name
    return f"{vendor}-{family}-{model}".lower()


def describe(distributions: Iterable[str] = ()) -> dict[str, Any]:
    """CPU, memory, versions, date, commit and the load of the machine before the run."""
    return {
        "cpu": _first_value("/proc/cpuinfo", "model name") or platform.processor(),
        "cpus": os.cpu_count(),
        "memory_gb": round(
            int((_first_value("/proc/meminfo", "MemTotal") or "0").split()[0]) / 2**20
        ),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "compiler": _core.compiler(),
        "isas": _core.available_isas(),
        "versions": {name: version for name in distributions if (version := _version(name))},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "load_average": os.getloadavg()[0],
    }


class PeakMeter:
    """FMA rate and read bandwidth of `threads` threads at one ISA level, measured by native code."""

    def __init__(self, isa: str, threads: int) -> None:
        self.isa = isa
        self.threads = threads
        self._table = _core.KernelTable(isa)
        self._executor = ThreadPoolExecutor(threads)
        self._iterations = self._calibrate()
        self._buffers: list[np.ndarray] = []
        self.fma_rates: list[float] = []
        self.read_rates: list[float] = []

    def fma(self) -> float:
        """GFLOP/s of all threads together: fused multiply-adds with operands in registers."""
        slices = [
            sum(self._together(lambda _: self._table.fma_peak(self._iterations)))
            for _ in range(_SLICES)
        ]
        self.fma_rates.append(max(slices))
        return self.fma_rates[-1]

    def read(self) -> float:
        """GB/s of all threads together. Each reads an array larger than its part of the caches."""
        if not self._buffers:
            count = _READ_BYTES // self.threads // 4
            self._buffers = [np.ones(count, np.float32) for _ in range(self.threads)]

        def rate(thread: int) -> float:
            start = time.perf_counter()
            self._table.read_sum(self._buffers[thread])
            return self._buffers[thread].nbytes / (time.perf_counter() - start) / 1e9

        self.read_rates.append(sum(self._together(rate)))
        return self.read_rates[-1]

    def summary(self) -> dict[str, Any]:
        result: dict[str, Any] = {"isa": self.isa, "threads": self.threads}
        for name, rates in (("fma_gflops", self.fma_rates), ("read_gbs", self.read_rates)):
            if rates:
                result[name] = {
                    "best": max(rates),
                    "median": statistics.median(rates),
                    "smallest": min(rates),
                }
        return result

    def _together(self, measure: Callable[[int], float]) -> list[float]:
        barrier = threading.Barrier(self.threads)

        def run(thread: int) -> float:
            barrier.wait()
            return measure(thread)

        return list(self._executor.map(run, range(self.threads)))

    def _calibrate(self) -> int:
        iterations = 1 << 12
        while True:
            start = time.perf_counter()
            self._table.fma_peak(iterations)
            if (elapsed := time.perf_counter() - start) > _SLICE_SECONDS / 2:
                return max(1, int(iterations * _SLICE_SECONDS / elapsed))
            iterations *= 2


class OtherLoad:
    """The fraction of the CPUs that other processes used, or the hypervisor took, during a period.

    pids: our own processes.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self._before = self._read()

    def share(self) -> float:
        """The fraction of all CPUs since construction."""
        busy, own, elapsed = (b - a for a, b in zip(self._before, self._read(), strict=True))
        return max(0.0, busy - own) / (elapsed * (os.cpu_count() or 1))

    def _read(self) -> tuple[float, float, float]:
        ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        idle, waiting = ticks[3:5]
        own = 0
        for pid in self._pids:
            # Field 2 is the name in parentheses. Fields 14 and 15 are user and system time.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            own += int(fields[11]) + int(fields[12])
        hertz = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - idle - waiting) / hertz, own / hertz, time.perf_counter()


def _first_value(path: str, key: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
