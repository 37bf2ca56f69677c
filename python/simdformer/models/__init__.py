# SPDX-License-Identifier: Apache-2.0
"""The architectures: one declaration a file, chosen by config.json's model_type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from simdformer import nn
from simdformer.models import (
    albert,
    bert,
    deberta_v2,
    distilbert,
    electra,
    ernie,
    eurobert,
    gemma3_text,
    gte,
    jina_bert,
    jina_embeddings_v3,
    llama,
    mistral,
    modernbert,
    mpnet,
    new,
    nomic_bert,
    qwen2,
    qwen3,
    roberta,
    t5,
    xlm_roberta_flash,
)
from simdformer.models.config_fields import one_of
from simdformer.models.names import Names
from simdformer.nn import initialization


class Architecture(Protocol):
    """What a file in this folder offers.

    NAMES: what checkpoints call the parameters. An architecture where that depends on config.json has
    names(config) beside it.
    """

    NAMES: Names

    def build(self, config: Mapping[str, Any]) -> nn.TextEncoder:
        """The encoder that config.json describes. ValueError names a field that cannot be."""


REGISTRY: dict[str, Architecture] = {
    "albert": albert,
    "bert": bert,
    "camembert": roberta,
    "deberta-v2": deberta_v2,
    "distilbert": distilbert,
    "electra": electra,
    "ernie": ernie,
    "eurobert": eurobert,
    "gemma3_text": gemma3_text,
    "gte": gte,
    "jina_embeddings_v3": jina_embeddings_v3,
    "llama": llama,
    "mistral": mistral,
    "modernbert": modernbert,
    "mpnet": mpnet,
    "new": new,
    "nomic_bert": nomic_bert,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "roberta": roberta,
    "t5": t5,
    "xlm-roberta": roberta,
}


# What published code makes of another's model_type, by the class that auto_map names for config.json. No
# code is run.
PUBLISHED: dict[str, Architecture] = {
    "JinaBertConfig": jina_bert,
    "XLMRobertaFlashConfig": xlm_roberta_flash,
}


def published(config: Mapping[str, Any]) -> Architecture | None:
    """The architecture of published code that config.json names, if it is one that is built in."""
    given = config.get("auto_map")
    named = given.get("AutoConfig") if isinstance(given, Mapping) else None
    return PUBLISHED.get(str(named).rpartition(".")[2])


def adapter_tasks(config: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """The tasks that a model has adapters for, and the one that is merged, which default_task says.

    ValueError for a default_task that there is none for.
    """
    tasks = getattr(published(config), "adapter_tasks", None)
    if tasks is not None:
        found: tuple[list[str], str | None] = tasks(config)
        return found
    one_of(config, "default_task", [None], None)
    return [], None


def build_encoder(config: Mapping[str, Any]) -> tuple[nn.TextEncoder, Names]:
    """The encoder of a model folder, without numbers, and what its checkpoint calls them.

    config: the content of config.json.
    Errors: ValueError for a model_type that is not in the registry (it lists those that are), and
    whatever the architecture refuses.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in REGISTRY:
        raise ValueError(
            f"unknown architecture: config.json has model_type={model_type!r};"
            f" known: {', '.join(sorted(REGISTRY))}"
        )
    architecture = published(config) or REGISTRY[model_type]
    adapter_tasks(config)
    with initialization.deferred():
        encoder = architecture.build(config)
    names = getattr(architecture, "names", None)
    return encoder, architecture.NAMES if names is None else names(config)
