# SPDX-License-Identifier: Apache-2.0
"""What the modules behind a model's first one do, each to features by name: rows of tokens, or of texts.

What stands in the usual order, pooling, dense layers, normalization, runs in the native call of the
encoder (chain.py); all else runs here, a row's bits the same in any company.
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
# The feature that a model puts out, and those that stand in it before.
SENTENCE, TOKENS, LAYERS, SCORES = (
    "sentence_embedding",
    "token_embeddings",
    "all_layer_embeddings",
    "scores",
)
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


class Batch(NamedTuple):
    """Where the sequences of token rows begin and end, and how many tokens of each are passed over."""

    cu_seqlens: NDArray[np.int32]
    pooling_start: int
    num_threads: int


class Step(Protocol):
    """One module."""

    @property
    def name(self) -> str:
        """What an error calls it."""

    @property
    def reads(self) -> str:
        """The feature that it works on."""

    @property
    def writes(self) -> str:
        """The feature that it makes."""

    def width(self, width: int) -> int:
        """The features of a row that it makes of `width`. ValueError if it cannot."""

    def __call__(self, x: Any, batch: Batch) -> Float32:
        """The new rows."""


@dataclass(frozen=True)
class Pooling:
    """Token rows to a row a text: modes, concatenated in order.

    include_prompt: whether the tokens of a prompt take part.
    """

    name: str = "mean pooling"
    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    embedding_dimension: int | None = None
    reads: str = TOKENS
    writes: str = SENTENCE

    def width(self, width: int) -> int:
        """As many as there are modes."""
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

    activation: a kernel's name, or a function. residual: of x, or of another linear layer.
    """

    name: str
    linear: _core.Linear
    activation: str | Callable[[Float32], Any]
    residual: bool | _core.Linear = False
    reads: str = SENTENCE
    writes: str = SENTENCE

    def width(self, width: int) -> int:
        """What the activation leaves of out_features."""
        if width != self.linear.in_features:
            raise ValueError(
                f"{self.name}: in_features={self.linear.in_features},"
                f" but the module before it puts out {width}"
            )
        made = self._activated(np.zeros((1, self.linear.out_features), np.float32)).shape[1]
        kept = width if self.residual is True else self.linear.out_features
        if self.residual and made != kept:
            raise ValueError(f"{self.name}: use_residual adds {kept} features to {made}")
        return int(made)

    def native(self) -> _core.Dense | None:
        """The same in the encoder's native call, if there it can be."""
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
    """Rows of length one."""

    name: str
    reads: str = SENTENCE
    writes: str = SENTENCE

    def width(self, width: int) -> int:
        """The same."""
        return width

    def __call__(self, x: Float32, batch: Batch) -> Float32:  # noqa: ARG002
        each = np.arange(len(x) + 1, dtype=np.int32)  # a sequence of its own
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
        """The same."""
        if width != len(self.weight):
            raise ValueError(
                f"{self.name}: dimension={len(self.weight)},"
                f" but the module before it puts out {width}"
            )
        return width

    def __call__(self, x: Float32, batch: Batch) -> Float32:  # noqa: ARG002
        return layer_norm(x, (x.shape[1],), self.weight, self.bias, 1e-5)


@dataclass(frozen=True)
class Dropout:
    """Nothing, outside training."""

    name: str
    reads: str = SENTENCE
    writes: str = SENTENCE

    def width(self, width: int) -> int:
        """The same."""
        return width

    def __call__(self, x: Float32, batch: Batch) -> Float32:  # noqa: ARG002
        return x


@dataclass(frozen=True)
class WeightedLayerPooling:
    """Each token's mean over the hidden states from layer_start on, by weights."""

    name: str
    weights: Float32
    layer_start: int
    reads: str = LAYERS
    writes: str = TOKENS

    def width(self, width: int) -> int:
        """The same."""
        return width

    def check_layers(self, num_layers: int) -> None:
        """ValueError if there are not as many hidden states as weights."""
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
    """The features of each name's rows behind all steps. given: in front of them.

    ValueError names a step that reads what is not there, or rows of another width.
    """
    widths = dict(given)
    for step in steps:
        if step.reads not in widths:
            raise ValueError(
                f"{step.name}: it reads {step.reads!r}, which no module before it puts out;"
                f" there are {', '.join(widths)}"
            )
        widths[step.writes] = step.width(widths[step.reads])
    return widths
