# SPDX-License-Identifier: Apache-2.0
"""Jina's XLM-RoBERTa with rotary positions or RoBERTa's, published with its own code under the model_type
"xlm-roberta" (xlm-roberta-flash-implementation: jina-embeddings-v3, jina-colbert-v2, jina-reranker-v2). That
code is never run.

The tensor names are those of that code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simdformer import nn
from simdformer.checkpoint.adapted import Adapter
from simdformer.models import jina_embeddings_v3
from simdformer.models.config_fields import (
    non_negative_int,
    one_of,
    positive_float,
    positive_int,
)
from simdformer.models.names import Names
from simdformer.models.post_norm import PostNormConfig

NAMES = jina_embeddings_v3.NAMES._replace(position="embeddings.position_embeddings")

# That code uses GELU for any other name.
_ACTIVATIONS = ["gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh"]


def names(config: Mapping[str, Any]) -> Names:
    """The names of the parameters in a checkpoint, and the adapter to merge: that of default_task."""
    tasks, chosen = adapter_tasks(config)
    if not tasks:
        return NAMES
    scale = positive_float(config, "lora_alpha", 1) / positive_int(config, "lora_rank", 4)
    index = None if chosen is None else tasks.index(chosen)
    return NAMES._replace(adapter=Adapter(index, scale))


def adapter_tasks(config: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """The tasks with adapters in config.json, and the chosen one, if any."""
    tasks = config.get("lora_adaptations") or []
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise ValueError(f"config.json: lora_adaptations must be a list of names, got {tasks!r}")
    chosen = one_of(config, "default_task", [*tasks, None], None)
    return tasks, None if chosen is None else str(chosen)


def build(config: Mapping[str, Any]) -> nn.TextEncoder:
    """Build the encoder that config.json describes."""
    config = {"layer_norm_eps": 1e-5, **config}
    one_of(config, "hidden_act", _ACTIVATIONS, "gelu")
    kind = one_of(config, "position_embedding_type", ["absolute", "rotary"], "rotary")
    if kind == "absolute":
        roberta = PostNormConfig.from_dict(config, type_vocab_size=1)
        return roberta.encoder(padding_idx=non_negative_int(config, "pad_token_id", 1))
    for name, value in {"rotary_emb_scale_base": None, "rotary_emb_interleaved": False}.items():
        one_of(config, name, [value], value)
    return jina_embeddings_v3.build({"rope_theta": config.get("rotary_emb_base", 1e4), **config})
