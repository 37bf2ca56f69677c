# SPDX-License-Identifier: Apache-2.0
"""EuroBERT (Boizard et al., 2025, arXiv:2503.05500): a decoder's layers that see both ways.

The tensor names are those of transformers' EuroBertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.models import qwen3
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import flag, positive_float
from simdformer.models.rotary import LayerKind, Sizes, rope_parameters, rotary_positions

NAMES = qwen3.NAMES._replace(
    layer=qwen3.NAMES.layer._replace(head_norms=None),
    ignored=("lm_head.", "dense.", "classifier."),  # the heads
)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """The encoder that config.json describes."""
    sizes = Sizes.from_dict(config)
    kind = LayerKind(
        activation=from_hidden_act(config.get("hidden_act", "silu")),
        eps=positive_float(config, "rms_norm_eps", 1e-5),
        norm_first=True,
        rms=True,
        attention_bias=flag(config, "attention_bias", False),
        up_bias=flag(config, "mlp_bias", False),
        down_bias=flag(config, "mlp_bias", False),
    )
    position = rotary_positions(sizes, rope_parameters(config, theta=10000.0))
    return nn.TextEncoder(
        nn.TextEmbeddings(sizes.vocab_size, sizes.hidden_size),
        [kind.layer(sizes, position) for _ in range(sizes.num_layers)],
        kind.norm(sizes.hidden_size),
    )
