# SPDX-License-Identifier: Apache-2.0
"""compute_type="int8": quantizes linear layers, except those that lose too much.

Weights become signed int8 with one scale per output channel and group of input channels. Activations become
unsigned int8 when a layer reads them, with one range per token and group. The precision suffers most from a
few input channels whose values are many times larger than the others' (Dettmers et al. 2022,
arXiv:2208.07339); these channels stay in float32. They are the same for all inputs, so a few hundred tokens
of the model's own vocabulary show them as well as real texts do.

The result is compared with float32 on the same sample. If it is not close enough, the parts with the largest
loss stay in float32, as few as possible. docs/quantization.md has the figures.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np

from simdformer import nn
from simdformer._core import s8_rotates
from simdformer.checkpoint.int8_matrix import Float32, Int8Matrix, Int32
from simdformer.int8.gptq import Float64, quantize_weight_for
from simdformer.int8.losses import Loss, cosines_of, part_losses
from simdformer.int8.parts import (
    EncoderPart,
    encoder_parts,
    first_names,
    own_parts,
    put,
    stages,
)
from simdformer.int8.reference import (
    Pool,
    Reference,
    mean_pooled,
    run_recorded,
)
from simdformer.int8.sample import Sample, vocabulary_sample
from simdformer.models.assign import WORDS
from simdformer.nn.compute_types import outlier_columns, quantized
from simdformer.nn.parameters import Stored

# The smallest allowed cosine to float32 on the sample. all-MiniLM-L6-v2 stays above 0.9994.
MIN_COSINE = 0.999

# The number of tokens used to find outliers, and to measure the loss of each part.
_FEW_TOKENS = 1024
# The number of tokens used to fit the rounding of weights. They go through the layers together.
_MANY_TOKENS = 16384


@dataclass(frozen=True)
class QuantizedEncoder:
    """An encoder with int8 parameters.

    cosines: float32 (sequences of the sample,), between the int8 and the float32 vector of each.
    part_types: "int8" or "float32" for each part, by name.
    matrix: returns a part in int8.
    rotated: whether the matrices in int8 are rotated, except the table of word embeddings.
    losses: of all parts; empty if they were not measured.
    """

    encoder: nn.TextEncoder
    cosines: Float32
    part_types: Mapping[str, str]
    matrix: Callable[[str], Int8Matrix]
    rotated: bool
    losses: Mapping[str, Loss] = field(default_factory=dict)

    def holds(self, min_cosine: float) -> bool:
        """Whether every sequence has at least this cosine."""
        return bool(self.cosines.min() >= min_cosine)


def quantize_encoder(
    encoder: nn.TextEncoder,
    pool: Pool = mean_pooled,
    *,
    sample: Callable[[nn.TextEncoder], Sample] | None = None,
    min_cosine: float = MIN_COSINE,
    with_losses: bool = False,
) -> QuantizedEncoder:
    """Quantize a copy of a float32 encoder and compare it with the original.

    The original is not packed.

    sample: makes a sample of real texts; then the rounding of weights is fitted to it (simdformer.int8.gptq).
    None: the sample consists of ids from the whole vocabulary, and each weight is rounded separately.
    with_losses: measure the loss of each part even if no part has to stay in float32.
    """
    tokens = (sample or vocabulary_sample)(encoder)
    reference = Reference(encoder, pool)
    first, *others = tokens.pieces(_MANY_TOKENS)
    candidate = _Candidate(reference)
    vectors = _calibrate(reference, candidate, first, for_inputs=sample is not None)
    exact = np.concatenate([vectors, *map(reference.encode, others)])

    def attempt(kept: Sequence[str]) -> QuantizedEncoder:
        candidate.keep(kept)
        vectors = pool(candidate.encoder.native()).encode(*tokens)
        cosines = cosines_of(vectors, exact)
        return QuantizedEncoder(
            candidate.encoder, cosines, candidate.types(), candidate.matrix, candidate.rotated
        )

    result = attempt(())
    if with_losses or not result.holds(min_cosine):
        losses = part_losses(reference, candidate.matrix, tokens.first(_FEW_TOKENS), exact)
        if not result.holds(min_cosine):
            worst_first = sorted(losses, key=lambda name: -losses[name].cosine_loss)
            result = _keep_fewest(attempt, worst_first, min_cosine)
        result = replace(result, losses=losses)
    result.encoder.pack()
    return result


def _keep_fewest(
    attempt: Callable[[Sequence[str]], QuantizedEncoder], worst_first: list[str], min_cosine: float
) -> QuantizedEncoder:
    """Keep as few parts in float32 as possible, starting with the worst. Bisection, because each attempt runs
    the whole sample."""
    too_few, enough = 0, len(worst_first)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if attempt(worst_first[:middle]).holds(min_cosine):
            enough = middle
        else:
            too_few = middle
    return attempt(worst_first[:enough])


class _Candidate:
    """A copy of the encoder with parts in int8. Some parts may stay in float32."""

    def __init__(self, reference: Reference) -> None:
        self.encoder = copy.deepcopy(reference.encoder)
        self._reference = reference
        self._owners = self.encoder.places()
        self._parts = {part.name: part for part in encoder_parts(self.encoder)}
        self._places: dict[str, dict[str, Stored]] = {}
        self._kept: set[str] = set()
        self.rotated = s8_rotates()

    def add(self, name: str, matrix: Int8Matrix) -> None:
        """Put a part in int8."""
        places = self._parts[name].places(self._owners, "int8", lambda: matrix)
        self._places[name] = places
        put(self._owners, places)
        if name == WORDS:  # a tied head packs the table in float32
            self._words = matrix

    def matrix(self, name: str) -> Int8Matrix:
        """A part in int8. After packing only the packed form exists, so it is read from there."""
        if name == WORDS:
            return self._words
        places = self._places[name].values()
        return Int8Matrix.joined([cast(Int8Matrix, place.to_pack()) for place in places])

    def types(self) -> dict[str, str]:
        """The compute type of each part."""
        return {name: "float32" if name in self._kept else "int8" for name in self._places}

    def keep(self, names: Sequence[str]) -> None:
        """Put these parts in float32, and all others in int8."""
        for name in self._kept ^ set(names):  # only those that change
            places: Mapping[str, Any] = self._places[name]
            if name in names:
                places = {each: self._reference.anew(each) for each in places}
            put(self._owners, places)
        self._kept = set(names)


def _calibrate(
    reference: Reference, candidate: _Candidate, tokens: Sample, *, for_inputs: bool
) -> Float32:
    """Put all parts in int8. for_inputs: fit the rounding to the inputs of each part. Returns the vectors of
    the sequences in float32."""
    samples = list(tokens.pieces(_FEW_TOKENS))
    states: list[Any] = [None] * len(samples)
    named_stages = stages(candidate.encoder)
    firsts, left = first_names(named_stages), Counter(map(id, named_stages.values()))
    seen: dict[str, _Seen] = {}  # over all stages so far, because a layer may run again
    for stem, own in named_stages.items():
        first, stage = firsts[id(own)], reference.stage(stem)
        for name, new in _observed(stage, samples, states, for_inputs=for_inputs).items():
            named_part = f"{first}.{name}"
            seen[named_part] = seen[named_part].merged(new) if named_part in seen else new
        left[id(own)] -= 1
        if left[id(own)]:
            continue
        for part in [part.below(first) for part in own_parts(own)]:
            outliers, moments = seen.pop(part.name, _NOTHING)
            rotated = candidate.rotated and part.name != WORDS  # a table is never multiplied
            matrix = _quantized(reference, part, outliers, moments, rotated)
            candidate.add(part.name, matrix)
        own.native()  # packs the layer, so the unpacked numbers are freed
    return reference.vectors(np.concatenate(states), tokens)


class _Seen(NamedTuple):
    """The inputs of a part: its outlier columns, and x^T x summed over all rows x, (in_features,
    in_features), or None."""

    outliers: Int32
    moments: Float64 | None = None

    def merged(self, other: _Seen) -> _Seen:
        """The inputs of a part that runs in two places."""
        moments = self.moments
        if moments is not None and other.moments is not None:
            moments = moments + other.moments
        return _Seen(np.union1d(self.outliers, other.outliers), moments)


_NOTHING = _Seen(np.empty(0, np.int32))


def _observed(
    stage: nn.Module, samples: Sequence[Sample], states: list[Any], *, for_inputs: bool
) -> dict[str, _Seen]:
    """The inputs of each part of a stage. states: each sample's rows, replaced by the stage's output."""
    seen: dict[str, _Seen] = {}
    for i, sample in enumerate(samples):
        states[i], packed = run_recorded(stage, states[i], sample)
        for name, (_, x) in packed.items():
            if not len(x):  # an expert that no token of the sample uses
                continue
            outliers, moments = seen.get(name) or _Seen(outlier_columns(np.abs(x).max(axis=0)))
            if for_inputs:
                own = (x.T @ x).astype(np.float64)
                moments = own if moments is None else moments + own
            seen[name] = _Seen(outliers, moments)
    return seen


def _quantized(
    reference: Reference, part: EncoderPart, outliers: Int32, moments: Float64 | None, rotated: bool
) -> Int8Matrix:
    weights = [reference.read(name) for name in part.parameters]
    return Int8Matrix.joined([_quantize(weight, outliers, moments, rotated) for weight in weights])


def _quantize(
    weight: Float32, outliers: Int32, moments: Float64 | None, rotated: bool
) -> Int8Matrix:
    if moments is None:
        return quantized(weight, outliers, rotated=rotated)
    values, scale = quantize_weight_for(moments, weight, outliers, rotated)
    return Int8Matrix(values, scale, outliers, np.ascontiguousarray(weight[:, outliers]), rotated)
