# SPDX-License-Identifier: Apache-2.0
"""What gives a text a row of the vocabulary that is mostly zeros: SpladePooling behind a masked language
model's head, and SparseStaticEmbedding."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simdformer._core import Linear, TransformerStack, VocabularyStack
from simdformer.checkpoint.weights import Float32
from simdformer.models.masked_language_model import BuiltMaskedHead

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
# Bytes of rows before their zeros are left out.
_DENSE_BYTES = 64 << 20


class SparseRows(NamedTuple):
    """Rows without their zeros. counts: int64 (rows,), of each row's elements; indices: int32, ascending in a
    row; data: float32."""

    counts: Int64
    indices: Int32
    data: Float32


class Splade:
    """SpladePooling, in the place of a Chain: made when the model is read, its head later.

    sums: whether tokens add up. logarithms: how often log(1 + x) is taken.
    """

    steps = ()
    include_prompt = True  # it pools all tokens in any case
    reads_layers = False

    def __init__(self, *, sums: bool, logarithms: int) -> None:
        self._options: dict[str, Any] = {"sums": sums, "logarithms": logarithms}
        self.head: BuiltMaskedHead | None = None
        self.vocabulary: Linear | None = None  # the table of words, if it is one with the head

    def __call__(self, stack: TransformerStack) -> SpladeStack:
        """Behind an encoder."""
        assert self.head is not None
        bias, transform = self.head.bias, self.head.transform
        return SpladeStack(
            VocabularyStack(stack, self.vocabulary, bias, transform, **self._options)
        )


class SpladeStack:
    """A masked language model that gives each text a row."""

    def __init__(self, native: VocabularyStack) -> None:
        self._native = native
        self.embedding_dimension = native.embedding_dimension

    def encode(self, *args: Any, **kwargs: Any) -> Float32:
        """PooledStack.encode's arguments and result."""
        return self._native.encode(*args, **kwargs)

    def sparse_rows(
        self, input_ids: Any, cu_seqlens: Any, token_type_ids: Any = None, *, num_threads: int = 0
    ) -> SparseRows:
        """The rows of packed texts, some at a time, so that few whole ones are there at once."""
        step = max(1, _DENSE_BYTES // (4 * self.embedding_dimension))
        parts = []
        for first in range(0, len(cu_seqlens) - 1, step):
            cu = np.asarray(cu_seqlens[first : first + step + 1])
            tokens = slice(int(cu[0]), int(cu[-1]))
            types = None if token_type_ids is None else token_type_ids[tokens]
            rows = self._native.encode(
                input_ids[tokens], cu - cu[0], types, num_threads=num_threads
            )
            parts.append(without_zeros(rows))
        return SparseRows(*map(np.concatenate, zip(*parts, strict=True)))


def without_zeros(rows: Float32) -> SparseRows:
    """Rows, what is not finite among their elements."""
    places = np.flatnonzero(rows)
    owners, indices = np.divmod(places, rows.shape[1])
    counts = np.bincount(owners, minlength=len(rows))
    return SparseRows(counts, indices.astype(np.int32), rows.reshape(-1)[places])


class StaticWeights:
    """SparseStaticEmbedding, in the place of a Chain: each token's weight, once a text."""

    steps = ()
    include_prompt = True
    reads_layers = False

    def __init__(self, weight: Float32) -> None:
        self.weight = weight
        self.embedding_dimension = len(weight)

    def __call__(self, stack: TransformerStack) -> StaticWeights:  # noqa: ARG002
        """Behind an encoder, which it does not run."""
        return self

    def sparse_rows(
        self,
        input_ids: Any,
        cu_seqlens: Any,
        *_: Any,
        num_threads: int = 0,  # noqa: ARG002
    ) -> SparseRows:
        """The rows of packed texts."""
        ids = np.asarray(input_ids)
        if len(ids) and not (ids.min() >= 0 and ids.max() < len(self.weight)):
            raise IndexError(
                f"token ids must be in [0, {len(self.weight)}), the weights that there are"
            )
        owners = np.repeat(np.arange(len(cu_seqlens) - 1), np.diff(cu_seqlens))
        places = np.unique(owners * np.int64(len(self.weight)) + ids)
        owners, indices = np.divmod(places, len(self.weight))
        data = self.weight[indices]
        kept = data != 0
        counts = np.bincount(owners[kept], minlength=len(cu_seqlens) - 1)
        return SparseRows(counts, indices[kept].astype(np.int32), data[kept])

    def encode(self, input_ids: Any, cu_seqlens: Any, *_: Any, **__: Any) -> Float32:
        """The same rows with their zeros."""
        counts, indices, data = self.sparse_rows(input_ids, cu_seqlens)
        rows = np.zeros((len(counts), len(self.weight)), np.float32)
        rows[np.repeat(np.arange(len(counts)), counts), indices] = data
        return rows
