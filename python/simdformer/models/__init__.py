# SPDX-License-Identifier: Apache-2.0
"""The architectures. Each file declares one; config.json's model_type selects it."""

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
    gemma,
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
    """The interface of each file in this folder.

    NAMES: the names of the parameters in a checkpoint. An architecture whose names depend on config.json also
    has a function names(config).
    """

    NAMES: Names

    def build(self, config: Mapping[str, Any]) -> nn.TextEncoder:
        """Build the encoder that config.json describes. Errors: ValueError naming an invalid field."""


REGISTRY: dict[str, Architecture] = {
    "albert": albert,
    "bert": bert,
    "camembert": roberta,
    "deberta-v2": deberta_v2,
    "distilbert": distilbert,
    "electra": electra,
    "ernie": ernie,
    "eurobert": eurobert,
    "gemma": gemma,
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


# Models that were published with code of their own under another architecture's model_type. The key is the
# class that auto_map gives for config.json. That code is never run.
PUBLISHED: dict[str, Architecture] = {
    "JinaBertConfig": jina_bert,
    "XLMRobertaFlashConfig": xlm_roberta_flash,
}


def published(config: Mapping[str, Any]) -> Architecture | None:
    """The built-in architecture for a model published with its own code; None if there is none."""
    given = config.get("auto_map")
    named = given.get("AutoConfig") if isinstance(given, Mapping) else None
    return PUBLISHED.get(str(named).rpartition(".")[2])


def adapter_tasks(config: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """The tasks that a model has adapters for, and the task whose adapter is merged (default_task).

    Errors: ValueError if default_task has no adapter.
    """
    tasks = getattr(published(config), "adapter_tasks", None)
    if tasks is not None:
        found: tuple[list[str], str | None] = tasks(config)
        return found
    one_of(config, "default_task", [None], None)
    return [], None


def build_encoder(config: Mapping[str, Any]) -> tuple[nn.TextEncoder, Names]:
    """Build the encoder of a model folder, without its weights. Also returns its names in the checkpoint.

    config: the content of config.json.
    Errors: ValueError for a model_type that is not in the registry (the message lists the known ones), and
    whatever the architecture rejects.
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
