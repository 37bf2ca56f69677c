# SPDX-License-Identifier: Apache-2.0
"""Heads of masked language models compute, for a token's hidden state, one logit per token of the vocabulary.

The tensor names are those of transformers' *ForMaskedLM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from simdformer._core import LayerNorm, Linear
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.weights import Float32, Weights
from simdformer.models.config_fields import flag, positive_float, positive_int
from simdformer.models.head_layer import HeadLayer, head_activation


class MaskedHead(NamedTuple):
    """logits = decoder(norm(activation(dense(x)))) + bias. The fields are names of tensors.

    dense, norm: empty if the head has none. decoder: empty if the word embeddings are always used. word: the
    word embeddings, whose weights the decoder may share. bias: its possible names; the first that
    exists is used. activation: a name, or a pair: the field of config.json that gives it, and the default.
    eps: likewise. hidden_size, width: the fields that give the input and output sizes of dense. flags: the
    fields that say whether dense, norm and decoder have a bias, with defaults; None if they always have one.
    not_legacy: the head if config.json has "legacy": false.
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
    not_legacy: Any = None


class BuiltMaskedHead(NamedTuple):
    """transform: the steps before the decoder, or None. vocabulary: the decoder's weight, (vocab_size, width);
    None if it is the table of word embeddings. bias: (vocab_size,) or None."""

    transform: HeadLayer | None
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


_ALWAYS = ("", True)  # a part without a field


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
    "albert": MaskedHead(
        dense="predictions.dense",
        norm="predictions.LayerNorm",
        decoder="predictions.decoder",
        word="albert.embeddings.word_embeddings",
        bias=("predictions.decoder.bias", "predictions.bias"),
        activation=("hidden_act", "gelu_new"),
        width="embedding_size",
    ),
    "bert": _bert("bert"),
    "camembert": _roberta("roberta"),
    "deberta-v2": _bert("deberta")._replace(
        eps=("layer_norm_eps", 1e-7),
        not_legacy=MaskedHead(
            dense="lm_predictions.lm_head.dense",
            norm="lm_predictions.lm_head.LayerNorm",
            decoder="",
            word="deberta.embeddings.word_embeddings",
            bias=("lm_predictions.lm_head.bias",),
            eps=("layer_norm_eps", 1e-7),
        ),
    ),
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
    "eurobert": MaskedHead(
        dense="",
        norm="",
        decoder="lm_head",
        word="model.embed_tokens",
        bias=("lm_head.bias",),
        flags=(_ALWAYS, _ALWAYS, ("mlp_bias", False)),
    ),
    "gte": _roberta("gte")._replace(norm="lm_head.norm"),
    "jina_embeddings_v3": _roberta("roberta"),
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
    # https://huggingface.co/Alibaba-NLP/new-impl
    "new": _roberta("new")._replace(norm="lm_head.norm", activation=("hidden_act", "gelu")),
    "nomic_bert": _bert("nomic_bert")._replace(
        norm="cls.predictions.transform.layer_norm", activation=("hidden_act", "silu")
    ),
    # https://huggingface.co/naver/splade-code-06B: the head of the causal language model.
    "qwen3": MaskedHead(
        dense="",
        norm="",
        decoder="lm_head",
        word="model.embed_tokens",
        bias=(),
        flags=(_ALWAYS, _ALWAYS, ("", False)),
    ),
    "roberta": _roberta("roberta"),
    "xlm-roberta": _roberta("roberta"),
}


def has_masked_head(config: Mapping[str, Any]) -> bool:
    """Whether config.json names a masked language model."""
    architectures = config.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    return any(isinstance(name, str) and name.endswith("ForMaskedLM") for name in named)


def masked_head_of(config: Mapping[str, Any]) -> MaskedHead:
    """The head of config.json's model_type. ValueError if it is not known."""
    head = HEADS.get(str(config.get("model_type")))
    if head is None:
        raise ValueError(
            f"config.json has model_type={config.get('model_type')!r}, whose masked language model is"
            f" not known; known: {', '.join(HEADS)}"
        )
    if head.not_legacy is not None and not flag(config, "legacy", True):
        found: MaskedHead = head.not_legacy
        return found
    return head


def build_masked_head(config: Mapping[str, Any], checkpoint: Checkpoint) -> BuiltMaskedHead:
    """Build the head, without word embeddings that it shares with the encoder.

    Errors: ValueError for an architecture without a known head, and for tensors that are missing or have
    another shape.
    """
    head = masked_head_of(config)
    hidden = positive_int(config, head.hidden_size)
    sizes = {
        head.hidden_size: hidden,
        head.width: positive_int(config, head.width, hidden),
        "vocab_size": positive_int(config, "vocab_size"),
    }
    weights = Weights(checkpoint, sizes)
    dense, norm, decoder = (
        default if not name else flag(config, name, default)
        for name, default in head.flags or (_ALWAYS,) * 3
    )
    transform = _transform(config, weights, head, dense, norm) if head.dense else None
    bias = _first(weights, checkpoint, head.bias) if decoder else None
    return BuiltMaskedHead(transform, _own_vocabulary(config, weights, checkpoint, head), bias)


def _transform(
    config: Mapping[str, Any],
    weights: Weights,
    head: MaskedHead,
    dense_bias: bool,
    norm_bias: bool,
) -> HeadLayer:
    weight = weights(f"{head.dense}.weight", head.width, head.hidden_size)
    linear = Linear(weight, weights(f"{head.dense}.bias", head.width) if dense_bias else None)
    eps = head.eps if isinstance(head.eps, float) else positive_float(config, *head.eps)
    norm = LayerNorm(
        weights(f"{head.norm}.weight", head.width),
        weights(f"{head.norm}.bias", head.width) if norm_bias else None,
        eps=eps,
    )
    return HeadLayer(linear, head_activation(config, head.activation), norm)


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
    if not head.decoder:
        return None
    tied = flag(config, "tie_word_embeddings", True)
    if tied and name not in checkpoint:
        return None
    own = weights(name, "vocab_size", head.width)
    word = f"{head.word}.weight"
    if tied and word in checkpoint and np.array_equal(own, checkpoint.read(word)):
        return None
    return own
