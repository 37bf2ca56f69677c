# SPDX-License-Identifier: Apache-2.0
"""The sequences of a batch between two steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simdformer.generation.config import GenerationConfig, Prompts
from simdformer.generation.scores import Float64
from simdformer.nn.cache import DecoderCache
from simdformer.nn.language_model import LanguageModel
from simdformer.nn.layout import cumulative


@dataclass
class Sequences:
    """Sequences between two steps: what the model knows and what it says next."""

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
        """Sequence i becomes a copy of sequence indices[i]."""
        self.cache.select(np.asarray(indices))
        self.logits = self.logits[np.asarray(indices)]


def start(
    model: LanguageModel,
    input_ids: Prompts,
    memory: Any,
    memory_cu_seqlens: Any,
    config: GenerationConfig,
) -> Sequences:
    """After the prompts: ValueError for none, or an empty one."""
    prompts = [[int(token) for token in prompt] for prompt in input_ids]
    if not prompts or not all(prompts):
        raise ValueError("input_ids must be a non-empty list of non-empty prompts")
    state = Sequences(
        model, prompts, DecoderCache(len(prompts)), np.empty((0, 0)), config.num_threads
    )
    state.run(
        np.concatenate([np.array(prompt) for prompt in prompts]),
        cumulative([len(prompt) for prompt in prompts]),
        memory=memory,
        memory_cu_seqlens=memory_cu_seqlens,
    )
    return state
