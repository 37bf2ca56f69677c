# SPDX-License-Identifier: Apache-2.0
"""Loads the parts of a model folder so that they can run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from simdformer.folder.task_folder import MaskedFolder, Vocabulary
from simdformer.int8.calibration import quantize_encoder
from simdformer.int8.reference import Pool
from simdformer.models import adapter_tasks
from simdformer.text.chat_template import ChatTemplate
from simdformer.text.tokenizer import Tokenizer

COMPUTE_TYPES = ("default", "auto", "float32", "bfloat16", "int8")


class Route(NamedTuple):
    """The parts that process the texts of a task: a tokenizer, the encoder alone (token embeddings), and
    pooling with what follows it.

    include_prompt: whether pooling includes the tokens of a prompt.
    """

    tokenizer: Tokenizer
    encoder: nn.TextEncoder
    pool: Pool
    include_prompt: bool
    template: ChatTemplate | None


class LoadedModel(NamedTuple):
    """An embedding model.

    tokenizer, encoder, pool, include_prompt: for texts without a task; see Route.
    num_dense_layers: the number of modules that transform the pooled vector.
    compute_type: the one that runs. part_types: the compute type of each part, if parts differ or were chosen
    one by one.
    tasks: the routes of tasks that differ from these. routed: whether a Router distinguishes tasks. strict:
    whether other tasks are errors. needs_task: whether texts without a task are errors. adapters: the tasks
    with an adapter; one adapter may be merged when the model is loaded.
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
    """A tokenizer of pairs, the encoder alone, and its classification head, which returns logits.

    pad_token_id: as in BuiltHead. config: config.json. compute_type, part_types: as in LoadedModel.
    score_tokens: of a causal language model, the tokens of LogitScore.
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
    score_tokens: tuple[int, ...] = ()


def load_model(
    folder: Path,
    compute_type: str = "default",
    overrides: Overrides = NO_OVERRIDES,
    kind: type[ModelFolder] = ModelFolder,
) -> LoadedModel:
    """Load a model folder. Errors: as for ModelFolder.

    compute_type: one of COMPUTE_TYPES, for the encoder's linear layers. kind: the class that opens the
    folder.
    """
    listed, _ = kind.read_list(folder)
    tasks: list[str | None] = [None, *listed.tasks]
    needs_task = bool(listed.tasks) and not listed.serves(None)
    if needs_task:
        tasks = list(listed.tasks)
    opened = {task: kind(folder, overrides, task) for task in tasks}
    first = next(iter(opened.values()))
    # A table of embeddings beside a Transformer stays in float32.
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
        max(types.values(), key=COMPUTE_TYPES.index),  # not that of a table
        encoders[first.transformer][1],
        routes,
        routed=bool(listed.tasks),
        strict=bool(adapters) or not listed.serves("\0"),  # a task that no model has
        needs_task=needs_task,
        adapters=tuple(adapters),
    )


def _routes(model: ModelFolder, encoder: nn.TextEncoder, task: str | None) -> dict[str, Route]:
    """The routes of an opened folder by task, "" for none. Tasks with another maximum length have routes of
    their own."""
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
    """Load a cross-encoder's folder. Errors: as for CrossEncoderFolder, and ValueError if there is no known
    classification head.

    compute_type: one of COMPUTE_TYPES, for the encoder's linear layers. The head stays in float32.
    """
    model = open_cross_encoder(folder, overrides)
    compute_type, pool, pad_token_id, encoder, part_types = _load_scoring(model, compute_type)
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
        model.score_tokens,
    )


class LoadedTask(NamedTuple):
    """A model as a pipeline of transformers runs it. Its fields are LoadedCrossEncoder's.

    vocabulary: the decoder of a masked language model.
    """

    tokenizer: Tokenizer
    encoder: nn.TextEncoder
    pool: Pool
    pad_token_id: int | None
    config: Mapping[str, Any]
    compute_type: str
    part_types: Mapping[str, str]
    vocabulary: Vocabulary | None = None


def load_task(
    folder: Path, compute_type: str, overrides: Overrides, kind: Callable[..., Any]
) -> LoadedTask:
    """Load a folder for a pipeline. kind: what opens it. Errors: as load_cross_encoder's."""
    model = kind(folder, overrides)
    compute_type, pool, pad_token_id, encoder, part_types = _load_scoring(model, compute_type)
    return LoadedTask(
        model.tokenizer(encoder, pairs=True),
        encoder,
        pool,
        pad_token_id,
        model.config,
        compute_type,
        part_types,
        model.vocabulary(encoder) if isinstance(model, MaskedFolder) else None,
    )


class _Scoring(NamedTuple):
    """Fields of LoadedCrossEncoder."""

    compute_type: str
    pool: Pool
    pad_token_id: int | None
    encoder: nn.TextEncoder
    part_types: Mapping[str, str]


def _load_scoring(model: Any, compute_type: str) -> _Scoring:
    """Load what computes scores, or rows of tokens. model: an opened folder with `scores`."""
    compute_type = model.resolve(compute_type)
    with model.checkpoint() as checkpoint:
        pool, pad_token_id = model.scores(checkpoint)
        encoder, part_types = _load_encoder(model, checkpoint, compute_type)
    return _Scoring(compute_type, pool, pad_token_id, encoder, part_types)


def _load_encoder(
    model: TransformerFolder, checkpoint: Checkpoint, compute_type: str
) -> tuple[nn.TextEncoder, Mapping[str, str]]:
    """Load the encoder. Returns it and the types of its parts."""
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
    if quantization is None and compute_type == "bfloat16":
        encoder.embeddings.round_words()
    encoder.pack()
    return encoder, {} if quantization is None else quantization.parts
