"""Every kernel of the table at every ISA level, on one thread, as a fraction of a measured limit.

    python bench/kernels.py [--peers] [--roofline]

Arithmetic kernels are compared with the level's FMA peak, int8 with that of its dot products, s16 with half
of that, and others with the read bandwidth for an array of the same size. All limits are measured in the same
run, next to the kernel. Rates count only the necessary work: 2 m n k flops for GEMM, 4 q k d for attention,
and one read of each input and one write of each output. Figures are medians of the rounds; limits are the
best values. Writes OUTPUT.json, OUTPUT.md, OUTPUT.png and with --roofline OUTPUT-roofline.png.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # set before NumPy loads; its BLAS is a peer

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kernel_peers
import machine
import plots
import report
from simdformer import _core

FMA, DOT, DOT_S16, READ = "fma", "dot", "dot_s16", "read"  # the limits
# The best of several short slices counts: another process on the same core lengthens some of them, but not
# all. The difference between rounds is reported.
_SLICE_SECONDS = 0.002
_SLICES = 5
_FLOAT_BYTES = 4
_DOT_ITERATIONS = 200_000

_GEMM_ROWS = (1, 4, 8, 16, 32, 64, 128, 512)
# (n, k) of MiniLM's four linear layers and of BERT-base's feed-forward.
_GEMM_WEIGHTS = ((1152, 384), (384, 384), (1536, 384), (384, 1536), (3072, 768), (768, 3072))
_ATTENTION_LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
_HEAD_DIMS = (32, 64, 128)
# Sizes that fit into L2, and one that does not.
_ROW_SHAPES = ((128, 384), (8192, 384))


@dataclass(frozen=True)
class Case:
    kernel: str
    shape: str
    flops: float
    floats: float  # read and written, each once
    bound: str
    seconds: Callable[[Any, int], float]  # (kernel table, repeats) -> seconds of one call
    operation: str = ""  # the same in kernel_peers
    sizes: tuple[int, ...] = ()
    divisor: int = 1  # a peer's operation does the work of this many calls of the kernel

    @property
    def bytes(self) -> float:
        return self.floats * _FLOAT_BYTES


# Bytes per weight. int8's float32 input is quantized in the kernel.
_GEMM_KERNELS = {"gemm": 4, "gemm_bf16": 2, "gemm_s8": 1}


def gemm_cases(kernel: str) -> Iterator[Case]:
    for n, k in _GEMM_WEIGHTS:
        for m in _GEMM_ROWS:
            yield Case(
                kernel=kernel,
                shape=f"m={m} n={n} k={k}",
                flops=2 * m * n * k,
                floats=m * k + n * k * _GEMM_KERNELS[kernel] / _FLOAT_BYTES + m * n,
                bound=DOT if kernel == "gemm_s8" else FMA,
                seconds=lambda table, repeats, s=(m, n, k): getattr(table, f"time_{kernel}")(
                    *s, repeats
                ),
                operation="linear" if kernel == "gemm" else "",
                sizes=(m, n, k),
            )


def attention_cases(kernel: str, bound: str) -> Iterator[Case]:
    for head_dim in _HEAD_DIMS:
        for length in _ATTENTION_LENGTHS:
            yield Case(
                kernel=kernel,
                shape=f"length={length} head_dim={head_dim}",
                flops=4 * length * length * head_dim,
                floats=4 * length * head_dim,
                bound=bound,
                seconds=lambda table, repeats, s=(length, length, head_dim): getattr(
                    table, f"time_{kernel}"
                )(*s, repeats),
                operation="attention",
                sizes=(length, head_dim),
                divisor=kernel_peers.HEADS,
            )


@dataclass(frozen=True)
class RowWork:
    """The work of a row kernel per element of a (rows, cols) array."""

    flops: float  # nominal, for the roofline; exp and erf count as their polynomials
    floats: float  # necessary reads and writes
    operation: str = ""


_ROW_KERNELS = {
    "layer_norm": RowWork(flops=8, floats=2, operation="layer_norm"),
    "softmax": RowWork(flops=16, floats=2, operation="softmax"),
    "exp": RowWork(flops=12, floats=2, operation="exp"),
    "exp2_nonpositive": RowWork(flops=10, floats=2),
    "log1p": RowWork(flops=20, floats=2),
    "gelu": RowWork(flops=24, floats=2, operation="gelu"),
    "gelu_tanh": RowWork(flops=24, floats=2, operation="gelu_tanh"),
    "silu": RowWork(flops=16, floats=2, operation="silu"),
    # Timed with one table for words and positions, so each row is read once.
    "embedding_sum": RowWork(flops=2, floats=2),
    "pool_mean": RowWork(flops=1, floats=1, operation="mean"),
    "l2_normalize": RowWork(flops=3, floats=2, operation="l2_normalize"),
    "read_sum": RowWork(flops=1, floats=1),
}


def row_cases(kernel: str) -> Iterator[Case]:
    work = _ROW_KERNELS[kernel]
    for rows, cols in _ROW_SHAPES:
        yield Case(
            kernel=kernel,
            shape=f"{rows}x{cols}",
            flops=work.flops * rows * cols,
            floats=work.floats * rows * cols,
            bound=READ,
            seconds=lambda table, repeats, s=(kernel, rows, cols): table.time_rows(*s, repeats),
            operation=work.operation,
            sizes=(rows, cols),
        )


def cases_of(kernel: str) -> list[Case]:
    """The cases of a kernel. A kernel without a line here is an error, so that all are measured."""
    if kernel in _GEMM_KERNELS:
        return list(gemm_cases(kernel))
    if kernel == "attention":
        return list(attention_cases(kernel, FMA))
    if kernel == "attention_s16":
        return list(attention_cases(kernel, DOT_S16))
    if kernel in _ROW_KERNELS:
        return list(row_cases(kernel))
    raise SystemExit(f"bench/kernels.py has no case for the kernel {kernel!r}: add one")


def time_kernel(case: Case, table: Any) -> float:
    """Seconds per call: a slice has many calls, and the best of several slices counts."""
    once = case.seconds(table, 1)
    repeats = max(1, int(_SLICE_SECONDS / max(once, 1e-8)))
    return min(case.seconds(table, repeats) for _ in range(_SLICES))


def time_peer(operation: kernel_peers.Operation) -> float:
    """Seconds per call, measured like the kernels by this thread's clock, but from Python."""
    operation()

    def call(repeats: int) -> float:
        start = time.thread_time()
        for _ in range(repeats):
            operation()
        return (time.thread_time() - start) / repeats

    repeats = max(1, int(_SLICE_SECONDS / call(1)))
    return min(call(repeats) for _ in range(_SLICES))


class ReadMeter:
    """GB/s of repeatedly reading an array of a given size, from whatever cache it fits into."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def rate(self, size: int) -> float:
        cols = size // _FLOAT_BYTES
        repeats = max(1, int(_SLICE_SECONDS / max(self._seconds(cols, 1), 1e-8)))
        return size / min(self._seconds(cols, repeats) for _ in range(_SLICES)) / 1e9

    def _seconds(self, cols: int, repeats: int) -> float:
        return float(self._table.time_rows("read_sum", 1, cols, repeats))


def dot_peak(table: Any) -> float:
    return max(table.dot_peak(_DOT_ITERATIONS) for _ in range(_SLICES))


def measure(isa: str, kernels: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    table = _core.KernelTable(isa)
    # AMX has no products of s16. VNNI's are used: two per lane instead of four of bytes.
    vectors = _core.KernelTable("avx512_vnni") if isa == "avx512_amx" else table
    fma, read = machine.PeakMeter(isa, 1), ReadMeter(table)
    cases = [case for name in kernels for case in cases_of(name)]
    rates: dict[Case, list[float]] = defaultdict(list)
    limits: dict[Case, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for number, case in enumerate(cases):
            if case.bound == READ:
                limits[case].append(read.rate(int(case.bytes)))
            elif case.bound == DOT:
                limits[case].append(dot_peak(table))
            elif case.bound == DOT_S16:
                limits[case].append(dot_peak(vectors) / 2)
            else:
                # The clock rate changes slowly, so a new peak for every eighth case is enough.
                if number % 8 == 0 or not fma.fma_rates:
                    fma.fma()
                limits[case].append(fma.fma_rates[-1])
            work = case.bytes if case.bound == READ else case.flops
            rates[case].append(work / time_kernel(case, table) / 1e9)
    best_fma = max(fma.fma_rates, default=0.0)
    return [
        _row(isa, c, rates[c], limits[c], best_fma if c.bound == FMA else max(limits[c]))
        for c in cases
    ]


def _row(
    isa: str, case: Case, rates: list[float], limits: list[float], limit: float
) -> dict[str, Any]:
    rate = statistics.median(rates)
    work = case.bytes if case.bound == READ else case.flops
    return {
        "name": f"{isa}/{case.kernel} {case.shape}",
        "isa": isa,
        "kernel": case.kernel,
        "shape": case.shape,
        "sizes": case.sizes,
        "unit": {FMA: "GFLOP/s", DOT: "Gop/s", DOT_S16: "Gop/s", READ: "GB/s"}[case.bound],
        "rates": rates,
        "peak_rates": limits,
        "rate": rate,
        "limit": limit,
        "share_of_limit": rate / limit,
        "spread": report.spread(rates),
        "microseconds": work / rate / 1e3,
        "gflops": case.flops / work * rate,
        "intensity": case.flops / case.bytes,
    }


def measure_peers(rows: list[dict[str, Any]], kernels: Sequence[str]) -> None:
    """Add to each row the microseconds that each installed library needs."""
    for case in (case for name in kernels for case in cases_of(name)):
        found = [r for r in rows if (r["kernel"], r["shape"]) == (case.kernel, case.shape)]
        microseconds = {}
        for peer in kernel_peers.installed_peers():
            if case.operation and (make := getattr(peer, case.operation, None)):
                microseconds[peer.name] = time_peer(make(*case.sizes)) / case.divisor * 1e6
        for row in found:
            row["peer_microseconds"] = microseconds


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    peaks = {}
    for isa in arguments.isas:
        kernels = [k for k in _core.KernelTable(isa).names() if k in (arguments.kernels or [k])]
        rows += measure(isa, kernels, arguments.rounds)
        meter = machine.PeakMeter(isa, 1)
        peaks[isa] = {
            "fma_gflops": max(meter.fma() for _ in range(5)),
            "read_gbs": max(meter.read() for _ in range(3)),
        }
    if arguments.peers:
        measure_peers(rows, list(dict.fromkeys(row["kernel"] for row in rows)))
    return {
        "kind": "kernels",
        "machine": arguments.machine,
        "settings": {"rounds": arguments.rounds, "threads": 1},
        "peaks": peaks,
        "rows": rows,
    }


def to_markdown(result: dict[str, Any]) -> str:
    """One table per kernel: rate and fraction of the limit, with a column per ISA level, then the peers."""
    parts = []
    for isa, peak in result["peaks"].items():
        parts.append(
            f"{isa}: FMA peak {peak['fma_gflops']:.0f} GFLOP/s, "
            f"memory read {peak['read_gbs']:.1f} GB/s, one thread.\n"
        )
    for kernel in dict.fromkeys(row["kernel"] for row in result["rows"]):
        parts.append(_kernel_table([r for r in result["rows"] if r["kernel"] == kernel]))
    parts.append(report.describe_machine(result["machine"]) + "\n")
    return "\n".join(parts)


def _kernel_table(rows: list[dict[str, Any]]) -> str:
    isas = list(dict.fromkeys(row["isa"] for row in rows))
    peers = list(dict.fromkeys(p for row in rows for p in row.get("peer_microseconds", {})))
    by_shape: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_shape[row["shape"]][row["isa"]] = row
    lines = []
    for shape, found in by_shape.items():
        cells = [f"{found[isa]['rate']:.1f} ({found[isa]['share_of_limit']:.0%})" for isa in isas]
        last = found[isas[-1]]
        ratios = [
            f"{last['peer_microseconds'][p] / last['microseconds']:.2f}x"
            if p in last.get("peer_microseconds", {})
            else ""
            for p in peers
        ]
        lines.append([shape, *cells, *ratios])
    unit = rows[0]["unit"]
    header = [f"{rows[0]['kernel']}, {unit} (share of limit)", *isas]
    return report.markdown_table(header + [f"{p} / {isas[-1]}, time" for p in peers], lines)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--output", type=Path, default=machine.results("kernels"))
    add("--isas", nargs="+", choices=_core.available_isas(), default=_core.available_isas())
    add("--kernels", nargs="+", help="only these of the table")
    add("--rounds", type=int, default=5)
    add("--peers", action="store_true", help="also time NumPy, torch and ONNX Runtime")
    add("--roofline", action="store_true", help="also draw the roofline")
    return parser.parse_args(arguments)


def main() -> None:
    arguments = parse_arguments()
    machine.limit_to(1)
    peers = ["numpy", "torch", "onnxruntime"] if arguments.peers else []
    arguments.machine = machine.describe(["simdformer", *peers])
    result = run(arguments)
    report.write_json(arguments.output.with_suffix(".json"), result)
    markdown = to_markdown(result)
    report.write_text(arguments.output.with_suffix(".md"), markdown)
    plots.plot_kernels(result, arguments.output.with_suffix(".png"))
    if arguments.roofline:
        stem = arguments.output.stem
        plots.plot_roofline(result, arguments.output.with_name(f"{stem}-roofline.png"))
    print(markdown)


if __name__ == "__main__":
    main()
