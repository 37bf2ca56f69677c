"""simdformer.nn compared with torch.nn: encoder layers, padded and ragged, and a decoder's step.

    python bench/layers.py [--threads N] [--slices N] [--output STEM]

torch uses its fast path: eval mode, no gradients, nested tensors for ragged batches. A time is the median of
slices, alternating between both libraries, so that other load affects both. Writes OUTPUT.json and OUTPUT.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import machine
import report

D_MODEL, HEADS, FEED_FORWARD = 512, 8, 2048
TOKENS = 2048  # per batch: 128 x 16, 16 x 128, 4 x 512
CACHED = 256  # tokens before a decoder's step
MEMORY = 64  # tokens of the encoder's output

Call = Callable[[], object]
Rows = list[dict[str, Any]]


def interleaved(
    calls: dict[str, Call], slices: int, of: Callable[[list[float]], float] = statistics.median
) -> dict[str, float]:
    """Seconds per call, one call of each in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(slices):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: of(values) for name, values in times.items()}


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def encoder_layers(slices: int, threads: int) -> Rows:
    """A post-norm layer on full batches, and on ragged ones with lengths from L / 4 to L."""
    import torch

    from simdformer import nn

    options = {"dim_feedforward": FEED_FORWARD, "batch_first": True, "activation": "relu"}
    theirs = torch.nn.TransformerEncoderLayer(D_MODEL, HEADS, **options).eval()
    # A stack of one layer, because only stacks make nested tensors of ragged batches in torch.
    stack = torch.nn.TransformerEncoder(theirs, 1).eval()
    ours = nn.TransformerEncoderLayer(D_MODEL, HEADS, **options)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})

    rows = []
    for length in (16, 128, 512):
        batch = TOKENS // length
        x = normal(batch, length, D_MODEL)
        t = torch.from_numpy(x)
        lengths = np.linspace(length // 4, length, batch).astype(int)
        padding = np.arange(length) >= lengths[:, None]
        t_padding = torch.from_numpy(padding)
        for name, calls in {
            "full": {
                "simdformer": lambda x=x: ours(x, num_threads=threads),
                "torch": lambda t=t: theirs(t),
            },
            "ragged": {
                "simdformer": lambda x=x, p=padding: ours(
                    x, src_key_padding_mask=p, num_threads=threads
                ),
                "torch": lambda t=t, p=t_padding: stack(t, src_key_padding_mask=p),
            },
        }.items():
            seconds = interleaved(calls, slices)
            shown = {f"{k}_ms": 1e3 * v for k, v in seconds.items()}
            ratio = seconds["torch"] / seconds["simdformer"]
            rows.append({"batch": batch, "length": length, "kind": name, **shown, "ratio": ratio})
    return rows


def reader(threads: int) -> tuple[Call, int]:
    """A function that reads memory with all threads at once, and the number of bytes."""
    from concurrent.futures import ThreadPoolExecutor

    from simdformer import _core

    table = _core.KernelTable(_core.active_isa())
    parts = [np.ones(16 << 20, np.float32) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(table.read_sum, parts)), sum(part.nbytes for part in parts)


def decoder_step(slices: int, threads: int) -> Rows:
    """One token of one sequence in 6 decoder layers, and the time to read the data that it needs."""
    from simdformer import nn

    layer = nn.TransformerDecoderLayer(D_MODEL, HEADS, FEED_FORWARD, batch_first=True)
    stack = nn.TransformerDecoder(layer, 6)
    cache = nn.DecoderCache(1)
    memory, prompt = normal(1, MEMORY, D_MODEL), normal(1, CACHED, D_MODEL)
    stack(prompt, memory, cache=cache, num_threads=threads)
    step = prompt[:, :1]
    read, size = reader(threads)
    # The best of many, because the question is how close a step can be to the memory's limit.
    calls = {"step": lambda: stack(step, None, cache=cache, num_threads=threads), "read": read}
    seconds = interleaved(calls, slices, min)
    # A step does not project the memory: keys and values of cross-attention are in the cache.
    unread = 6 * 2 * D_MODEL * D_MODEL
    weights = sum(p.size for _, p in stack.named_parameters()) - unread
    both = weights + 6 * 2 * D_MODEL * (CACHED + MEMORY)

    def reached(floats: int) -> float:
        return 4 * floats / size * seconds["read"] / seconds["step"]

    return [
        {
            "threads": threads,
            "step_ms": 1e3 * seconds["step"],
            "weights_mb": 4 * weights / 1e6,
            "reached": reached(weights),
            "weights_and_cache_mb": 4 * both / 1e6,
            "reached_with_cache": reached(both),
        }
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slices", type=int, default=15)
    parser.add_argument("--output", type=Path, default=machine.results("layers"))
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    warnings.simplefilter("ignore")  # torch warns that nested tensors are a prototype
    import torch

    described = machine.describe(["simdformer", "torch"])
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        layers = encoder_layers(args.slices, args.threads)
    steps = [row for n in (1, args.threads) for row in decoder_step(4 * args.slices, n)]
    tables = {
        f"An encoder layer compared with PyTorch, {args.threads} threads:": layers,
        "A decoder's step beside reading its weights:": steps,
    }
    markdown = "\n".join(
        [
            *(report.records_table(title, rows) for title, rows in tables.items()),
            report.describe_machine(described) + "\n",
        ]
    )
    result = {"machine": described, "threads": args.threads}
    result |= {"encoder_layer": layers, "decoder_step": steps}
    report.write_json(args.output.with_suffix(".json"), result)
    report.write_text(args.output.with_suffix(".md"), markdown)
    print(markdown)


if __name__ == "__main__":
    main()
