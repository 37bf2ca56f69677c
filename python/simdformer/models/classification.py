# SPDX-License-Identifier: Apache-2.0
"""Classification heads: two dense layers from the first token's hidden state to logits, chosen by
config.json's architectures. The tensor names are those of transformers' *ForSequenceClassification.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from simdformer._core import Dense, Linear
from simdformer.checkpoint import Checkpoint, Weights
from simdformer.models.fields import positive_int


class Head(NamedTuple):
    """classifier(activation(dense(first token))): the names of two layers, and what is between them.

    hidden_size: the field of config.json with the width of both.
    """

    dense: str
    activation: str
    classifier: str
    hidden_size: str = "hidden_size"


# BERT's first layer is its pooler, which belongs to the encoder in the checkpoint.
_BERT = Head("bert.pooler.dense", "tanh", "classifier")
_ROBERTA = Head("classifier.dense", "tanh", "classifier.out_proj")

HEADS = {
    "BertForSequenceClassification": _BERT,
    "CamembertForSequenceClassification": _ROBERTA,
    "DistilBertForSequenceClassification": Head("pre_classifier", "relu", "classifier", "dim"),
    "MPNetForSequenceClassification": _ROBERTA,
    "RobertaForSequenceClassification": _ROBERTA,
    "XLMRobertaForSequenceClassification": _ROBERTA,
}


def named_head(config: Mapping[str, Any]) -> str | None:
    """The first of config.json's architectures with a known head; None if there is none."""
    architectures = config.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    return next((name for name in named if isinstance(name, str) and name in HEADS), None)


def find_head(config: Mapping[str, Any]) -> Head:
    """The head that config.json's architectures name. ValueError lists the known ones."""
    name = named_head(config)
    if name is None:
        raise ValueError(
            f"config.json has architectures={config.get('architectures')!r}, none with a"
            f" classification head that is known: {', '.join(HEADS)}; for embeddings of a model"
            " without one use SentenceTransformer"
        )
    return HEADS[name]


def count_labels(config: Mapping[str, Any]) -> int:
    """The number of logits. transformers saves their names, and not even those if they are two."""
    labels = config.get("id2label")
    if labels is None:
        return positive_int(config, "num_labels", 2)
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f"config.json: id2label must map indices to names, got {labels!r}")
    return len(labels)


def head_tensors(config: Mapping[str, Any]) -> frozenset[str]:
    """The names of the head's tensors."""
    head = find_head(config)
    layers = (head.dense, head.classifier)
    return frozenset(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))


def build_head(config: Mapping[str, Any], checkpoint: Checkpoint) -> list[Dense]:
    """The head's two layers, in float32: they see one token of a sequence, which costs nothing.

    Errors: ValueError for an unknown head, and for tensors that are missing or of another shape.
    """
    head = find_head(config)
    hidden = head.hidden_size
    sizes = {hidden: positive_int(config, hidden), "num_labels": count_labels(config)}
    weights = Weights(checkpoint, sizes)

    def dense(name: str, out_features: str, activation: str) -> Dense:
        weight = weights(f"{name}.weight", out_features, hidden)
        return Dense(Linear(weight, weights(f"{name}.bias", out_features)), activation=activation)

    return [
        dense(head.dense, hidden, head.activation),
        dense(head.classifier, "num_labels", "identity"),
    ]
