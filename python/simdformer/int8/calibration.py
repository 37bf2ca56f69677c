# SPDX-License-Identifier: Apache-2.0
"""compute_type="int8": linear layers in int8, and which of them may not be.

Weights become s8 with a scale for each output channel and group of input channels; activations
become u8 when they meet them, with a range for each token and group. What costs precision is a
handful of input channels with values many times the others' (Dettmers et al. 2022,
arXiv:2208.07339): those stay in float32. They are the same for any input, so a few hundred tokens
of the model's own vocabulary show them, and texts of the user's show them no worse.

The result is compared with float32 on the same sample. If it is not near enough, the parts that cost
most stay in float32, as few as will do. docs/quantization.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from simdformer._core import (
    Linear,
    PooledStack,
    TransformerStack,
    linear_forward,
    s8_group,
)
from simdformer.checkpoint.precision import Float32, Int8Matrix, Int32, Matrix, Precision
from simdformer.int8.gptq import Float64, quantize_weight_for
from simdformer.nn.compute_types import (
    outlier_columns,
    quantized,
    sample_ids,
    sample_offsets,
)

# The smallest cosine to float32 that a sample may have. all-MiniLM-L6-v2 stays above 0.9994.
MIN_COSINE = 0.999

# Tokens that are kept on their way through every layer, and that run once a part.
_FEW_TOKENS = 1024
# Tokens whose inputs the weights are rounded for.
_MOMENT_TOKENS = 16384

Build = Callable[[Precision], TransformerStack]
Pool = Callable[[TransformerStack], PooledStack]


class Sample(NamedTuple):
    """Sequences of token ids: input_ids (total_tokens,), cu_seqlens (batch + 1,); token_type_ids as
    input_ids, None if all are 0."""

    input_ids: Int32
    cu_seqlens: Int32
    token_type_ids: Int32 | None = None

    def first(self, tokens: int) -> Sample:
        """The whole sequences at the beginning that have at most so many tokens; at least one."""
        count = max(1, int(np.searchsorted(self.cu_seqlens[1:], tokens, side="right")))
        return self.between(0, count)

    def pieces(self, tokens: int) -> Iterator[Sample]:
        """All sequences, in samples of at most so many tokens; a longer one alone."""
        rest = self
        while len(rest.cu_seqlens) > 1:
            piece = rest.first(tokens)
            yield piece
            rest = rest.between(len(piece.cu_seqlens) - 1, len(rest.cu_seqlens) - 1)

    def between(self, begin: int, end: int) -> Sample:
        """Sequences begin to end - 1."""
        cu_seqlens = self.cu_seqlens[begin : end + 1]
        tokens = slice(cu_seqlens[0], cu_seqlens[-1])
        types = None if self.token_type_ids is None else self.token_type_ids[tokens]
        return Sample(self.input_ids[tokens], cu_seqlens - cu_seqlens[0], types)


class Loss(NamedTuple):
    """What one part, a linear layer or a table, loses in int8.

    error: |int8 - float32| / |float32| of its output. cosine_loss: 1 - the mean cosine of the sample's
    vectors with this part alone in int8.
    """

    error: float
    cosine_loss: float


@dataclass(frozen=True)
class QuantizedEncoder:
    """An encoder with int8 parts.

    cosines: float32 (sequences of the sample,), each one's vector to that of float32. parts: what
    is in int8, by name. replaced: the float32 tensors that it stands for. kept: what stays in
    float32. losses: of all; empty if nobody had to know.
    """

    encoder: TransformerStack
    cosines: Float32
    parts: Mapping[str, Int8Matrix]
    replaced: frozenset[str] = frozenset()
    kept: tuple[str, ...] = ()
    losses: Mapping[str, Loss] = field(default_factory=dict)

    @property
    def part_types(self) -> dict[str, str]:
        """The compute type of every part."""
        return {**dict.fromkeys(self.parts, "int8"), **dict.fromkeys(self.kept, "float32")}

    def holds(self, min_cosine: float) -> bool:
        """Whether every sequence is so near."""
        return bool(self.cosines.min() >= min_cosine)


def mean_pooled(encoder: TransformerStack) -> PooledStack:
    """How sequences become the vectors to compare, if nothing else is said."""
    return PooledStack(encoder, ["mean"])


def quantize_encoder(
    build: Build,
    pool: Pool = mean_pooled,
    *,
    sample: Callable[[TransformerStack], Sample] | None = None,
    min_cosine: float = MIN_COSINE,
    with_losses: bool = False,
) -> QuantizedEncoder:
    """Quantise what `build` makes, a float32 encoder being its measure.

    build: called several times, with one precision or another. sample: real texts' tokens for the
    float32 encoder, which the weights are then rounded for (simdformer.int8.gptq); if None, ids from all
    over the vocabulary, and weights are rounded each by itself. with_losses: also if no part has to
    be kept.
    """
    layers = _Float32Layers()
    encoder = build(layers)
    tokens = (sample or vocabulary_sample)(encoder)
    exact = pool(encoder).encode(*tokens)
    few = tokens.first(_FEW_TOKENS)
    moments = layers.moments(encoder, tokens.first(_MOMENT_TOKENS)) if sample else {}
    parts = _Parts(layers, layers.record(encoder, few), moments)

    def attempt(kept: Sequence[str], tokens: Sample = tokens) -> QuantizedEncoder:
        parts.kept = frozenset(kept)
        encoder = build(parts)
        vectors = pool(encoder).encode(*tokens)
        cosines = _cosines(vectors, exact[: len(vectors)])
        return QuantizedEncoder(encoder, cosines, *parts.quantized(), tuple(kept))

    result = attempt(())
    if result.holds(min_cosine) and not with_losses:
        return result
    names = list(result.parts)
    losses = {
        name: Loss(error, 1 - float(attempt([n for n in names if n != name], few).cosines.mean()))
        for name, error in parts.errors().items()
    }
    if not result.holds(min_cosine):
        worst_first = sorted(losses, key=lambda name: -losses[name].cosine_loss)
        result = _keep_fewest(attempt, worst_first, min_cosine)
    return replace(result, losses=losses)


def _keep_fewest(
    attempt: Callable[[Sequence[str]], QuantizedEncoder], worst_first: list[str], min_cosine: float
) -> QuantizedEncoder:
    """With the fewest of the worst parts in float32 that will do; by bisection, for each attempt
    runs the sample."""
    too_few, enough = 0, len(worst_first)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if attempt(worst_first[:middle]).holds(min_cosine):
            enough = middle
        else:
            too_few = middle
    return attempt(worst_first[:enough])


class _Float32Layers:
    """Makes float32 layers and keeps them."""

    def __init__(self) -> None:
        self.layers: dict[str, Linear] = {}

    def linear(self, weight: Matrix, bias: Float32 | None) -> Linear:
        layer = self.layers[weight.name] = Linear(weight.float32(), bias)
        return layer

    def table(self, weight: Matrix) -> Float32:
        return weight.float32()

    def record(self, encoder: TransformerStack, sample: Sample) -> dict[str, Float32]:
        """Each layer's inputs, (tokens, in_features)."""
        for layer in self.layers.values():
            layer.record_inputs()
        encoder.encode(*sample, num_threads=1)
        return {name: layer.take_inputs() for name, layer in self.layers.items()}

    def moments(self, encoder: TransformerStack, sample: Sample) -> dict[str, Float64]:
        """The sum of x^T x over each layer's inputs x, (in_features, in_features)."""
        sums: dict[str, Float64] = {}
        for piece in sample.pieces(_FEW_TOKENS):
            for name, x in self.record(encoder, piece).items():
                sums[name] = sums.get(name, 0) + (x.T @ x).astype(np.float64)
        return sums


class _Parts:
    """Gives layers and tables in int8, except those to be kept. Each is quantised once."""

    def __init__(
        self,
        exact: _Float32Layers,
        inputs: Mapping[str, Float32],
        moments: Mapping[str, Float64],
    ) -> None:
        self._exact = exact.layers
        self._inputs = inputs
        self._moments = moments
        self._layers: dict[str, Linear] = {}
        self._sources: dict[str, Matrix] = {}
        self._matrices: dict[str, Int8Matrix] = {}
        self.kept: frozenset[str] = frozenset()

    def linear(self, weight: Matrix, bias: Float32 | None) -> Linear:
        name = weight.name
        self._sources[name] = weight
        if name in self.kept:
            return self._exact[name]
        if name not in self._layers:
            outliers = outlier_columns(np.abs(self._inputs[name]).max(axis=0))
            moments = self._moments.get(name)
            self._matrices[name] = _quantize(weight.float32(), outliers, moments)
            self._layers[name] = self._matrices[name].linear(bias)
        return self._layers[name]

    def table(self, weight: Matrix) -> Float32:
        name = weight.name
        self._sources[name] = weight
        if name in self.kept:
            return weight.float32()
        if name not in self._matrices:
            self._matrices[name] = _quantize(weight.float32(), np.empty(0, np.int32))
        return self._matrices[name].widened()

    def quantized(self) -> tuple[dict[str, Int8Matrix], frozenset[str]]:
        """What is not kept, and the tensors that it stands for."""
        parts = {name: part for name, part in self._matrices.items() if name not in self.kept}
        # A tensor may hold several parts.
        kept = {t for name in self.kept for t in self._sources[name].tensors}
        return parts, frozenset(t for name in parts for t in self._sources[name].tensors) - kept

    def errors(self) -> dict[str, float]:
        """|int8 - float32| / |float32| of each part's output."""
        errors = {}
        for name, matrix in self._matrices.items():
            if name in self._layers:
                x = self._inputs[name]
                exact = linear_forward(self._exact[name], x)
                errors[name] = _distance(linear_forward(self._layers[name], x), exact)
            else:
                errors[name] = _distance(matrix.widened(), self._sources[name].float32())
        return errors


def _quantize(weight: Float32, outliers: Int32, moments: Float64 | None = None) -> Int8Matrix:
    if moments is None:
        return quantized(weight, outliers)
    values, scale = quantize_weight_for(moments, weight, outliers, s8_group())
    return Int8Matrix(values, scale, outliers, np.ascontiguousarray(weight[:, outliers]))


def _distance(found: Float32, exact: Float32) -> float:
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(found - exact)) / size if size > 0 else 0.0


def _cosines(a: Float32, b: Float32) -> Float32:
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    sizes = np.linalg.norm(wide_a, axis=1) * np.linalg.norm(wide_b, axis=1)
    cosines: Float32 = ((wide_a * wide_b).sum(axis=1) / sizes).astype(np.float32)
    return cosines


def vocabulary_sample(encoder: TransformerStack) -> Sample:
    """Sequences of ids from all over the vocabulary, the same each time."""
    cu_seqlens = sample_offsets(encoder.max_positions)
    return Sample(sample_ids(encoder.vocab_size, int(cu_seqlens[-1])), cu_seqlens)
