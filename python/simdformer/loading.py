# SPDX-License-Identifier: Apache-2.0
"""From a model folder to its parts, ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from simdformer import _core
from simdformer._core import Encoder, SentenceEncoder
from simdformer.build_info import auto_compute_type
from simdformer.checkpoint import Checkpoint, read_json
from simdformer.int8 import quantize_encoder
from simdformer.models import build_encoder
from simdformer.modules import (
    Defaults,
    TransformerSettings,
    read_defaults,
    read_dense,
    read_modules,
    read_transformer_settings,
)
from simdformer.precision import BFLOAT16, FLOAT32
from simdformer.quantized_checkpoint import (
    WEIGHTS_FILE,
    SavedPrecision,
    read_quantization_config,
)
from simdformer.tokenization import Tokenizer, load_tokenizer

COMPUTE_TYPES = ("default", "auto", "float32", "bfloat16", "int8")


class LoadedModel(NamedTuple):
    """A tokenizer, the encoder alone (token embeddings), and with pooling and what follows it.

    compute_type: what runs. part_types: the compute type of each part where they differ from it or
    were chosen one by one.
    """

    tokenizer: Tokenizer
    encoder: Encoder
    sentence_encoder: SentenceEncoder
    include_prompt: bool
    defaults: Defaults
    compute_type: str
    part_types: Mapping[str, str]


class ModelFolder:
    """A sentence-transformers folder, or a plain transformers one (then with mean pooling).

    Errors of the constructor and of every method: FileNotFoundError or ValueError naming the file,
    field or tensor. Nothing in the folder is executed, and nothing outside it is opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules = read_modules(folder)
        self.settings, self.defaults = TransformerSettings(), Defaults()
        if (folder / "modules.json").is_file():  # else sentence-transformers has no part in it
            self.settings = read_transformer_settings(self.modules.transformer)
            self.defaults = read_defaults(folder)
        adapter = self.modules.transformer / "adapter_config.json"
        if adapter.is_file():  # transformers adds what it declares to the weights
            raise ValueError(f"{adapter}: adapters are not supported; merge it into the model")
        self.config = read_json(self.modules.transformer / "config.json")
        self.quantization = read_quantization_config(self.modules.transformer)

    def checkpoint(self) -> Checkpoint:
        """The encoder's weights."""
        transformer = self.modules.transformer
        return Checkpoint(transformer / WEIGHTS_FILE if self.quantization else transformer)

    def tokenizer(self, max_positions: int) -> Tokenizer:
        """The tokenizer, for an encoder of so many positions."""
        return load_tokenizer(
            self.modules.transformer,
            max_seq_length=self.settings.max_seq_length,
            max_positions=max_positions,
            do_lower_case=self.settings.do_lower_case,
        )

    def sentence_encoder(self, encoder: Encoder) -> SentenceEncoder:
        """The encoder with the modules behind it."""
        pooling = self.modules.pooling
        if pooling.embedding_dimension not in (None, encoder.hidden_size):
            raise ValueError(
                f"the pooling config says embedding_dimension={pooling.embedding_dimension};"
                f" config.json says hidden_size={encoder.hidden_size}"
            )
        width = encoder.hidden_size * len(pooling.modes)
        layers: list[_core.Dense] = []
        for folder in self.modules.dense:
            layer, in_features, out_features = read_dense(folder)
            if in_features != width:
                raise ValueError(
                    f"{folder / 'config.json'}: in_features={in_features},"
                    f" but the module before it puts out {width}"
                )
            layers.append(layer)
            width = out_features
        return SentenceEncoder(encoder, pooling.modes, layers, normalize=self.modules.normalize)

    def resolve(self, compute_type: str) -> str:
        """The compute type to run. ValueError if the folder does not have the weights for it."""
        if self.quantization is None:
            chosen = {"default": "float32", "auto": auto_compute_type()}
            return chosen.get(compute_type, compute_type)
        if compute_type not in ("default", "auto", "int8"):
            raise ValueError(
                f"compute_type={compute_type!r}, but {self.folder} is quantised:"
                f" {self.quantization.path} declares int8, and the float32 weights are not there;"
                " load the model that it was made from"
            )
        return "int8"


def load_model(folder: Path, compute_type: str = "default") -> LoadedModel:
    """Load a model folder. Errors: as ModelFolder's.

    compute_type: one of COMPUTE_TYPES, for the encoder's linear layers.
    """
    model = ModelFolder(folder)
    compute_type = model.resolve(compute_type)
    encoder, part_types = _load_encoder(model, compute_type)
    return LoadedModel(
        model.tokenizer(encoder.max_positions),
        encoder,
        model.sentence_encoder(encoder),
        model.modules.pooling.include_prompt,
        model.defaults,
        compute_type,
        part_types,
    )


def _load_encoder(model: ModelFolder, compute_type: str) -> tuple[Encoder, Mapping[str, str]]:
    with model.checkpoint() as checkpoint:
        build = partial(build_encoder, model.config, checkpoint)
        if model.quantization is not None:
            return build(SavedPrecision(model.quantization)), model.quantization.parts
        if compute_type == "int8":
            quantized = quantize_encoder(build, model.sentence_encoder)
            return quantized.encoder, quantized.part_types
        return build(BFLOAT16 if compute_type == "bfloat16" else FLOAT32), {}
