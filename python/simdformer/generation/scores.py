# SPDX-License-Identifier: Apache-2.0
"""Scores of the next token: penalties, the distribution for sampling, and a draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from simdformer.generation.config import GenerationConfig

Float64: TypeAlias = NDArray[np.float64]


def penalized(
    scores: Float64, prompt: Sequence[int], new: Sequence[int], config: GenerationConfig
) -> Float64:
    """Apply the repetition penalty, and exclude ends that are too early.

    Parameters
    ----------
    scores
        float64 (vocab_size,), logits of the next token.
    prompt, new
        Token ids of the prompt, and those generated so far.
    config
        A GenerationConfig.

    Returns
    -------
    float64 (vocab_size,)
        The scores; -inf for excluded tokens.

    Examples
    --------
    >>> from simdformer.generation import GenerationConfig, penalized
    >>> penalized(np.array([2.0, 2.0]), [0], [], GenerationConfig(repetition_penalty=2.0))
    array([1., 2.])
    """
    scores = scores.copy()
    if config.repetition_penalty != 1.0:
        seen = np.unique(np.array([*prompt, *new], np.int64))
        penalty = config.repetition_penalty
        scores[seen] = np.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)
    if len(new) < config.min_new_tokens:
        scores[[token for token in config.eos if 0 <= token < len(scores)]] = -np.inf
    return scores


def check_scores(scores: Float64, index: int) -> None:
    """ValueError with the prompt for which no token can be chosen."""
    if np.isnan(scores).any():
        raise ValueError(f"input_ids[{index}]: the model's logits are NaN")
    if scores.max() == -np.inf:
        raise ValueError(
            f"input_ids[{index}]: no token is left; eos_token_id and min_new_tokens exclude all"
        )


def distribution(scores: Float64, config: GenerationConfig) -> Float64:
    """Return the probabilities that sampling draws from.

    Parameters
    ----------
    scores
        float64 (vocab_size,).
    config
        A GenerationConfig: temperature, top_k, top_p and min_p are applied in this order.

    Returns
    -------
    float64 (vocab_size,)
        Probabilities.

    Raises
    ------
    ValueError
        If scores have no finite maximum.

    Examples
    --------
    >>> from simdformer.generation import GenerationConfig, distribution
    >>> distribution(np.array([0.0, 0.0, -1.0]), GenerationConfig(top_k=2))
    array([0.5, 0.5, 0. ])
    """
    largest = scores.max()
    if not np.isfinite(largest):
        raise ValueError(f"scores must have a finite maximum to be drawn from, got {largest}")
    with np.errstate(over="ignore"):  # may give -inf if the temperature is close to 0
        scores = (scores - largest) / config.temperature
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
    """Draw one token by the inverse of the cumulative distribution.

    Parameters
    ----------
    scores, config
        See `distribution`.
    generator
        A NumPy generator.

    Returns
    -------
    int
        The token id.

    Examples
    --------
    >>> from simdformer.generation import GenerationConfig, draw
    >>> draw(np.array([0.0, -np.inf]), GenerationConfig(), np.random.default_rng(0))
    0
    """
    cumulated = np.cumsum(distribution(scores, config))
    return int(np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right"))


def _softmax(x: Float64) -> Float64:
    e = np.exp(x - x.max())
    p: Float64 = e / e.sum()
    return p


def log_softmax(x: Float64) -> Float64:
    shifted = x - x.max()
    y: Float64 = shifted - np.log(np.exp(shifted).sum())
    return y
