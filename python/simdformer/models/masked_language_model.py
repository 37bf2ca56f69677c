# SPDX-License-Identifier: Apache-2.0
"""Heads of masked language models compute, for a token's hidden state, one logit per token of the vocabulary.

The tensor names are those of transformers' *ForMaskedLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from simdformer._core import Dense, LayerNorm, Linear
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.weights import Float32, Weights
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import flag, positive_float, positive_int


class MaskedHead(NamedTuple):
    """logits = decoder(norm(activation(dense(x)))) + bias. The fields are names of tensors.

    word: the word embeddings, whose weights the decoder may share. bias: its possible names; the first that
    exists is used. activation: a name, or a pair: the field of config.json that gives it, and the default.
    eps: likewise. hidden_size, width: the fields that give the input and output sizes of dense. flags: the
    fields that say whether dense, norm and decoder have a bias, with defaults; None if they always have one.
    """

    dense: str
    norm: str
    decoder: str
    word: str
    bias: tuple[str, ...]
    activation: str | tuple[str, str] = ("hidden_act", "gelu")
    eps: float | tuple[str, float] = ("layer_norm_eps", 1e-12)
    hidden_size: str = "hidden_size"
    width: str = "hidden_size"
    flags: tuple[tuple[str, bool], tuple[str, bool], tuple[str, bool]] | None = None


class BuiltMaskedHead(NamedTuple):
    """transform: the steps before the decoder. vocabulary: the decoder's weight, (vocab_size, width); None if
    it is the table of word embeddings. bias: (vocab_size,) or None."""

    transform: Dense
    vocabulary: Float32 | None
    bias: Float32 | None


def _bert(prefix: str) -> MaskedHead:
    stem = "cls.predictions"
    return MaskedHead(
        dense=f"{stem}.transform.dense",
        norm=f"{stem}.transform.LayerNorm",
        decoder=f"{stem}.decoder",
        word=f"{prefix}.embeddings.word_embeddings",
        bias=(f"{stem}.decoder.bias", f"{stem}.bias"),
    )


def _roberta(prefix: str) -> MaskedHead:
    return MaskedHead(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        decoder="lm_head.decoder",
        word=f"{prefix}.embeddings.word_embeddings",
        bias=("lm_head.decoder.bias", "lm_head.bias"),
        activation="gelu",
    )


# By model_type, as in transformers' AutoModelForMaskedLM.
HEADS: Mapping[str, MaskedHead] = {
    "bert": _bert("bert"),
    "camembert": _roberta("roberta"),
    "distilbert": MaskedHead(
        dense="vocab_transform",
        norm="vocab_layer_norm",
        decoder="vocab_projector",
        word="distilbert.embeddings.word_embeddings",
        bias=("vocab_projector.bias",),
        activation=("activation", "gelu"),
        eps=1e-12,
        hidden_size="dim",
        width="dim",
    ),
    "electra": MaskedHead(
        dense="generator_predictions.dense",
        norm="generator_predictions.LayerNorm",
        decoder="generator_lm_head",
        word="electra.embeddings.word_embeddings",
        bias=("generator_lm_head.bias",),
        activation="gelu",
        width="embedding_size",
    ),
    "ernie": _bert("ernie"),
    "modernbert": MaskedHead(
        dense="head.dense",
        norm="head.norm",
        decoder="decoder",
        word="model.embeddings.tok_embeddings",
        bias=("decoder.bias",),
        activation=("classifier_activation", "gelu"),
        eps=("norm_eps", 1e-5),
        flags=(("classifier_bias", False), ("norm_bias", False), ("decoder_bias", True)),
    ),
    "mpnet": _roberta("mpnet"),
    "roberta": _roberta("roberta"),
    "xlm-roberta": _roberta("roberta"),
}


def has_masked_head(config: Mapping[str, Any]) -> bool:
    """Whether config.json names a masked language model."""
    architectures = config.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    return any(isinstance(name, str) and name.endswith("ForMaskedLM") for name in named)


def build_masked_head(config: Mapping[str, Any], checkpoint: Checkpoint) -> BuiltMaskedHead:
    """Build the head, without word embeddings that it shares with the encoder.

    Errors: ValueError for an architecture without a known head, and for tensors that are missing or have
    another shape.
    """
    head = HEADS.get(str(config.get("model_type")))
    if head is None:
        raise ValueError(
            f"config.json has model_type={config.get('model_type')!r}, whose masked language model is"
            f" not known; known: {', '.join(HEADS)}"
        )
    hidden = positive_int(config, head.hidden_size)
    sizes = {
        head.hidden_size: hidden,
        head.width: positive_int(config, head.width, hidden),
        "vocab_size": positive_int(config, "vocab_size"),
    }
    weights = Weights(checkpoint, sizes)
    flags = head.flags or (("", True),) * 3
    dense, norm, decoder = (
        default if not name else flag(config, name, default) for name, default in flags
    )
    weight = weights(f"{head.dense}.weight", head.width, head.hidden_size)
    linear = Linear(weight, weights(f"{head.dense}.bias", head.width) if dense else None)
    eps = head.eps if isinstance(head.eps, float) else positive_float(config, *head.eps)
    layer_norm = LayerNorm(
        weights(f"{head.norm}.weight", head.width),
        weights(f"{head.norm}.bias", head.width) if norm else None,
        eps=eps,
    )
    transform = Dense(linear, activation=_activation(config, head.activation), norm=layer_norm)
    bias = _first(weights, checkpoint, head.bias) if decoder else None
    return BuiltMaskedHead(transform, _own_vocabulary(config, weights, checkpoint, head), bias)


def _activation(config: Mapping[str, Any], given: str | tuple[str, str]) -> str:
    if isinstance(given, str):
        return given
    field, default = given
    return from_hidden_act(config.get(field, default), field)


def _first(weights: Weights, checkpoint: Checkpoint, names: tuple[str, ...]) -> Float32:
    """The bias. transformers ties the names of one bias; if their values differ, the first is used."""
    name = next((name for name in names if name in checkpoint), names[-1])
    return weights(name, "vocab_size")


def _own_vocabulary(
    config: Mapping[str, Any], weights: Weights, checkpoint: Checkpoint, head: MaskedHead
) -> Float32 | None:
    """The decoder's own weight. As in transformers, a stored weight that differs from the word embeddings is
    used even if config.json says that they are tied."""
    name = f"{head.decoder}.weight"
    tied = flag(config, "tie_word_embeddings", True)
    if tied and name not in checkpoint:
        return None
    own = weights(name, "vocab_size", head.width)
    word = f"{head.word}.weight"
    if tied and word in checkpoint and np.array_equal(own, checkpoint.read(word)):
        return None
    return own
