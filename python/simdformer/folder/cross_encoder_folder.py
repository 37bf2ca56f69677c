# SPDX-License-Identifier: Apache-2.0
"""Opens a cross-encoder's folder: a Transformer with a classification head, a causal language model, or
modules of which the last one returns scores."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from simdformer._core import PooledStack
from simdformer.checkpoint import Checkpoint, naming, read_json, read_optional_json
from simdformer.checkpoint.weights import Float32
from simdformer.folder.chain import Chain
from simdformer.folder.fields import refuse_keys, string
from simdformer.folder.model_folder import ModelFolder, TransformerFolder
from simdformer.folder.modules import is_causal_language_model, read_modules
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
    build_token_head,
    count_labels,
    find_head,
    head_tensors,
    last_token_head,
    named_head,
    published_head,
)
from simdformer.models.config_fields import non_negative_int
from simdformer.text.tokenizer_files import read_tokenizer


class CrossEncoderFolder(TransformerFolder):
    """A transformers folder with a classification head. It may have sentence-transformers' files.

    plain: ignore those files and chat templates, as transformers does.
    """

    reads_pairs = True
    # What modules.json lists, and what the Transformer's settings must say.
    kinds: tuple[str, ...] = ("Transformer",)
    transformer_task, output = "sequence-classification", "scores"
    # The tokens whose logits are the score, if it is that.
    score_tokens: tuple[int, ...] = ()

    def __init__(
        self, folder: Path, overrides: Overrides = NO_OVERRIDES, *, plain: bool = False
    ) -> None:
        transformer = folder if plain else read_cross_encoder_module(folder, self.kinds)
        settings = TransformerSettings(message_format=None if plain else "auto")
        defaults = Defaults()
        if not plain and os.path.lexists(folder / "modules.json"):
            settings = read_transformer_settings(transformer, self.transformer_task, self.output)
            defaults = read_defaults(folder)
        super().__init__(folder, transformer, settings, defaults, overrides=overrides)

    @property
    def head_name(self) -> str | None:
        """The architecture with the classification head."""
        return named_head(self.config) or published_head(self.config)

    def saved_head(self, checkpoint: Checkpoint) -> Mapping[str, Float32]:
        """The tensors of the head, which a quantized folder keeps beside the encoder's.

        checkpoint: of which nothing but the head was read.
        """
        self.head(checkpoint)
        return {name: checkpoint.read(name) for name in sorted(checkpoint.names_read)}

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
        self._check_quantized(checkpoint, head_tensors(self.config))
        with naming(self.transformer / "config.json"):
            return build_head(self.config, checkpoint)

    def _check_quantized(self, checkpoint: Checkpoint, names: Collection[str]) -> None:
        if self.quantization and not any(name in checkpoint for name in names):
            raise ValueError(
                f"{self.folder} is quantized and has no classification head: quantize the original model"
                " again, or load it with compute_type='int8'"
            )


class CausalCrossEncoderFolder(CrossEncoderFolder):
    """The folder of a causal language model. A score is the logit of a token after the last one, or the
    difference between those of two tokens: the ones of LogitScore, or "yes" and "no" without modules.json."""

    kinds = ("Transformer", "LogitScore")
    transformer_task, output = "text-generation", "causal_logits"

    def __init__(self, folder: Path, overrides: Overrides = NO_OVERRIDES) -> None:
        super().__init__(folder, overrides)
        listed = read_modules(folder)
        if listed is None:
            self.score_tokens = self._yes_and_no()
        else:
            path = (listed.modules[-1].folder or folder) / "config.json"
            with naming(path):
                self.score_tokens = _read_logit_score(path)

    @property
    def head_name(self) -> str:
        """The module that returns the scores."""
        return "LogitScore"

    def num_labels(self) -> int:
        """One score."""
        return 1

    def saved_head(self, checkpoint: Checkpoint) -> Mapping[str, Float32]:
        """The weight of the score, in place of the head for the whole vocabulary."""
        ((linear, _, _),) = self.head(checkpoint).layers
        return {_SCORE: linear.weight()}

    def head(self, checkpoint: Checkpoint) -> BuiltHead:
        """The head. ValueError if the folder is quantized and has none."""
        self._check_quantized(checkpoint, [_SCORE])
        if self.quantization:
            return last_token_head(checkpoint.read(_SCORE))
        with naming(self.transformer / "config.json"):
            return build_token_head(self.config, checkpoint, self.score_tokens)

    def _yes_and_no(self) -> tuple[int, ...]:
        """The tokens that sentence-transformers chooses."""
        tokenizer = read_tokenizer(self.transformer, self.overrides.tokenizer).tokenizer
        true, false = (tokenizer.token_to_id(token) for token in ("yes", "no"))
        if true is None or false is None:
            raise ValueError(
                f"{self.transformer}: a causal language model without a LogitScore module needs the tokens"
                " 'yes' and 'no', which its tokenizer does not have"
            )
        return true, false


def _read_logit_score(path: Path) -> tuple[int, ...]:
    """LogitScore's tokens: the one whose logit is the score, and the one whose logit is subtracted."""
    config = read_json(path)
    refuse_keys(path, config, ("true_token_id", "false_token_id", "module_input_name"))
    reads = string(config, "module_input_name", "causal_logits")
    if reads != "causal_logits":
        raise ValueError(f"unknown module_input_name {reads!r}; known: 'causal_logits'")
    names = ["true_token_id"]
    if config.get("false_token_id") is not None:
        names.append("false_token_id")
    return tuple(non_negative_int(config, name) for name in names)


def _behind(head: BuiltHead, *, scored: bool) -> Pool:
    """A head, with or without its classifier."""
    if head.pooling != "late":
        dense = [layer.native() for layer in (head.layers if scored else head.layers[:-1])]
        return partial(PooledStack, pooling=[head.pooling], dense=dense)
    first, last = (partial(Dense, "head", *layer[:2]) for layer in head.layers)
    steps = (first(reads=TOKENS, writes=TOKENS), Pooling(), last())
    return Chain("config.json", steps if scored else steps[:-1])


class ModularCrossEncoderFolder(ModelFolder):
    """A cross-encoder whose scores are computed by modules after its Transformer."""

    reads_pairs = True
    head_name: str | None = None
    score_tokens: tuple[int, ...] = ()

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


# The tensor of a quantized causal language model's score.
_SCORE = "score.weight"
# Kinds of models whose output is neither a pooled vector nor a score.
_OTHER_KINDS = ("SparseEncoder", "MultiVectorEncoder", "ColBERT")

AnyFolder = ModelFolder | CrossEncoderFolder
AnyCrossEncoderFolder = CrossEncoderFolder | ModularCrossEncoderFolder


def read_cross_encoder_module(folder: Path, kinds: Sequence[str] = ("Transformer",)) -> Path:
    """The folder of the Transformer, a cross-encoder's first module; `folder` itself without modules.json.

    Errors: ValueError for other modules. For a sentence embedding model it says what to use instead.
    """
    listed = read_modules(folder)
    if listed is None:
        return folder
    if listed.kinds() != [*kinds]:
        raise ValueError(
            f"{listed.source}: CrossEncoder runs a Transformer with a classification head, alone, or"
            f" what a CrossEncoder saved, not {' -> '.join(listed.kinds())}; for a model with Pooling"
            " use SentenceTransformer"
        )
    return listed.modules[0].folder or folder


def open_cross_encoder(folder: Path, overrides: Overrides = NO_OVERRIDES) -> AnyCrossEncoderFolder:
    """A cross-encoder's folder, of the kind that its files say. Errors: theirs."""
    listed = read_modules(folder)
    if listed is None:
        config = read_optional_json(folder / "config.json")
        # is_causal says how it attends, not what it is.
        is_causal = is_causal_language_model({**config, "is_causal": None})
        return (CausalCrossEncoderFolder if is_causal else CrossEncoderFolder)(folder, overrides)
    kinds = tuple(listed.kinds())
    if kinds == CrossEncoderFolder.kinds or read_model_type(folder) != "CrossEncoder":
        return CrossEncoderFolder(folder, overrides)
    if kinds == CausalCrossEncoderFolder.kinds:
        return CausalCrossEncoderFolder(folder, overrides)
    return ModularCrossEncoderFolder(folder, overrides)


def open_folder(folder: Path) -> AnyFolder:
    """Open a folder as a cross-encoder if a CrossEncoder saved it, or if it has a known classification head
    and no module follows the Transformer; else as an embedding model. Errors: as for these."""
    listed = read_modules(folder)
    saved = read_model_type(folder)
    if saved in _OTHER_KINDS:
        raise ValueError(f"{folder} is a {saved}, which is loaded, but not described or quantized")
    if listed is not None and listed.kinds() != ["Transformer"]:
        is_scoring = saved == "CrossEncoder"
        return open_cross_encoder(folder) if is_scoring else ModelFolder(folder)
    config = read_json(read_cross_encoder_module(folder) / "config.json")
    return CrossEncoderFolder(folder) if _has_head(folder, config) else ModelFolder(folder)


def _has_head(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether config.json names a known classification head, or the weights have that of the model's code."""
    if named_head(config) is not None or published_head(config) is None:
        return named_head(config) is not None
    with Checkpoint(folder) as checkpoint:
        return f"{find_head(config).classifier}.weight" in checkpoint
