"""How time and memory grow with the number of texts, with their length, and with threads.

    python bench/scaling.py

An encoder of all-MiniLM-L6-v2's size with random weights and 8,192 positions, on random ids in packed batches
of at most 16,384 tokens, as in encode. Useful flops are counted as in encode.py. The figures are fractions of
the FMA peak of the same number of threads in the same run: a constant column means that time grows in
proportion to flops. Writes OUTPUT.json and OUTPUT.md.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import machine
import report
from simdformer import _core

HIDDEN, HEADS, INNER, LAYERS, VOCAB = 384, 12, 1536, 6, 30522
MAX_POSITIONS = 8192
TOKEN_BUDGET = 16384
_LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_COUNTS = (1, 10, 100, 1_000, 10_000, 100_000)
_MINUTES_LONG = 100_000  # texts that are embedded only once
_COUNT_LENGTH = 16


def random_encoder() -> Any:
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> Any:
        return rng.normal(0, 0.05, shape).astype(np.float32)

    def norm() -> Any:
        return _core.LayerNorm(np.ones(HIDDEN, np.float32), weight(HIDDEN), eps=1e-12)

    def layer() -> Any:
        attention = _core.MultiheadAttention(
            [[_core.Linear(weight(3 * HIDDEN, HIDDEN), weight(3 * HIDDEN))]],
            _core.Linear(weight(HIDDEN, HIDDEN), weight(HIDDEN)),
            num_heads=HEADS,
            num_kv_heads=HEADS,
            softmax_scale=(HIDDEN // HEADS) ** -0.5,
        )
        feed_forward = _core.FeedForward(
            _core.Linear(weight(INNER, HIDDEN), weight(INNER)),
            _core.Linear(weight(HIDDEN, INNER), weight(HIDDEN)),
            activation="gelu",
        )
        return _core.TransformerLayer(
            attention, None, feed_forward, _core.Norm.layer(norm()), None, _core.Norm.layer(norm())
        )

    embeddings = _core.Embeddings(weight(VOCAB, HIDDEN), weight(MAX_POSITIONS, HIDDEN), norm=norm())
    stack = _core.TransformerStack([layer() for _ in range(LAYERS)], embeddings=embeddings)
    return _core.PooledStack(stack, ["mean"], normalize=True)


def flops(length: int) -> float:
    linear = 2 * length * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)
    return LAYERS * (linear + 4 * length * length * HIDDEN)


def seconds(encoder: Any, length: int, count: int, threads: int) -> float:
    """Seconds to embed `count` texts of `length` tokens, in calls of at most TOKEN_BUDGET tokens."""
    ids = np.random.default_rng(1).integers(0, VOCAB, length * count).astype(np.int32)
    per_call = max(1, TOKEN_BUDGET // length)
    start = time.perf_counter()
    for first in range(0, count, per_call):
        texts = min(per_call, count - first)
        cu_seqlens = np.arange(texts + 1, dtype=np.int32) * length
        part = ids[first * length : (first + texts) * length]
        encoder.encode(part, cu_seqlens, num_threads=threads)
    return time.perf_counter() - start


def measure(encoder: Any, length: int, count: int, threads: int, rounds: int) -> dict[str, Any]:
    peak = machine.PeakMeter(_core.active_isa(), threads)
    seconds(encoder, length, min(count, 8), threads)
    times = []
    for _ in range(1 if count >= _MINUTES_LONG else rounds):
        peak.fma()
        times.append(seconds(encoder, length, count, threads))
    taken = statistics.median(times)
    return {
        "length": length,
        "count": count,
        "threads": threads,
        "seconds": taken,
        "spread": report.spread(times),
        "share_of_peak": flops(length) * count / taken / 1e9 / max(peak.fma_rates),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def markdown(rows: list[dict[str, Any]], description: str) -> str:
    table = report.markdown_table(
        ["texts x tokens", "threads", "ms", "spread", "share of peak", "peak RSS, MB"],
        [
            [
                f"{row['count']:,} x {row['length']:,}",
                str(row["threads"]),
                report.figure(row["seconds"] * 1e3),
                f"{row['spread']:.0%}",
                f"{row['share_of_peak']:.0%}",
                f"{row['peak_rss_mb']:.0f}",
            ]
            for row in rows
        ],
    )
    return f"{table}\n{description}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=machine.results("scaling"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=_core.num_threads())
    arguments = parser.parse_args()
    machine.limit_to(arguments.threads)
    described = machine.describe()
    encoder = random_encoder()
    cases = [(_COUNT_LENGTH, count, arguments.threads) for count in _COUNTS]
    cases += [(length, max(1, 8192 // length), arguments.threads) for length in _LENGTHS]
    cases += [(92, 356, threads) for threads in range(1, arguments.threads + 1)]
    rows = [measure(encoder, *case, arguments.rounds) for case in cases]
    result = {"machine": described, "rows": rows}
    report.write_json(arguments.output.with_suffix(".json"), result)
    text = markdown(rows, report.describe_machine(described))
    report.write_text(arguments.output.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
