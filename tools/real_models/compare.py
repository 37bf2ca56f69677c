# SPDX-License-Identifier: Apache-2.0
"""Compares simdformer with sentence-transformers on a model folder."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import simdformer

Float32 = NDArray[np.float32]

COMPUTE_TYPES = ("float32", "bfloat16", "int8")


def compare(folder: Path, kind: str, texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each compute type, how far simdformer is from sentence-transformers in float32.

    kind: the name of the class. A type that the model does not have is left out.
    """
    reference = _reference(folder, kind, texts)
    results = {}
    for compute_type in COMPUTE_TYPES:
        try:
            model = getattr(simdformer, kind)(str(folder), compute_type=compute_type)
        except ValueError as error:
            if "StaticEmbedding" not in str(error):
                raise
            continue
        results[compute_type] = _distances(_encode(model, kind, texts), reference)
        del model
        gc.collect()
    return results


def _encode(model: Any, kind: str, texts: Sequence[str]) -> Float32:
    if kind == "SparseEncoder":
        options = {"convert_to_tensor": False, "convert_to_sparse_tensor": False}
        rows = [np.asarray(row) for row in model.encode(list(texts), **options)]
        return np.stack(rows).astype(np.float32)
    return np.asarray(model.encode(list(texts)), np.float32)


def _reference(folder: Path, kind: str, texts: Sequence[str]) -> Float32:
    import sentence_transformers

    model = getattr(sentence_transformers, kind)(str(folder), device="cpu")
    if kind == "SparseEncoder":
        return np.asarray(
            model.encode(list(texts), convert_to_sparse_tensor=False).cpu(), np.float32
        )
    return np.asarray(model.encode(list(texts)), np.float32)


def _distances(vectors: Float32, reference: Float32) -> dict[str, float]:
    """Rows without any weight, of texts without tokens, are compared but have no cosine."""
    a, b = vectors.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    some = lengths > 0
    cosines = (a * b).sum(1)[some] / lengths[some]
    return {
        "largest_difference": float(np.abs(a - b).max() / max(1.0, np.abs(b).max())),
        "mean_cosine": float(cosines.mean()),
        "min_cosine": float(cosines.min()),
    }
