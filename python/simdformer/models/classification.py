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


def find_head(config: Mapping[str, Any]) -> Head:
    """The head that config.json's architectures name. ValueError lists the known ones."""
    architectures = config.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    for architecture in named:
        if isinstance(architecture, str) and architecture in HEADS:
            return HEADS[architecture]
    raise ValueError(
        f"config.json has architectures={architectures!r}, none with a classification head that is"
        f" known: {', '.join(HEADS)}; for embeddings of a model without one use SentenceTransformer"
    )


def count_labels(config: Mapping[str, Any]) -> int:
    """The number of logits. transformers saves their names, and not even those if they are two."""
    labels = config.get("id2label")
    if labels is None:
        return positive_int(config, "num_labels", 2)
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f"config.json: id2label must map indices to names, got {labels!r}")
    return len(labels)


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
