"""A prediction of how much faster one text becomes with many threads, from the shares of its work.

    python bench/many_cores.py

For 1 to 8,192 tokens and up to 128 threads, this takes the shares that the native code would distribute for a
layer of all-MiniLM-L6-v2's size, phase by phase. A phase takes as long as its largest share and the synchronization of the threads:

    seconds(T) = sum over phases of (flops of the largest share / rate + hand_over(T))

rate is measured on one thread of this machine, for a GEMM with that number of rows and for attention.
hand_over(2) is measured: the time of a phase with two threads in addition to its work. Threads claim and end
their shares one after another in a few shared cache lines, so it is assumed to grow like T. Efficiency is
seconds(1) / (T seconds(T)). The prediction ignores effects that cannot be measured here: lower clock rates
with more busy cores, memory shared by many cores, and several sockets. Writes OUTPUT.json and OUTPUT.md.
`scaling.py` measures the same on machines that have the cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import machine
import report
from scaling import HEADS, HIDDEN, INNER, random_encoder
from simdformer import _core

_TOKENS = (1, 14, 128, 512, 2048, 8192)
_THREADS = (1, 2, 4, 8, 16, 32, 64, 128)
_LAYERS = 6
_PRODUCTS = ((3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER))
_PHASES = len(_PRODUCTS) + 1


def layer_flops(tokens: int, threads: int, isa: str) -> tuple[list[float], float]:
    """The largest share of each product, and of attention, in flops."""
    _, panel = _core.KernelTable(isa).gemm_tile
    products = []
    for columns, depth in _PRODUCTS:
        panels = -(-columns // panel)
        shares = _core.product_shares(tokens, panels, threads)
        products.append(max(shares) / (tokens * panels) * 2.0 * tokens * columns * depth)
    rows = max(_core.row_shares(HEADS, tokens, threads))
    return products, rows * 4.0 * tokens * (HIDDEN // HEADS)


def _median_seconds(encoder: Any, tokens: int, threads: int, seconds: float) -> float:
    ids = np.arange(tokens, dtype=np.int32) % 1000
    cu_seqlens = np.array([0, tokens], np.int32)
    taken: list[float] = []
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(taken) < 5:
        start = time.perf_counter()
        encoder.encode(ids, cu_seqlens, num_threads=threads)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(seconds: float) -> dict[str, Any]:
    """GFLOP/s of one thread by number of tokens, and the cost of a synchronization of two threads."""
    encoder = random_encoder()
    isa = _core.active_isa()
    rates = {}
    for tokens in _TOKENS:
        products, attention = layer_flops(tokens, 1, isa)
        flops = _LAYERS * (sum(products) + attention)
        rates[tokens] = flops / _median_seconds(encoder, tokens, 1, seconds)
    products, attention = layer_flops(14, 2, isa)
    work = _LAYERS * (sum(products) + attention) / rates[14]
    beyond = _median_seconds(encoder, 14, 2, seconds) - work
    return {"flops_per_second": rates, "hand_over": max(0.0, beyond / (_LAYERS * _PHASES))}


def predict(measured: dict[str, Any], isa: str) -> list[dict[str, Any]]:
    """One record for each number of tokens and threads."""
    records = []
    for tokens in _TOKENS:
        rate = measured["flops_per_second"][tokens]
        alone = 0.0
        for threads in _THREADS:
            products, attention = layer_flops(tokens, threads, isa)
            hand_over = measured["hand_over"] * threads / 2 if threads > 1 else 0.0
            seconds = _LAYERS * ((sum(products) + attention) / rate + _PHASES * hand_over)
            alone = alone or seconds
            records.append(
                {
                    "tokens": tokens,
                    "threads": threads,
                    "milliseconds": seconds * 1e3,
                    "efficiency": alone / (threads * seconds),
                    "even_shares": alone / (threads * (seconds - _LAYERS * _PHASES * hand_over)),
                }
            )
    return records


def to_markdown(result: dict[str, Any]) -> str:
    """Milliseconds and efficiency, one line per number of tokens."""
    found = {(row["tokens"], row["threads"]): row for row in result["rows"]}

    def cell(row: dict[str, Any]) -> str:
        return f"{report.figure(row['milliseconds'])} ms, {row['efficiency']:.0%}"

    lines = [[str(n), *(cell(found[n, t]) for t in _THREADS)] for n in _TOKENS]
    title = (
        "Predicted time of one text, and its efficiency, all-MiniLM-L6-v2's size in float32 "
        f"({result['isa']}); synchronizing two threads takes "
        f"{result['measured']['hand_over'] * 1e6:.1f} us here:\n"
    )
    table = report.markdown_table(["tokens", *(f"{t} threads" for t in _THREADS)], lines)
    return "\n".join([title, table, report.describe_machine(result["machine"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=machine.results("many_cores"))
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args()
    description = machine.describe(["simdformer"])
    machine.limit_to(min(2, len(os.sched_getaffinity(0))))
    measured = measure(options.seconds)
    isa = _core.active_isa()
    result = {"kind": "many_cores", "machine": description, "isa": isa, "measured": measured}
    result["rows"] = predict(measured, isa)
    report.write_json(options.output.with_suffix(".json"), result)
    markdown = to_markdown(result)
    report.write_text(options.output.with_suffix(".md"), markdown)
    print(markdown)


if __name__ == "__main__":
    main()
