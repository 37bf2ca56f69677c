# SPDX-License-Identifier: Apache-2.0
"""Requests and responses for rankings, in the format shared by Cohere (v2) and Jina."""

from __future__ import annotations

import json
import uuid
from typing import NamedTuple

from simdformer.server.openai import check_number
from simdformer.server.passes import Output
from simdformer.server.request_fields import Fields, checked_text

# The query is read once per document.
_MAX_QUERY_CHARACTERS = 65536

RERANK_FIELDS = (
    *("model", "query", "documents", "top_n", "return_documents", "raw_scores"),
    *("max_tokens_per_doc", "max_chunks_per_doc", "rank_fields", "return_embeddings", "priority"),
)


class Ranking(NamedTuple):
    """A request for a ranking. raw_scores: logits or their sigmoid; None for the model's setting."""

    query: str
    documents: list[str]
    top_n: int | None
    return_documents: bool
    raw_scores: bool | None


def read_ranking(fields: Fields, max_items: int, max_tokens: int) -> Ranking:
    """The checked fields of a request. A document is a text, or an object with a "text".

    max_tokens: the limit for a query and a document together.
    """
    query = checked_text(fields.any("query"), "query", _MAX_QUERY_CHARACTERS)
    rows = fields.array("documents")
    check_number(rows, "documents", max_items)
    _check_without_effect(fields, max_tokens)
    return Ranking(
        query,
        [_document(row, f"documents[{index}]") for index, row in enumerate(rows)],
        fields.integer("top_n", 1),
        fields.flag("return_documents", default=False),
        fields.choice("raw_scores", (None, True, False)),
    )


def _check_without_effect(fields: Fields, max_tokens: int) -> None:
    """Check fields of Cohere and Jina without effect; ApiError for values that would have one.

    A document is one chunk and is truncated to the model's limit.
    """
    fields.integer("max_tokens_per_doc", max_tokens)
    fields.integer("max_chunks_per_doc", 1)
    fields.integer("priority", 0, 999)
    fields.choice("rank_fields", (["text"],))
    fields.choice("return_embeddings", (False,))


def ranking_json(ranking: Ranking, output: Output, model: str) -> bytes:
    """The response by descending score. Of equal scores the earlier document comes first. output.rows: (n, 1)."""
    scores = output.rows[:, 0].tolist()
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: ranking.top_n]
    results = [
        {"index": index, "relevance_score": scores[index]}
        | ({"document": {"text": ranking.documents[index]}} if ranking.return_documents else {})
        for index in order
    ]
    usage = {"prompt_tokens": output.num_tokens, "total_tokens": output.num_tokens}
    answer = {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": model,
        "results": results,
        "usage": usage,
    }
    return json.dumps(answer, separators=(",", ":")).encode()


def _document(row: object, place: str) -> str:
    if isinstance(row, dict):
        return checked_text(row.get("text"), f"{place}.text")
    return checked_text(row, place)
