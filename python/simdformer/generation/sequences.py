# SPDX-License-Identifier: Apache-2.0
"""The sequences of a batch between two steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.functional.arrays import id_vector
from simdformer.generation.config import GenerationConfig, Prompts
from simdformer.generation.scores import Float64
from simdformer.nn.cache import DecoderCache
from simdformer.nn.language_model import LanguageModel
from simdformer.nn.layout import cumulative


@dataclass
class Sequences:
    """Sequences between two steps: the cache of the model and the next logits."""

    model: LanguageModel
    prompts: list[list[int]]
    cache: DecoderCache
    logits: Float64  # (sequences, vocab_size)
    num_threads: int

    def step(self, tokens: list[int]) -> None:
        """One more token of each sequence."""
        self.run(np.array(tokens), np.arange(len(tokens) + 1))

    def run(self, ids: NDArray[np.int64], cu_seqlens: Any, **memory: Any) -> None:
        logits = self.model(
            ids,
            cu_seqlens,
            cache=self.cache,
            last_only=True,
            num_threads=self.num_threads,
            **memory,
        )
        self.logits = logits.astype(np.float64)

    def select(self, indices: Sequence[int]) -> None:
        """Replace sequence i by a copy of sequence indices[i]."""
        self.cache.select(np.asarray(indices))
        self.logits = self.logits[np.asarray(indices)]


def as_prompts(input_ids: Any, config: GenerationConfig) -> list[list[int]]:
    """The ids of the prompts without padding. A flat list of ids is one prompt."""
    if isinstance(input_ids, (str, bytes, Mapping)) or not hasattr(input_ids, "__iter__"):
        raise TypeError(
            f"input_ids must be a list of prompts (lists of ids), got {type(input_ids).__name__}"
        )
    rows = [
        row if hasattr(row, "__array__") or not hasattr(row, "__iter__") else list(row)
        for row in input_ids
    ]
    if rows and all(isinstance(row, (int, np.integer)) or np.ndim(row) == 0 for row in rows):
        rows = [id_vector("input_ids", input_ids if isinstance(input_ids, np.ndarray) else rows)]
    padding = config.pad_token_id if config.pad_token_id not in config.eos else None
    prompts = [
        [token for token in id_vector(f"input_ids[{i}]", row).tolist() if token != padding]
        for i, row in enumerate(rows)
        if np.size(row)
    ]
    if len(prompts) != len(rows) or not prompts or not all(prompts):
        raise ValueError("input_ids must be a non-empty list of non-empty prompts")
    return prompts


def start(
    model: LanguageModel,
    input_ids: Prompts,
    memory: Any,
    memory_cu_seqlens: Any,
    config: GenerationConfig,
) -> Sequences:
    """The state after the prompts, each num_return_sequences times if they are sampled.

    ValueError for no prompt or an empty one, TypeError for anything but ids.
    """
    if not isinstance(model, LanguageModel):
        raise TypeError(f"model must be a LanguageModel, got {type(model).__name__}")
    prompts = as_prompts(input_ids, config)
    state = Sequences(
        model, prompts, DecoderCache(len(prompts)), np.empty((0, 0)), config.num_threads
    )
    state.run(
        np.concatenate([np.array(prompt) for prompt in prompts]),
        cumulative([len(prompt) for prompt in prompts]),
        memory=memory,
        memory_cu_seqlens=memory_cu_seqlens,
    )
    if config.do_sample and config.num_return_sequences > 1:
        copies = np.repeat(np.arange(len(prompts)), config.num_return_sequences)
        state.prompts = [prompts[i] for i in copies]
        state.select(copies.tolist())
    return state
