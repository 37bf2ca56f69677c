# SPDX-License-Identifier: Apache-2.0
"""Opens a cross-encoder's folder: a Transformer with a classification head, or modules of which the last one
returns scores."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from simdformer._core import PooledStack
from simdformer.checkpoint import Checkpoint, naming, read_json
from simdformer.folder.chain import Chain
from simdformer.folder.model_folder import ModelFolder, TransformerFolder
from simdformer.folder.modules import (
    read_modules,
)
from simdformer.folder.overrides import NO_OVERRIDES, Overrides
from simdformer.folder.settings import (
    Defaults,
    read_defaults,
    read_model_type,
)
from simdformer.folder.steps import SCORES, TOKENS, Dense, Pooling
from simdformer.folder.transformer_settings import TransformerSettings, read_transformer_settings
from simdformer.int8.reference import Pool
from simdformer.models.classification import (
    BuiltHead,
    build_head,
    count_labels,
    head_tensors,
    named_head,
)


class CrossEncoderFolder(TransformerFolder):
    """A transformers folder with a classification head. It may have sentence-transformers' files."""

    reads_pairs = True

    def __init__(self, folder: Path, overrides: Overrides = NO_OVERRIDES) -> None:
        transformer = read_cross_encoder_module(folder)
        settings, defaults = TransformerSettings(message_format="auto"), Defaults()
        if os.path.lexists(folder / "modules.json"):
            settings = read_transformer_settings(transformer, "sequence-classification", "scores")
            defaults = read_defaults(folder)
        super().__init__(folder, transformer, settings, defaults, overrides=overrides)

    def measure(self, checkpoint: Checkpoint) -> Pool:
        """The input of the classifier. Logits are not compared, because a logit is a single number."""
        return _behind(self.head(checkpoint), scored=False)

    def scores(self, checkpoint: Checkpoint) -> tuple[Pool, int | None]:
        """The function that computes logits, and the padding token that it skips."""
        head = self.head(checkpoint)
        return _behind(head, scored=True), head.pad_token_id

    def num_labels(self) -> int:
        """The number of logits."""
        return count_labels(self.config)

    def head(self, checkpoint: Checkpoint) -> BuiltHead:
        """The head. ValueError if the folder is quantized and has none."""
        if self.quantization and head_tensors(self.config).isdisjoint(checkpoint.names()):
            raise ValueError(
                f"{self.folder} is quantized and has no classification head: quantize the original model"
                " again, or load it with compute_type='int8'"
            )
        with naming(self.transformer / "config.json"):
            return build_head(self.config, checkpoint)


def _behind(head: BuiltHead, *, scored: bool) -> Pool:
    """A head, with or without its classifier."""
    if head.pooling != "late":
        dense = head.dense if scored else head.dense[:-1]
        return partial(PooledStack, pooling=[head.pooling], dense=dense)
    first, last = (partial(Dense, "head", *linear) for linear in head.linears)
    steps = (first(reads=TOKENS, writes=TOKENS), Pooling(), last())
    return Chain("config.json", steps if scored else steps[:-1])


class ModularCrossEncoderFolder(ModelFolder):
    """A cross-encoder whose scores are computed by modules after its Transformer."""

    reads_pairs = True

    def __init__(self, folder: Path, overrides: Overrides = NO_OVERRIDES) -> None:
        super().__init__(folder, overrides, output=SCORES)
        if self.is_static:
            raise ValueError(f"{self.listed.source}: StaticEmbedding cannot read pairs")

    def measure(self, checkpoint: Checkpoint) -> Pool:  # noqa: ARG002
        """The pooled vectors. Logits are not compared, because a logit is a single number."""
        return partial(PooledStack, pooling=list(self.modes or ("mean",)))

    def scores(self, checkpoint: Checkpoint) -> tuple[Pool, int | None]:  # noqa: ARG002
        """As CrossEncoderFolder.scores."""
        return self.pooling, None

    def num_labels(self) -> int:
        """The number of scores."""
        steps = [step for step in self.pooling.steps if step.writes == SCORES]
        if not steps or not isinstance(steps[-1], Dense):
            raise ValueError(f"{self.listed.source}: no Dense module outputs {SCORES!r}")
        return int(steps[-1].linear.out_features)


# Kinds of models whose output is neither a pooled vector nor a score.
_OTHER_KINDS = ("SparseEncoder", "MultiVectorEncoder", "ColBERT")

AnyFolder = ModelFolder | CrossEncoderFolder
AnyCrossEncoderFolder = CrossEncoderFolder | ModularCrossEncoderFolder


def read_cross_encoder_module(folder: Path) -> Path:
    """The folder of the Transformer, a cross-encoder's only module; `folder` itself without modules.json.

    Errors: ValueError for other modules. For a sentence embedding model it says what to use instead.
    """
    listed = read_modules(folder)
    if listed is None:
        return folder
    if listed.kinds() != ["Transformer"]:
        raise ValueError(
            f"{listed.source}: CrossEncoder runs a Transformer with a classification head, alone, or"
            f" what a CrossEncoder saved, not {' -> '.join(listed.kinds())}; for a model with Pooling"
            " use SentenceTransformer"
        )
    return listed.modules[0].folder or folder


def open_cross_encoder(folder: Path, overrides: Overrides = NO_OVERRIDES) -> AnyCrossEncoderFolder:
    listed = read_modules(folder)
    alone = listed is None or listed.kinds() == ["Transformer"]
    if not alone and read_model_type(folder) == "CrossEncoder":
        return ModularCrossEncoderFolder(folder, overrides)
    return CrossEncoderFolder(folder, overrides)


def open_folder(folder: Path) -> AnyFolder:
    """Open a folder as a cross-encoder if a CrossEncoder saved it, or if config.json names a known
    classification head and no module follows the Transformer; else as an embedding model. Errors: as for
    these."""
    listed = read_modules(folder)
    saved = read_model_type(folder)
    if saved in _OTHER_KINDS:
        raise ValueError(f"{folder} is a {saved}, which is loaded, but not described or quantized")
    if listed is not None and listed.kinds() != ["Transformer"]:
        is_scoring = saved == "CrossEncoder"
        return ModularCrossEncoderFolder(folder) if is_scoring else ModelFolder(folder)
    config = read_json(read_cross_encoder_module(folder) / "config.json")
    return ModelFolder(folder) if named_head(config) is None else CrossEncoderFolder(folder)
