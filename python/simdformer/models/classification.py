# SPDX-License-Identifier: Apache-2.0
"""Classification heads compute logits from a sequence's hidden states. config.json's architectures selects
one. The tensor names are those of transformers' *ForSequenceClassification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from simdformer._core import Dense, LayerNorm, Linear
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.weights import Float32, Weights
from simdformer.models.activations import from_hidden_act
from simdformer.models.config_fields import (
    flag,
    non_negative_int,
    one_of,
    positive_float,
    positive_int,
)


class Head(NamedTuple):
    """logits = classifier(norm(activation(dense(pooled)))). Steps without a name are left out.

    activation, bias: of dense. pooling: of the hidden states. Each is a value, or a pair: the field of
    config.json that gives it, and the default. poolings: the meaning of the field's values; "late" takes the
    mean after dense. classifier_bias: whether the classifier has a bias.
    """

    classifier: str
    dense: str | None = None
    activation: str | tuple[str, str] = "tanh"
    bias: bool | tuple[str, bool] = True
    norm: str | None = None
    pooling: str | tuple[str, str] = "cls"
    poolings: Mapping[str, str] = MappingProxyType({"cls": "cls", "mean": "mean"})
    classifier_bias: bool = True
    hidden_size: str = "hidden_size"


class BuiltHead(NamedTuple):
    """pooling: how a sequence's hidden states become one vector; "late" takes the mean after the first dense
    layer.
    dense: the layers from that vector to the logits. linears: the same as linear maps with activations.
    pad_token_id: with pooling of the last token, padding tokens are skipped; None skips nothing.
    """

    pooling: str
    dense: list[Dense]
    linears: list[tuple[Linear, str]]
    pad_token_id: int | None = None


# In a BERT checkpoint the first layer is the encoder's pooler.
_BERT = Head("classifier", "bert.pooler.dense")
_ROBERTA = Head("classifier.out_proj", "classifier.dense")
_DECODER = Head("score", pooling="lasttoken", classifier_bias=False)
_EUROBERT = Head(
    "classifier",
    "dense",
    activation="gelu",
    pooling=("classifier_pooling", "late"),
    poolings={"bos": "cls", "late": "late", "mean": "mean"},
)
_MODERNBERT = Head(
    "classifier",
    "head.dense",
    activation=("classifier_activation", "gelu"),
    bias=("classifier_bias", False),
    norm="head.norm",
    pooling=("classifier_pooling", "cls"),
)

HEADS = {
    "AlbertForSequenceClassification": _BERT._replace(dense="albert.pooler"),
    "BertForSequenceClassification": _BERT,
    "CamembertForSequenceClassification": _ROBERTA,
    "DebertaV2ForSequenceClassification": _BERT._replace(
        dense="pooler.dense", activation=("pooler_hidden_act", "gelu")
    ),
    "DistilBertForSequenceClassification": Head(
        "classifier", "pre_classifier", activation="relu", hidden_size="dim"
    ),
    "ElectraForSequenceClassification": _ROBERTA._replace(activation="gelu"),
    "EuroBertForSequenceClassification": _EUROBERT,
    "ErnieForSequenceClassification": _BERT._replace(dense="ernie.pooler.dense"),
    "Gemma3TextForSequenceClassification": _DECODER,
    "GemmaForSequenceClassification": _DECODER,
    "GteForSequenceClassification": _BERT._replace(dense="gte.pooler.dense"),
    "JinaBertForSequenceClassification": _BERT,
    "JinaEmbeddingsV3ForSequenceClassification": _ROBERTA,
    "MPNetForSequenceClassification": _ROBERTA,
    "ModernBertForSequenceClassification": _MODERNBERT,
    "NewForSequenceClassification": _BERT._replace(dense="new.pooler.dense"),
    "NomicBertForSequenceClassification": _BERT._replace(dense="nomic_bert.pooler.dense"),
    "LlamaForSequenceClassification": _DECODER,
    "MistralForSequenceClassification": _DECODER,
    "Qwen2ForSequenceClassification": _DECODER,
    "Qwen3ForSequenceClassification": _DECODER,
    "RobertaForSequenceClassification": _ROBERTA,
    "XLMRobertaForSequenceClassification": _ROBERTA,
}


# The head of a causal language model, and the word embeddings to which it may be tied.
_LM_HEAD = "lm_head.weight"
_WORDS = ("model.embed_tokens.weight", "embed_tokens.weight")


def named_head(config: Mapping[str, Any]) -> str | None:
    """The first entry of config.json's architectures with a known head; None if there is none."""
    architectures = config.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    return next((name for name in named if isinstance(name, str) and name in HEADS), None)


def find_head(config: Mapping[str, Any]) -> Head:
    """The head that config.json's architectures name. Errors: ValueError listing the known ones."""
    name = named_head(config)
    if name is None:
        raise ValueError(
            f"config.json has architectures={config.get('architectures')!r}, none with a"
            f" classification head that is known: {', '.join(HEADS)}; for embeddings of a model"
            " without one use SentenceTransformer"
        )
    return HEADS[name]


def count_labels(config: Mapping[str, Any]) -> int:
    """The number of logits. transformers saves only the labels' names, and nothing if there are two
    labels."""
    labels = config.get("id2label")
    if labels is None:
        return positive_int(config, "num_labels", 2)
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f"config.json: id2label must map indices to names, got {labels!r}")
    return len(labels)


def head_tensors(config: Mapping[str, Any]) -> frozenset[str]:
    """The names of the head's matrices."""
    head = find_head(config)
    return frozenset(f"{layer}.weight" for layer in (head.dense, head.classifier) if layer)


def build_head(config: Mapping[str, Any], checkpoint: Checkpoint) -> BuiltHead:
    """Build the head. It stays in float32: it processes one vector per sequence, which takes little time.

    Errors: ValueError for an unknown head, and for tensors that are missing or have another shape.
    """
    head = find_head(config)
    hidden = head.hidden_size
    sizes = {hidden: positive_int(config, hidden), "num_labels": count_labels(config)}
    weights = Weights(checkpoint, sizes)

    def linear(name: str, out_features: str, bias: bool) -> Linear:
        weight = weights(f"{name}.weight", out_features, hidden)
        return Linear(weight, weights(f"{name}.bias", out_features) if bias else None)

    linears = [(linear(head.classifier, "num_labels", head.classifier_bias), "identity")]
    norms: list[LayerNorm | None] = [None]
    if head.dense:
        has_bias = head.bias if isinstance(head.bias, bool) else flag(config, *head.bias)
        first = linear(head.dense, hidden, has_bias)
        linears.insert(0, (first, _activation(config, head.activation)))
        norms.insert(0, _norm(config, weights, head.norm, hidden) if head.norm else None)
    dense = [
        Dense(layer, activation=activation, norm=norm)
        for (layer, activation), norm in zip(linears, norms, strict=True)
    ]
    pooling = _pooling(config, head)
    padded = pooling == "lasttoken" and config.get("pad_token_id") is not None
    pad_token_id = non_negative_int(config, "pad_token_id", 0) if padded else None
    return BuiltHead(pooling, dense, linears, pad_token_id)


def build_token_head(
    config: Mapping[str, Any], checkpoint: Checkpoint, tokens: Sequence[int]
) -> BuiltHead:
    """The head of a causal language model that is used as a reranker: the logit of a token after the last
    one, or the difference between those of two tokens. Only their rows of the vocabulary are read.

    Errors: ValueError for tensors that are missing or of another shape, token ids outside the vocabulary,
    and models with a limit of logits.
    """
    one_of(config, "final_logit_softcapping", [None], None)
    sizes = {name: positive_int(config, name) for name in ("vocab_size", "hidden_size")}
    tied = flag(config, "tie_word_embeddings", True) and _LM_HEAD not in checkpoint
    tables = [name for name in _WORDS if tied and name in checkpoint]
    name = Weights(checkpoint, sizes).checked(
        (tables or [_LM_HEAD])[0], tuple(sizes), tuple(sizes.values())
    )
    for token in tokens:
        if token >= sizes["vocab_size"]:
            raise ValueError(
                f"config.json has vocab_size={sizes['vocab_size']}, which token id {token} exceeds"
            )
    rows = checkpoint.read_rows(name, tokens)
    return last_token_head(rows[:1] - rows[1:] if len(rows) > 1 else rows)


def last_token_head(weight: Float32) -> BuiltHead:
    """Linear scores of the last token. weight: (num_labels, hidden_size)."""
    linear = Linear(weight)
    return BuiltHead("lasttoken", [Dense(linear)], [(linear, "identity")])


def _activation(config: Mapping[str, Any], given: str | tuple[str, str]) -> str:
    if isinstance(given, str):
        return given
    field, default = given
    return from_hidden_act(config.get(field, default), field)


def _pooling(config: Mapping[str, Any], head: Head) -> str:
    if isinstance(head.pooling, str):
        return head.pooling
    field, default = head.pooling
    return head.poolings[str(one_of(config, field, list(head.poolings), default))]


def _norm(config: Mapping[str, Any], weights: Weights, name: str, size: str) -> LayerNorm:
    """The norm of ModernBERT's head. No other head has one."""
    bias = weights(f"{name}.bias", size) if flag(config, "norm_bias", False) else None
    eps = positive_float(config, "norm_eps", 1e-5)
    return LayerNorm(weights(f"{name}.weight", size), bias, eps=eps)
