"""Cases of model folders: sentence vectors, token vectors and logits, in every compute type."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from builds.case import THREADS, Arrays, Case

COMPUTE_TYPES = ("float32", "bfloat16", "int8")
_FEW = 64


def cases(folder: Path, minilm: Path) -> Iterator[Case]:
    """folder: that of fixtures.py. minilm: all-MiniLM-L6-v2."""
    texts = json.loads((folder / "texts.json").read_text())
    for compute_type in COMPUTE_TYPES:
        yield _sentences("minilm", minilm, compute_type, texts["many"])
    for model in sorted((folder / "tiny").iterdir()):
        for compute_type in COMPUTE_TYPES:
            yield _sentences(model.name, model, compute_type, texts["tiny"])
    for model in sorted((folder / "cross").iterdir()):
        for compute_type in COMPUTE_TYPES:
            yield _pairs(model, compute_type, texts["tiny"])


def _sentences(name: str, model: Path, compute_type: str, texts: list[str]) -> Case:
    def run(threads: int) -> Arrays:
        from simdformer import SentenceTransformer

        loaded = SentenceTransformer(model, compute_type=compute_type, num_threads=threads)
        few = texts[:_FEW]
        alone = few[:8] + texts[-2:]
        arrays = {
            "few": _quietly(loaded.encode, few),
            "tokens": np.concatenate(
                _quietly(loaded.encode, few[:16] + texts[-2:], output_value="token_embeddings")
            ),
            "alone": np.stack([_quietly(loaded.encode, text) for text in alone]),
        }
        if threads == THREADS[0]:
            arrays["all"] = _quietly(loaded.encode, texts)
        return arrays

    return Case(f"models/{name}/{compute_type}", run)


def _pairs(model: Path, compute_type: str, texts: list[str]) -> Case:
    pairs = list(zip(texts, reversed(texts), strict=True))

    def run(threads: int) -> Arrays:
        from simdformer import CrossEncoder

        loaded = CrossEncoder(str(model), compute_type=compute_type, num_threads=threads)
        return {"logits": _quietly(loaded.predict, pairs, activation_fn=lambda logits: logits)}

    return Case(f"cross-encoders/{model.name}/{compute_type}", run)


def _quietly(function: Any, *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        # Truncated texts are included.
        warnings.filterwarnings("ignore", message=".*longer than max_seq_length")
        return function(*arguments, show_progress_bar=False, **options)
