# SPDX-License-Identifier: Apache-2.0
"""The forms of requests and responses for rankings that Cohere (v2) and Jina share."""

from __future__ import annotations

import json
import uuid
from typing import NamedTuple

from simdformer.server.openai import check_number
from simdformer.server.passes import Output
from simdformer.server.request_fields import Fields, checked_text

# It is read once for every document.
_MAX_QUERY_CHARACTERS = 65536

RERANK_FIELDS = (
    *("model", "query", "documents", "top_n", "return_documents", "raw_scores"),
    *("max_tokens_per_doc", "max_chunks_per_doc", "rank_fields", "return_embeddings", "priority"),
)


class Ranking(NamedTuple):
    """What is to be ranked. raw_scores: logits or their sigmoid; None for what the model says."""

    query: str
    documents: list[str]
    top_n: int | None
    return_documents: bool
    raw_scores: bool | None


def read_ranking(fields: Fields, max_items: int, max_tokens: int) -> Ranking:
    """A request's members, checked. A document is a text, or an object that holds one as "text".

    max_tokens: what the model reads of a query and a document together.
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
    """Members of Cohere's and Jina's that change nothing; ApiError for values with which they would.

    A document is one chunk: what the model does not read of it is cut.
    """
    fields.integer("max_tokens_per_doc", max_tokens)
    fields.integer("max_chunks_per_doc", 1)
    fields.integer("priority", 0, 999)
    fields.choice("rank_fields", (["text"],))
    fields.choice("return_embeddings", (False,))


def ranking_json(ranking: Ranking, output: Output, model: str) -> bytes:
    """The answer, the best first; of equal scores the earlier document. output.rows: (n, 1)."""
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
