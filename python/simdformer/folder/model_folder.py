# SPDX-License-Identifier: Apache-2.0
"""Opens a model's folder: reads its settings, before its weights are loaded."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from simdformer import nn
from simdformer._core import PooledStack
from simdformer.build_info import auto_compute_type
from simdformer.checkpoint import Checkpoint, naming, read_json
from simdformer.folder.chain import Chain
from simdformer.folder.module_files import read_step
from simdformer.folder.modules import (
    INPUT_MODULES,
    Module,
    ModuleList,
    is_causal_language_model,
    read_modules,
)
from simdformer.folder.overrides import NO_OVERRIDES, Overrides
from simdformer.folder.settings import (
    Defaults,
    read_defaults,
    read_model_type,
)
from simdformer.folder.static_embedding import static_encoder, static_tokenizer
from simdformer.folder.steps import (
    LAYERS,
    SCORES,
    SENTENCE,
    TOKENS,
    Dense,
    LayerNorm,
    Pooling,
    Step,
)
from simdformer.folder.transformer_settings import (
    TransformerSettings,
    read_transformer_settings,
    transformer_config_name,
)
from simdformer.int8 import version_1
from simdformer.int8.config import read_quantization_config
from simdformer.int8.reference import Pool
from simdformer.int8.saved import WEIGHTS_FILE, saved_places
from simdformer.models import build_encoder
from simdformer.models.assign import assign, cut_layers
from simdformer.models.config_keys import unknown_keys
from simdformer.text.chat_template import ChatTemplate, load_chat_template
from simdformer.text.tokenizer import Tokenizer, load_tokenizer
from simdformer.text.warning import warn_caller


class TransformerFolder(ABC):
    """A model's folder with the folder of its Transformer (config, weights, tokenizer) and those of the
    modules after it, which may have weights too.

    Errors of the constructor and of every method: FileNotFoundError or ValueError naming the file, field or
    tensor. Nothing in the folder is executed, and nothing outside it is opened.
    """

    reads_pairs = False
    expands_queries = False
    # Prefixes of the names of tensors that are read by something other than the encoder.
    other_tensors: tuple[str, ...] = ()

    def __init__(
        self,
        folder: Path,
        transformer: Path,
        settings: TransformerSettings,
        defaults: Defaults,
        others: tuple[Path, ...] = (),
        overrides: Overrides = NO_OVERRIDES,
    ) -> None:
        self.folder = folder
        self.transformer = transformer
        self.others = others
        self.settings = settings
        if settings.query_expansion is not None and not self.expands_queries:
            raise ValueError(
                f"{transformer}: query_expansion={settings.query_expansion!r} is not supported here;"
                " known: null (MultiVectorEncoder expands queries)"
            )
        self.defaults = defaults
        adapter = transformer / "adapter_config.json"
        if os.path.lexists(adapter):  # transformers would add the adapter to the weights
            raise ValueError(f"{adapter}: adapters are not supported; merge it into the model")
        self.overrides = settings.overrides.under(overrides)
        self.config = self._config()
        self.quantization = read_quantization_config(transformer)

    def _config(self) -> dict[str, Any]:
        return {**read_json(self.transformer / "config.json"), **self.overrides.config}

    def checkpoint(self) -> Checkpoint:
        """Open the weights."""
        return Checkpoint(
            self.transformer / WEIGHTS_FILE if self.quantization else self.transformer
        )

    def encoder(self, checkpoint: Checkpoint) -> nn.TextEncoder:
        """Build the encoder. Its numbers are read when they are needed, so the checkpoint must stay open.
        Warns about tensors that belong to no parameter."""
        saved, path = self.quantization, self.transformer / "config.json"
        with naming(path):
            if unknown := unknown_keys(self.config):
                warn_caller(f"{path}: {', '.join(map(repr, unknown))}: unknown, ignored")
            encoder, names = build_encoder(self.config)
        if saved is not None and names.adapter is not None and names.adapter.number is not None:
            raise ValueError(
                f"default_task={self.config['default_task']!r}, but {self.folder} is quantized, without"
                " its adapters; load the model that it was made from"
            )
        if saved is not None and saved.version > 1:
            self._cut(encoder)
            encoder.load_state_dict(saved_places(encoder, names, checkpoint, saved))
            return encoder
        with naming(path):
            assigned = assign(encoder, names, checkpoint).without(self._cut(encoder))
        others = self.other_tensors
        if left := [name for name in assigned.unread if not name.startswith(others)]:
            shown = ", ".join(map(repr, left[:5])) + (", ..." if left[5:] else "")
            warn_caller(
                f"{checkpoint.location}: {len(left)} tensors do not belong to the model in"
                f" config.json and are ignored: {shown}"
            )
        if saved is None:
            encoder.load_state_dict(assigned.places)
        else:
            encoder.load_state_dict(version_1.saved_places(encoder, assigned, saved))
        return encoder

    def _cut(self, encoder: nn.TextEncoder) -> list[str]:
        """Remove the layers after the model's hidden state. Returns the names of the removed parameters."""
        index = self.settings.hidden_state
        return [] if index is None else cut_layers(encoder, index)

    @abstractmethod
    def measure(self, checkpoint: Checkpoint) -> Pool:
        """The function that makes the vectors for comparing int8 with float32. Reads what it needs from the
        checkpoint."""

    def chat_template(self) -> ChatTemplate | None:
        """The chat template that texts are put into; None if there is none. It makes one text of a pair."""
        form = self.settings.message_format
        if form is None:
            return None
        template = load_chat_template(
            self.transformer,
            self.overrides.tokenizer,
            form=form,
            model_type=self.config.get("model_type"),
            variables=self.settings.chat_template_kwargs,
        )
        if template is not None and self.reads_pairs:
            template.check_pairs()
        return template

    def tokenizer(self, encoder: nn.TextEncoder, *, pairs: bool = False) -> Tokenizer:
        """The tokenizer of texts, or of pairs, for an encoder."""
        templated = self.chat_template() is not None
        path = self.transformer / "tokenizer_config.json"
        if self.settings.length(None) is not None:
            path = self.transformer / transformer_config_name(self.transformer)
        with naming(path):
            return load_tokenizer(
                self.transformer,
                max_seq_length=self.settings.length(None),
                max_positions=encoder.max_positions,
                do_lower_case=self.settings.do_lower_case,
                overrides=self.overrides.tokenizer,
                pairs=pairs and not templated,
                # With fewer than two token types, ids of types have no effect.
                with_type_ids=encoder.num_token_types > 1,
                add_special_tokens=self.settings.add_special_tokens and not templated,
            )

    def resolve(self, compute_type: str) -> str:
        """The compute type to run. ValueError if the folder does not have the weights for it."""
        if self.quantization is None:
            chosen = {"default": "float32", "auto": auto_compute_type()}
            return chosen.get(compute_type, compute_type)
        if compute_type not in ("default", "auto", "int8"):
            raise ValueError(
                f"compute_type={compute_type!r}, but {self.folder} is quantized:"
                f" {self.quantization.path} declares int8, and the float32 weights are not there;"
                " load the model that it was made from"
            )
        return "int8"


class ModelFolder(TransformerFolder):
    """A sentence-transformers folder or a plain transformers folder, opened for the texts of a task.

    output: the feature that becomes a text's row.
    """

    transformer_task = "feature-extraction"

    def __init__(
        self,
        folder: Path,
        overrides: Overrides = NO_OVERRIDES,
        task: str | None = None,
        output: str = SENTENCE,
    ) -> None:
        self.listed, defaults = self.read_list(folder, output)
        modules = self.listed.of(task)
        kinds = [module.kind for module in modules]
        if not modules or kinds[0] not in INPUT_MODULES or {*kinds[1:]} & {*INPUT_MODULES}:
            raise ValueError(
                f"{self.listed.source}: modules {' -> '.join(kinds)} cannot be run: the first one, and"
                f" no other, must be one of {', '.join(INPUT_MODULES)}"
            )
        self.is_static = kinds[0] != "Transformer"
        self.kinds = kinds
        inner = modules[0].folder or folder
        # the chat template is applied unless sentence-transformers wrote the folder
        settings = TransformerSettings(message_format=None if self.is_static else "auto")
        if not self.is_static and self.listed.is_saved:
            settings = read_transformer_settings(inner, self.transformer_task)
        others = tuple(module.folder for module in modules[1:] if module.folder is not None)
        super().__init__(folder, inner, settings, defaults, others, overrides)
        self.pooling = self._chain(modules[1:], output)

    @classmethod
    def read_list(cls, folder: Path, output: str = SENTENCE) -> tuple[ModuleList, Defaults]:
        """The modules of a folder, and its defaults. If another class saved the folder, only its Transformer
        is used, as in sentence-transformers."""
        listed = read_modules(folder)
        if listed is not None:
            ours = "CrossEncoder" if output == SCORES else "SentenceTransformer"
            saved = read_model_type(folder)
            if saved == ours:
                return listed, read_defaults(folder)
            warn_caller(f"{folder} is a {saved}: its modules are ignored, and mean pooling is used")
        modules = [Module("Transformer", folder), Module("Pooling", None)]
        return ModuleList(folder / "config.json", modules, is_saved=False), Defaults()

    def read_head(self, checkpoint: Checkpoint, encoder: nn.TextEncoder, compute_type: str) -> None:
        """Read weights for the steps after the encoder from the encoder's own checkpoint, while it is
        open."""

    def finish_head(self, encoder: nn.TextEncoder, compute_type: str) -> Mapping[str, str]:  # noqa: ARG002
        """Convert these weights to the compute type, after the encoder. Returns the types of the parts."""
        return {}

    def take_head(self, other: ModelFolder) -> None:
        """Use the weights that another folder has read from the same checkpoint."""

    def _config(self) -> dict[str, Any]:
        return {} if self.is_static else super()._config()

    def _chain(self, modules: Sequence[Module], output: str) -> Chain:
        """The modules after the first one."""
        steps: list[Step] = [Pooling("StaticEmbedding")] if self.is_static else []
        for module in modules:
            if module.folder is not None:
                steps.append(read_step(module))
            else:
                causal = is_causal_language_model(self.config)
                steps.append(Pooling(modes=("lasttoken",) if causal else ("mean",)))
        for step in steps[1:] if self.is_static else []:
            if step.reads in (TOKENS, LAYERS):
                raise ValueError(f"{step.name}: StaticEmbedding has no {step.reads}")
        layers = self.config.get("output_hidden_states") is True
        return Chain(str(self.listed.source), tuple(steps), output, layers=layers)

    def encoder(self, checkpoint: Checkpoint) -> nn.TextEncoder:
        """The encoder; for a StaticEmbedding, a table without layers."""
        return static_encoder(checkpoint) if self.is_static else super().encoder(checkpoint)

    def measure(self, checkpoint: Checkpoint) -> Pool:  # noqa: ARG002
        """The embeddings, because later modules have files of their own. If a module averages all layers,
        which are then run one by one, the output of the last layer is pooled instead."""
        if self.pooling.reads_layers:
            return partial(PooledStack, pooling=list(self.modes or ("mean",)))
        return self.pooling

    def tokenizer(self, encoder: nn.TextEncoder, *, pairs: bool = False) -> Tokenizer:
        """As TransformerFolder.tokenizer. A StaticEmbedding reads only tokenizer.json."""
        if self.is_static:
            return static_tokenizer(self.transformer)
        return super().tokenizer(encoder, pairs=pairs)

    def resolve(self, compute_type: str) -> str:
        """As TransformerFolder.resolve. A StaticEmbedding has no linear layers."""
        if not self.is_static:
            return super().resolve(compute_type)
        if compute_type not in ("default", "auto", "float32"):
            raise ValueError(
                f"compute_type={compute_type!r}: {self.transformer} is a StaticEmbedding, without"
                " linear layers; use 'float32'"
            )
        return "float32"

    @property
    def num_dense_layers(self) -> int:
        """The number of modules that transform the pooled vector."""
        return sum(isinstance(step, (Dense, LayerNorm)) for step in self.pooling.steps)

    @property
    def modes(self) -> tuple[str, ...]:
        """The pooling modes."""
        steps = self.pooling.steps
        return next((step.modes for step in steps if isinstance(step, Pooling)), ())
