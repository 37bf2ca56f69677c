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

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from simdformer import nn
from simdformer._core import Linear, PooledStack, TransformerStack, linear_forward, s8_group
from simdformer.checkpoint.precision import Float32, Int8Matrix, Int32
from simdformer.int8.gptq import Float64, quantize_weight_for
from simdformer.models.assign import WORDS
from simdformer.nn.compute_types import outlier_columns, quantized
from simdformer.nn.parameters import Stored
from simdformer.text.model_output import PooledModel

# The smallest cosine to float32 that a sample may have. all-MiniLM-L6-v2 stays above 0.9994.
MIN_COSINE = 0.999

# Tokens that are kept on their way through every layer, and that run once a part.
_FEW_TOKENS = 1024
# Tokens whose inputs the weights are rounded for.
_MOMENT_TOKENS = 16384

Pool = Callable[[TransformerStack], PooledModel]


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
    """An encoder with int8 parameters.

    cosines: float32 (sequences of the sample,), each one's vector to that of float32. parts: what
    is in int8, by the parameters' names. kept: what stays in float32. losses: of all; empty if nobody
    had to know.
    """

    encoder: nn.TextEncoder
    cosines: Float32
    parts: Mapping[str, Int8Matrix]
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
    encoder: nn.TextEncoder,
    pool: Pool = mean_pooled,
    *,
    sample: Callable[[nn.TextEncoder], Sample] | None = None,
    min_cosine: float = MIN_COSINE,
    with_losses: bool = False,
) -> QuantizedEncoder:
    """Quantise a copy of a float32 encoder, which is its measure.

    sample: real texts' tokens, which the weights are then rounded for (simdformer.int8.gptq); if None,
    ids from all over the vocabulary, and weights are rounded each by itself. with_losses: also if no
    part has to be kept.
    """
    tokens = (sample or vocabulary_sample)(encoder)
    exact = pool(encoder.native()).encode(*tokens)
    few = tokens.first(_FEW_TOKENS)
    parts = _Parts(encoder, few, tokens.first(_MOMENT_TOKENS) if sample else None)

    def attempt(kept: Sequence[str], tokens: Sample = tokens) -> QuantizedEncoder:
        parts.keep(kept)
        vectors = pool(parts.encoder.native()).encode(*tokens)
        cosines = _cosines(vectors, exact[: len(vectors)])
        return QuantizedEncoder(parts.encoder, cosines, parts.quantized(), parts.parameters(kept))

    result = attempt(())
    if result.holds(min_cosine) and not with_losses:
        return result
    names = parts.names()
    errors = parts.errors()
    losses = {
        name: Loss(error, 1 - float(attempt([n for n in names if n != name], few).cosines.mean()))
        for name, error in errors.items()
    }
    if result.holds(min_cosine):
        result = attempt(())
    else:
        worst_first = sorted(losses, key=lambda name: -losses[name].cosine_loss)
        result = _keep_fewest(attempt, worst_first, min_cosine)
    spread = {each: loss for name, loss in losses.items() for each in parts.parameters([name])}
    return replace(result, losses=spread)


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


class _Part(NamedTuple):
    """Parameters that are quantised or kept together: those of one packed matrix, whose inputs are the
    same, or the table of words. linears: what they are packed in in float32; none for the table."""

    parameters: list[str]
    linears: tuple[Linear, ...]


class _Parts:
    """A copy of an encoder with parts in int8, of which some may be kept in float32. Each is quantised
    once; its name is that of its first parameter."""

    def __init__(self, exact: nn.TextEncoder, few: Sample, many: Sample | None) -> None:
        self.encoder = copy.deepcopy(exact)
        self._exact = exact
        self._places = exact.places()
        self._own = self.encoder.places()
        self._parts = {part.parameters[0]: part for part in self._found()}
        self._kept: set[str] = set(self._parts)
        self._inputs = self._record(few)
        moments = {} if many is None else self._moments(many)
        self._matrices: dict[str, Int8Matrix] = {}
        for name, part in self._parts.items():
            outliers = np.empty(0, np.int32)
            if part.linears:
                outliers = outlier_columns(np.abs(self._inputs[name]).max(axis=0))
            for each in part.parameters:
                self._matrices[each] = _quantize(self._weight(each), outliers, moments.get(name))

    def _found(self) -> list[_Part]:
        """The table of words, and the packed matrices."""
        names = {(id(owner), name): dotted for dotted, (owner, name) in self._places.items()}
        self._exact.native()
        parts: dict[tuple[int, ...], _Part] = {}
        for owner, name, linears in self._exact.packed_matrices():
            part = parts.setdefault(_key(linears), _Part([], linears))
            part.parameters.append(names[id(owner), name])
        return [_Part([WORDS], ()), *parts.values()]

    def _weight(self, name: str) -> Float32:
        owner, own = self._places[name]
        return np.ascontiguousarray(getattr(owner, own))

    def _record(self, sample: Sample) -> dict[str, Float32]:
        """Each part's inputs, (tokens, in_features)."""
        first = {name: part.linears[0] for name, part in self._parts.items() if part.linears}
        for linear in first.values():
            linear.record_inputs()
        self._exact.native().encode(*sample, num_threads=1)
        return {name: linear.take_inputs() for name, linear in first.items()}

    def _moments(self, sample: Sample) -> dict[str, Float64]:
        """The sum of x^T x over each part's inputs x, (in_features, in_features)."""
        sums: dict[str, Float64] = {}
        for piece in sample.pieces(_FEW_TOKENS):
            for name, x in self._record(piece).items():
                sums[name] = sums.get(name, 0) + (x.T @ x).astype(np.float64)
        return sums

    def names(self) -> list[str]:
        """One a part."""
        return list(self._parts)

    def parameters(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of some parts."""
        return tuple(each for name in names for each in self._parts[name].parameters)

    def keep(self, names: Sequence[str]) -> None:
        """Have these parts in float32 in the encoder, and all others in int8."""
        for name in self._kept ^ set(names):  # those that change
            for each in self._parts[name].parameters:
                owner, own = self._own[each]
                owner.put(own, self._place(each, kept=name in names))
        self._kept = set(names)

    def _place(self, name: str, *, kept: bool) -> Any:
        if kept:
            owner, own = self._places[name]
            return owner.place(own)
        matrix = self._matrices[name]
        if name == WORDS:
            return Stored(matrix.shape, matrix.widened)
        return Stored.of(matrix, "int8")

    def quantized(self) -> dict[str, Int8Matrix]:
        """What is not kept."""
        names = [name for name in self._parts if name not in self._kept]
        return {each: self._matrices[each] for each in self.parameters(names)}

    def errors(self) -> dict[str, float]:
        """|int8 - float32| / |float32| of each part's output, all of them being in int8."""
        self.keep(())
        self.encoder.native()
        packed = (linears for _, _, linears in self.encoder.packed_matrices())
        exact = (_key(linears) for _, _, linears in self._exact.packed_matrices())
        rounded = dict(zip(exact, packed, strict=True))
        errors = {}
        for name, part in self._parts.items():
            if part.linears:
                x = self._inputs[name]
                found = _outputs(rounded[_key(part.linears)], x)
                errors[name] = _distance(found, _outputs(part.linears, x))
            else:
                errors[name] = _distance(self._matrices[name].widened(), self._weight(name))
        return errors


def _quantize(weight: Float32, outliers: Int32, moments: Float64 | None = None) -> Int8Matrix:
    if moments is None:
        return quantized(weight, outliers)
    values, scale = quantize_weight_for(moments, weight, outliers, s8_group())
    return Int8Matrix(values, scale, outliers, np.ascontiguousarray(weight[:, outliers]))


def _key(linears: Sequence[Linear]) -> tuple[int, ...]:
    return tuple(map(id, linears))


def _outputs(linears: Sequence[Linear], x: Float32) -> Float32:
    return np.concatenate([linear_forward(linear, x) for linear in linears], axis=1)


def _distance(found: Float32, exact: Float32) -> float:
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(found - exact)) / size if size > 0 else 0.0


def _cosines(a: Float32, b: Float32) -> Float32:
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    sizes = np.linalg.norm(wide_a, axis=1) * np.linalg.norm(wide_b, axis=1)
    cosines: Float32 = ((wide_a * wide_b).sum(axis=1) / sizes).astype(np.float32)
    return cosines


def vocabulary_sample(encoder: nn.TextEncoder) -> Sample:
    """Sequences of ids from all over the vocabulary, the same each time."""
    return Sample(*encoder.sample().args)
