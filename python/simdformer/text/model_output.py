# SPDX-License-Identifier: Apache-2.0
"""Intermediate results of a model: attention weights, head outputs and hidden states, with the names of
transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import index
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simdformer._core import TransformerStack
from simdformer.text.batching import TokenBatch
from simdformer.text.protocols import PooledModel

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
# Layers and heads by number; True for all of them.
Layers = bool | Iterable[SupportsIndex]
LayersAndHeads = bool | Iterable[SupportsIndex] | Mapping[int, Iterable[SupportsIndex]]

# The default limit for the total size of the arrays of one call.
MAX_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class ModelOutput:
    """What a model computed for one text, or one pair, of n tokens.

    Attributes
    ----------
    tokens
        The n tokens as strings of the vocabulary.
    input_ids, token_type_ids
        int64 (n,).
    last_hidden_state
        float32 (n, hidden_size), the same bits as encode's "token_embeddings".
    sentence_embedding
        float32 (dim,), the same bits as `encode`; None for a CrossEncoder.
    logits
        float32 (num_labels,), before the activation; None for a SentenceTransformer.
    hidden_states
        None, or num_layers + 1 arrays float32 (n, hidden_size): the input of each layer and the last
        hidden state.
    attentions
        None, or for each layer None or float32 (heads, n, n): the weight that query i gives to key j,
        for the requested heads in the requested order, times the head mask.
    head_outputs
        None, or for each layer None or float32 (n, num_heads, head_dim): the heads' outputs before the
        output projection, times the head mask.

    Examples
    --------
    >>> from simdformer import SentenceTransformer
    >>> output = SentenceTransformer("all-MiniLM-L6-v2").outputs("A cat.", output_attentions=True)
    >>> output.tokens, output.attentions[0].shape
    (('[CLS]', 'a', 'cat', '.', '[SEP]'), (12, 5, 5))
    """

    tokens: tuple[str, ...]
    input_ids: Int64
    token_type_ids: Int64
    last_hidden_state: Float32
    sentence_embedding: Float32 | None
    logits: Float32 | None
    hidden_states: tuple[Float32, ...] | None
    attentions: tuple[Float32 | None, ...] | None
    head_outputs: tuple[Float32 | None, ...] | None

    def with_dim(self, truncate_dim: int | None) -> ModelOutput:
        """Return a copy with the leading dimensions of sentence_embedding; None for all."""
        if truncate_dim is None or self.sentence_embedding is None:
            return self
        return replace(self, sentence_embedding=self.sentence_embedding[:truncate_dim])


@dataclass(frozen=True, eq=False)
class OutputRequest:
    """The results that a call requests from a stack of L layers.

    attentions: the heads of each layer, or None. head_outputs: for each layer, whether they are requested.
    head_mask: float32 (L, num_heads), or None for ones.
    """

    stack: TransformerStack
    hidden_states: bool = False
    attentions: tuple[tuple[int, ...] | None, ...] | None = None
    head_outputs: tuple[bool, ...] | None = None
    head_mask: Float32 | None = None

    @classmethod
    def of(
        cls,
        stack: TransformerStack,
        output_attentions: LayersAndHeads,
        output_hidden_states: bool,
        output_head_outputs: Layers,
        head_mask: ArrayLike | None,
    ) -> OutputRequest:
        """Check the arguments of `outputs`. TypeError and ValueError give their names."""
        chosen = _layers("output_head_outputs", output_head_outputs, stack.num_layers)
        return cls(
            stack,
            hidden_states=_flag("output_hidden_states", output_hidden_states),
            attentions=_attentions(output_attentions, stack),
            head_outputs=tuple(i in chosen for i in range(stack.num_layers)) if chosen else None,
            head_mask=_head_mask(head_mask, stack),
        )

    def check_bytes(self, lengths: Iterable[int], max_bytes: int | None) -> None:
        """ValueError if texts with this number of tokens need more than max_bytes for arrays (None: no
        limit)."""
        if max_bytes is None or (needed := self._bytes(lengths)) <= max_bytes:
            return
        raise ValueError(
            f"the requested arrays take {needed} bytes, max_bytes is {max_bytes}: ask for fewer texts,"
            " layers or heads, or for more bytes"
        )

    def _bytes(self, lengths: Iterable[int]) -> int:
        stack = self.stack
        states = stack.num_layers + 1 if self.hidden_states else 1
        a_token = states * stack.hidden_size
        for (heads, width), wanted in zip(stack.layer_heads, self.head_outputs or (), strict=False):
            a_token += wanted * heads * width
        a_pair = sum(map(len, filter(None, self.attentions or ())))
        return 4 * sum(n * a_token + n * n * a_pair for n in lengths)


def run(
    native: PooledModel,
    request: OutputRequest,
    batch: TokenBatch,
    spell: Callable[[Sequence[int]], tuple[str, ...]],
    *,
    field: str = "sentence_embedding",
    **call: Any,
) -> list[ModelOutput]:
    """Run one pass over a batch. With attentions the batch contains one text, because nothing is padded.

    spell: from ids to tokens. field: the result of native, sentence_embedding or logits. call: further
    arguments of its encode.
    """
    stack, length = request.stack, len(batch.input_ids)
    layer_heads = stack.layer_heads
    first = 0 if request.hidden_states else stack.num_layers
    states: list[Float32 | None] = [
        None if i < first else np.empty((length, stack.hidden_size), np.float32)
        for i in range(stack.num_layers + 1)
    ]
    heads_out = [
        np.empty((length, heads * width), np.float32) if wanted else None
        for (heads, width), wanted in zip(layer_heads, request.head_outputs or (), strict=False)
    ]
    weights = [
        None if heads is None else np.empty((1, len(heads), length, length), np.float32)
        for heads in request.attentions or ()
    ]
    mask = request.head_mask
    pooled = native.encode(
        *batch,
        hidden_states=states,
        head_outputs=heads_out,
        self_weights=weights,
        weights_heads=[heads or () for heads in request.attentions or ()],
        head_masks=[] if mask is None else layer_masks(mask[None]),
        **call,
    )
    arrays = _Arrays(
        hidden_states=[array for array in states if array is not None],
        attentions=tuple(None if array is None else array[0] for array in weights) or None,
        head_outputs=[
            None if array is None else array.reshape(length, *layer_heads[layer])
            for layer, array in enumerate(heads_out)
        ],
    )
    texts = pairwise(batch.cu_seqlens.tolist())
    return [
        _of_a_text(request, batch, slice(*text), arrays, spell, **{field: pooled[i]})
        for i, text in enumerate(texts)
    ]


class _Arrays(NamedTuple):
    """The additional results of a pass over a batch."""

    hidden_states: list[Float32]
    attentions: tuple[Float32 | None, ...] | None
    head_outputs: list[Float32 | None]


def _of_a_text(
    request: OutputRequest,
    batch: TokenBatch,
    own: slice,
    arrays: _Arrays,
    spell: Callable[[Sequence[int]], tuple[str, ...]],
    *,
    sentence_embedding: Float32 | None = None,
    logits: Float32 | None = None,
) -> ModelOutput:
    """The rows of one text in a batch's arrays. own: the rows."""
    ids, types = batch.input_ids[own], batch.token_type_ids
    layers = tuple(array[own] for array in arrays.hidden_states)
    by_head = tuple(None if array is None else array[own] for array in arrays.head_outputs)
    return ModelOutput(
        tokens=spell(ids.tolist()),
        input_ids=ids.astype(np.int64),
        token_type_ids=np.zeros(len(ids), np.int64)
        if types is None
        else types[own].astype(np.int64),
        last_hidden_state=layers[-1],
        sentence_embedding=sentence_embedding,
        logits=logits,
        hidden_states=layers if request.hidden_states else None,
        attentions=arrays.attentions,
        head_outputs=by_head or None,
    )


def layer_masks(head_masks: Float32) -> list[Float32]:
    """The masks (n, num_layers, num_heads) of n texts, as one mask per layer for the native call."""
    return list(head_masks.swapaxes(0, 1)[..., None, None])


def features(output: ModelOutput, prompt_length: int | None, typed: bool) -> dict[str, Any]:
    """A dict of a text in sentence-transformers' order of keys. typed: whether the model has token types."""
    result: dict[str, Any] = {"input_ids": output.input_ids}
    if typed:
        result["token_type_ids"] = output.token_type_ids
    result |= {"attention_mask": np.ones_like(output.input_ids), "modality": "text"}
    if prompt_length is not None:
        result["prompt_length"] = prompt_length
    result["token_embeddings"] = output.last_hidden_state
    if output.hidden_states is not None:
        result["all_layer_embeddings"] = output.hidden_states
    return result | {"sentence_embedding": output.sentence_embedding}


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a bool, got {value!r}")
    return bool(value)


def _numbers(name: str, what: str, given: object, count: int) -> tuple[int, ...]:
    """Numbers from -count to count - 1 as numbers from 0 to count - 1, without repetition."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a bool or give {what}s by number, got {given!r}")
    result: list[int] = []
    for number in given:
        try:
            place = index(number)
        except TypeError:
            raise TypeError(f"{name} must give {what}s by number, got {number!r}") from None
        if not -count <= place < count:
            raise ValueError(f"{name} asks for {what} {place}, there are {count}")
        if place % count in result:
            raise ValueError(f"{name} asks for {what} {place % count} twice")
        result.append(place % count)
    return tuple(result)


def _layers(name: str, given: Layers, count: int) -> tuple[int, ...]:
    if isinstance(given, (bool, np.bool_)):
        return tuple(range(count)) if given else ()
    return _numbers(name, "layer", given, count)


def _attentions(
    given: LayersAndHeads, stack: TransformerStack
) -> tuple[tuple[int, ...] | None, ...] | None:
    name, layers = "output_attentions", stack.layer_heads
    wanted: dict[int, tuple[int, ...]] = {}
    keys = _layers(name, given, len(layers))
    chosen = list(given.values()) if isinstance(given, Mapping) else [True] * len(keys)
    for layer, heads in zip(keys, chosen, strict=True):
        count = layers[layer][0]
        wanted[layer] = (
            tuple(range(count)) if heads is True else _numbers(name, "head", heads, count)
        )
    return tuple(wanted.get(i) for i in range(len(layers))) if wanted else None


def _head_mask(given: ArrayLike | None, stack: TransformerStack) -> Float32 | None:
    if given is None:
        return None
    layers = stack.layer_heads
    heads = layers[0][0]
    try:
        mask = np.asarray(given).astype(np.float32, casting="same_kind")
    except (TypeError, ValueError) as error:
        raise TypeError(f"head_mask must be an array of numbers: {error}") from None
    if mask.shape not in ((heads,), (len(layers), heads)):
        raise ValueError(
            f"head_mask must have shape ({heads},) or ({len(layers)}, {heads}), got {mask.shape}"
        )
    if not np.isfinite(mask).all():
        raise ValueError("head_mask contains a number that is not finite")
    return np.ascontiguousarray(np.broadcast_to(mask, (len(layers), heads)))
