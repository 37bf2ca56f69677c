# SPDX-License-Identifier: Apache-2.0
"""What decoders share whose hidden states are used: Llama's layers, pre-norm with RMSNorm, rotary
positions, grouped queries and a gated feed-forward."""

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

# As transformers' LlamaModel has them.
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
    """Its layers. eps: where config.json does not say. activation: its field, and what it is where that
    is not there. options: LayerKind's."""
    field, default = activation
    return LayerKind(
        activation=from_hidden_act(config.get(field, default), field),
        eps=positive_float(config, "rms_norm_eps", eps),
        norm_first=True,
        rms=True,
        **options,
    )


def window(config: Mapping[str, Any], size: int | None = None) -> tuple[int, int]:
    """The keys before and behind a query that it sees: all before it, or with is_causal false all.

    size: of a sliding window; of the causal one, the query's own key is a part.
    """
    causal = flag(config, "is_causal", True)
    if size is None:
        return (-1, 0) if causal else EVERYWHERE
    return (size - 1, 0) if causal else (size, size)


def windows(config: Mapping[str, Any], count: int) -> list[tuple[int, int]]:
    """What each layer's queries see in Qwen: LOCAL layers have a window of sliding_window keys.
    Before transformers 5 those are the last ones, if use_sliding_window says so."""
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
    """The model without a head. seen: by each layer's queries. positions: theirs, if not of one kind.
    word_scale: of the embeddings."""
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
