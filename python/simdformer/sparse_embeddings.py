# SPDX-License-Identifier: Apache-2.0
"""SparseEmbeddings: sparse rows over a vocabulary, in compressed sparse row format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Array = NDArray[Any]
# Norms below this are replaced by it before dividing, as in torch.nn.functional.normalize.
_SMALLEST = 1e-12


class SparseEmbeddings:
    """Result of SparseEncoder: the nonzero elements of a matrix, or of one row.

    The attributes have the names of scipy.sparse.csr_array. Only `to_scipy` needs SciPy.

    Parameters
    ----------
    data : array of float32, (nnz,)
        The elements, row by row.
    indices : array of int32, (nnz,)
        The column of each element, which is a token's id; ascending within a row.
    indptr : array of int64, (rows + 1,)
        Row i is elements indptr[i] to indptr[i + 1].
    shape : tuple of int
        (rows, vocabulary), or (vocabulary,) for a single row.

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
        """2, or 1 for a single row."""
        return len(self.shape)

    @property
    def nnz(self) -> int:
        """The number of nonzero elements."""
        return len(self.data)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the elements, float32."""
        return self.data.dtype

    def __repr__(self) -> str:
        return f"SparseEmbeddings(shape={self.shape}, nnz={self.nnz})"

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[SparseEmbeddings]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice) -> SparseEmbeddings:
        """Return a row, or the rows of a slice.

        IndexError if the row does not exist, TypeError for other indices.
        """
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
        """Return the array with its zeros, float32 of `shape`."""
        out = np.zeros((len(self.indptr) - 1, self.shape[-1]), np.float32)
        out[np.repeat(np.arange(len(out)), np.diff(self.indptr)), self.indices] = self.data
        return out.reshape(self.shape)

    todense = toarray

    def to_scipy(self) -> Any:
        """Return a scipy.sparse.csr_array that shares the arrays; a single row becomes a matrix.

        ImportError without SciPy.
        """
        shape = (len(self.indptr) - 1, self.shape[-1])
        return import_module("scipy.sparse").csr_array(
            (self.data, self.indices, self.indptr), shape=shape
        )

    def to_torch(self) -> Any:
        """Return a torch.Tensor in the sparse COO format. ImportError without PyTorch."""
        torch = import_module("torch")
        places = [self.indices]
        if self.ndim == 2:
            places.insert(0, np.repeat(np.arange(len(self)), np.diff(self.indptr)))
        indices = torch.from_numpy(np.array(places, np.int64))
        values = torch.from_numpy(np.array(self.data))
        return torch.sparse_coo_tensor(indices, values, self.shape, is_coalesced=True)

    def largest(self, count: int) -> SparseEmbeddings:
        """Keep the `count` largest elements of each row; of equal elements those in lower columns."""
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
    """Stack rows or matrices."""
    counts = [np.diff(row.indptr) for row in rows]
    indptr = np.concatenate([[0], *counts]).cumsum().astype(np.int64)
    data = np.concatenate([np.empty(0, np.float32), *(row.data for row in rows)])
    indices = np.concatenate([np.empty(0, np.int32), *(row.indices for row in rows)])
    return SparseEmbeddings(data, indices, indptr, (len(indptr) - 1, width))


def as_sparse(name: str, embeddings: Any) -> SparseEmbeddings:
    """Convert embeddings to SparseEmbeddings: a list of rows, an array, or SciPy's or torch's arrays.

    Errors: TypeError for other types, ValueError unless there are 1 or 2 dimensions and all rows have the
    same length.
    """
    if isinstance(embeddings, SparseEmbeddings):
        return embeddings
    if isinstance(embeddings, (list, tuple)):
        rows = [as_sparse(f"{name}[{i}]", row) for i, row in enumerate(embeddings)]
        widths = {row.shape[-1] for row in rows}
        if len(widths) > 1:
            raise ValueError(f"{name} has rows of different lengths: {sorted(widths)}")
        return stacked(rows, widths.pop() if widths else 0)
    if getattr(embeddings, "is_sparse", False):  # a torch tensor
        embeddings = embeddings.to_dense()
    if callable(dense := getattr(embeddings, "toarray", None)):  # a SciPy array
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
    """Compare each row of a with each row of b by "dot", "cosine", "euclidean" or "manhattan". Distances are
    negated.

    Returns: (rows of a, rows of b). The bits of a score depend only on its two rows.
    """
    out = np.empty((len(a), len(b)), np.float32)
    squares = _row_sums(b, _square(b.data))
    for i, row in enumerate(a):
        out[i] = _scores(name, row, b, squares)
    return out


def pairwise_similarities(name: str, a: SparseEmbeddings, b: SparseEmbeddings) -> Float32:
    """Compare row i of a with row i of b. Returns: (rows,)."""
    pairs = (
        similarities(name, stacked([x], a.shape[1]), stacked([y], b.shape[1]))
        for x, y in zip(a, b, strict=True)
    )
    return np.array([pair[0, 0] for pair in pairs], np.float32)


def _scores(name: str, row: SparseEmbeddings, b: SparseEmbeddings, squares: Array) -> Array:
    wide = row.toarray().astype(np.float64)
    met = wide[b.indices]
    if name == "manhattan":  # where b has an element, |a - b| replaces |a|
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
    """The sum of the values of each row, given one value per element of b; float64 (rows,)."""
    sums = np.zeros(len(b.indptr) - 1)
    filled = np.flatnonzero(np.diff(b.indptr))  # reduceat gives an empty row the next row's value
    if len(filled):
        sums[filled] = np.add.reduceat(values, b.indptr[filled])
    return sums
