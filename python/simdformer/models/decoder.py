# SPDX-License-Identifier: Apache-2.0
"""The parts shared by decoders used as encoders: Llama's pre-norm layers with RMSNorm, rotary positions,
grouped queries and a gated feed-forward. The result is the hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simdformer import nn
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import flag, non_negative_int, positive_float, positive_int
from simdformer.models.names import LayerNames, Names, Part
from simdformer.models.rotary import (
    EVERYWHERE,
    FIELDS,
    GLOBAL,
    LOCAL,
    LayerKind,
    Sizes,
    layer_types,
    rope_parameters,
    rotary_positions,
)

# The names in transformers' LlamaModel.
NAMES = Names(
    layers="layers",
    layer=LayerNames(
        query=Part("self_attn.q_proj"),
        key=Part("self_attn.k_proj"),
        value=Part("self_attn.v_proj"),
        output=Part("self_attn.o_proj"),
        gate=Part("mlp.gate_proj"),
        up=Part("mlp.up_proj"),
        down=Part("mlp.down_proj"),
        attention_norm="input_layernorm",
        feed_forward_norm="post_attention_layernorm",
    ),
    word="embed_tokens",
    last_norm="norm",
    prefixes=("model.",),
    ignored=("lm_head.", "score."),  # the heads
    fields=FIELDS,
)


def layer_kind(
    config: Mapping[str, Any],
    *,
    eps: float = 1e-6,
    activation: tuple[str, str] = ("hidden_act", "silu"),
    **options: Any,
) -> LayerKind:
    """The common settings of the layers.

    eps: the default of rms_norm_eps. activation: the name of its field, and the default. options: further
    arguments of LayerKind.
    """
    field, default = activation
    return LayerKind(
        activation=from_hidden_act(config.get(field, default), field),
        eps=positive_float(config, "rms_norm_eps", eps),
        norm_first=True,
        rms=True,
        **options,
    )


def window(config: Mapping[str, Any], size: int | None = None) -> tuple[int, int]:
    """The number of keys before and after a query that it sees: (-1, 0) is causal, (-1, -1) is all.

    size: of a sliding window. In a causal window, size includes the query's own key.
    """
    causal = flag(config, "is_causal", True)
    if size is None:
        return (-1, 0) if causal else EVERYWHERE
    return (size - 1, 0) if causal else (size, size)


def windows(config: Mapping[str, Any], count: int) -> list[tuple[int, int]]:
    """The window of each layer in Qwen's models; LOCAL layers have a window of sliding_window keys. Before
    transformers 5 these are the last layers, if use_sliding_window is true."""
    first = count
    if flag(config, "use_sliding_window", False):
        first = non_negative_int(config, "max_window_layers", 28)
    types = layer_types(config, [LOCAL if i >= first else GLOBAL for i in range(count)])
    if LOCAL not in types:
        return [window(config)] * count
    near = window(config, positive_int(config, "sliding_window", 4096))
    return [near if name == LOCAL else window(config) for name in types]


def decoder(
    config: Mapping[str, Any],
    sizes: Sizes,
    kind: LayerKind,
    seen: Sequence[tuple[int, int]],
    positions: Sequence[nn.RotaryEmbedding] = (),
    word_scale: float = 1.0,
) -> nn.TextEncoder:
    """The model without a head.

    seen: the window of each layer. positions: the positions of each layer, if they differ. word_scale: factor
    of the embeddings.
    """
    if not positions:
        positions = [rotary_positions(sizes, rope_parameters(config, theta=10000.0))] * len(seen)
    return nn.TextEncoder(
        nn.TextEmbeddings(sizes.vocab_size, sizes.hidden_size, word_scale=word_scale),
        [
            kind.layer(sizes, position, window=keys)
            for keys, position in zip(seen, positions, strict=True)
        ],
        kind.norm(sizes.hidden_size),
    )
