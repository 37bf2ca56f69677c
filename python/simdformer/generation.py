# SPDX-License-Identifier: Apache-2.0
"""Generation of tokens: greedy, sampling and beam search, with transformers' argument names.

A batch is a list of prompts of any lengths. A sequence's tokens do not depend on its company: logits
have the same bits alone and in a batch, and sequence i draws from a random stream of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from simdformer.nn.cache import DecoderCache
from simdformer.nn.language_model import LanguageModel
from simdformer.nn.layout import cumulative

Float64: TypeAlias = NDArray[np.float64]
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


def generate(
    model: LanguageModel,
    input_ids: Prompts,
    *,
    memory: Any = None,
    memory_cu_seqlens: Any = None,
    **options: Any,
) -> list[list[int]]:
    """New tokens after each prompt, the one that ends it included.

    input_ids: a list of prompts, each a non-empty list of ids. memory, memory_cu_seqlens: what a
    decoder attends to, float32 (total, E) packed, one sequence a prompt. options: GenerationConfig's.
    """
    config = GenerationConfig(**options)
    state = _start(model, input_ids, memory, memory_cu_seqlens, config)
    if config.num_beams > 1:
        return _beam_search(state, config)
    results: list[list[int]] = [[] for _ in state.prompts]
    for index, token in _stream(state, config):
        results[index].append(token)
    return results


def stream(
    model: LanguageModel,
    input_ids: Prompts,
    *,
    memory: Any = None,
    memory_cu_seqlens: Any = None,
    **options: Any,
) -> Iterator[tuple[int, int]]:
    """Pairs (prompt's number, token) as they are chosen: what `generate` collects.

    Errors: ValueError with num_beams > 1, where no token is certain before the end.
    """
    config = GenerationConfig(**options)
    if config.num_beams > 1:
        raise ValueError(f"stream needs num_beams=1, got {config.num_beams}")
    return _stream(_start(model, input_ids, memory, memory_cu_seqlens, config), config)


@dataclass
class _State:
    """Sequences between two steps: what the model knows and what it says next."""

    model: LanguageModel
    prompts: list[list[int]]
    cache: DecoderCache
    logits: Float64  # (sequences, vocab_size)
    num_threads: int

    def step(self, tokens: list[int]) -> None:
        """One more token of each sequence."""
        self._run(np.array(tokens), np.arange(len(tokens) + 1))

    def _run(self, ids: NDArray[np.int64], cu_seqlens: Any, **memory: Any) -> None:
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


def _start(
    model: LanguageModel,
    input_ids: Prompts,
    memory: Any,
    memory_cu_seqlens: Any,
    config: GenerationConfig,
) -> _State:
    prompts = [[int(token) for token in prompt] for prompt in input_ids]
    if not prompts or not all(prompts):
        raise ValueError("input_ids must be a non-empty list of non-empty prompts")
    state = _State(model, prompts, DecoderCache(len(prompts)), np.empty((0, 0)), config.num_threads)
    state._run(
        np.concatenate([np.array(prompt) for prompt in prompts]),
        cumulative([len(prompt) for prompt in prompts]),
        memory=memory,
        memory_cu_seqlens=memory_cu_seqlens,
    )
    return state


def _stream(state: _State, config: GenerationConfig) -> Iterator[tuple[int, int]]:
    generators = [np.random.default_rng(None if config.seed is None else [config.seed, i])
                  for i in range(len(state.prompts))]  # fmt: skip
    new: list[list[int]] = [[] for _ in state.prompts]
    active = list(range(len(state.prompts)))
    while True:
        tokens = []
        for row, i in enumerate(active):
            scores = penalized(state.logits[row], state.prompts[i], new[i], config)
            token = (
                draw(scores, config, generators[i]) if config.do_sample else int(scores.argmax())
            )
            new[i].append(token)
            tokens.append(token)
            yield i, token
        going = [row for row, i in enumerate(active) if not config.ends(new[i])]
        if not going:
            return
        if len(going) < len(active):
            state.select(going)
        active = [active[row] for row in going]
        state.step([tokens[row] for row in going])


def penalized(
    scores: Float64, prompt: Sequence[int], new: Sequence[int], config: GenerationConfig
) -> Float64:
    """Scores of the next token after the repetition penalty and, too early, without an end."""
    scores = scores.copy()
    if config.repetition_penalty != 1.0:
        seen = np.unique([*prompt, *new])
        penalty = config.repetition_penalty
        scores[seen] = np.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
    if len(new) < config.min_new_tokens and config.eos:
        scores[list(config.eos)] = -np.inf
    return scores


def distribution(scores: Float64, config: GenerationConfig) -> Float64:
    """Probabilities that sampling draws from: temperature, top_k, top_p, min_p, in this order."""
    scores = scores / config.temperature
    if 0 < config.top_k < len(scores):
        scores[scores < np.partition(scores, -config.top_k)[-config.top_k]] = -np.inf
    if config.top_p < 1.0:
        order = np.argsort(-scores, kind="stable")
        before = np.cumsum(_softmax(scores[order])) - _softmax(scores[order])
        scores[order[before >= config.top_p]] = -np.inf
    if config.min_p > 0.0:
        p = _softmax(scores)
        scores[p < config.min_p * p.max()] = -np.inf
    return _softmax(scores)


def draw(scores: Float64, config: GenerationConfig, generator: np.random.Generator) -> int:
    """One token, by the inverse of the cumulated distribution."""
    cumulated = np.cumsum(distribution(scores, config))
    return int(np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right"))


def _softmax(x: Float64) -> Float64:
    e = np.exp(x - x.max())
    p: Float64 = e / e.sum()
    return p


def _log_softmax(x: Float64) -> Float64:
    shifted = x - x.max()
    y: Float64 = shifted - np.log(np.exp(shifted).sum())
    return y


@dataclass
class _Beam:
    """One prompt's search: the running beams' new tokens and sums, and finished hypotheses."""

    tokens: list[list[int]]
    sums: list[float]
    finished: list[tuple[float, list[int]]] = field(default_factory=list)
    done: bool = False

    def finish(self, total: float, tokens: list[int], config: GenerationConfig) -> None:
        score = total / len(tokens) ** config.length_penalty
        self.finished.append((score, tokens))
        self.finished.sort(key=lambda pair: -pair[0])
        del self.finished[config.num_beams :]

    def cannot_improve(self, config: GenerationConfig) -> bool:
        """Whether no running beam can still beat the worst of num_beams finished hypotheses."""
        if len(self.finished) < config.num_beams:
            return False
        if config.early_stopping is True:
            return True
        length = len(self.tokens[0])
        if config.early_stopping == "never" and config.length_penalty > 0:
            length = config.max_new_tokens
        return bool(self.finished[-1][0] >= max(self.sums) / length**config.length_penalty)


def _beam_search(state: _State, config: GenerationConfig) -> list[list[int]]:
    """Beams of one prompt lie side by side; prompts that are done leave the batch."""
    beams = [_Beam([[]], [0.0]) for _ in state.prompts]
    rows = list(range(len(beams)))  # the first row in the batch of each prompt that is searched
    active = list(range(len(beams)))
    while active:
        origins: list[int] = []
        tokens: list[int] = []
        going: list[int] = []
        for i, first in zip(active, rows, strict=True):
            parents = _extend(beams[i], state.logits[first:], state.prompts[i], config)
            if beams[i].done:
                continue
            going.append(i)
            origins += [first + parent for parent in parents]
            tokens += [beam[-1] for beam in beams[i].tokens]
        if not going:
            break
        state.select(origins)
        state.step(tokens)
        counts = [len(beams[i].tokens) for i in going]
        rows = [int(row) for row in cumulative(counts)[:-1]]
        active = going
    return [beam.finished[0][1] for beam in beams]


def _extend(
    beam: _Beam, logits: Float64, prompt: Sequence[int], config: GenerationConfig
) -> list[int]:
    """One step of a prompt's search. Returns the beams that the new ones come from."""
    sums = np.array(
        [
            total + penalized(_log_softmax(logits[b]), prompt, beam.tokens[b], config)
            for b, total in enumerate(beam.sums)
        ]
    )
    # Of twice as many candidates at least num_beams go on, whatever ends.
    wanted = min((1 + max(1, len(config.eos))) * config.num_beams, sums.size)
    best = np.argsort(-sums, axis=None, kind="stable")[:wanted]
    tokens: list[list[int]] = []
    totals: list[float] = []
    parents: list[int] = []
    for rank, candidate in enumerate(best):
        parent, token = divmod(int(candidate), sums.shape[1])
        total = float(sums[parent, token])
        if total == -np.inf or len(tokens) == config.num_beams:
            break
        sequence = [*beam.tokens[parent], token]
        if config.ends(sequence):
            # An end that would not have been among the beams does not count, but for the last step.
            if rank < config.num_beams or len(sequence) >= config.max_new_tokens:
                beam.finish(total, sequence, config)
            continue
        tokens.append(sequence)
        totals.append(total)
        parents.append(parent)
    beam.tokens, beam.sums = tokens, totals
    beam.done = not tokens or beam.cannot_improve(config)
    return parents
