# SPDX-License-Identifier: Apache-2.0
"""From a model folder to its parts, ready to run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

from simdformer._core import Encoder, SentenceEncoder
from simdformer.checkpoint import Checkpoint, read_json
from simdformer.int8 import build_int8
from simdformer.models import build_encoder
from simdformer.modules import (
    Defaults,
    SentenceModules,
    TransformerSettings,
    read_defaults,
    read_dense,
    read_modules,
    read_transformer_settings,
)
from simdformer.tokenization import Tokenizer, load_tokenizer


class LoadedModel(NamedTuple):
    """A tokenizer, the encoder alone (token embeddings), and with pooling and what follows it."""

    tokenizer: Tokenizer
    encoder: Encoder
    sentence_encoder: SentenceEncoder
    include_prompt: bool
    defaults: Defaults


COMPUTE_TYPES = ("float32", "int8")


def load_model(folder: Path, compute_type: str = "float32") -> LoadedModel:
    """Load a sentence-transformers folder, or a plain transformers one (then with mean pooling).

    compute_type: one of COMPUTE_TYPES, for the encoder's linear layers.

    Errors: FileNotFoundError or ValueError naming the file, field or tensor. Nothing in the folder
    is executed, and nothing outside it is opened.
    """
    modules = read_modules(folder)
    settings, defaults = TransformerSettings(), Defaults()
    if (folder / "modules.json").is_file():  # else sentence-transformers has no part in the folder
        settings = read_transformer_settings(modules.transformer)
        defaults = read_defaults(folder)
    config = read_json(modules.transformer / "config.json")
    with Checkpoint(modules.transformer) as checkpoint:
        build = partial(build_encoder, config, checkpoint)
        encoder = build_int8(build) if compute_type == "int8" else build()
    tokenizer = load_tokenizer(
        modules.transformer,
        max_seq_length=settings.max_seq_length,
        max_positions=encoder.max_positions,
        do_lower_case=settings.do_lower_case,
    )
    return LoadedModel(
        tokenizer,
        encoder,
        _sentence_encoder(encoder, modules),
        modules.pooling.include_prompt,
        defaults,
    )


def _sentence_encoder(encoder: Encoder, modules: SentenceModules) -> SentenceEncoder:
    pooling = modules.pooling
    if pooling.embedding_dimension not in (None, encoder.hidden_size):
        raise ValueError(
            f"the pooling config says embedding_dimension={pooling.embedding_dimension};"
            f" config.json says hidden_size={encoder.hidden_size}"
        )
    width = encoder.hidden_size * len(pooling.modes)
    dense = []
    for folder in modules.dense:
        layer, in_features, out_features = read_dense(folder)
        if in_features != width:
            raise ValueError(
                f"{folder / 'config.json'}: in_features={in_features},"
                f" but the module before it puts out {width}"
            )
        dense.append(layer)
        width = out_features
    return SentenceEncoder(encoder, pooling.modes, dense, normalize=modules.normalize)
