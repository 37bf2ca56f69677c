# SPDX-License-Identifier: Apache-2.0
"""Classification heads compute the logits of a sequence or of each token from hidden states. config.json's
architectures selects one. The tensor names are those of transformers' *ForSequenceClassification and
*ForTokenClassification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from simdformer._core import LayerNorm, Linear
from simdformer.checkpoint import Checkpoint
from simdformer.checkpoint.weights import Float32, Weights
from simdformer.models.config_fields import (
    flag,
    non_negative_int,
    one_of,
    positive_float,
    positive_int,
)
from simdformer.models.head_layer import HeadLayer, head_activation


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
    """pooling: how a sequence's hidden states become one vector; "late" takes the mean after the first layer.
    layers: from that vector, or from each token's, to the logits. pad_token_id: with pooling of the last token,
    padding tokens are skipped; None skips nothing.
    """

    pooling: str
    layers: list[HeadLayer]
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

# Of tokens, by the names of classes without "ForTokenClassification". Their pooling is not used.
_TOKENS = Head("classifier")
_DECODER_TOKENS = Head("score")
_TOKEN_STEMS = {
    "Albert": _TOKENS,
    "Bert": _TOKENS,
    "Camembert": _TOKENS,
    "DebertaV2": _TOKENS,
    "DistilBert": _TOKENS._replace(hidden_size="dim"),
    "Electra": _TOKENS,
    "Ernie": _TOKENS,
    "EuroBert": _TOKENS,
    "Gte": _TOKENS,
    "JinaBert": _TOKENS,
    "JinaEmbeddingsV3": _TOKENS,
    "Llama": _DECODER_TOKENS,
    "MPNet": _TOKENS,
    "Mistral": _DECODER_TOKENS,
    "ModernBert": _MODERNBERT,
    "New": _TOKENS,
    "NomicBert": _TOKENS,
    "Qwen2": _DECODER_TOKENS,
    "Qwen3": _DECODER_TOKENS,
    "Roberta": _TOKENS,
    "XLMRoberta": _TOKENS,
}
TOKEN_HEADS = {f"{stem}ForTokenClassification": head for stem, head in _TOKEN_STEMS.items()}

# The head of a causal language model, and the word embeddings to which it may be tied.
_LM_HEAD = "lm_head.weight"
_WORDS = ("model.embed_tokens.weight", "embed_tokens.weight")


def named_head(config: Mapping[str, Any], heads: Mapping[str, Head] = HEADS) -> str | None:
    """The first entry of config.json's architectures with a known head; None if there is none."""
    architectures = config.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    return next((name for name in named if isinstance(name, str) and name in heads), None)


def published_head(config: Mapping[str, Any]) -> str | None:
    """The class of a sequence's head in code that was published with a model, if it is known. Models without
    a head may name one too. jina-reranker-v1 names its head nowhere else."""
    given = config.get("auto_map")
    named = given.get("AutoModelForSequenceClassification") if isinstance(given, Mapping) else None
    name = str(named).rpartition(".")[2]
    return name if name in HEADS else None


def find_head(config: Mapping[str, Any], heads: Mapping[str, Head] = HEADS) -> Head:
    """The head that config.json's architectures name, or else auto_map. Errors: ValueError listing the known
    ones."""
    name = named_head(config, heads) or (published_head(config) if heads is HEADS else None)
    if name is None:
        raise ValueError(
            f"config.json has architectures={config.get('architectures')!r}, none with a"
            f" classification head that is known: {', '.join(heads)}; for embeddings of a model"
            " without one use SentenceTransformer"
        )
    return heads[name]


def count_labels(config: Mapping[str, Any]) -> int:
    """The number of logits. transformers saves only the labels' names, and nothing if there are two
    labels. As in sentence-transformers, there is one label if architectures name no head."""
    labels = config.get("id2label")
    if labels is None:
        architectures = config.get("architectures")
        named = architectures if isinstance(architectures, list) else []
        is_saved = any(str(name).endswith("Classification") for name in named)
        return positive_int(
            config, "num_labels", 2 if is_saved or not published_head(config) else 1
        )
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f"config.json: id2label must map indices to names, got {labels!r}")
    return len(labels)


def label_names(config: Mapping[str, Any]) -> list[Any]:
    """What each logit stands for. ValueError for names that do not count up from 0."""
    count, given = count_labels(config), config.get("id2label")
    if given is None:
        return [f"LABEL_{index}" for index in range(count)]
    names = {str(index): name for index, name in given.items()}
    if missing := [index for index in map(str, range(count)) if index not in names]:
        raise ValueError(
            f"config.json: id2label must have the indices 0..{count - 1}, {missing[0]} is missing"
        )
    return [names[str(index)] for index in range(count)]


def head_tensors(config: Mapping[str, Any]) -> frozenset[str]:
    """The names of the matrices of a sequence's head."""
    head = find_head(config)
    return frozenset(f"{layer}.weight" for layer in (head.dense, head.classifier) if layer)


def build_head(
    config: Mapping[str, Any], checkpoint: Checkpoint, heads: Mapping[str, Head] = HEADS
) -> BuiltHead:
    """Build the head. It stays in float32 because it takes little time. heads: HEADS or TOKEN_HEADS.

    Errors: ValueError for an unknown head, and for tensors that are missing or have another shape.
    """
    head = find_head(config, heads)
    hidden = head.hidden_size
    sizes = {hidden: positive_int(config, hidden), "num_labels": count_labels(config)}
    weights = Weights(checkpoint, sizes)

    def linear(name: str, out_features: str, bias: bool) -> Linear:
        weight = weights(f"{name}.weight", out_features, hidden)
        return Linear(weight, weights(f"{name}.bias", out_features) if bias else None)

    layers = [HeadLayer(linear(head.classifier, "num_labels", head.classifier_bias))]
    if head.dense:
        has_bias = head.bias if isinstance(head.bias, bool) else flag(config, *head.bias)
        first = linear(head.dense, hidden, has_bias)
        norm = _norm(config, weights, head.norm, hidden) if head.norm else None
        layers.insert(0, HeadLayer(first, head_activation(config, head.activation), norm))
    pooling = _pooling(config, head)
    padded = pooling == "lasttoken" and config.get("pad_token_id") is not None
    pad_token_id = non_negative_int(config, "pad_token_id", 0) if padded else None
    return BuiltHead(pooling, layers, pad_token_id)


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
    return BuiltHead("lasttoken", [HeadLayer(Linear(weight))])


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
