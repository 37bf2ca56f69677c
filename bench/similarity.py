"""How close two sets of vectors of the same texts are."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 10
_BLOCK = 1024  # rows of similarities at a time


def cosines(vectors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The cosine of each row with the same row of the reference, in float64."""
    a, b = vectors.astype(np.float64), reference.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def nearest(vectors: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """The indices of the `count` nearest other rows of each unit vector, unordered: (rows, count)."""
    found = []
    for start in range(0, len(vectors), _BLOCK):
        similarities = vectors[start : start + _BLOCK] @ vectors.T
        rows = np.arange(len(similarities))
        similarities[rows, start + rows] = -np.inf
        found.append(np.argpartition(-similarities, count, axis=1)[:, :count])
    return np.concatenate(found)


def neighbours_kept(vectors: np.ndarray, reference: np.ndarray) -> float:
    """The fraction of each row's nearest rows in the reference that are also its nearest here."""
    pairs = zip(nearest(vectors), nearest(reference), strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))
