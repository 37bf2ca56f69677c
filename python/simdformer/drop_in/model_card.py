# SPDX-License-Identifier: Apache-2.0
"""Replaces the model card data of sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(given: Mapping[str, Any]) -> Any:
    """The caller's model_card_data, else an object that evaluators can write to."""
    card = given.get("model_card_data")
    return ModelCardData() if card is None else card


class ModelCardData:
    """An object in which sentence-transformers' evaluators store results; any attribute can be set.

    Attributes: eval_results_dict: metrics by evaluator.
    """

    def __init__(self) -> None:
        self.eval_results_dict: dict[Any, dict[str, Any]] = {}

    def set_evaluation_metrics(
        self, evaluator: Any, metrics: Mapping[str, Any], *_: Any, **__: Any
    ) -> None:
        """Keep a copy of the metrics."""
        self.eval_results_dict[evaluator] = dict(metrics)
