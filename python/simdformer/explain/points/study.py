# SPDX-License-Identifier: Apache-2.0
"""The common data of the eight points: the model, the texts, the model's results, and modified copies of
it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simdformer import ModelOutput, SentenceTransformer
from simdformer.explain.embedded import with_encoder
from simdformer.nn import TransformerEncoderLayer
from simdformer.nn.parameters import float32_of

Array = NDArray[Any]

EXAMPLE = "The cat sat on the mat because it was tired."


class Head(NamedTuple):
    """A head's queries and keys (n, head_dim), values (n, head_dim), and the scale of its scores."""

    query: Array
    key: Array
    value: Array
    scale: float


@dataclass(frozen=True)
class Study:
    """A model without a default prompt, and the texts for measurements. text: the one whose maps are
    shown."""

    model: SentenceTransformer
    texts: Sequence[str]
    text: str = EXAMPLE

    @cached_property
    def outputs(self) -> list[ModelOutput]:
        """Attentions and hidden states of all texts."""
        return self.run(self.model, self.texts)

    @cached_property
    def output(self) -> ModelOutput:
        """Attentions and hidden states of `text`."""
        return self.run(self.model, [self.text])[0]

    @property
    def num_layers(self) -> int:
        """The number of layers of the model."""
        return len(self.model.encoder.layers)

    @staticmethod
    def run(model: SentenceTransformer, texts: Sequence[str]) -> list[ModelOutput]:
        """Compute attentions and hidden states."""
        found: list[ModelOutput] = model.outputs(
            list(texts), output_attentions=True, output_hidden_states=True
        )
        return found

    def changed(self, change: Callable[[TransformerEncoderLayer], None]) -> SentenceTransformer:
        """A copy of the model with a change in each layer."""
        encoder = copy.deepcopy(self.model.encoder)
        for layer in encoder.layers:
            change(layer)
        return with_encoder(self.model, encoder)

    def heads(self, output: ModelOutput, layer: int) -> Iterator[Head]:
        """The heads of a layer for one text. ValueError if scores depend on more than queries and keys."""
        module = self.model.encoder.layers[layer]
        attention = module.self_attn
        unlike = {
            "positions": attention.position is not None,
            "a norm of queries and keys": attention.q_norm is not None,
            f"score {attention.score!r}": attention.score != "scaled_dot",
            "a window": tuple(attention.window_size) != (-1, -1),
            "shared keys and values": attention.num_kv_heads != attention.num_heads,
        }
        if found := [name for name, there in unlike.items() if there]:
            raise ValueError(f"the model's attention has {', '.join(found)}")
        states = (output.hidden_states or ())[layer]
        rows = module.norm1(states) if module.norm_first else states
        joined = rows @ float32_of(attention.in_proj_weight).T
        if attention.has("in_proj_bias"):
            joined = joined + attention.in_proj_bias
        width = attention.head_dim
        parts = joined.reshape(len(rows), 3, attention.num_heads, width).astype(np.float32)
        scale = width**-0.5 if attention.scale is None else attention.scale
        for head in range(attention.num_heads):
            query, key, value = np.ascontiguousarray(parts[:, :, head].swapaxes(0, 1))
            yield Head(query, key, value, scale)


def default_texts() -> list[str]:
    """64 English sentences, most of them with ten words."""
    path = Path(__file__).with_name("texts.txt")
    return path.read_text(encoding="utf-8").splitlines()


def mean_over(values: Sequence[Any]) -> Array:
    """The mean over the first axis in float64, without NaN."""
    return np.asarray(np.nanmean(np.asarray(values, np.float64), axis=0))


def embeddings(outputs: Sequence[ModelOutput]) -> Array:
    """The embeddings of texts: float64 (texts, dim)."""
    return np.array([output.sentence_embedding for output in outputs], np.float64)


def maps_of(output: ModelOutput) -> list[Array]:
    """The attention weights of every layer, (heads, n, n) each."""
    return [layer for layer in output.attentions or () if layer is not None]
