# SPDX-License-Identifier: Apache-2.0
"""Beam search over a batch of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from simdformer.generation.config import GenerationConfig
from simdformer.generation.scores import Float64, check_scores, log_softmax, penalized
from simdformer.generation.sequences import Sequences
from simdformer.nn.layout import cumulative


@dataclass
class _Beam:
    """The search of one prompt: new tokens and sums of the running beams, and finished hypotheses."""

    index: int
    most: int  # new tokens
    tokens: list[list[int]]
    sums: list[float]
    finished: list[tuple[float, list[int]]] = field(default_factory=list)
    done: bool = False

    def finish(self, total: float, tokens: list[int], config: GenerationConfig) -> None:
        score = total / len(tokens) ** config.length_penalty
        self.finished.append((score, tokens))
        self.finished.sort(key=lambda pair: -pair[0])
        del self.finished[config.num_beams :]

    def results(self, config: GenerationConfig) -> list[list[int]]:
        count = config.num_return_sequences
        if len(self.finished) < count:
            raise ValueError(
                f"input_ids[{self.index}]: {len(self.finished)} sequences were found,"
                f" num_return_sequences is {count}"
            )
        return [tokens for _, tokens in self.finished[:count]]

    def cannot_improve(self, config: GenerationConfig) -> bool:
        """Whether no running beam can become better than the worst of num_beams finished hypotheses."""
        if len(self.finished) < config.num_beams:
            return False
        if config.early_stopping is True:
            return True
        length = len(self.tokens[0])
        if config.early_stopping == "never" and config.length_penalty > 0:
            length = self.most
        return bool(self.finished[-1][0] >= max(self.sums) / length**config.length_penalty)


def beam_search(state: Sequences, config: GenerationConfig) -> list[list[int]]:
    """Beams of one prompt are adjacent. Finished prompts are removed from the batch."""
    beams = [
        _Beam(i, config.most_new(prompt), [[]], [0.0]) for i, prompt in enumerate(state.prompts)
    ]
    rows = list(range(len(beams)))  # the first row in the batch of each unfinished prompt
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
    return [tokens for beam in beams for tokens in beam.results(config)]


def _log_probabilities(
    beam: _Beam, logits: Float64, prompt: Sequence[int], row: int, config: GenerationConfig
) -> Float64:
    scores = penalized(log_softmax(logits), prompt, beam.tokens[row], config)
    check_scores(scores, beam.index)
    return scores


def _extend(
    beam: _Beam, logits: Float64, prompt: Sequence[int], config: GenerationConfig
) -> list[int]:
    """One step of a prompt's search. Returns the beams from which the new ones continue."""
    sums = np.array(
        [
            total + _log_probabilities(beam, logits[b], prompt, b, config)
            for b, total in enumerate(beam.sums)
        ]
    )
    # So many candidates that at least num_beams of them do not end a sequence.
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
        if config.ends(sequence, beam.most):
            # A finished sequence counts only if it is among the best num_beams, except in the last step.
            if rank < config.num_beams or len(sequence) >= beam.most:
                beam.finish(total, sequence, config)
            continue
        tokens.append(sequence)
        totals.append(total)
        parents.append(parent)
    beam.tokens, beam.sums = tokens, totals
    beam.done = not tokens or beam.cannot_improve(config)
    return parents
