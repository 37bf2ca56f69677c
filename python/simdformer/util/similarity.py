# SPDX-License-Identifier: Apache-2.0
"""Similarity of embeddings: sentence-transformers' four functions, on NumPy arrays.

Distances are negated, so that larger always means more alike. Of torch's tensors the result is one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Similarity = Callable[[ArrayLike, ArrayLike], Any]

# A norm below this divides by it instead, as torch.nn.functional.normalize does: zero stays zero.
_SMALLEST_NORM = 1e-12


def of_tensors(function: Callable[..., Array]) -> Callable[..., Any]:
    """The function of arrays, which gives a torch.Tensor if it is given one."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if any(type(arg).__module__.partition(".")[0] == "torch" for arg in args):
            return sys.modules["torch"].from_numpy(result)
        return result

    return wrapped


def normalize_embeddings(embeddings: Array) -> Array:
    """Each row divided by its L2 norm, in its own precision; rows do not affect each other.

    embeddings: floating point (..., dim). Returns: the same shape and dtype.
    """
    norms = np.sqrt(np.square(embeddings).sum(axis=-1, keepdims=True))
    result: Array = embeddings / np.maximum(norms, embeddings.dtype.type(_SMALLEST_NORM))
    return result


@of_tensors
def cos_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Cosine of the angle. a: (n, dim) or (dim,), b: (m, dim) or (dim,). Returns: (n, m)."""
    a, b = _matrices(a, b)
    return np.asarray(normalize_embeddings(a) @ normalize_embeddings(b).T)


@of_tensors
def dot_score(a: ArrayLike, b: ArrayLike) -> Array:
    """Dot product. Shapes as for cos_sim."""
    a, b = _matrices(a, b)
    return np.asarray(a @ b.T)


@of_tensors
def euclidean_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Negated Euclidean distance. Shapes as for cos_sim.

    |a|^2 - 2ab + |b|^2 cancels for near neighbours, so it is summed in float64.
    """
    a, b = _matrices(a, b)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    squares = np.square(wide_a).sum(axis=1)[:, None] + np.square(wide_b).sum(axis=1)
    distances = np.sqrt(np.maximum(squares - 2 * (wide_a @ wide_b.T), 0))
    return np.asarray(-distances.astype(a.dtype))


@of_tensors
def manhattan_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Negated L1 distance. Shapes as for cos_sim; row by row, for an (n, m, dim) array may be huge."""
    a, b = _matrices(a, b)
    result = np.empty((len(a), len(b)), dtype=a.dtype)
    for i, row in enumerate(a):
        result[i] = -np.abs(b - row).sum(axis=1)
    return result


@of_tensors
def pairwise_cos_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Cosine of a[i] and b[i]. a, b: (n, dim) or (dim,). Returns: (n,) or ()."""
    a, b = _pairs(a, b)
    return np.asarray((normalize_embeddings(a) * normalize_embeddings(b)).sum(axis=-1))


@of_tensors
def pairwise_dot_score(a: ArrayLike, b: ArrayLike) -> Array:
    """Dot product of a[i] and b[i]. Shapes as for pairwise_cos_sim."""
    a, b = _pairs(a, b)
    return np.asarray((a * b).sum(axis=-1))


@of_tensors
def pairwise_euclidean_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Negated Euclidean distance of a[i] and b[i]. Shapes as for pairwise_cos_sim."""
    a, b = _pairs(a, b)
    return np.asarray(-np.sqrt(np.square(a - b).sum(axis=-1)))


@of_tensors
def pairwise_manhattan_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Negated L1 distance of a[i] and b[i]. Shapes as for pairwise_cos_sim."""
    a, b = _pairs(a, b)
    return np.asarray(-np.abs(a - b).sum(axis=-1))


# The older name of cos_sim.
pytorch_cos_sim = cos_sim

SIMILARITIES: dict[str, tuple[Similarity, Similarity]] = {
    "cosine": (cos_sim, pairwise_cos_sim),
    "dot": (dot_score, pairwise_dot_score),
    "euclidean": (euclidean_sim, pairwise_euclidean_sim),
    "manhattan": (manhattan_sim, pairwise_manhattan_sim),
}


class SimilarityFunction(Enum):
    """The functions by sentence-transformers' names."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # noqa: PIE796  (an alias, as there)
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @staticmethod
    def to_similarity_fn(similarity_function: str | SimilarityFunction) -> Similarity:
        """The function that compares all with all. ValueError for an unknown name."""
        return SIMILARITIES[SimilarityFunction(similarity_function).value][0]

    @staticmethod
    def to_similarity_pairwise_fn(similarity_function: str | SimilarityFunction) -> Similarity:
        """The function that compares row with row. ValueError for an unknown name."""
        return SIMILARITIES[SimilarityFunction(similarity_function).value][1]

    @staticmethod
    def possible_values() -> list[str]:
        """All names."""
        return [member.value for member in SimilarityFunction]


def truncate_embeddings(embeddings: Any, truncate_dim: int | None) -> Any:
    """The leading dimensions of embeddings (..., dim); None for all. They are not normalised again."""
    return embeddings[..., :truncate_dim]


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Both as floating point, float32 unless one of them is wider."""
    left, right = np.asarray(a), np.asarray(b)
    dtype = np.result_type(left, right, np.float32)
    if dtype.kind != "f":
        raise ValueError(f"embeddings must be real numbers, got {left.dtype} and {right.dtype}")
    if left.ndim not in (1, 2) or right.ndim not in (1, 2) or left.shape[-1] != right.shape[-1]:
        raise ValueError(
            "embeddings must be (n, dim) or (dim,) with one dim,"
            f" got shapes {left.shape} and {right.shape}"
        )
    # Integer embeddings (precision="int8") would overflow in their own type.
    narrow = np.float32 if np.dtype(np.float64) not in (left.dtype, right.dtype) else np.float64
    return left.astype(narrow, copy=False), right.astype(narrow, copy=False)


def _matrices(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    left, right = _pairs(a, b)
    return np.atleast_2d(left), np.atleast_2d(right)
