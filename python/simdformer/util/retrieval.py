# SPDX-License-Identifier: Apache-2.0
"""Search in embeddings: by query, for similar pairs, and for groups.

The functions are those of sentence-transformers, on NumPy arrays. Of equal scores the smaller index
comes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simdformer.functional.arrays import positive_int
from simdformer.util.similarity import cos_sim, dot_score, normalize_embeddings

Array = NDArray[Any]
Score = Callable[[Array, Array], Any]


def semantic_search(
    query_embeddings: ArrayLike,
    corpus_embeddings: ArrayLike,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: Score = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """Find the corpus entries that are most similar to each query, by exact search.

    Parameters
    ----------
    query_embeddings
        Array (n, dim) or (dim,).
    corpus_embeddings
        Array (m, dim).
    query_chunk_size, corpus_chunk_size
        How many are compared at a time. Memory is proportional to their product.
    top_k
        Number of entries per query.
    score_function
        Maps arrays (q, dim) and (c, dim) to scores (q, c). Larger means more similar.

    Returns
    -------
    list of list of dict
        For each query its entries by descending score, with "corpus_id" and "score".

    Raises
    ------
    ValueError
        If a size is not a positive integer, or embeddings are not finite matrices of one width.

    Examples
    --------
    >>> from simdformer.util import semantic_search
    >>> semantic_search([1.0, 0.0], [[0.0, 1.0], [2.0, 0.0]], top_k=1)
    [[{'corpus_id': 1, 'score': 1.0}]]
    """
    queries, corpus = _rows(query_embeddings), _rows(corpus_embeddings)
    positive_int("query_chunk_size", query_chunk_size)
    best = list(_best(queries, corpus, corpus_chunk_size, top_k, score_function, query_chunk_size))
    return [
        [{"corpus_id": i, "score": s} for s, i in zip(scores.tolist(), ids.tolist(), strict=True)]
        for scores, ids in best
    ]


def paraphrase_mining(
    model: Any,
    sentences: list[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Score = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """Find the pairs of texts that are most similar.

    Calls `model.encode` and `paraphrase_mining_embeddings`.

    Parameters
    ----------
    model
        A SentenceTransformer.
    sentences
        A list of str.
    show_progress_bar, batch_size, truncate_dim, prompt_name, prompt
        See `SentenceTransformer.encode`.
    query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
        See `paraphrase_mining_embeddings`.

    Returns
    -------
    list of [score, i, j]
        By descending score. i < j are indices of sentences.

    Examples
    --------
    >>> from simdformer import SentenceTransformer
    >>> from simdformer.util import paraphrase_mining
    >>> model = SentenceTransformer("all-MiniLM-L6-v2")
    >>> pairs = paraphrase_mining(model, ["A cat.", "Rates rose.", "A kitten."])
    >>> pairs[0][1:]
    [0, 2]
    """
    embeddings = model.encode(
        sentences,
        show_progress_bar=show_progress_bar,
        batch_size=batch_size,
        truncate_dim=truncate_dim,
        prompt_name=prompt_name,
        prompt=prompt,
    )
    return paraphrase_mining_embeddings(
        embeddings, query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
    )


def paraphrase_mining_embeddings(
    embeddings: ArrayLike,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Score = cos_sim,
) -> list[list[float | int]]:
    """Find the pairs of embeddings that are most similar.

    Parameters
    ----------
    embeddings
        Array (n, dim).
    query_chunk_size, corpus_chunk_size
        How many are compared at a time. Memory is proportional to their product.
    max_pairs
        Largest number of pairs to return.
    top_k
        How many others are considered for each embedding.
    score_function
        See `semantic_search`; symmetric.

    Returns
    -------
    list of [score, i, j]
        By descending score. i < j, each pair once.

    Examples
    --------
    >>> from simdformer.util import paraphrase_mining_embeddings
    >>> pairs = paraphrase_mining_embeddings([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    >>> pairs[0]
    [1.0, 0, 2]
    """
    rows = _rows(embeddings)
    for name, value in (("max_pairs", max_pairs), ("query_chunk_size", query_chunk_size)):
        positive_int(name, value)
    kept: list[tuple[float, int, int]] = []  # a heap with the smallest score first
    known: set[tuple[int, int]] = set()
    found = _best(rows, rows, corpus_chunk_size, top_k + 1, score_function, query_chunk_size)
    for i, (scores, ids) in enumerate(found):
        others = [(s, j) for s, j in zip(scores.tolist(), ids.tolist(), strict=True) if j != i]
        for score, j in others[:top_k]:
            pair = (min(i, j), max(i, j))
            if pair in known or (len(kept) == max_pairs and score <= kept[0][0]):
                continue
            known.add(pair)
            if len(kept) < max_pairs:
                heapq.heappush(kept, (score, *pair))
            else:
                known.discard(heapq.heappushpop(kept, (score, *pair))[1:])
    return [[score, i, j] for score, i, j in sorted(kept, key=lambda x: (-x[0], x[1:]))]


def community_detection(
    embeddings: ArrayLike,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Find groups of embeddings whose cosine to a central embedding is at least threshold.

    Larger groups are formed first. An embedding is in one group at most.

    Parameters
    ----------
    embeddings
        Array (n, dim).
    threshold
        The least cosine.
    min_community_size
        Smaller groups are not returned.
    batch_size
        How many embeddings are compared with all at a time.
    show_progress_bar
        Show a progress bar on standard error.

    Returns
    -------
    list of list of int
        Indices per group, the central one first. Larger groups come first.

    Examples
    --------
    >>> from simdformer.util import community_detection
    >>> rows = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]
    >>> sorted(community_detection(rows, threshold=0.9, min_community_size=2)[0])
    [0, 1]
    """
    rows = _rows(embeddings)
    positive_int("batch_size", batch_size)
    positive_int("min_community_size", min_community_size)
    if len(rows) < min_community_size:
        return []
    from tqdm.auto import tqdm

    rows = normalize_embeddings(rows)
    groups: list[tuple[int, NDArray[np.intp]]] = []
    starts = range(0, len(rows), batch_size)
    for start in tqdm(starts, desc="Batches", disable=not show_progress_bar):
        scores = rows[start : start + batch_size] @ rows.T
        near = scores >= scores.dtype.type(threshold)
        for row in np.flatnonzero(near.sum(axis=1) >= min_community_size):
            ids = np.flatnonzero(near[row])
            order = np.argsort(-scores[row, ids], kind="stable")
            groups.append((start + int(row), ids[order]))
    groups.sort(key=lambda group: -len(group[1]))
    return _disjoint(groups, len(rows), min_community_size)


def _disjoint(
    groups: list[tuple[int, NDArray[np.intp]]], count: int, least: int
) -> list[list[int]]:
    """The groups without members of larger groups."""
    taken = np.zeros(count, dtype=bool)
    result: list[list[int]] = []
    for center, ids in groups:
        free = ids[~taken[ids]]
        if taken[center] or len(free) < least:
            continue
        result.append([center, *free[free != center].tolist()])
        taken[result[-1]] = True
    return sorted(result, key=len, reverse=True)


def _best(
    queries: Array,
    corpus: Array,
    corpus_chunk_size: int,
    top_k: int,
    score_function: Score,
    query_chunk_size: int,
) -> Iterator[tuple[Array, Array]]:
    """For each query, the scores and indices of the top_k entries of the corpus, by descending score."""
    positive_int("corpus_chunk_size", corpus_chunk_size)
    positive_int("top_k", top_k)
    if len(queries) and len(corpus) and queries.shape[1] != corpus.shape[1]:
        raise ValueError(
            f"queries and corpus must have one width, got shapes {queries.shape} and {corpus.shape}"
        )
    prepare: Callable[[Array], Array] = lambda rows: rows
    if score_function is cos_sim:  # divide each row by its norm only once
        prepare, score_function = normalize_embeddings, dot_score
    starts = range(0, len(corpus), corpus_chunk_size)
    for begin in range(0, len(queries), query_chunk_size):
        chunk = prepare(queries[begin : begin + query_chunk_size])
        best = [(np.empty(0, np.float32), np.empty(0, np.intp))] * len(chunk)
        for start in starts:
            part = prepare(corpus[start : start + corpus_chunk_size])
            scores = np.asarray(score_function(chunk, part))
            ids = np.arange(start, start + len(part))
            for i, (row, (known, known_ids)) in enumerate(zip(scores, best, strict=True)):
                best[i] = _top(np.append(known, row), np.append(known_ids, ids), top_k)
        yield from best


def _top(scores: Array, ids: Array, top_k: int) -> tuple[Array, Array]:
    """The top_k largest scores in order. ids are ascending."""
    if len(scores) > top_k:
        least = np.partition(-scores, top_k - 1)[top_k - 1]
        near = -scores <= least  # includes scores equal to the last one
        scores, ids = scores[near], ids[near]
    order = np.lexsort((ids, -scores))[:top_k]
    return scores[order], ids[order]


def _rows(embeddings: ArrayLike) -> Array:
    """Embeddings as a matrix of floating-point numbers."""
    rows = np.asarray(embeddings)
    if rows.size == 0:
        return rows.astype(np.float32).reshape(0, rows.shape[-1] if rows.ndim == 2 else 0)
    if rows.ndim not in (1, 2) or rows.dtype.kind not in "fiu":
        raise ValueError(
            f"embeddings must be a matrix of real numbers, got {rows.dtype} of shape {rows.shape}"
        )
    if not np.isfinite(rows).all():
        raise ValueError("embeddings must be finite, got NaN or inf")
    wide = np.float64 if rows.dtype == np.float64 else np.float32
    return np.atleast_2d(rows).astype(wide, copy=False)
