# SPDX-License-Identifier: Apache-2.0
"""Point 4: attention compared with a convolution and recurrent layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
    """Count operations, measure times, and measure the influence of distant tokens."""
    d = study.model.encoder.hidden_size
    heads = study.model.encoder.layers[0].self_attn.num_heads
    times = _times(d, heads if d % heads == 0 else 1)
    reach = _influence()
    article = (
        "The article: attention has fewer parameters and needs less compute, runs in parallel, can be"
        " interpreted, and does not forget the start of long texts."
    )
    far = {name: values[-1] / values[1] for name, values in reach.items()}
    measured = (
        f"Measured: the influence at distance {_DISTANCES - 1}, divided by that at distance 1, is"
        f" {far['attention']:.2f} for attention, {far['LSTM']:.0e} for an LSTM and 0 for a convolution."
        " Whether attention weights can be interpreted is disputed; the report of a text measures it."
    )
    figures = [*_counts(d), _over_lengths("Time of one layer, one thread", "milliseconds", times)]
    figures.append(
        Lines(
            "Influence on the last output by distance",
            "distance of the input",
            "change per change",
            list(range(_DISTANCES)),
            reach,
            log_y=True,
            note=f"Layers of {_FEATURES} features with random weights, mean of {_DRAWS} draws. Where"
            " a line ends, the influence is 0.",
        )
    )
    return Section("4. Attention, CNN, RNN", [article, _counted(d), measured], figures)


def _counted(d: int) -> str:
    parameters = {cost.layer: f"{cost.parameters:,}" for cost in cost_table(1, d)}
    return (
        f"Counted: attention has {parameters['attention']} parameters, fewer than a GRU"
        f" ({parameters['gru']}) and an LSTM ({parameters['lstm']}), more than a convolution of width 3"
        f" ({parameters['convolution']}) and a plain RNN ({parameters['rnn']}). It needs less compute than"
        f" an LSTM only for n < {2 * d}, less than a GRU only for n < {d}, and never less than that"
        " convolution. It takes 1 sequential step with a path of 1; recurrent layers take n steps with a"
        " path of n - 1."
    )


def _counts(d: int) -> list[Figure]:
    columns = ["layer", "n", "parameters", "FLOPs", "sequential steps", "longest path"]
    rows = [
        [c.layer, n, c.parameters, c.flops, c.sequential_steps, c.path_length]
        for n in (128, 512)
        for c in cost_table(n, d)
    ]
    by_length = [cost_table(n, d) for n in _LENGTHS]
    flops = {
        costs[0].layer: np.array([cost.flops for cost in costs], float)
        for costs in zip(*by_length, strict=True)
    }
    title, note = f"One layer of {d} features over n vectors", "Dilated convolutions: some log3 n."
    return [Table(title, columns, rows, note), _over_lengths("FLOPs", "FLOPs", flops)]


def _over_lengths(title: str, unit: str, series: Mapping[str, Array]) -> Lines:
    note = ""
    if unit == "milliseconds":
        note = (
            f"The best of {_RUNS} runs on this machine. torch's layers stand beside it where torch is"
            " installed."
        )
    return Lines(title, "n", unit, _LENGTHS, series, log_x=True, log_y=True, note=note)


def _influence() -> dict[str, Array]:
    found: dict[str, list[Array]] = {}
    for draw in range(_DRAWS):
        rng = np.random.default_rng(draw)
        x = rng.standard_normal((_DISTANCES, _FEATURES))
        for name, layer in random_layers(_FEATURES, 3, rng).items():
            found.setdefault(name, []).append(influence(layer, x))
    return {name: mean_over(values) for name, values in found.items()}


def _times(d: int, heads: int) -> dict[str, Array]:
    """Milliseconds by length: of simdformer's attention, and of torch's layers if torch is installed."""
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
