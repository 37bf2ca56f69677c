# SPDX-License-Identifier: Apache-2.0
"""Point 4: attention beside a convolution and recurrent layers."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from simdformer import nn
from simdformer.explain.cost import cost_table
from simdformer.explain.figures import Figure, Lines, Table
from simdformer.explain.points.sequence_layers import influence, random_layers
from simdformer.explain.points.study import Array, Study, mean_over
from simdformer.explain.report import Section

_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
_DISTANCES, _FEATURES, _DRAWS = 40, 32, 8
_RUNS = 5


def sequence_layers(study: Study) -> Section:
    """Counts, times and the influence of distance."""
    d = study.model.encoder.hidden_size
    heads = study.model.encoder.layers[0].self_attn.num_heads
    heads = heads if d % heads == 0 else 1
    costs = {n: cost_table(n, d) for n in (128, 512)}
    flops = {
        cost.layer: np.array([cost_table(n, d)[i].flops for n in _LENGTHS], float)
        for i, cost in enumerate(costs[128])
    }
    times = _times(d, heads)
    reach = _influence()
    figures: list[Figure] = [
        Table(
            f"One layer of {d} features over n vectors",
            ["layer", "n", "parameters", "FLOPs", "sequential steps", "longest path"],
            [
                [c.layer, n, c.parameters, c.flops, c.sequential_steps, c.path_length]
                for n, table in costs.items()
                for c in table
            ],
            note="Dilated convolutions have a path of about log3 n.",
        ),
        Lines("FLOPs", "n", "FLOPs", _LENGTHS, flops, log_x=True, log_y=True),
        Lines(
            "Time of one layer, one thread",
            "n",
            "milliseconds",
            _LENGTHS,
            times,
            log_x=True,
            log_y=True,
            note=f"The best of {_RUNS} runs on this machine. Layers of torch stand beside it where torch is installed.",
        ),
        Lines(
            "Influence on the last output by distance",
            "distance of the input",
            "change per change",
            list(range(_DISTANCES)),
            reach,
            log_y=True,
            note=f"Layers of {_FEATURES} features with random weights, mean of {_DRAWS} draws. Where a line ends, the influence is 0.",
        ),
    ]
    far = {name: values[-1] / values[1] for name, values in reach.items()}
    return Section(
        "4. Attention, CNN, RNN",
        [
            (
                "The article: attention has fewer parameters and needs less compute, runs in parallel,"
                " can be interpreted and does not forget long texts."
            ),
            (
                f"Counted: attention has {costs[128][0].parameters:,} parameters, fewer than a GRU"
                f" ({costs[128][3].parameters:,}) and an LSTM ({costs[128][4].parameters:,}), more than a"
                f" convolution of width 3 ({costs[128][1].parameters:,}) and a plain RNN"
                f" ({costs[128][2].parameters:,}). It needs less compute than an LSTM below n = {2 * d}"
                f" only, than a GRU below n = {d}, and than that convolution never. It takes 1 step and a"
                " path of 1 where recurrent layers take n and n - 1. Measured: of the influence at distance"
                f" 1, {far['attention']:.2f} is left at distance {_DISTANCES - 1} for attention,"
                f" {far['LSTM']:.0e} for an LSTM and nothing for a convolution. Whether weights can be"
                " interpreted is contested; a report of a text measures it."
            ),
        ],
        figures,
    )


def _influence() -> dict[str, Array]:
    found: dict[str, list[Array]] = {}
    for draw in range(_DRAWS):
        rng = np.random.default_rng(draw)
        x = rng.standard_normal((_DISTANCES, _FEATURES))
        for name, layer in random_layers(_FEATURES, 3, rng).items():
            found.setdefault(name, []).append(influence(layer, x))
    return {name: mean_over(values) for name, values in found.items()}


def _times(d: int, heads: int) -> dict[str, Array]:
    """Milliseconds by length: of our attention, and of torch's layers if there is torch."""
    attention = nn.MultiheadAttention(d, heads, batch_first=True)
    run = {"attention": lambda x: attention(x, x, x, need_weights=False, num_threads=1)}
    times = {name: np.array([_best(call, n, d) for n in _LENGTHS]) for name, call in run.items()}
    return times | (_torch_times(d, heads) if find_spec("torch") else {})


def _torch_times(d: int, heads: int) -> dict[str, Array]:
    torch: Any = import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    attention = torch.nn.MultiheadAttention(d, heads, batch_first=True).eval()
    convolution = torch.nn.Conv1d(d, d, 3, padding=1).eval()
    layers: dict[str, Callable[[Any], Any]] = {
        "torch attention": lambda x: attention(x, x, x, need_weights=False),
        "torch convolution": lambda x: convolution(x.transpose(1, 2)),
        **{
            f"torch {kind}": getattr(torch.nn, kind)(d, d, batch_first=True).eval()
            for kind in ("RNN", "GRU", "LSTM")
        },
    }
    try:
        with torch.inference_mode():
            return {
                name: np.array([_best(layer, n, d, torch.from_numpy) for n in _LENGTHS])
                for name, layer in layers.items()
            }
    finally:
        torch.set_num_threads(before)


def _best(
    call: Callable[[Any], Any], n: int, d: int, convert: Callable[[Any], Any] = np.asarray
) -> float:
    x = convert(np.random.default_rng(n).standard_normal((1, n, d)).astype(np.float32))
    call(x)
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        call(x)
        times.append(time.perf_counter() - start)
    return min(times) * 1e3
