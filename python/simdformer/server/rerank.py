# SPDX-License-Identifier: Apache-2.0
"""Requests and responses for rankings, in the format shared by Cohere (v2), Jina and vLLM."""

from __future__ import annotations

import json
import uuid
from typing import NamedTuple

from starlette.responses import Response

from simdformer.functional.arrays import descending
from simdformer.server.endpoint import Call
from simdformer.server.operation import (
    BOOLEAN,
    INTEGER,
    OBJECT,
    STRING,
    STRINGS,
    Operation,
    Schema,
    enum,
)
from simdformer.server.passes import Output
from simdformer.server.request_fields import RequestFields, check_number, checked_text
from simdformer.server.scorer import Reranker, Scoring
from simdformer.server.service import Service

# The query is read once per document.
MAX_QUERY_CHARACTERS = 65536

RERANK_FIELDS: dict[str, Schema] = {
    "model": STRING,
    "query": STRING,
    "documents": {"type": "array", "items": {"oneOf": [STRING, OBJECT]}},
    "top_n": INTEGER,
    "return_documents": BOOLEAN,
    "raw_scores": BOOLEAN,
    "max_tokens_per_doc": INTEGER,
    "max_chunks_per_doc": INTEGER,
    "rank_fields": STRINGS,
    "return_embeddings": enum(False),
    "priority": INTEGER,
}


class Ranking(NamedTuple):
    """A request for a ranking. raw_scores: logits or their sigmoid; None for the model's setting."""

    reranker: Reranker
    model: str
    query: str
    documents: list[str]
    top_n: int | None
    return_documents: bool
    raw_scores: bool | None


class Rerank:
    """The routes, except /rerank: it also accepts TEI's format, so tei_scores.py has it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        """The routes of this protocol."""
        paths, summary = ("/v1/rerank", "/v2/rerank"), "Documents by their scores for a query"
        required = ("query", "documents")
        return [
            Operation("Cohere, Jina, vLLM", paths, self.rerank, summary, RERANK_FIELDS, required)
        ]

    async def rerank(self, call: Call) -> Response:
        """Documents in the order of their scores."""
        return await self.answer(call, await self._service.read(call, self.read))

    def read(self, fields: RequestFields) -> Ranking:
        """The checked fields of a request. A document is a text, or an object with a "text"."""
        fields.only(RERANK_FIELDS)
        reranker, model = self._service.models.find(Reranker, fields.text("model"))
        query = checked_text(fields.any("query"), "query", MAX_QUERY_CHARACTERS)
        rows = fields.array("documents")
        check_number(rows, "documents", self._service.limits.client_batch)
        _check_without_effect(fields, reranker.model.max_seq_length)
        return Ranking(
            reranker,
            model,
            query,
            [_document(row, f"documents[{index}]") for index, row in enumerate(rows)],
            fields.integer("top_n", 1),
            fields.flag("return_documents", default=False),
            fields.choice("raw_scores", (None, True, False)),
        )

    async def answer(self, call: Call, ranking: Ranking) -> Response:
        """The response to a request."""
        reranker, documents = ranking.reranker, ranking.documents
        pairs = [reranker.prompted(ranking.query, document) for document in documents]
        scoring = Scoring(ranking.raw_scores)
        output = await self._service.compute(call.request, reranker, pairs, scoring)
        size = sum(map(len, documents)) if ranking.return_documents else len(documents) * 50
        return await self._service.written(size, lambda: _answer(ranking, output))


def _check_without_effect(fields: RequestFields, max_tokens: int) -> None:
    """Check fields of Cohere and Jina without effect; ApiError for values that would have one.

    A document is one chunk and is truncated to the model's limit, that of a query and a document together.
    """
    fields.integer("max_tokens_per_doc", max_tokens)
    fields.integer("max_chunks_per_doc", 1)
    fields.integer("priority", 0, 999)
    fields.choice("rank_fields", (["text"],))
    fields.choice("return_embeddings", (False,))


def _answer(ranking: Ranking, output: Output) -> bytes:
    """By descending score. Of equal scores the earlier document comes first. output.rows: (n, 1)."""
    scores = output.rows[:, 0].tolist()
    order = descending(scores, ranking.top_n)
    results = [
        {"index": index, "relevance_score": scores[index]}
        | ({"document": {"text": ranking.documents[index]}} if ranking.return_documents else {})
        for index in order
    ]
    usage = {"prompt_tokens": output.num_tokens, "total_tokens": output.num_tokens}
    answer = {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": ranking.model,
        "results": results,
        "usage": usage,
    }
    return json.dumps(answer, separators=(",", ":")).encode()


def _document(row: object, place: str) -> str:
    if isinstance(row, dict):
        return checked_text(row.get("text"), f"{place}.text")
    return checked_text(row, place)
