# SPDX-License-Identifier: Apache-2.0
"""Late interaction: scores of texts that have a vector for each token (Khattab and Zaharia 2020,
arXiv:2004.12832), and fewer vectors for a text.

The products of all tokens are never there as a whole: of each document's only the largest for a query's
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

Float32 = NDArray[np.float32]


def maxsim(a: Any, b: Any) -> Any:
    """The sum over a query's vectors of its largest product with one of the document's.

    Parameters
    ----------
    a, b : list of arrays (vectors, dim), or one such array
        Queries and documents, float32. No document may be empty.

    Returns
    -------
    float32 (queries, documents)

    Raises
    ------
    ValueError
        A shape that cannot be, or a document without vectors.

    Examples
    --------
    >>> import numpy as np
    >>> maxsim(np.eye(2, dtype=np.float32), [np.float32([[1, 0], [0.5, 0.5]])])
    array([[1.5]], dtype=float32)
    """
    return _scores(a, b, mean=False)


def mean_maxsim(a: Any, b: Any) -> Any:
    """maxsim divided by the number of the query's vectors. Arguments and result are maxsim's."""
    return _scores(a, b, mean=True)


def maxsim_pairwise(a: Any, b: Any) -> Any:
    """maxsim of a[i] and b[i]. Returns: float32 (texts,)."""
    return _pairs(a, b, mean=False)


def mean_maxsim_pairwise(a: Any, b: Any) -> Any:
    """mean_maxsim of a[i] and b[i]. Returns: float32 (texts,)."""
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
    """A tensor if one was given."""
    firsts = [x[0] if isinstance(x, (list, tuple)) and x else x for x in given]
    return of_tensors(lambda *_: scores)(*firsts)


def vectors_of(name: str, texts: Any) -> list[Float32]:
    """Each text's vectors. One array (vectors, dim) is one text, (texts, vectors, dim) are several.

    ValueError names the text whose shape cannot be.
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
    """Fewer vectors for a text: those that are alike become their mean, by Ward's hierarchical clustering of
    cosine distances. Needs SciPy. sentence-transformers' class, for `token_pooling`.

    Parameters
    ----------
    pool_factor : float
        About one in so many vectors is left; 1 leaves all.
    num_protected_tokens : int
        So many at the beginning are left as they are.
    normalize_embeddings : bool
        Whether all that are left have length one.
    tasks : str or list of str
        The tasks whose texts are pooled; a text without a task is a document.
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
        """Whether texts of a task are pooled."""
        return (task or "document") in self.tasks

    def pool(self, embeddings: list[Float32], *, task: str | None = None) -> list[Float32]:
        """Pooled texts, float32 (vectors, dim) each. Texts of other tasks come back as they are."""
        return [self.pool_one(x) for x in embeddings] if self.applies_to(task) else embeddings

    def pool_one(self, embedding: Float32) -> Float32:
        """One text's vectors. ImportError without SciPy."""
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
