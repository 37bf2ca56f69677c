# SPDX-License-Identifier: Apache-2.0
"""The steps that give a text a sparse row over the vocabulary: SpladePooling after a masked language model's
head, and SparseStaticEmbedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simdformer._core import Linear, TransformerStack, VocabularyStack
from simdformer.checkpoint.weights import Float32
from simdformer.models.masked_language_model import BuiltMaskedHead

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
# The largest size, in bytes, of dense rows before their zeros are removed.
_DENSE_BYTES = 64 << 20


class SparseRows(NamedTuple):
    """Rows without their zeros.

    counts: int64 (rows,), the number of elements of each row. indices: int32, ascending in each row. data:
    float32.
    """

    counts: Int64
    indices: Int32
    data: Float32


class Splade:
    """SpladePooling, the counterpart of Chain. It is made when the model is opened; its head is set later.

    sums: whether token values are added, else their maximum is taken. logarithms: how often log(1 + x) is
    applied.
    """

    steps = ()
    include_prompt = True  # it always pools all tokens
    reads_layers = False

    def __init__(self, *, sums: bool, logarithms: int) -> None:
        self._options: dict[str, Any] = {"sums": sums, "logarithms": logarithms}
        self.head: BuiltMaskedHead | None = None
        self.vocabulary: Linear | None = None  # None if the head shares the word embeddings

    def __call__(self, stack: TransformerStack) -> SpladeStack:
        """Combine with an encoder."""
        assert self.head is not None
        bias, layer = self.head.bias, self.head.transform
        transform = None if layer is None else layer.native()
        return SpladeStack(
            VocabularyStack(stack, self.vocabulary, bias, transform, **self._options)
        )


class SpladeStack:
    """A masked language model that returns one row per text."""

    def __init__(self, native: VocabularyStack) -> None:
        self._native = native
        self.embedding_dimension = native.embedding_dimension

    def encode(self, *args: Any, **kwargs: Any) -> Float32:
        """As PooledStack.encode."""
        return self._native.encode(*args, **kwargs)

    def save(self, write: Callable[[memoryview], object], **output: Any) -> None:
        """The arguments of _core.VocabularyStack.save."""
        self._native.save(write, **output)

    def sparse_rows(
        self, input_ids: Any, cu_seqlens: Any, token_type_ids: Any = None, *, num_threads: int = 0
    ) -> SparseRows:
        """The rows of packed texts, computed in groups so that few dense rows exist at a time."""
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
    """Rows without their zeros. NaN and infinity are kept."""
    places = np.flatnonzero(rows)
    owners, indices = np.divmod(places, rows.shape[1])
    counts = np.bincount(owners, minlength=len(rows))
    return SparseRows(counts, indices.astype(np.int32), rows.reshape(-1)[places])


class StaticWeights:
    """SparseStaticEmbedding, the counterpart of Chain: the weight of each token, once per text."""

    steps = ()
    include_prompt = True
    reads_layers = False

    def __init__(self, weight: Float32) -> None:
        self.weight = weight
        self.embedding_dimension = len(weight)

    def __call__(self, stack: TransformerStack) -> StaticWeights:  # noqa: ARG002
        """Combine with an encoder, which is not run."""
        return self

    def save(self, *_: Any, **__: Any) -> None:
        """ValueError, because there is no native model."""
        raise ValueError("SparseStaticEmbedding is a table of weights, which cannot be exported")

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
