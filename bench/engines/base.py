"""The common part of engines: their interface, and the steps around bare runtimes.

ONNX Runtime, OpenVINO and CTranslate2 compute hidden states from token ids. Tokenizing, sorting, batching,
mean pooling and L2 normalization are the same for all three and are implemented here.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

LATENCY = "latency"  # one stream with all threads
STREAMS = "streams"  # one stream per thread


@dataclass(frozen=True)
class EngineOptions:
    model: Path
    converted: Path  # conversions of this model, see engines/convert.py
    threads: int
    max_length: int
    batch_size: int


class Engine(Protocol):
    """variants: the settings to try. The fastest one counts, separately for each set of texts."""

    variants: tuple[str, ...]

    def __init__(self, options: EngineOptions) -> None: ...

    def encode(self, texts: Sequence[str], variant: str) -> Float32:
        """Returns unit vectors, float32 (len(texts), hidden_size), in the order of `texts`."""
        ...


class BatchedEngine(ABC):
    """Sorts texts by length, makes batches of `batch_size`, and applies mean pooling and L2 normalization."""

    variants: tuple[str, ...] = (LATENCY, STREAMS)

    def __init__(self, options: EngineOptions) -> None:
        from tokenizers import Tokenizer

        check_mean_pooling(options.model)
        self.options = options
        if options.threads == 1:
            self.variants = (LATENCY,)
        self.tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(options.max_length)
        self._executor = ThreadPoolExecutor(options.threads)

    @abstractmethod
    def pooled(self, ids: list[list[int]], variant: str) -> Float32:
        """ids: token ids of one batch, longest first. Returns mean hidden states (batch, hidden)."""

    def encode(self, texts: Sequence[str], variant: str) -> Float32:
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(list(texts))]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        streams = self.options.threads if variant == STREAMS else 1
        size = min(self.options.batch_size, math.ceil(len(ids) / streams))
        batches = [order[start : start + size] for start in range(0, len(order), size)]

        def run(batch: list[int]) -> Float32:
            return self.pooled([ids[i] for i in batch], variant)

        if streams > 1 and len(batches) > 1:
            pooled = list(self._executor.map(run, batches))
        else:
            pooled = [run(batch) for batch in batches]
        vectors = np.empty((len(ids), pooled[0].shape[1]), np.float32)
        vectors[order] = np.concatenate(pooled)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def pad(ids: list[list[int]], dtype: type[np.integer]) -> tuple[NDArray, NDArray]:
    """Returns token ids and attention mask, both (len(ids), longest)."""
    lengths = np.array([len(row) for row in ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros(mask.shape, dtype)
    padded[mask] = np.concatenate([np.asarray(row, dtype) for row in ids])
    return padded, mask.astype(dtype)


def mean_pool(hidden_states: Float32, mask: NDArray) -> Float32:
    """hidden_states: (batch, length, hidden); mask: (batch, length). Returns (batch, hidden)."""
    weights = mask.astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.matmul(weights[:, None, :], hidden_states)[:, 0, :]


def check_mean_pooling(model: Path) -> None:
    """Refuse a model that does not use mean pooling, which the runtimes' common part applies."""
    config = json.loads((model / "1_Pooling" / "config.json").read_text())
    if not config.get("pooling_mode_mean_tokens", config.get("pooling_mode") == "mean"):
        raise ValueError(f"{model}: expected a model with mean pooling, got {config}")
