# SPDX-License-Identifier: Apache-2.0
"""Opens a SparseEncoder's folder: a masked language model with SpladePooling, or a table of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simdformer import nn
from simdformer._core import Linear
from simdformer.checkpoint import Checkpoint, naming, read_json, read_optional_json
from simdformer.checkpoint.weights import Float32
from simdformer.folder.fields import refuse_keys
from simdformer.folder.model_folder import ModelFolder
from simdformer.folder.modules import Module, ModuleList, read_modules
from simdformer.folder.settings import Defaults, read_defaults, read_model_type
from simdformer.folder.sparse_steps import Splade, StaticWeights
from simdformer.folder.steps import SENTENCE
from simdformer.int8.calibration import MIN_COSINE
from simdformer.int8.losses import cosines_of
from simdformer.int8.sample import vocabulary_sample
from simdformer.models.assign import WORDS
from simdformer.models.config_fields import one_of
from simdformer.models.masked_language_model import build_masked_head, has_masked_head
from simdformer.nn import initialization
from simdformer.nn.compute_types import Recorder, quantized
from simdformer.nn.parameters import Matrix, Stored, float32_of
from simdformer.text.tokenizer import Tokenizer, load_tokenizer

_NO_LIMIT = 2**31 - 1
VOCABULARY = "vocabulary"


class SparseFolder(ModelFolder):
    """A SparseEncoder's or a masked language model's folder, opened for the texts of a task."""

    transformer_task = "fill-mask"
    pooling: Any

    @classmethod
    def read_list(cls, folder: Path, output: str = SENTENCE) -> tuple[ModuleList, Defaults]:  # noqa: ARG003
        """The modules of a folder, and its defaults. ValueError if it is not a SparseEncoder's."""
        listed = read_modules(folder)
        if listed is not None and read_model_type(folder) == "SparseEncoder":
            return listed, read_defaults(folder)
        config = read_optional_json(folder / "config.json")
        if listed is None and has_masked_head(config):
            modules = [Module("Transformer", folder), Module("SpladePooling", None)]
            return ModuleList(folder / "config.json", modules, is_saved=False), Defaults()
        raise ValueError(
            f"{folder} is not a SparseEncoder: it has neither a SparseEncoder's modules.json nor a config.json"
            f" with the architecture of a masked language model, got {config.get('architectures')!r};"
            " for embeddings of one vector use SentenceTransformer"
        )

    def _chain(self, modules: Sequence[Module], output: str) -> Any:  # noqa: ARG002
        if self.quantization is not None:
            raise ValueError(
                f"{self.folder} is quantized: SparseEncoder runs the model that it was made from, also"
                " with compute_type='int8'"
            )
        if self.is_static and not modules:
            return StaticWeights(_read_weights(self.transformer))
        kinds = [module.kind for module in modules]
        if self.is_static or kinds != ["SpladePooling"]:
            first = "SparseStaticEmbedding" if self.is_static else "Transformer"
            raise ValueError(
                f"{self.listed.source}: modules {' -> '.join([first, *kinds])} cannot be run; known:"
                " Transformer -> SpladePooling, and SparseStaticEmbedding alone"
            )
        return _read_splade(modules[0].folder)

    def encoder(self, checkpoint: Checkpoint) -> nn.TextEncoder:
        """The encoder. A SparseStaticEmbedding has a table without layers, which is not run."""
        if not self.is_static:
            return super().encoder(checkpoint)
        with initialization.deferred():
            encoder = nn.TextEncoder(nn.TextEmbeddings(self.pooling.embedding_dimension, 1), [])
        table = self.pooling.weight[:, None]
        encoder.load_state_dict({WORDS: Stored(table.shape, lambda: table)})
        return encoder

    def read_head(self, checkpoint: Checkpoint, encoder: nn.TextEncoder, compute_type: str) -> None:
        """Read the head. In float32, a decoder that shares the word embeddings also shares their packed
        form."""
        if self.is_static:
            return
        with naming(self.transformer / "config.json"):
            head = build_masked_head(self.config, checkpoint)
        self.pooling.head = head._replace(vocabulary=None)
        if head.vocabulary is None and compute_type == "float32":
            encoder.embeddings.is_tied = True
            return
        weight = head.vocabulary
        if weight is None:
            owner, name = encoder.places()[WORDS]
            weight = float32_of(owner.place(name).array())
        narrow = compute_type == "bfloat16"
        self.pooling.vocabulary = Linear.in_bfloat16(weight) if narrow else Linear(weight)

    def take_head(self, other: ModelFolder) -> None:
        """Use the head of another folder: two routes may share a Transformer and differ in pooling."""
        if not self.is_static and isinstance(other, SparseFolder):
            self.pooling.head = other.pooling.head
            self.pooling.vocabulary = other.pooling.vocabulary

    def finish_head(self, encoder: nn.TextEncoder, compute_type: str) -> Mapping[str, str]:
        """Quantize the decoder to int8 if a sample's rows stay close enough to float32. Returns its type."""
        if self.is_static or compute_type != "int8":
            return {}
        stack, wide = encoder.native(), self.pooling.vocabulary
        sample = vocabulary_sample(encoder)
        with Recorder([wide]) as recorder:
            exact = self.pooling(stack).encode(*sample, num_threads=1)
        outliers = recorder.outliers([wide])
        self.pooling.vocabulary = Matrix(quantized(wide.weight(), outliers), None, "int8").pack()
        rows = self.pooling(stack).encode(*sample)
        if cosines_of(rows, exact).min() >= MIN_COSINE:
            return {VOCABULARY: "int8"}
        self.pooling.vocabulary = wide
        return {VOCABULARY: "float32"}

    def tokenizer(self, encoder: nn.TextEncoder, *, pairs: bool = False) -> Tokenizer:
        """As ModelFolder.tokenizer. A table of weights reads the text's own tokens, without special
        tokens."""
        if not self.is_static:
            return super().tokenizer(encoder, pairs=pairs)
        return load_tokenizer(
            self.transformer,
            max_seq_length=None,
            max_positions=_NO_LIMIT,
            do_lower_case=False,
            overrides=self.overrides.tokenizer,
            with_type_ids=False,
            add_special_tokens=False,
        )


def _read_splade(folder: Path | None) -> Splade:
    """Read SpladePooling's config.json. Without one, pooling is that of a masked language model."""
    if folder is None:
        return Splade(sums=False, logarithms=1)
    path = folder / "config.json"
    config = read_json(path)
    known = ("pooling_strategy", "activation_function", "chunk_size")
    refuse_keys(path, config, (*known, "embedding_dimension", "word_embedding_dimension"))
    with naming(path):
        strategy = one_of(config, "pooling_strategy", ["max", "sum"], "max")
        activation = one_of(config, "activation_function", ["relu", "log1p_relu"], "relu")
    return Splade(sums=strategy == "sum", logarithms=1 if activation == "relu" else 2)


def _read_weights(folder: Path) -> Float32:
    """Read the weights of SparseStaticEmbedding, (vocab_size,)."""
    path = folder / "config.json"
    refuse_keys(path, read_optional_json(path), ("frozen",))
    with Checkpoint(folder) as checkpoint:
        if "weight" not in checkpoint:
            raise ValueError(f"{checkpoint.location}: no tensor 'weight'")
        weight = checkpoint.read("weight")
        if weight.ndim != 1 or len(weight) == 0:
            raise ValueError(
                f"tensor 'weight' in {checkpoint.path('weight')} must have one dimension, its shape is"
                f" {weight.shape}"
            )
        return weight
