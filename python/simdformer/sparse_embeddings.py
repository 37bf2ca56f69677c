# SPDX-License-Identifier: Apache-2.0
"""SparseEmbeddings: rows of a vocabulary that are mostly zeros, compressed by rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Array = NDArray[Any]
# A norm below this divides by it instead, as torch.nn.functional.normalize does.
_SMALLEST = 1e-12


class SparseEmbeddings:
    """What SparseEncoder gives: the elements of a matrix, or of one row, that are not 0.

    The names are those of scipy.sparse.csr_array, which `to_scipy` gives. Nothing here needs SciPy.

    Parameters
    ----------
    data : array of float32, (nnz,)
        The elements, row by row.
    indices : array of int32, (nnz,)
        The column of each, ascending within a row: a token's id.
    indptr : array of int64, (rows + 1,)
        Row i is elements indptr[i] to indptr[i + 1].
    shape : tuple of int
        (rows, vocabulary), or (vocabulary,) of one row.

    Examples
    --------
    >>> import numpy as np
    >>> row = SparseEmbeddings(np.float32([2.5]), np.int32([3]), np.int64([0, 1]), (5,))
    >>> row.toarray()
    array([0. , 0. , 0. , 2.5, 0. ], dtype=float32)
    """

    def __init__(self, data: Array, indices: Array, indptr: Array, shape: Sequence[int]) -> None:
        self.data, self.indices, self.indptr = data, indices, indptr
        self.shape = tuple(shape)

    @property
    def ndim(self) -> int:
        """2, or 1 of one row."""
        return len(self.shape)

    @property
    def nnz(self) -> int:
        """The number of elements that are not 0."""
        return len(self.data)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the elements: float32."""
        return self.data.dtype

    def __repr__(self) -> str:
        return f"SparseEmbeddings(shape={self.shape}, nnz={self.nnz})"

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[SparseEmbeddings]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice) -> SparseEmbeddings:
        """A row, or consecutive ones. IndexError beyond the rows, TypeError for other indices."""
        if self.ndim != 2:
            raise TypeError(
                "one row of SparseEmbeddings has no rows; see indices and data, or toarray()"
            )
        if isinstance(index, slice):
            rows = np.arange(len(self))[index]
            return stacked([self[int(i)] for i in rows], self.shape[1])
        i = range(len(self))[index]
        part = slice(self.indptr[i], self.indptr[i + 1])
        bounds = np.array([0, part.stop - part.start], np.int64)
        return SparseEmbeddings(self.data[part], self.indices[part], bounds, self.shape[1:])

    def toarray(self) -> Float32:
        """The array with its zeros, float32 of `shape`."""
        out = np.zeros((len(self.indptr) - 1, self.shape[-1]), np.float32)
        out[np.repeat(np.arange(len(out)), np.diff(self.indptr)), self.indices] = self.data
        return out.reshape(self.shape)

    def to_scipy(self) -> Any:
        """A scipy.sparse.csr_array of the same arrays; of one row a matrix of one row.

        ImportError without SciPy.
        """
        shape = (len(self.indptr) - 1, self.shape[-1])
        return import_module("scipy.sparse").csr_array(
            (self.data, self.indices, self.indptr), shape=shape
        )

    def to_torch(self) -> Any:
        """A sparse torch.Tensor in coordinates. ImportError without PyTorch."""
        torch = import_module("torch")
        places = [self.indices]
        if self.ndim == 2:
            places.insert(0, np.repeat(np.arange(len(self)), np.diff(self.indptr)))
        indices = torch.from_numpy(np.array(places, np.int64))
        values = torch.from_numpy(np.array(self.data))
        return torch.sparse_coo_tensor(indices, values, self.shape, is_coalesced=True)

    def largest(self, count: int) -> SparseEmbeddings:
        """Of each row the `count` largest elements, of equal ones those of the lower columns."""
        rows = [self] if self.ndim == 1 else list(self)
        kept = [_largest(row, count) for row in rows]
        return kept[0] if self.ndim == 1 else stacked(kept, self.shape[1])


def _largest(row: SparseEmbeddings, count: int) -> SparseEmbeddings:
    if row.nnz <= count:
        return row
    kept = np.sort(np.argsort(-row.data, kind="stable")[:count])
    bounds = np.array([0, count], np.int64)
    return SparseEmbeddings(row.data[kept], row.indices[kept], bounds, row.shape)


def stacked(rows: Sequence[SparseEmbeddings], width: int) -> SparseEmbeddings:
    """Rows, or matrices, below one another."""
    counts = [np.diff(row.indptr) for row in rows]
    indptr = np.concatenate([[0], *counts]).cumsum().astype(np.int64)
    data = np.concatenate([np.empty(0, np.float32), *(row.data for row in rows)])
    indices = np.concatenate([np.empty(0, np.int32), *(row.indices for row in rows)])
    return SparseEmbeddings(data, indices, indptr, (len(indptr) - 1, width))


def as_sparse(name: str, embeddings: Any) -> SparseEmbeddings:
    """SparseEmbeddings of what SparseEncoder gives, a list of rows, an array, SciPy's or torch's.

    Errors: TypeError for anything else, ValueError for other than 1 or 2 dimensions, and for rows of
    several lengths.
    """
    if isinstance(embeddings, SparseEmbeddings):
        return embeddings
    if isinstance(embeddings, (list, tuple)):
        rows = [as_sparse(f"{name}[{i}]", row) for i, row in enumerate(embeddings)]
        widths = {row.shape[-1] for row in rows}
        if len(widths) > 1:
            raise ValueError(f"{name} has rows of several lengths: {sorted(widths)}")
        return stacked(rows, widths.pop() if widths else 0)
    if getattr(embeddings, "is_sparse", False):  # torch's
        embeddings = embeddings.to_dense()
    if callable(dense := getattr(embeddings, "toarray", None)):  # SciPy's
        embeddings = dense()
    array = np.asarray(embeddings)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must be SparseEmbeddings or floating point, got {array.dtype}")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name} must have 1 or 2 dimensions, got shape {array.shape}")
    matrix = np.atleast_2d(np.asarray(array, np.float32))
    owners, indices = np.nonzero(matrix)
    indptr = np.searchsorted(owners, np.arange(len(matrix) + 1)).astype(np.int64)
    data = matrix[owners, indices]
    return SparseEmbeddings(data, indices.astype(np.int32), indptr, array.shape)


# --- similarity ---


def similarities(name: str, a: SparseEmbeddings, b: SparseEmbeddings) -> Float32:
    """Each row of a compared with each of b by "dot", "cosine", "euclidean" or "manhattan", distances
    negated. Returns: (rows of a, rows of b). A score's bits depend on its two rows alone."""
    out = np.empty((len(a), len(b)), np.float32)
    squares = _row_sums(b, _square(b.data))
    for i, row in enumerate(a):
        out[i] = _scores(name, row, b, squares)
    return out


def pairwise_similarities(name: str, a: SparseEmbeddings, b: SparseEmbeddings) -> Float32:
    """Row i of a compared with row i of b. Returns: (rows,)."""
    pairs = (
        similarities(name, stacked([x], a.shape[1]), stacked([y], b.shape[1]))
        for x, y in zip(a, b, strict=True)
    )
    return np.array([pair[0, 0] for pair in pairs], np.float32)


def _scores(name: str, row: SparseEmbeddings, b: SparseEmbeddings, squares: Array) -> Array:
    wide = row.toarray().astype(np.float64)
    met = wide[b.indices]
    if name == "manhattan":  # where b has an element, its distance stands for the row's own
        distances = np.abs(wide).sum() + _row_sums(b, np.abs(met - b.data) - np.abs(met))
        return np.asarray(-distances)
    dots = _row_sums(b, met * b.data)
    if name == "dot":
        return dots
    square = float(_square(wide).sum())
    if name == "euclidean":
        return np.asarray(-np.sqrt(np.maximum(square + squares - 2 * dots, 0)))
    norms = np.maximum(np.sqrt(squares), _SMALLEST) * max(float(np.sqrt(square)), _SMALLEST)
    return np.asarray(dots / norms)


def _square(values: Array) -> Array:
    return np.asarray(np.square(values, dtype=np.float64))


def _row_sums(b: SparseEmbeddings, values: Array) -> Array:
    """The sums of each row's values, one an element of b; float64 (rows,)."""
    sums = np.zeros(len(b.indptr) - 1)
    filled = np.flatnonzero(np.diff(b.indptr))  # reduceat gives an empty row its successor's value
    if len(filled):
        sums[filled] = np.add.reduceat(values, b.indptr[filled])
    return sums
