# SPDX-License-Identifier: Apache-2.0
"""The steps that give a text several vectors: queries are extended with expansion tokens, dense layers
transform the token vectors, and a mask selects the vectors to keep."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simdformer._core import Masks, TransformerStack
from simdformer.checkpoint import naming, read_json
from simdformer.folder.fields import refuse_keys, string, strings
from simdformer.folder.steps import TOKENS, Batch, Step, check_widths
from simdformer.models.config_fields import (
    flag,
    non_negative_int,
    one_of,
    positive_float,
    positive_int,
)

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


class QueryExpansion(NamedTuple):
    """Queries with fewer than `length` tokens are extended with a token, None for the mask token.

    is_fixed: longer queries are truncated to `length`. attends: whether other tokens see the added ones.
    """

    length: int
    is_fixed: bool = True
    attends: bool = False
    token: str | None = None


def read_expansion(value: object) -> QueryExpansion | None:
    """Read query_expansion of sentence_bert_config.json. ValueError if it is invalid."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"query_expansion must be an object or null, got {value!r}")  # noqa: TRY004  (the file is wrong, not the call)
    if unknown := value.keys() - {"strategy", "attend", "token", "length"}:
        raise ValueError(f"query_expansion: {', '.join(map(repr, sorted(unknown)))}: not supported")
    return QueryExpansion(
        positive_int(value, "length"),
        one_of(value, "strategy", ["fixed", "min"], "") == "fixed",
        flag(value, "attend", False),
        string(value, "token", None),
    )


def read_pooling(path: Path) -> dict[str, Any]:
    """Read HierarchicalTokenPooling's config.json. It normalizes vectors only if the file says so."""
    config = read_json(path)
    known = ("pool_factor", "num_protected_tokens", "normalize_embeddings", "tasks")
    refuse_keys(path, config, known)
    with naming(path):
        if (factor := positive_float(config, "pool_factor", 1)) < 1:
            raise ValueError(f"pool_factor must be at least 1, got {factor}")
        return {
            "pool_factor": factor,
            "num_protected_tokens": non_negative_int(config, "num_protected_tokens", 1),
            "normalize_embeddings": flag(config, "normalize_embeddings", False),
            "tasks": strings(config, "tasks", None),
        }


class Scored(NamedTuple):
    """The tokens whose vectors are kept (MultiVectorMask).

    skipped: ids that are left out in texts of `tasks`. kept: if not None, the only ids that are kept in texts
    other than queries.
    """

    skipped: Collection[int] = ()
    tasks: Collection[str] = ("document",)
    kept: Collection[int] | None = None

    def mask(self, input_ids: Int32, task: str | None) -> NDArray[np.bool_]:
        """Whether each token is kept."""
        mask = np.ones(len(input_ids), bool)
        if (task or "document") in self.tasks and self.skipped:
            mask &= ~np.isin(input_ids, list(self.skipped))
        if task != "query" and self.kept:
            mask &= np.isin(input_ids, list(self.kept))
        return mask


class Packed(NamedTuple):
    """A batch. seen: for each text, the number of tokens that tokens may attend to; None for all."""

    input_ids: Int32
    cu_seqlens: Int32
    token_type_ids: Int32 | None
    seen: Int32 | None


def expanded(batch: tuple[Any, ...], length: int, token: int, *, attends: bool) -> Packed:
    """Extend shorter texts to `length` tokens."""
    input_ids, cu, type_ids = (*batch, None)[:3]
    lengths = np.diff(cu)
    filled = np.maximum(lengths, length)
    offsets = np.concatenate([[0], np.cumsum(filled)]).astype(np.int32)
    ids = np.full(offsets[-1], token, np.int32)
    places = np.arange(len(input_ids)) + np.repeat(offsets[:-1] - cu[:-1], lengths)
    ids[places] = input_ids
    types = None
    if type_ids is not None:
        types = np.zeros(offsets[-1], np.int32)
        types[places] = type_ids
    is_whole = attends or bool((lengths == filled).all())
    return Packed(ids, offsets, types, None if is_whole else lengths.astype(np.int32))


class MultiVector:
    """The counterpart of Chain for models with MultiVectorMask.

    steps: applied to token vectors. expansion: None for none. token: the id that extends queries.
    """

    include_prompt = True
    reads_layers = False

    def __init__(self, name: str, steps: tuple[Step, ...]) -> None:
        self.steps = steps
        self.scored = Scored()
        self.expansion: QueryExpansion | None = None
        self.token = -1
        self.pooling: Any = None  # of tokens, set from the folder's modules
        self._name = name

    def __call__(self, stack: TransformerStack) -> MultiVectorStack:
        """Combine with an encoder. ValueError if modules do not fit the encoder or each other."""
        widths = check_widths(self.steps, {TOKENS: stack.hidden_size})
        return MultiVectorStack(stack, self, widths[TOKENS])


class MultiVectorStack:
    """An encoder with the steps that make vectors of its tokens."""

    def __init__(self, stack: TransformerStack, chain: MultiVector, width: int) -> None:
        self._stack = stack
        self._chain = chain
        self.embedding_dimension = width

    def encode(self, *_: Any, **__: Any) -> Float32:
        """Not supported: a text has several vectors, not one row."""
        raise ValueError("a text has several vectors here: encode gives all of them")

    def save(self, *_: Any, **__: Any) -> None:
        """ValueError, because a text has several rows."""
        raise ValueError("a MultiVectorEncoder gives a vector per token, so it cannot be exported")

    def least_tokens(self, task: str | None) -> int:
        """The number of tokens to which shorter texts are extended."""
        expansion = self._chain.expansion
        return 0 if expansion is None or task != "query" else expansion.length

    def token_vectors(
        self, batch: tuple[Any, ...], task: str | None, num_threads: int
    ) -> list[Float32]:
        """The vectors of packed texts: float32 (number of kept tokens, width) for each text."""
        chain, length = self._chain, self.least_tokens(task)
        ids, cu, types = (*batch, None)[:3]
        packed = Packed(ids, cu, types, None)
        if chain.expansion is not None and length:
            packed = expanded(batch, length, chain.token, attends=chain.expansion.attends)
        rows = self._rows(packed, num_threads)
        state = Batch(packed.cu_seqlens, 0, num_threads)
        for step in chain.steps:
            rows = step(rows, state)
        mask = chain.scored.mask(packed.input_ids, task)
        ends = np.concatenate([[0], np.cumsum(mask)])[packed.cu_seqlens[1:-1]]
        return np.split(rows[mask], ends)

    def _rows(self, packed: Packed, num_threads: int) -> Float32:
        """The encoder's output for each token."""
        ids, cu, types, seen = packed
        if seen is None:
            return self._stack.encode(ids, cu, types, num_threads=num_threads)
        out = np.empty((len(ids), self._stack.hidden_size), np.float32)
        key_mask = np.arange(int(np.diff(cu).max()))[None] < seen[:, None]
        self._stack.forward(
            ids,
            cu,
            out,
            token_type_ids=types,
            masks=Masks(key_mask=key_mask[:, None, None]),
            num_threads=num_threads,
        )
        return out
