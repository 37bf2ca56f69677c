# SPDX-License-Identifier: Apache-2.0
"""Generation of tokens: greedy, sampling and beam search, with transformers' argument names.

A batch is a list of prompts of any lengths. A sequence's tokens do not depend on its company: logits
have the same bits alone and in a batch, and sequence i draws from a random stream of its own.
"""

from __future__ import annotations

from simdformer.generation.config import GenerationConfig
from simdformer.generation.decoding import generate, stream
from simdformer.generation.scores import distribution, draw, penalized

__all__ = ["GenerationConfig", "distribution", "draw", "generate", "penalized", "stream"]
