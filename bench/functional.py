"""simdformer.functional: each score compared with the scaled dot product, and each function with PyTorch's.

    python bench/functional.py [--threads N] [--slices N] [--output STEM]

A time is the best of several short slices, alternating between both libraries: on a shared machine, other
processes lengthen some slices, but not all. Writes OUTPUT.json and OUTPUT.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import machine
import report

SLICE_SECONDS = 0.02

Call = Callable[[], object]
Rows = list[dict[str, Any]]


def slice_time(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def best_times(calls: dict[str, Call], slices: int) -> dict[str, float]:
    """Seconds per call, with alternating slices of the calls."""
    counts = {}
    for name, call in calls.items():
        call()
        counts[name] = max(1, int(SLICE_SECONDS / max(slice_time(call, 1), 1e-7)))
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(slices):
        for name, call in calls.items():
            best[name] = min(best[name], slice_time(call, counts[name]))
    return best


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def scores(slices: int) -> Rows:
    """Each score with 8 heads, 512 queries and keys, 64 columns, in multiples of the scaled dot product."""
    import simdformer.functional as F

    q, k, v = normal(3, 8, 512, 64)
    weights = {"bilinear": {"weight": normal(64, 64) / 8}}
    names = ("scaled_dot", "dot", "bilinear", "euclidean", "cosine", "additive")
    calls: dict[str, Call] = {
        name: lambda name=name: F.attention(q, k, v, score=name, **weights.get(name, {}))
        for name in names
    }
    calls["euclidean exact"] = lambda: F.attention(q, k, v, score="euclidean", exact=True)
    calls["weights out"] = lambda: F.attention(q, k, v, return_weights=True)
    calls["causal"] = lambda: F.attention(q, k, v, is_causal=True)
    times = best_times(calls, slices)
    return [
        {"what": name, "ms": t * 1e3, "of scaled dot": t / times["scaled_dot"]}
        for name, t in times.items()
    ]


def torch_additive(torch: Any, q: Any, k: Any, v: Any) -> Call:
    def call() -> object:
        hidden = torch.tanh(q[:, :, None] + k[:, None])
        return torch.softmax(hidden.sum(-1), -1) @ v

    return call


def beside_torch(slices: int) -> Rows:
    import torch

    import simdformer.functional as F

    T = torch.nn.functional
    cases: dict[str, tuple[Call, Call]] = {}

    def add(
        name: str, ours: Callable[..., object], theirs: Callable[..., object], *arrays: Any
    ) -> None:
        tensors = [torch.from_numpy(array) for array in arrays]
        cases[name] = (lambda: ours(*arrays), lambda: theirs(*tensors))

    q, k, v = normal(3, 1, 512, 64)
    tensors = [torch.from_numpy(array) for array in (q, k, v)]
    cases["additive 1x512x512x64"] = (
        lambda: F.attention(q, k, v, score="additive"),
        torch_additive(torch, *tensors),
    )
    # With a batch of one, 16 tokens take less time than the rest of the call.
    for batch, length in ((1, 16), (128, 16), (1, 64), (1, 128), (1, 512), (1, 2048)):
        add(
            f"attention {batch} x 8 x {length} x 64",
            F.scaled_dot_product_attention,
            T.scaled_dot_product_attention,
            *normal(3, batch, 8, length, 64),
        )
    x, weight = normal(1024, 768), normal(768)
    add(
        "layer_norm 1024 x 768",
        lambda a, w: F.layer_norm(a, (768,), w, w),
        lambda a, w: T.layer_norm(a, (768,), w, w),
        x,
        weight,
    )
    add(
        "rms_norm 1024 x 768",
        lambda a, w: F.rms_norm(a, (768,), w),
        lambda a, w: T.rms_norm(a, (768,), w),
        x,
        weight,
    )
    add("softmax 1024 x 768", F.softmax, lambda a: T.softmax(a, -1), x)
    add("gelu 1024 x 768", F.gelu, T.gelu, x)
    add("silu 1024 x 768", F.silu, T.silu, x)
    add("linear 512 x 768 x 768", F.linear, T.linear, normal(512, 768), normal(768, 768))
    add("rotary 8 x 512 x 64", F.rotary_embedding, torch_rotary(torch), normal(1, 8, 512, 64))
    cases["sinusoids 4096 x 384"] = (
        lambda: F.sinusoidal_position_encoding(4096, 384),
        lambda: torch_sinusoids(torch, 4096, 384),
    )
    rows = []
    for name, (ours, theirs) in cases.items():
        times = best_times({"ours": ours, "torch": theirs}, slices)
        ratio = times["torch"] / times["ours"]
        rows.append({"what": name, **{n: t * 1e3 for n, t in times.items()}, "speedup": ratio})
    return rows


def torch_rotary(torch: Any) -> Callable[[Any], object]:
    """As models implement it: tables computed in each call, as in ours, in float32."""

    def call(x: Any) -> object:
        inv_freq = 10000.0 ** (-torch.arange(0, 64, 2) / 64)
        angles = torch.outer(torch.arange(x.shape[-2]), inv_freq)
        cos, sin = (torch.cat([t, t], -1) for t in (angles.cos(), angles.sin()))
        turned = torch.cat([-x[..., 32:], x[..., :32]], -1)
        return x * cos + turned * sin

    return call


def torch_sinusoids(torch: Any, rows: int, dim: int) -> object:
    """As in tutorials, in float32."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-np.log(10000.0) / dim))
    angles = torch.arange(rows)[:, None] * rates
    table = torch.empty(rows, dim)
    table[:, 0::2], table[:, 1::2] = torch.sin(angles), torch.cos(angles)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--output", type=Path, default=machine.results("functional"))
    arguments = parser.parse_args()
    machine.limit_to(arguments.threads)
    os.environ["SIMDFORMER_NUM_THREADS"] = str(arguments.threads)
    result: dict[str, Any] = {
        "machine": machine.describe(["simdformer", "numpy", "torch"]),
        "threads": arguments.threads,
        "scores": scores(arguments.slices),
    }
    parts = [report.records_table(f"Scores, {arguments.threads} threads:", result["scores"])]
    try:
        import torch
    except ImportError:
        parts.append("torch is not installed: nothing to compare with.\n")
    else:
        torch.set_num_threads(arguments.threads)
        with torch.inference_mode():
            result["functions"] = beside_torch(arguments.slices)
        parts.append(
            report.records_table("Functions compared with PyTorch, ms:", result["functions"])
        )
    parts.append(report.describe_machine(result["machine"]) + "\n")
    report.write_json(arguments.output.with_suffix(".json"), result)
    markdown = "\n".join(parts)
    report.write_text(arguments.output.with_suffix(".md"), markdown)
    print(markdown)


if __name__ == "__main__":
    main()
