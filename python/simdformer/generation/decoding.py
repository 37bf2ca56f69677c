# SPDX-License-Identifier: Apache-2.0
"""`generate` and `stream`: greedy and sampling here, beams in beam_search.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from simdformer.generation.beam_search import beam_search
from simdformer.generation.config import GenerationConfig, Prompts
from simdformer.generation.scores import check_scores, draw, penalized
from simdformer.generation.sequences import Sequences, start
from simdformer.nn.language_model import LanguageModel


def generate(
    model: LanguageModel,
    input_ids: Prompts,
    *,
    memory: Any = None,
    memory_cu_seqlens: Any = None,
    **options: Any,
) -> list[list[int]]:
    """Generate new tokens for each prompt, including the token that ends it.

    Parameters
    ----------
    model
        A LanguageModel.
    input_ids
        A list of prompts, each a non-empty list of ids, or the ids of one prompt.
    memory, memory_cu_seqlens
        float32 (total, E) and the offsets of one sequence per prompt, for a decoder with a memory.
    **options
        See `GenerationConfig`.

    Returns
    -------
    list of list of int
        New ids per prompt, or num_return_sequences lists per prompt.

    Raises
    ------
    TypeError, IndexError, ValueError
        If ids are not integers or out of range, a prompt is empty, an option is not valid, or no token
        is left to choose.

    Examples
    --------
    >>> from simdformer import generation, nn
    >>> stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 2)
    >>> model = nn.LanguageModel(nn.Embedding(10, 8), stack)
    >>> [len(ids) for ids in generation.generate(model, [[1, 2], [3]], max_new_tokens=4)]
    [4, 4]
    """
    config = GenerationConfig(**options)
    state = start(model, input_ids, memory, memory_cu_seqlens, config)
    if config.num_beams > 1:
        results = beam_search(state, config)
    else:
        results = [[] for _ in state.prompts]
        for index, token in _stream(state, config):
            results[index].append(token)
    if config.pad_token_id is not None:
        longest = max(map(len, results))
        results = [row + [config.pad_token_id] * (longest - len(row)) for row in results]
    return results


def stream(
    model: LanguageModel,
    input_ids: Prompts,
    *,
    memory: Any = None,
    memory_cu_seqlens: Any = None,
    **options: Any,
) -> Iterator[tuple[int, int]]:
    """Yield tokens as they are chosen.

    Parameters
    ----------
    model, input_ids, memory, memory_cu_seqlens, **options
        See `generate`. num_beams must be 1: with beams no token is certain before the end.

    Returns
    -------
    iterator of (int, int)
        The index of the sequence, and the token.

    Raises
    ------
    TypeError, IndexError, ValueError
        See `generate`.

    Examples
    --------
    >>> from simdformer import generation, nn
    >>> stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 2)
    >>> model = nn.LanguageModel(nn.Embedding(10, 8), stack)
    >>> [index for index, token in generation.stream(model, [[1], [2]], max_new_tokens=2)]
    [0, 1, 0, 1]
    """
    config = GenerationConfig(**options)
    if config.num_beams > 1:
        raise ValueError(f"stream needs num_beams=1, got {config.num_beams}")
    return _stream(start(model, input_ids, memory, memory_cu_seqlens, config), config)


def _stream(state: Sequences, config: GenerationConfig) -> Iterator[tuple[int, int]]:
    generators = [np.random.default_rng(None if config.seed is None else [config.seed, i])
                  for i in range(len(state.prompts))]  # fmt: skip
    new: list[list[int]] = [[] for _ in state.prompts]
    most = [config.most_new(prompt) for prompt in state.prompts]
    active = list(range(len(state.prompts)))
    while True:
        tokens = []
        for row, i in enumerate(active):
            scores = penalized(state.logits[row], state.prompts[i], new[i], config)
            check_scores(scores, i // config.num_return_sequences)
            token = (
                draw(scores, config, generators[i]) if config.do_sample else int(scores.argmax())
            )
            new[i].append(token)
            tokens.append(token)
            yield i, token
        going = [row for row, i in enumerate(active) if not config.ends(new[i], most[i])]
        if not going:
            return
        if len(going) < len(active):
            state.select(going)
        active = [active[row] for row in going]
        state.step([tokens[row] for row in going])
