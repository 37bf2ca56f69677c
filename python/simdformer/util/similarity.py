# SPDX-License-Identifier: Apache-2.0
"""Similarity of embeddings: the four functions of sentence-transformers, on NumPy arrays.

Distances are negated, so larger always means more similar. For torch tensors the result is a tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Similarity = Callable[[ArrayLike, ArrayLike], Any]

# Norms below this are replaced by it before dividing, as in torch.nn.functional.normalize. So zero stays
# zero.
_SMALLEST_NORM = 1e-12


def of_tensors(function: Callable[..., Array]) -> Callable[..., Any]:
    """Wrap a function of arrays so that it returns a torch.Tensor if it is given one."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if any(type(arg).__module__.partition(".")[0] == "torch" for arg in args):
            return sys.modules["torch"].from_numpy(result)
        return result

    return wrapped


def normalize_embeddings(embeddings: Array) -> Array:
    """Divide each row by its L2 norm.

    Parameters
    ----------
    embeddings
        Floating-point (..., dim).

    Returns
    -------
    array
        The shape and dtype of embeddings.

    Examples
    --------
    >>> from simdformer.util import normalize_embeddings
    >>> normalize_embeddings(np.float32([[3, 4]]))
    array([[0.6, 0.8]], dtype=float32)
    """
    norms = np.sqrt(np.square(embeddings).sum(axis=-1, keepdims=True))
    result: Array = embeddings / np.maximum(norms, embeddings.dtype.type(_SMALLEST_NORM))
    return result


@of_tensors
def cos_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the cosine of each row of a and each row of b.

    Parameters
    ----------
    a, b
        Arrays (n, dim) or (dim,), and (m, dim) or (dim,).

    Returns
    -------
    array (n, m)
        float32, or float64 if one of the inputs is.

    Raises
    ------
    ValueError
        If shapes do not match, or values are not real numbers.

    Examples
    --------
    >>> from simdformer.util import cos_sim
    >>> cos_sim([[1.0, 0.0]], [[3.0, 0.0], [0.0, 2.0]])
    array([[1., 0.]])
    """
    a, b = _matrices(a, b)
    return np.asarray(normalize_embeddings(a) @ normalize_embeddings(b).T)


@of_tensors
def dot_score(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the dot product of each row of a and each row of b.

    Parameters
    ----------
    a, b
        See `cos_sim`.

    Returns
    -------
    array (n, m)
        See `cos_sim`.

    Examples
    --------
    >>> from simdformer.util import dot_score
    >>> dot_score([[1.0, 0.0]], [[3.0, 0.0], [0.0, 2.0]])
    array([[3., 0.]])
    """
    a, b = _matrices(a, b)
    return np.asarray(a @ b.T)


@of_tensors
def euclidean_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the negative Euclidean distance of each row of a and each row of b.

    ``|a|^2 - 2ab + |b|^2`` cancels for close vectors, so it is summed in float64.

    Parameters
    ----------
    a, b
        See `cos_sim`.

    Returns
    -------
    array (n, m)
        See `cos_sim`.

    Examples
    --------
    >>> from simdformer.util import euclidean_sim
    >>> euclidean_sim([[1.0, 0.0]], [[3.0, 0.0]])
    array([[-2.]])
    """
    a, b = _matrices(a, b)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    squares = np.square(wide_a).sum(axis=1)[:, None] + np.square(wide_b).sum(axis=1)
    distances = np.sqrt(np.maximum(squares - 2 * (wide_a @ wide_b.T), 0))
    return np.asarray(-distances.astype(a.dtype))


@of_tensors
def manhattan_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the negative L1 distance of each row of a and each row of b.

    Parameters
    ----------
    a, b
        See `cos_sim`.

    Returns
    -------
    array (n, m)
        See `cos_sim`.

    Examples
    --------
    >>> from simdformer.util import manhattan_sim
    >>> manhattan_sim([[1.0, 0.0]], [[3.0, 1.0]])
    array([[-3.]])
    """
    a, b = _matrices(a, b)
    result = np.empty((len(a), len(b)), dtype=a.dtype)
    for i, row in enumerate(a):
        result[i] = -np.abs(b - row).sum(axis=1)
    return result


@of_tensors
def pairwise_cos_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the cosine of a[i] and b[i].

    Parameters
    ----------
    a, b
        Arrays (n, dim) or (dim,).

    Returns
    -------
    array (n,) or ()
        float32, or float64 if one of the inputs is.

    Examples
    --------
    >>> from simdformer.util import pairwise_cos_sim
    >>> pairwise_cos_sim([[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [1.0, 0.0]])
    array([1., 0.])
    """
    a, b = _pairs(a, b)
    return np.asarray((normalize_embeddings(a) * normalize_embeddings(b)).sum(axis=-1))


@of_tensors
def pairwise_dot_score(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the dot product of a[i] and b[i].

    Parameters
    ----------
    a, b
        See `pairwise_cos_sim`.

    Returns
    -------
    array (n,) or ()
        See `pairwise_cos_sim`.

    Examples
    --------
    >>> from simdformer.util import pairwise_dot_score
    >>> pairwise_dot_score([[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [1.0, 0.0]])
    array([3., 0.])
    """
    a, b = _pairs(a, b)
    return np.asarray((a * b).sum(axis=-1))


@of_tensors
def pairwise_euclidean_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the negative Euclidean distance of a[i] and b[i].

    Parameters
    ----------
    a, b
        See `pairwise_cos_sim`.

    Returns
    -------
    array (n,) or ()
        See `pairwise_cos_sim`.

    Examples
    --------
    >>> from simdformer.util import pairwise_euclidean_sim
    >>> pairwise_euclidean_sim([[1.0, 0.0]], [[3.0, 0.0]])
    array([-2.])
    """
    a, b = _pairs(a, b)
    return np.asarray(-np.sqrt(np.square(a - b).sum(axis=-1)))


@of_tensors
def pairwise_manhattan_sim(a: ArrayLike, b: ArrayLike) -> Array:
    """Compute the negative L1 distance of a[i] and b[i].

    Parameters
    ----------
    a, b
        See `pairwise_cos_sim`.

    Returns
    -------
    array (n,) or ()
        See `pairwise_cos_sim`.

    Examples
    --------
    >>> from simdformer.util import pairwise_manhattan_sim
    >>> pairwise_manhattan_sim([[1.0, 0.0]], [[3.0, 1.0]])
    array([-3.])
    """
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


def truncate_embeddings(embeddings: Any, truncate_dim: int | None) -> Any:
    """Return the leading dimensions of embeddings. They are not normalized again.

    Parameters
    ----------
    embeddings
        Array (..., dim).
    truncate_dim
        Number of dimensions; None for all.

    Returns
    -------
    array (..., truncate_dim)
        A view.

    Examples
    --------
    >>> from simdformer.util import truncate_embeddings
    >>> truncate_embeddings(np.zeros((2, 384)), 64).shape
    (2, 64)
    """
    return embeddings[..., :truncate_dim]


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Both as floating-point arrays, float32 unless one of them is wider."""
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
