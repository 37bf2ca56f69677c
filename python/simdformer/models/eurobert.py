# SPDX-License-Identifier: Apache-2.0
"""EuroBERT (Boizard et al., 2025, arXiv:2503.05500): a decoder's layers that see both ways.

The tensor names are those of transformers' EuroBertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer._core import TransformerStack
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.precision import FLOAT32, Precision
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import positive_float
from simdformer.models.qwen3 import LAYER
from simdformer.models.rotary import (
    LayerKind,
    RotaryParts,
    biased,
    read_sizes,
    rope_parameters,
    rotary_table,
)

# Parts that sentence embeddings do not use: the heads.
_IGNORED = ("lm_head.", "dense.", "classifier.")


def build(
    config: Mapping[str, Any], checkpoint: Checkpoint, precision: Precision = FLOAT32
) -> TransformerStack:
    """A EuroBERT encoder from config.json and its weights."""
    sizes = read_sizes(config)
    kind = LayerKind(
        LAYER._replace(head_norms=None),
        activation=from_hidden_act(config.get("hidden_act", "silu")),
        eps=positive_float(config, "rms_norm_eps", 1e-5),
        norm_first=True,
        rms=True,
        biased=biased(config),
    )
    parts = RotaryParts(kind, sizes, checkpoint, precision, prefixes=("model.",))
    embeddings = parts.embeddings("embed_tokens")
    table = rotary_table(sizes, rope_parameters(config, theta=10000.0))
    layers = [parts.layer(f"layers.{i}", table) for i in range(sizes["num_hidden_layers"])]
    norm = parts.norm("norm")
    parts.weights.refuse_unread(_IGNORED)
    return TransformerStack(layers, norm, embeddings)
