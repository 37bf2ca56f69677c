# SPDX-License-Identifier: Apache-2.0
"""How tokens are chosen and when a sequence ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

import numpy as np

from simdformer.functional.arrays import id_vector, number

Prompts: TypeAlias = Sequence[Sequence[int]]

_DEFAULT_NEW_TOKENS = 20
# The required range of each number: a description and a test.
_Range: TypeAlias = tuple[str, Callable[[Any], bool]]
_INTEGERS: dict[str, _Range] = {
    "max_new_tokens": ("at least 1", lambda n: n >= 1),
    "max_length": ("at least 2", lambda n: n >= 2),
    "min_new_tokens": ("at least 0", lambda n: n >= 0),
    "top_k": ("at least 0", lambda n: n >= 0),
    "num_beams": ("at least 1", lambda n: n >= 1),
    "num_return_sequences": ("at least 1", lambda n: n >= 1),
    "pad_token_id": ("an id", lambda _: True),
    "seed": ("at least 0", lambda n: n >= 0),
    "num_threads": ("at least 0", lambda n: n >= 0),
}
_FLOATS: dict[str, _Range] = {
    "temperature": ("> 0 (do_sample=False is greedy)", lambda x: x > 0),
    "top_p": ("in (0, 1]", lambda x: 0 < x <= 1),
    "min_p": ("in [0, 1]", lambda x: 0 <= x <= 1),
    "repetition_penalty": ("> 0", lambda x: x > 0),
    "length_penalty": ("a finite number", lambda x: abs(x) < float("inf")),
}


@dataclass(frozen=True)
class GenerationConfig:
    """How tokens are chosen and when a sequence ends. None means the default for every parameter.

    Parameters
    ----------
    max_new_tokens, max_length
        How many tokens to generate (20 by default), or the length with the prompt. Pass one of them.
    min_new_tokens
        No token of eos_token_id is chosen before.
    do_sample
        Draw from the distribution instead of choosing the best token.
    temperature, top_k, top_p, min_p
        Divide the logits by temperature, then keep the top_k best tokens (0: all), the smallest set
        with probability top_p, and the tokens with at least min_p times the largest probability.
    repetition_penalty
        Logits of tokens that the sequence contains are divided by it if positive, else multiplied.
    num_beams
        If > 1, beam search by the sum of log-probabilities / length^length_penalty.
    length_penalty
        See num_beams.
    early_stopping
        End a beam search once there are num_beams finished hypotheses (True), once no other can be
        better now (False), or once none can be better at any length ("never").
    eos_token_id
        One or several ids that end a sequence.
    stop_sequences
        Lists of ids. A sequence ends when its new tokens end with one of them.
    seed
        Seed of the draws. None: different draws each time.
    num_threads
        Number of threads; 0 for the default.
    pad_token_id
        Pad the results to one length with it. In prompts it is left out, unless it ends a sequence.
    num_return_sequences
        Sequences per prompt, with do_sample or num_beams.

    Raises
    ------
    TypeError, ValueError
        If a value is not valid, or two exclude each other.

    References
    ----------
    Holtzman et al. 2020 (top_p); Nguyen et al. 2024 (min_p); Keskar et al. 2019 (repetition_penalty).

    Examples
    --------
    >>> from simdformer.generation import GenerationConfig
    >>> GenerationConfig(do_sample=True, top_p=0.9, seed=1).max_new_tokens
    20
    """

    max_new_tokens: int | None = None
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
    max_length: int | None = None
    pad_token_id: int | None = None
    num_return_sequences: int = 1
    eos: frozenset[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for given in fields(self):
            if given.init and getattr(self, given.name) is None:
                self._set(given.name, given.default)
        for name, allowed in _INTEGERS.items():
            self._check(name, _integer, *allowed)
        for name, allowed in _FLOATS.items():
            self._check(name, number, *allowed)
        self._set("do_sample", bool(self.do_sample))
        if self.early_stopping != "never":
            if isinstance(self.early_stopping, str):
                raise ValueError(
                    f"early_stopping must be True, False or 'never', got {self.early_stopping!r}"
                )
            self._set("early_stopping", bool(self.early_stopping))
        self._set("eos", frozenset(_ids("eos_token_id", self.eos_token_id)))
        stops = [
            tuple(id_vector(f"stop_sequences[{i}]", list(stop) if len(stop) else np.empty(0, int)))
            for i, stop in enumerate(self.stop_sequences)
        ]
        if not all(stops):
            raise ValueError(
                f"stop_sequences must be non-empty lists of ids, got {self.stop_sequences!r}"
            )
        self._set("stop_sequences", tuple(stops))
        self._check_together()

    def _check_together(self) -> None:
        if self.max_length is None and self.max_new_tokens is None:
            self._set("max_new_tokens", _DEFAULT_NEW_TOKENS)
        elif self.max_length is not None and self.max_new_tokens is not None:
            raise ValueError(
                "max_length and max_new_tokens are mutually exclusive: pass one of them"
            )
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens must be in [0, max_new_tokens={self.max_new_tokens}], got"
                f" {self.min_new_tokens}"
            )
        if self.num_beams > 1 and self.do_sample:
            raise ValueError("num_beams > 1 and do_sample are mutually exclusive")
        if self.num_return_sequences > (self.num_beams if not self.do_sample else float("inf")):
            raise ValueError(
                f"num_return_sequences must be at most num_beams={self.num_beams} without do_sample,"
                f" got {self.num_return_sequences}"
            )

    def _check(
        self,
        name: str,
        read: Callable[[str, Any], Any],
        expected: str,
        valid: Callable[[Any], bool],
    ) -> None:
        value = getattr(self, name)
        if value is None:
            return
        self._set(name, read(name, value))
        if not valid(getattr(self, name)):
            raise ValueError(f"{name} must be {expected}, got {value!r}")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def most_new(self, prompt: Sequence[int]) -> int:
        """Return how many tokens may follow a prompt.

        Raises
        ------
        ValueError
            If max_length leaves no room.
        """
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        assert self.max_length is not None
        if len(prompt) >= self.max_length:
            raise ValueError(
                f"max_length={self.max_length} leaves no room after a prompt of {len(prompt)} tokens"
            )
        return self.max_length - len(prompt)

    def ends(self, tokens: Sequence[int], most: int) -> bool:
        """Return whether a sequence with these new tokens, of at most `most`, is complete."""
        if len(tokens) >= most or tokens[-1] in self.eos:
            return True
        return any(list(tokens[-len(stop) :]) == list(stop) for stop in self.stop_sequences)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


def _ids(name: str, value: Any) -> list[int]:
    """One id, several ids or None, as a list."""
    if value is None:
        return []
    ids: list[int] = id_vector(name, value if np.ndim(value) else [value]).tolist()
    return ids
