# SPDX-License-Identifier: Apache-2.0
"""From a model folder to its parts, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from simdformer import nn
from simdformer.checkpoint import Checkpoint
from simdformer.folder.cross_encoder_folder import open_cross_encoder
from simdformer.folder.model_folder import (
    ModelFolder,
    TransformerFolder,
)
from simdformer.folder.overrides import NO_OVERRIDES, Overrides
from simdformer.folder.settings import Defaults
from simdformer.int8.calibration import quantize_encoder
from simdformer.int8.reference import Pool
from simdformer.models import adapter_tasks
from simdformer.text.chat_template import ChatTemplate
from simdformer.text.tokenizer import Tokenizer

COMPUTE_TYPES = ("default", "auto", "float32", "bfloat16", "int8")


class Route(NamedTuple):
    """What the texts of a task run through: a tokenizer, the encoder alone (token embeddings), and
    pooling and what follows it. include_prompt: whether pooling takes in the tokens of a prompt."""

    tokenizer: Tokenizer
    encoder: nn.TextEncoder
    pool: Pool
    include_prompt: bool
    template: ChatTemplate | None


class LoadedModel(NamedTuple):
    """An embedding model.

    tokenizer, encoder, pool, include_prompt: of texts without a task; see Route. tasks: of those with
    one, where they differ. routed: whether a Router tells them apart. strict: whether there are no other tasks; needs_task: whether there is no
    text without. adapters: the tasks of which one may be merged when the model is loaded. num_dense_layers: modules that turn the pooled vector. compute_type: what runs. part_types: the compute type of each part where they differ
    from it or were chosen one by one.
    """

    tokenizer: Tokenizer
    encoder: nn.TextEncoder
    pool: Pool
    include_prompt: bool
    template: ChatTemplate | None
    pooling_modes: tuple[str, ...]
    num_dense_layers: int
    defaults: Defaults
    compute_type: str
    part_types: Mapping[str, str]
    tasks: Mapping[str, Route] = MappingProxyType({})
    routed: bool = False
    strict: bool = False
    needs_task: bool = False
    adapters: tuple[str, ...] = ()


class LoadedCrossEncoder(NamedTuple):
    """A tokenizer of pairs, the encoder alone, and its classification head: logits.

    pad_token_id: as BuiltHead's. config: config.json. compute_type, part_types: as LoadedModel's.
    """

    tokenizer: Tokenizer
    encoder: nn.TextEncoder
    pool: Pool
    pad_token_id: int | None
    num_labels: int
    config: Mapping[str, Any]
    defaults: Defaults
    compute_type: str
    part_types: Mapping[str, str]
    template: ChatTemplate | None = None


def load_model(
    folder: Path,
    compute_type: str = "default",
    overrides: Overrides = NO_OVERRIDES,
    kind: type[ModelFolder] = ModelFolder,
) -> LoadedModel:
    """Load a model folder. Errors: as ModelFolder's.

    compute_type: one of COMPUTE_TYPES, for the encoder's linear layers. kind: what opens it.
    """
    listed, _ = kind.read_list(folder)
    tasks: list[str | None] = [None, *listed.tasks]
    needs_task = bool(listed.tasks) and not listed.serves(None)
    if needs_task:
        tasks = list(listed.tasks)
    opened = {task: kind(folder, overrides, task) for task in tasks}
    first = next(iter(opened.values()))
    # A table beside a Transformer stays as it is.
    types = {
        task: "float32" if model.is_static and len(opened) > 1 else model.resolve(compute_type)
        for task, model in opened.items()
    }
    encoders: dict[Path, tuple[nn.TextEncoder, Mapping[str, str]]] = {}
    owners: dict[Path, ModelFolder] = {}
    routes: dict[str, Route] = {}
    for task, model in opened.items():
        path = model.transformer
        if path not in encoders:
            with model.checkpoint() as checkpoint:
                encoders[path] = _load_encoder(model, checkpoint, types[task])
        model.take_head(owners.setdefault(path, model))
        encoder, _ = encoders[path]
        routes |= _routes(model, encoder, task)
    default = routes.pop("") if "" in routes else next(iter(routes.values()))
    adapters, chosen = adapter_tasks(first.config)
    if chosen is not None:
        routes[chosen] = default
    return LoadedModel(
        *default,
        first.modes,
        first.num_dense_layers,
        first.defaults,
        max(types.values(), key=COMPUTE_TYPES.index),  # what is not a table's
        encoders[first.transformer][1],
        routes,
        routed=bool(listed.tasks),
        strict=bool(adapters) or not listed.serves("\0"),  # a task of no name
        needs_task=needs_task,
        adapters=tuple(adapters),
    )


def _routes(model: ModelFolder, encoder: nn.TextEncoder, task: str | None) -> dict[str, Route]:
    """By task, "" for none: the one that a folder is opened for, and those whose texts may be longer."""
    tokenizer = model.tokenizer(encoder)
    rest = (encoder, model.pooling, model.pooling.include_prompt, model.chat_template())
    routes = {task or "": Route(tokenizer, *rest)}
    for other in model.settings.task_lengths if task is None else (task,):
        length, most = model.settings.length(other), encoder.max_positions
        if length != model.settings.length(None) and length is not None:
            limited = tokenizer.with_max_seq_length(min(length, most) if most else length)
            routes[other] = Route(limited, *rest)
    return routes


def load_cross_encoder(
    folder: Path, compute_type: str = "default", overrides: Overrides = NO_OVERRIDES
) -> LoadedCrossEncoder:
    """Load a cross-encoder's folder. Errors: as CrossEncoderFolder's; ValueError if there is no
    classification head, or no known one.

    compute_type: one of COMPUTE_TYPES, for the encoder's linear layers. The head stays in float32.
    """
    model = open_cross_encoder(folder, overrides)
    compute_type = model.resolve(compute_type)
    with model.checkpoint() as checkpoint:
        pool, pad_token_id = model.scores(checkpoint)
        encoder, part_types = _load_encoder(model, checkpoint, compute_type)
    return LoadedCrossEncoder(
        model.tokenizer(encoder, pairs=True),
        encoder,
        pool,
        pad_token_id,
        model.num_labels(),
        model.config,
        model.defaults,
        compute_type,
        part_types,
        model.chat_template(),
    )


def _load_encoder(
    model: TransformerFolder, checkpoint: Checkpoint, compute_type: str
) -> tuple[nn.TextEncoder, Mapping[str, str]]:
    """The encoder and the types of its parts."""
    encoder, quantization = model.encoder(checkpoint), model.quantization
    if isinstance(model, ModelFolder):
        model.read_head(checkpoint, encoder, compute_type)
    if quantization is None and compute_type == "int8":
        quantized = quantize_encoder(encoder, model.measure(checkpoint))
        head = (
            model.finish_head(quantized.encoder, compute_type)
            if isinstance(model, ModelFolder)
            else {}
        )
        return quantized.encoder, {**quantized.part_types, **head}
    if quantization is None:
        encoder.to_compute_type(compute_type)
    encoder.pack()
    return encoder, {} if quantization is None else quantization.parts
