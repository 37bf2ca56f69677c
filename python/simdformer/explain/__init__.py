# SPDX-License-Identifier: Apache-2.0
"""What a model attends to, which heads and tokens its vectors depend on, and how reliable that is.

Functions take a loaded SentenceTransformer, or arrays from its `outputs`, and return NumPy arrays.
Layers, heads and tokens are numbered from 0. Entropies are in nats.
"""

from __future__ import annotations

from simdformer.explain.attribution import (
    leave_one_out,
    norm_weighted_attention,
    token_similarity,
)
from simdformer.explain.cost import LayerCost, cost_table
from simdformer.explain.explanation import explain_texts
from simdformer.explain.faithfulness import Faithfulness, faithfulness
from simdformer.explain.heads import head_ablation, head_importance
from simdformer.explain.measures import (
    attention_entropy,
    attention_patterns,
    attention_rollout,
)
from simdformer.explain.points import measure_points
from simdformer.explain.report import Report

__all__ = [
    "Faithfulness",
    "LayerCost",
    "Report",
    "attention_entropy",
    "attention_patterns",
    "attention_rollout",
    "cost_table",
    "explain_texts",
    "faithfulness",
    "head_ablation",
    "head_importance",
    "leave_one_out",
    "measure_points",
    "norm_weighted_attention",
    "token_similarity",
]
