# SPDX-License-Identifier: Apache-2.0
"""Attention, a convolution and recurrent layers in NumPy, in float64 with random weights. Point 4 measures
the influence of distant tokens with them. Input and output are rows (n, d)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Layer = Callable[[Float64], Float64]

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def random_layers(d: int, kernel_size: int, rng: np.random.Generator) -> dict[str, Layer]:
    """One layer of each kind, with weights from U(-1 / sqrt(d), 1 / sqrt(d)), as in torch.nn's recurrent
    layers."""

    def weights(*shape: int) -> Float64:
        return np.asarray(rng.uniform(-1, 1, shape) / np.sqrt(d))

    layers: dict[str, Layer] = {
        "attention": partial(_attention, weights(3, d, d)),
        f"convolution of {kernel_size}": partial(_convolution, weights(kernel_size, d, d)),
    }
    for name, gates in _GATES.items():
        step = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}[name]
        layers[name] = partial(_recurrent, step, weights(gates, d, d), weights(gates, d, d))
    return layers


def influence(layer: Layer, x: Float64, step: float = 1e-4) -> Float64:
    """How much the last row of the output depends on each row of the input, starting with the last row.

    This is the norm of the change for a step in a random direction, divided by the step. Returns: float64
    (n,).
    """
    rng = np.random.default_rng(0)
    before = layer(x)[-1]
    changes = []
    for row in range(len(x) - 1, -1, -1):
        moved = x.copy()
        direction = rng.standard_normal(x.shape[1])
        moved[row] += step * direction / np.linalg.norm(direction)
        changes.append(np.linalg.norm(layer(moved)[-1] - before) / step)
    return np.array(changes)


def _attention(weights: Float64, x: Float64) -> Float64:
    q, k, v = x @ weights
    scores = q @ k.T / np.sqrt(x.shape[1])
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers @ v / powers.sum(axis=1, keepdims=True))


def _convolution(weights: Float64, x: Float64) -> Float64:
    reach = len(weights) // 2
    padded = np.pad(x, ((reach, reach), (0, 0)))
    return np.asarray(sum(padded[i : i + len(x)] @ w for i, w in enumerate(weights)))


def _recurrent(
    step: Callable[[Float64, Float64, Float64, Float64], tuple[Float64, Float64]],
    inputs: Float64,
    states: Float64,
    x: Float64,
) -> Float64:
    """RNN (Elman 1990), GRU (Cho et al. 2014) or LSTM (Hochreiter and Schmidhuber 1997), without biases."""
    hidden = cell = np.zeros(x.shape[1])
    rows = []
    for row in x:
        hidden, cell = step(row @ inputs, hidden @ states, hidden, cell)
        rows.append(hidden)
    return np.array(rows)


def _rnn_step(x: Float64, h: Float64, hidden: Float64, cell: Float64) -> tuple[Float64, Float64]:  # noqa: ARG001
    return np.tanh(x[0] + h[0]), cell


def _gru_step(x: Float64, h: Float64, hidden: Float64, cell: Float64) -> tuple[Float64, Float64]:
    reset, update = _sigmoid(x[0] + h[0]), _sigmoid(x[1] + h[1])
    new = np.tanh(x[2] + reset * h[2])
    return (1 - update) * new + update * hidden, cell


def _lstm_step(x: Float64, h: Float64, hidden: Float64, cell: Float64) -> tuple[Float64, Float64]:  # noqa: ARG001
    entry, forget, output = (_sigmoid(x[i] + h[i]) for i in (0, 1, 3))
    cell = forget * cell + entry * np.tanh(x[2] + h[2])
    return output * np.tanh(cell), cell


def _sigmoid(x: Float64) -> Float64:
    return np.asarray(1 / (1 + np.exp(-x)))
