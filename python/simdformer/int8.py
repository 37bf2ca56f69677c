# SPDX-License-Identifier: Apache-2.0
"""compute_type="int8": linear layers in int8, made when a model is loaded, without calibration texts.

Weights become s8 with a scale for each output channel and group of input channels; activations
become u8 when they meet them, with a range for each token and group. What costs precision is a
handful of input channels with values many times the others' (Dettmers et al. 2022,
arXiv:2208.07339): those stay in float32. They are the same for any input, so a few hundred tokens
of the model's own vocabulary show them. docs/quantization.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from simdformer._core import Encoder, Linear, quantize_weight
from simdformer.checkpoint import Float32
from simdformer.models.linear import MakeLinear

Int32 = NDArray[np.int32]

# 4 lose little, 16 gain nothing (docs/quantization.md); of narrow layers, at most one in 16.
_NUM_OUTLIERS = 8
_SAMPLE_LENGTHS = (6, 10, 14, 18, 25, 40, 60, 100)


def build_int8(build: Callable[[MakeLinear], Encoder]) -> Encoder:
    """An encoder with int8 linear layers. `build` makes one from a way to make linear layers; it is
    called twice, first in float32 to see the outliers."""
    recorder = _Recorder()
    encoder = build(recorder)
    encoder.forward(*_sample(encoder.vocab_size, encoder.max_positions), num_threads=1)
    return build(_Quantizer(recorder.outliers()))


class _Recorder:
    """Makes float32 layers that note how large each of their inputs gets."""

    def __init__(self) -> None:
        self._layers: dict[str, Linear] = {}

    def __call__(self, name: str, weight: Float32, bias: Float32) -> Linear:
        layer = Linear(weight, bias)
        layer.record_inputs()
        self._layers[name] = layer
        return layer

    def outliers(self) -> dict[str, Int32]:
        return {name: _largest(layer.largest_inputs()) for name, layer in self._layers.items()}


class _Quantizer:
    """Makes int8 layers, with each one's outliers in float32."""

    def __init__(self, outliers: Mapping[str, Int32]) -> None:
        self._outliers = outliers

    def __call__(self, name: str, weight: Float32, bias: Float32) -> Linear:
        columns = self._outliers[name]
        values, scale = quantize_weight(weight, columns)
        return Linear.from_int8(values, scale, bias, columns, weight[:, columns])


def _largest(values: Float32) -> Int32:
    """The indices of the largest values, ascending."""
    count = min(_NUM_OUTLIERS, len(values) // 16)
    return np.sort(np.argsort(-values, kind="stable")[:count]).astype(np.int32)


def _sample(vocab_size: int, max_positions: int) -> tuple[Int32, Int32]:
    """Sequences of ids from all over the vocabulary, the same each time: input_ids, cu_seqlens."""
    lengths = [min(length, max_positions) for length in _SAMPLE_LENGTHS]
    cu_seqlens = np.cumsum([0, *lengths]).astype(np.int32)
    # Knuth's multiplicative hash (The Art of Computer Programming 3, section 6.4).
    hashes = np.arange(1, cu_seqlens[-1] + 1, dtype=np.uint64) * np.uint64(2654435769)
    ids = (hashes % np.uint64(2**32)) * np.uint64(vocab_size) // np.uint64(2**32)
    return ids.astype(np.int32), cu_seqlens
