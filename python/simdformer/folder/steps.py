# SPDX-License-Identifier: Apache-2.0
"""The modules after a model's first one. Each transforms a named feature: rows of tokens, or rows of texts.

Pooling, dense layers and normalization in their usual order run in the encoder's native call (chain.py). All
other modules run here. The result for a row does not depend on the other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simdformer import _core
from simdformer.functional.activations import activate
from simdformer.functional.norms import layer_norm

Float32 = NDArray[np.float32]
# The default output of a model, and the features from which it is computed.
SENTENCE, TOKENS, LAYERS, SCORES = (
    "sentence_embedding",
    "token_embeddings",
    "all_layer_embeddings",
    "scores",
)
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


class Batch(NamedTuple):
    """The limits of the sequences in rows of tokens, and the number of tokens to skip at the start of
    each."""

    cu_seqlens: NDArray[np.int32]
    pooling_start: int
    num_threads: int


class Step(Protocol):
    """One module."""

    @property
    def name(self) -> str:
        """The module's name in error messages."""

    @property
    def reads(self) -> str:
        """The feature that it reads."""

    @property
    def writes(self) -> str:
        """The feature that it writes."""

    def width(self, width: int) -> int:
        """The number of features per output row, given that of input rows. ValueError if they do not fit."""

    def __call__(self, x: Any, batch: Batch) -> Float32:
        """The new rows."""


@dataclass(frozen=True)
class Pooling:
    """One row per text from rows of tokens: the results of all modes, concatenated in order.

    include_prompt: whether the tokens of a prompt are included.
    """

    name: str = "mean pooling"
    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    embedding_dimension: int | None = None
    reads: str = TOKENS
    writes: str = SENTENCE

    def width(self, width: int) -> int:
        """One width per mode."""
        if self.embedding_dimension not in (None, width):
            raise ValueError(
                f"{self.name}: embedding_dimension={self.embedding_dimension}, but token vectors have"
                f" {width} features"
            )
        return width * len(self.modes)

    def __call__(self, x: Float32, batch: Batch) -> Float32:
        return _core.pool_rows(x, batch.cu_seqlens, self.modes, pooling_start=batch.pooling_start)


@dataclass(frozen=True)
class Dense:
    """activation(linear(x)), plus a residual.

    activation: a kernel's name, or a function. residual: True to add x, or a linear layer to add its result.
    """

    name: str
    linear: _core.Linear
    activation: str | Callable[[Float32], Any]
    residual: bool | _core.Linear = False
    reads: str = SENTENCE
    writes: str = SENTENCE

    def width(self, width: int) -> int:
        """The number of features after the activation."""
        if width != self.linear.in_features:
            raise ValueError(
                f"{self.name}: in_features={self.linear.in_features},"
                f" but the module before it outputs {width}"
            )
        made = self._activated(np.zeros((1, self.linear.out_features), np.float32)).shape[1]
        kept = width if self.residual is True else self.linear.out_features
        if self.residual and made != kept:
            raise ValueError(f"{self.name}: use_residual adds {kept} features to {made}")
        return int(made)

    def native(self) -> _core.Dense | None:
        """The layer for the encoder's native call; None if it cannot run there."""
        in_call = self.reads == self.writes == SENTENCE and isinstance(self.residual, bool)
        if not (in_call and isinstance(self.activation, str)):
            return None
        return _core.Dense(self.linear, activation=self.activation, residual=bool(self.residual))

    def __call__(self, x: Float32, batch: Batch) -> Float32:
        out = self._activated(_core.linear_forward(self.linear, x, num_threads=batch.num_threads))
        if self.residual is False:
            return out
        if self.residual is not True:
            x = _core.linear_forward(self.residual, x, num_threads=batch.num_threads)
        return out + x

    def _activated(self, x: Float32) -> Float32:
        if self.activation == "identity":
            return x
        if isinstance(self.activation, str):
            return activate(self.activation, x, None)
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(self.activation(x), dtype=np.float32)


@dataclass(frozen=True)
class Normalize:
    """Rows scaled to length one."""

    name: str
    reads: str = SENTENCE
    writes: str = SENTENCE

    def width(self, width: int) -> int:
        """The same as the input."""
        return width

    def __call__(self, x: Float32, batch: Batch) -> Float32:  # noqa: ARG002
        each = np.arange(len(x) + 1, dtype=np.int32)  # each row is a sequence of its own
        return _core.pool_rows(x, each, ["cls"], normalize=True)


@dataclass(frozen=True)
class LayerNorm:
    """LayerNorm with torch.nn's epsilon."""

    name: str
    weight: Float32
    bias: Float32
    reads: str = SENTENCE
    writes: str = SENTENCE

    def width(self, width: int) -> int:
        """The same as the input."""
        if width != len(self.weight):
            raise ValueError(
                f"{self.name}: dimension={len(self.weight)},"
                f" but the module before it outputs {width}"
            )
        return width

    def __call__(self, x: Float32, batch: Batch) -> Float32:  # noqa: ARG002
        return layer_norm(x, (x.shape[1],), self.weight, self.bias, 1e-5)


@dataclass(frozen=True)
class Dropout:
    """No effect: dropout is only for training."""

    name: str
    reads: str = SENTENCE
    writes: str = SENTENCE

    def width(self, width: int) -> int:
        """The same as the input."""
        return width

    def __call__(self, x: Float32, batch: Batch) -> Float32:  # noqa: ARG002
        return x


@dataclass(frozen=True)
class WeightedLayerPooling:
    """The weighted mean of each token's hidden states, from layer_start to the last layer."""

    name: str
    weights: Float32
    layer_start: int
    reads: str = LAYERS
    writes: str = TOKENS

    def width(self, width: int) -> int:
        """The same as the input."""
        return width

    def check_layers(self, num_layers: int) -> None:
        """ValueError if the number of hidden states differs from the number of weights."""
        if len(self.weights) != num_layers + 1 - self.layer_start:
            raise ValueError(
                f"{self.name}: {len(self.weights)} weights from layer_start={self.layer_start} on,"
                f" but the Transformer has {num_layers} layers"
            )

    def __call__(self, x: list[Float32], batch: Batch) -> Float32:  # noqa: ARG002
        pairs = zip(self.weights, x[self.layer_start :], strict=True)
        total = sum(weight * states for weight, states in pairs)
        return np.asarray(total / self.weights.sum(), np.float32)


def check_widths(steps: tuple[Step, ...], given: Mapping[str, int]) -> dict[str, int]:
    """The number of features of each named feature after all steps. given: before them.

    Errors: ValueError naming a step whose input is missing or has another width.
    """
    widths = dict(given)
    for step in steps:
        if step.reads not in widths:
            raise ValueError(
                f"{step.name}: it reads {step.reads!r}, which no module before it outputs;"
                f" there are {', '.join(widths)}"
            )
        widths[step.writes] = step.width(widths[step.reads])
    return widths
