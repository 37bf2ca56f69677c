# SPDX-License-Identifier: Apache-2.0
"""Transformer layers with torch.nn's names, arguments, defaults, mask polarity and state_dict keys.

The layers are for inference: dropout has no effect, and there are no gradients. Arrays are float32;
CPU torch tensors are accepted. batch_first is False by default, as in torch. A wrong dtype raises
TypeError, a wrong shape or value ValueError.
"""

from __future__ import annotations

from simdformer.nn.activations import GELU, ReLU, Sigmoid, SiLU, Tanh
from simdformer.nn.added_positions import (
    LearnedPositionalEmbedding,
    SinusoidalPositionalEncoding,
)
from simdformer.nn.attention import MultiheadAttention
from simdformer.nn.cache import DecoderCache
from simdformer.nn.containers import ModuleList, Sequential
from simdformer.nn.content_positions import (
    DisentangledRelativePosition,
    ShawRelativePosition,
    TransformerXLRelativePosition,
)
from simdformer.nn.decoder import TransformerDecoder, TransformerDecoderLayer
from simdformer.nn.distance_bias import ALiBi, RelativePositionBias
from simdformer.nn.encoder import TransformerEncoder, TransformerEncoderLayer
from simdformer.nn.experts import MixtureOfExperts
from simdformer.nn.identity import Dropout, Identity
from simdformer.nn.initialization import manual_seed
from simdformer.nn.language_model import LanguageModel
from simdformer.nn.linear import Embedding, Linear
from simdformer.nn.module import Module
from simdformer.nn.norms import BatchNorm1d, LayerNorm, RMSNorm
from simdformer.nn.rotary import RotaryEmbedding
from simdformer.nn.state import IncompatibleKeys
from simdformer.nn.text_embeddings import TextEmbeddings
from simdformer.nn.text_encoder import TextEncoder
from simdformer.nn.transformer import Transformer

__all__ = [
    "GELU",
    "ALiBi",
    "BatchNorm1d",
    "DecoderCache",
    "DisentangledRelativePosition",
    "Dropout",
    "Embedding",
    "Identity",
    "IncompatibleKeys",
    "LanguageModel",
    "LayerNorm",
    "LearnedPositionalEmbedding",
    "Linear",
    "MixtureOfExperts",
    "Module",
    "ModuleList",
    "MultiheadAttention",
    "RMSNorm",
    "ReLU",
    "RelativePositionBias",
    "RotaryEmbedding",
    "Sequential",
    "ShawRelativePosition",
    "SiLU",
    "Sigmoid",
    "SinusoidalPositionalEncoding",
    "Tanh",
    "TextEmbeddings",
    "TextEncoder",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
    "TransformerXLRelativePosition",
    "manual_seed",
]
