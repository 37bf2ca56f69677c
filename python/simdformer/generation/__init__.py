# SPDX-License-Identifier: Apache-2.0
"""Generation of tokens: greedy, sampling and beam search, with transformers' argument names.

A batch is a list of prompts of any lengths. The tokens of a sequence do not depend on the other
sequences: logits have the same bits alone and in a batch, and each sequence has its own random stream.
"""

from __future__ import annotations

from simdformer.generation.config import GenerationConfig
from simdformer.generation.decoding import generate, stream
from simdformer.generation.scores import distribution, draw, penalized

__all__ = ["GenerationConfig", "distribution", "draw", "generate", "penalized", "stream"]
