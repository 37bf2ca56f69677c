# SPDX-License-Identifier: Apache-2.0
"""Late interaction (Khattab and Zaharia 2020, arXiv:2004.12832): scores of texts with one vector per token,
and pooling to fewer vectors.

The products of all pairs of tokens are never stored. For each document only the largest product of each query
token is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.functional.arrays import positive_int
from simdformer.functional.late_interaction import max_sim
from simdformer.util.similarity import normalize_embeddings, of_tensors

__all__ = [
    "HierarchicalTokenPooling",
    "maxsim",
    "maxsim_pairwise",
    "mean_maxsim",
    "mean_maxsim_pairwise",
]

Float32 = NDArray[np.float32]


def maxsim(a: Any, b: Any) -> Any:
    """Compute the sum, over query vectors, of the largest product with a document vector.

    Parameters
    ----------
    a, b : list of arrays (vectors, dim), or one such array
        Queries and documents, float32. No document may be empty.

    Returns
    -------
    float32 (queries, documents)
        The scores.

    Raises
    ------
    ValueError
        If shapes do not match, or a document has no vectors.

    Examples
    --------
    >>> import numpy as np
    >>> maxsim(np.eye(2, dtype=np.float32), [np.float32([[1, 0], [0.5, 0.5]])])
    array([[1.5]], dtype=float32)
    """
    return _scores(a, b, mean=False)


def mean_maxsim(a: Any, b: Any) -> Any:
    """Compute maxsim divided by the number of query vectors.

    Parameters
    ----------
    a, b : list of arrays (vectors, dim), or one such array
        Queries and documents, float32. No document may be empty.

    Returns
    -------
    float32 (queries, documents)
        The scores.

    Raises
    ------
    ValueError
        If shapes do not match, or a document has no vectors.

    Examples
    --------
    >>> import numpy as np
    >>> mean_maxsim(np.eye(2, dtype=np.float32), [np.float32([[1, 0], [0.5, 0.5]])])
    array([[0.75]], dtype=float32)
    """
    return _scores(a, b, mean=True)


def maxsim_pairwise(a: Any, b: Any) -> Any:
    """Compute maxsim of a[i] and b[i].

    Parameters
    ----------
    a, b : list of arrays (vectors, dim), or one such array
        Queries and documents, float32. No document may be empty.

    Returns
    -------
    float32 (texts,)
        The scores.

    Raises
    ------
    ValueError
        If shapes do not match, or a document has no vectors.

    Examples
    --------
    >>> import numpy as np
    >>> maxsim_pairwise(np.eye(2, dtype=np.float32), [np.float32([[1, 0], [0.5, 0.5]])])
    array([1.5], dtype=float32)
    """
    return _pairs(a, b, mean=False)


def mean_maxsim_pairwise(a: Any, b: Any) -> Any:
    """Compute mean_maxsim of a[i] and b[i].

    Parameters
    ----------
    a, b : list of arrays (vectors, dim), or one such array
        Queries and documents, float32. No document may be empty.

    Returns
    -------
    float32 (texts,)
        The scores.

    Raises
    ------
    ValueError
        If shapes do not match, or a document has no vectors.

    Examples
    --------
    >>> import numpy as np
    >>> mean_maxsim_pairwise(np.eye(2, dtype=np.float32), [np.float32([[1, 0], [0.5, 0.5]])])
    array([0.75], dtype=float32)
    """
    return _pairs(a, b, mean=True)


def _scores(a: Any, b: Any, *, mean: bool) -> Any:
    return _like(max_sim(vectors_of("a", a), vectors_of("b", b), mean), a, b)


def _pairs(a: Any, b: Any, *, mean: bool) -> Any:
    first, second = vectors_of("a", a), vectors_of("b", b)
    if len(first) != len(second):
        raise ValueError(f"a has {len(first)} texts, b has {len(second)}")
    pairs = zip(first, second, strict=True)
    scores = [max_sim([x], [y], mean)[0, 0] for x, y in pairs]
    return _like(np.array(scores, np.float32), a, b)


def _like(scores: Float32, *given: Any) -> Any:
    """A tensor if one was given, else the array."""
    firsts = [x[0] if isinstance(x, (list, tuple)) and x else x for x in given]
    return of_tensors(lambda *_: scores)(*firsts)


def vectors_of(name: str, texts: Any) -> list[Float32]:
    """A list of the vectors of each text. An array (vectors, dim) is one text, (texts, vectors, dim) several.

    Errors: ValueError naming the text with an invalid shape.
    """
    if not isinstance(texts, (list, tuple)):
        array = np.asarray(texts)
        texts = [array] if array.ndim == 2 else list(array)
    found = [np.ascontiguousarray(np.asarray(text), np.float32) for text in texts]
    for i, text in enumerate(found):
        if text.ndim != 2 or text.shape[1] != found[0].shape[1]:
            raise ValueError(
                f"{name}[{i}] must have shape (vectors, {found[0].shape[-1] if found[0].ndim else 'dim'}),"
                f" got {text.shape}"
            )
    return found


SIMILARITIES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "maxsim": (maxsim, maxsim_pairwise),
    "meanmaxsim": (mean_maxsim, mean_maxsim_pairwise),
}


class HierarchicalTokenPooling:
    """Reduce the number of vectors per text by averaging similar ones, for `token_pooling` of `encode`.

    The vectors are clustered by cosine distance with Ward's method. This needs SciPy. The class has the
    interface of sentence-transformers' class with this name.

    Parameters
    ----------
    pool_factor : float
        The number of vectors is divided by this; 1 keeps all.
    num_protected_tokens : int
        This many vectors at the start are not changed.
    normalize_embeddings : bool
        Scale all remaining vectors to length 1.
    tasks : str or list of str
        The tasks whose texts are pooled, "document" by default. A text without a task is a document.

    Examples
    --------
    >>> pooling = HierarchicalTokenPooling(2)
    >>> pooling.applies_to("query"), pooling.applies_to("document")
    (False, True)
    """

    def __init__(
        self,
        pool_factor: float = 1.0,
        *,
        num_protected_tokens: int = 1,
        normalize_embeddings: bool = True,
        tasks: str | Sequence[str] | None = None,
    ) -> None:
        if not pool_factor >= 1:
            raise ValueError(f"pool_factor must be at least 1, got {pool_factor!r}")
        if num_protected_tokens != 0:
            positive_int("num_protected_tokens", num_protected_tokens)
        self.pool_factor = pool_factor
        self.num_protected_tokens = num_protected_tokens
        self.normalize_embeddings = normalize_embeddings
        self.tasks = [tasks] if isinstance(tasks, str) else list(tasks or ["document"])

    def applies_to(self, task: str | None) -> bool:
        """Return whether texts of this task are pooled."""
        return (task or "document") in self.tasks

    def pool(self, embeddings: list[Float32], *, task: str | None = None) -> list[Float32]:
        """Return pooled texts, float32 (vectors, dim) each. Texts of other tasks are returned unchanged."""
        return [self.pool_one(x) for x in embeddings] if self.applies_to(task) else embeddings

    def pool_one(self, embedding: Float32) -> Float32:
        """Return the pooled vectors of one text. ImportError without SciPy."""
        kept, rest = np.split(embedding, [self.num_protected_tokens])
        count = max(int(len(rest) // self.pool_factor), 1)
        if count < len(rest):
            rest = _cluster_means(rest, count)
        pooled = np.concatenate([kept, rest])
        return normalize_embeddings(pooled) if self.normalize_embeddings else pooled


def _cluster_means(rows: Float32, count: int) -> Float32:
    try:
        hierarchy = import_module("scipy.cluster.hierarchy")
    except ImportError as error:
        raise ImportError("HierarchicalTokenPooling needs scipy, which is missing") from error
    distances = np.clip(1 - rows @ rows.T, 0, 2)
    linkage = hierarchy.linkage(distances[np.triu_indices(len(rows), 1)], method="ward")
    labels = hierarchy.fcluster(linkage, t=count, criterion="maxclust")
    _, clusters = np.unique(labels, return_inverse=True)
    sums = np.zeros((clusters.max() + 1, rows.shape[1]), np.float32)
    np.add.at(sums, clusters, rows)
    means = sums / np.bincount(clusters)[:, None]
    return means.astype(np.float32)
