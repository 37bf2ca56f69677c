# SPDX-License-Identifier: Apache-2.0
"""From a model folder to its parts, ready to run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from simdformer import _core, nn
from simdformer._core import PooledStack, TransformerStack
from simdformer.build_info import auto_compute_type
from simdformer.checkpoint import Checkpoint, read_json
from simdformer.folder.modules import (
    Defaults,
    TransformerSettings,
    has_other_modules,
    read_cross_encoder_module,
    read_defaults,
    read_dense,
    read_modules,
    read_transformer_settings,
)
from simdformer.folder.overrides import NO_OVERRIDES, Overrides
from simdformer.int8.calibration import Pool, quantize_encoder
from simdformer.int8.saved import (
    WEIGHTS_FILE,
    read_quantization_config,
    saved_places,
)
from simdformer.models import build_encoder
from simdformer.models.assign import Assigned, assign
from simdformer.models.classification import (
    BuiltHead,
    build_head,
    count_labels,
    head_tensors,
    named_head,
)
from simdformer.text.tokenizer import Tokenizer, load_tokenizer

COMPUTE_TYPES = ("default", "auto", "float32", "bfloat16", "int8")


class LoadedModel(NamedTuple):
    """A tokenizer, the encoder alone (token embeddings), and pooling and what follows it.

    compute_type: what runs. part_types: the compute type of each part where they differ from it or
    were chosen one by one.
    """

    tokenizer: Tokenizer
    encoder: nn.TextEncoder
    pool: Pool
    include_prompt: bool
    pooling_modes: tuple[str, ...]
    num_dense_layers: int
    defaults: Defaults
    compute_type: str
    part_types: Mapping[str, str]


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


class TransformerFolder(ABC):
    """The folder of a model, and in it that of its Transformer: config, weights, tokenizer; and the
    folders of dense modules behind it, which have weights of their own.

    Errors of the constructor and of every method: FileNotFoundError or ValueError naming the file,
    field or tensor. Nothing in the folder is executed, and nothing outside it is opened.
    """

    reads_pairs = False

    def __init__(
        self,
        folder: Path,
        transformer: Path,
        settings: TransformerSettings,
        defaults: Defaults,
        dense: tuple[Path, ...] = (),
        overrides: Overrides = NO_OVERRIDES,
    ) -> None:
        self.folder = folder
        self.transformer = transformer
        self.dense = dense
        self.settings = settings
        self.defaults = defaults
        adapter = transformer / "adapter_config.json"
        if adapter.is_file():  # transformers adds what it declares to the weights
            raise ValueError(f"{adapter}: adapters are not supported; merge it into the model")
        self.config = {**read_json(transformer / "config.json"), **overrides.config}
        self.overrides = overrides
        self.quantization = read_quantization_config(transformer)

    def checkpoint(self) -> Checkpoint:
        """The weights."""
        return Checkpoint(
            self.transformer / WEIGHTS_FILE if self.quantization else self.transformer
        )

    @abstractmethod
    def measure(self, checkpoint: Checkpoint) -> Pool:
        """What gives the vectors that int8 is measured by. Reads what it needs of the checkpoint."""

    def tokenizer(self, encoder: nn.TextEncoder, *, pairs: bool = False) -> Tokenizer:
        """The tokenizer of texts, or of pairs, for an encoder."""
        return load_tokenizer(
            self.transformer,
            max_seq_length=self.settings.max_seq_length,
            max_positions=encoder.max_positions,
            do_lower_case=self.settings.do_lower_case,
            overrides=self.overrides.tokenizer,
            pairs=pairs,
            # An encoder without types, or with one, has nothing to tell two texts apart by.
            with_type_ids=encoder.num_token_types > 1,
        )

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


class ModelFolder(TransformerFolder):
    """A sentence-transformers folder, or a plain transformers one."""

    def __init__(self, folder: Path, overrides: Overrides = NO_OVERRIDES) -> None:
        self.modules = read_modules(folder)
        self._dense: list[_core.Dense] | None = None
        settings, defaults = TransformerSettings(), Defaults()
        if (folder / "modules.json").is_file():  # else sentence-transformers has no part in it
            settings = read_transformer_settings(self.modules.transformer)
            defaults = read_defaults(folder)
        modules = self.modules
        super().__init__(folder, modules.transformer, settings, defaults, modules.dense, overrides)

    def measure(self, checkpoint: Checkpoint) -> Pool:  # noqa: ARG002
        """The embeddings; dense modules have files of their own."""
        return self.pooling

    def pooling(self, stack: TransformerStack) -> PooledStack:
        """The encoder with the modules behind it."""
        pooling = self.modules.pooling
        if pooling.embedding_dimension not in (None, stack.hidden_size):
            raise ValueError(
                f"the pooling config says embedding_dimension={pooling.embedding_dimension};"
                f" config.json says hidden_size={stack.hidden_size}"
            )
        layers = self._dense_layers(stack.hidden_size * len(pooling.modes))
        return PooledStack(stack, pooling.modes, layers, normalize=self.modules.normalize)

    def _dense_layers(self, width: int) -> list[_core.Dense]:
        """Those of the modules, behind `width` features."""
        if self._dense is not None:
            return self._dense
        layers: list[_core.Dense] = []
        for folder in self.dense:
            layer, in_features, out_features = read_dense(folder)
            if in_features != width:
                raise ValueError(
                    f"{folder / 'config.json'}: in_features={in_features},"
                    f" but the module before it puts out {width}"
                )
            layers.append(layer)
            width = out_features
        self._dense = layers
        return layers


class CrossEncoderFolder(TransformerFolder):
    """A transformers folder with a classification head, with sentence-transformers' files or without."""

    reads_pairs = True

    def __init__(self, folder: Path, overrides: Overrides = NO_OVERRIDES) -> None:
        transformer = read_cross_encoder_module(folder)
        settings, defaults = TransformerSettings(), Defaults()
        if (folder / "modules.json").is_file():
            settings = read_transformer_settings(transformer, "sequence-classification", "scores")
            defaults = read_defaults(folder)
        super().__init__(folder, transformer, settings, defaults, overrides=overrides)

    def measure(self, checkpoint: Checkpoint) -> Pool:
        """What the classifier sees: a logit has no direction to compare."""
        head = self.head(checkpoint)
        return partial(PooledStack, pooling=[head.pooling], dense=head.dense[:-1])

    def head(self, checkpoint: Checkpoint) -> BuiltHead:
        """The head. ValueError if there is none in a quantised folder."""
        if self.quantization and head_tensors(self.config).isdisjoint(checkpoint.names()):
            raise ValueError(
                f"{self.folder} is quantised, and without its classification head: quantise the model"
                " that it was made from again, or load that with compute_type='int8'"
            )
        return build_head(self.config, checkpoint)


def open_folder(folder: Path) -> ModelFolder | CrossEncoderFolder:
    """A cross-encoder's folder if config.json names a known classification head and no module
    stands behind the Transformer; else an embedding model's. Errors: theirs."""
    if has_other_modules(folder):
        return ModelFolder(folder)
    config = read_json(read_cross_encoder_module(folder) / "config.json")
    return ModelFolder(folder) if named_head(config) is None else CrossEncoderFolder(folder)


def load_model(
    folder: Path, compute_type: str = "default", overrides: Overrides = NO_OVERRIDES
) -> LoadedModel:
    """Load a model folder. Errors: as ModelFolder's.

    compute_type: one of COMPUTE_TYPES, for the encoder's linear layers.
    """
    model = ModelFolder(folder, overrides)
    compute_type = model.resolve(compute_type)
    with model.checkpoint() as checkpoint:
        encoder, part_types = _load_encoder(model, checkpoint, compute_type)
    return LoadedModel(
        model.tokenizer(encoder),
        encoder,
        model.pooling,
        model.modules.pooling.include_prompt,
        model.modules.pooling.modes,
        len(model.dense),
        model.defaults,
        compute_type,
        part_types,
    )


def load_cross_encoder(
    folder: Path, compute_type: str = "default", overrides: Overrides = NO_OVERRIDES
) -> LoadedCrossEncoder:
    """Load a cross-encoder's folder. Errors: as CrossEncoderFolder's; ValueError if there is no
    classification head, or no known one.

    compute_type: one of COMPUTE_TYPES, for the encoder's linear layers. The head stays in float32.
    """
    model = CrossEncoderFolder(folder, overrides)
    compute_type = model.resolve(compute_type)
    with model.checkpoint() as checkpoint:
        head = model.head(checkpoint)
        encoder, part_types = _load_encoder(model, checkpoint, compute_type)
    return LoadedCrossEncoder(
        model.tokenizer(encoder, pairs=True),
        encoder,
        partial(PooledStack, pooling=[head.pooling], dense=head.dense),
        head.pad_token_id,
        count_labels(model.config),
        model.config,
        model.defaults,
        compute_type,
        part_types,
    )


def _load_encoder(
    model: TransformerFolder, checkpoint: Checkpoint, compute_type: str
) -> tuple[nn.TextEncoder, Mapping[str, str]]:
    """The encoder and the types of its parts."""
    if model.quantization is not None:
        encoder, assigned = _assigned(model, checkpoint)
        encoder.load_state_dict(saved_places(encoder, assigned, model.quantization))
        encoder.pack()
        return encoder, model.quantization.parts
    if compute_type == "int8":
        encoder, assigned = load_float32(model, checkpoint)
        quantized = quantize_encoder(encoder, model.measure(checkpoint))
        return quantized.encoder, assigned.by_part(quantized.part_types)
    return load_float32(model, checkpoint, compute_type)[0], {}


def load_float32(
    model: TransformerFolder, checkpoint: Checkpoint, compute_type: str = "float32"
) -> tuple[nn.TextEncoder, Assigned]:
    """The encoder of a folder that is not quantised, and where its numbers are from. compute_type:
    float32 or bfloat16, in which matrices are packed, one after another."""
    encoder, assigned = _assigned(model, checkpoint)
    encoder.load_state_dict(assigned.places)
    encoder.to_compute_type(compute_type)
    encoder.pack()
    return encoder, assigned


def _assigned(model: TransformerFolder, checkpoint: Checkpoint) -> tuple[nn.TextEncoder, Assigned]:
    encoder, names = build_encoder(model.config)
    return encoder, assign(encoder, names, checkpoint)
