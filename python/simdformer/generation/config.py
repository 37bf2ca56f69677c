# SPDX-License-Identifier: Apache-2.0
"""How tokens are chosen and when a sequence ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Prompts: TypeAlias = Sequence[Sequence[int]]


@dataclass(frozen=True)
class GenerationConfig:
    """How tokens are chosen and when a sequence ends. ValueError for what can't be.

    do_sample: draw from the distribution instead of taking the best; temperature divides the logits,
    then top_k (0: all), top_p (Holtzman et al. 2020) and min_p (Nguyen et al. 2024) leave the likely
    tokens, in this order. repetition_penalty (Keskar et al. 2019): logits of tokens that a sequence
    holds already are divided by it if positive, else multiplied. min_new_tokens: no eos before.
    stop_sequences: lists of ids; a sequence ends with the first that its new tokens end with.
    num_beams > 1: beam search by sum of log-probabilities / length^length_penalty; early_stopping
    True ends it with num_beams finished hypotheses, False when no other can become better as they
    stand, "never" when none can at any length.
    """

    max_new_tokens: int = 20
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    eos_token_id: int | Sequence[int] | None = None
    stop_sequences: Prompts = ()
    seed: int | None = None
    num_threads: int = 0
    eos: frozenset[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ranges = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "min_new_tokens": (
                0 <= self.min_new_tokens <= self.max_new_tokens,
                f"in [0, max_new_tokens={self.max_new_tokens}]",
            ),
            "temperature": (self.temperature > 0, "> 0 (do_sample=False is greedy)"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "min_p": (0 <= self.min_p <= 1, "in [0, 1]"),
            "repetition_penalty": (self.repetition_penalty > 0, "> 0"),
            "num_beams": (self.num_beams >= 1, "at least 1"),
            "early_stopping": (
                self.early_stopping in (True, False, "never"),
                "True, False or 'never'",
            ),
            "stop_sequences": (all(len(s) for s in self.stop_sequences), "non-empty lists of ids"),
        }
        for name, (valid, expected) in ranges.items():
            if not valid:
                raise ValueError(f"{name} must be {expected}, got {getattr(self, name)!r}")
        if self.num_beams > 1 and self.do_sample:
            raise ValueError("num_beams > 1 searches and do_sample draws; choose one")
        eos = self.eos_token_id
        ids = () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)
        object.__setattr__(self, "eos", frozenset(ids))

    def ends(self, tokens: Sequence[int]) -> bool:
        """Whether a sequence with these new tokens is complete."""
        if len(tokens) >= self.max_new_tokens or tokens[-1] in self.eos:
            return True
        return any(list(tokens[-len(stop) :]) == list(stop) for stop in self.stop_sequences)
