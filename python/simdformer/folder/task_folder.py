# SPDX-License-Identifier: Apache-2.0
"""Folders as the pipelines of transformers read them, without the files of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from simdformer import nn
from simdformer._core import Linear, Norm, PooledStack, TransformerStack, linear_forward
from simdformer.checkpoint import Checkpoint, naming
from simdformer.checkpoint.weights import Float32
from simdformer.folder.cross_encoder_folder import CrossEncoderFolder
from simdformer.folder.model_folder import TransformerFolder
from simdformer.folder.overrides import NO_OVERRIDES, Overrides
from simdformer.folder.settings import Defaults
from simdformer.folder.transformer_settings import TransformerSettings
from simdformer.functional.activations import activate
from simdformer.int8.reference import Pool
from simdformer.models.classification import TOKEN_HEADS, build_head, named_head
from simdformer.models.head_layer import HeadLayer
from simdformer.models.masked_language_model import (
    BuiltMaskedHead,
    build_masked_head,
    has_masked_head,
    masked_head_of,
)


class TokenLayers:
    """Layers after an encoder, applied to each token. Used instead of a Chain."""

    def __init__(self, layers: Sequence[HeadLayer]) -> None:
        self.layers = tuple(layers)

    def __call__(self, stack: TransformerStack) -> TokenLayersStack:
        """The layers after this encoder."""
        return TokenLayersStack(stack, self.layers)


class TokenLayersStack:
    """An encoder followed by layers for each token."""

    def __init__(self, stack: TransformerStack, layers: tuple[HeadLayer, ...]) -> None:
        self._stack = stack
        self._layers = layers
        self.embedding_dimension = layers[-1].linear.out_features if layers else stack.hidden_size

    def encode(self, *_: Any, **__: Any) -> Float32:
        """Refused, because there is no row for a whole text."""
        raise ValueError("this model returns a row for each token, and none for the text")

    def token_rows(
        self, input_ids: Any, cu_seqlens: Any, token_type_ids: Any = None, *, num_threads: int = 0
    ) -> Float32:
        """The rows of all tokens of packed texts: float32 (total_tokens, embedding_dimension)."""
        rows = self._stack.encode(input_ids, cu_seqlens, token_type_ids, num_threads=num_threads)
        for linear, activation, norm in self._layers:
            rows = linear_forward(linear, rows, num_threads=num_threads)
            if activation != "identity":
                rows = activate(activation, rows, None)
            if norm is not None:
                rows = Norm.layer(norm).forward(rows, num_threads=num_threads)
        return rows


class Vocabulary:
    """The decoder of a masked language model: it maps a token's row to the logits of all tokens of the vocabulary."""

    def __init__(self, linear: Callable[[], Linear], bias: Float32 | None) -> None:
        """linear: returns the packed decoder, which may be the current word embeddings."""
        self._linear, self._bias = linear, bias

    def __call__(self, rows: Float32, num_threads: int) -> Float32:
        """float32 (k, width) to (k, vocab_size)."""
        logits = linear_forward(self._linear(), rows, num_threads=num_threads)
        return logits if self._bias is None else logits + self._bias


class TaskFolder(TransformerFolder):
    """A folder for rows of tokens. Here they are those of the encoder."""

    def __init__(self, folder: Path, overrides: Overrides = NO_OVERRIDES) -> None:
        settings = TransformerSettings(message_format=None)
        super().__init__(folder, folder, settings, Defaults(), overrides=overrides)

    def measure(self, checkpoint: Checkpoint) -> Pool:  # noqa: ARG002
        """The mean of the tokens, by which the loss of int8 is measured."""
        return partial(PooledStack, pooling=["mean"])

    def scores(self, checkpoint: Checkpoint) -> tuple[Pool, int | None]:
        """The layers that give the rows, and no padding token."""
        with naming(self.transformer / "config.json"):
            return TokenLayers(self._layers(checkpoint)), None

    def saved_head(self, checkpoint: Checkpoint) -> Mapping[str, Float32]:
        """The tensors of the head, which a quantized folder keeps beside the encoder's.

        checkpoint: of which nothing but the head was read.
        """
        self.scores(checkpoint)
        return {name: checkpoint.read(name) for name in sorted(checkpoint.names_read)}

    def _layers(self, checkpoint: Checkpoint) -> Sequence[HeadLayer]:  # noqa: ARG002
        return ()


class TokenClassificationFolder(TaskFolder):
    """A folder with a classification head for tokens."""

    def _layers(self, checkpoint: Checkpoint) -> Sequence[HeadLayer]:
        return build_head(self.config, checkpoint, TOKEN_HEADS).layers


class MaskedFolder(TaskFolder):
    """A masked language model's folder."""

    _head: BuiltMaskedHead

    def _layers(self, checkpoint: Checkpoint) -> Sequence[HeadLayer]:
        self._head = build_masked_head(self.config, checkpoint)
        return () if self._head.transform is None else [self._head.transform]

    def saved_head(self, checkpoint: Checkpoint) -> Mapping[str, Float32]:
        """As TaskFolder.saved_head, without the word embeddings and a decoder that is equal to them."""
        tensors = super().saved_head(checkpoint)
        shared = masked_head_of(self.config)
        others = {f"{shared.word}.weight"}
        if self._head.vocabulary is None:
            others.add(f"{shared.decoder}.weight")
        return {name: tensor for name, tensor in tensors.items() if name not in others}

    def encoder(self, checkpoint: Checkpoint) -> nn.TextEncoder:
        """Build the encoder. If its word embeddings are the decoder too, they are packed as such."""
        encoder = super().encoder(checkpoint)
        encoder.embeddings.is_tied = self._head.vocabulary is None
        return encoder

    def vocabulary(self, encoder: nn.TextEncoder) -> Vocabulary:
        """The decoder, in float32. encoder: the packed one."""
        if self._head.vocabulary is None:
            return Vocabulary(encoder.embeddings.head, self._head.bias)
        own = Linear(self._head.vocabulary)
        return Vocabulary(lambda: own, self._head.bias)


class SequenceFolder(CrossEncoderFolder):
    """A folder with a classification head for texts and pairs."""

    def __init__(self, folder: Path, overrides: Overrides = NO_OVERRIDES) -> None:
        super().__init__(folder, overrides, plain=True)


def open_plain(folder: Path, config: Mapping[str, Any]) -> TaskFolder | None:
    """The folder of a model for tokens that transformers saved; None if config.json names none. Errors: as
    for these."""
    if named_head(config, TOKEN_HEADS) is not None:
        return TokenClassificationFolder(folder)
    return MaskedFolder(folder) if has_masked_head(config) else None
