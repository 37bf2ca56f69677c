# SPDX-License-Identifier: Apache-2.0
"""Text Embeddings Inference: predictions, rankings, and the route /, to which clients send several kinds of requests."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
from starlette.responses import Response

from simdformer.functional import sigmoid, softmax
from simdformer.functional.arrays import descending
from simdformer.server.endpoint import Call
from simdformer.server.errors import invalid, tei_error
from simdformer.server.operation import BOOLEAN, INTEGER, OBJECT, STRING, STRINGS, Operation, enum
from simdformer.server.passes import Float32, Output
from simdformer.server.request_fields import RequestFields, check_number, checked_text
from simdformer.server.rerank import MAX_QUERY_CHARACTERS, RERANK_FIELDS, Rerank
from simdformer.server.scorer import Reranker, Scorer, Scoring
from simdformer.server.served import Embedder
from simdformer.server.service import Service
from simdformer.server.tei import TRUNCATION, Tei, read_truncation
from simdformer.text.tokenizer import Pair

_PREDICT_FIELDS = {
    "inputs": {"description": "a text, a pair of texts, or an array of [text] and [text, text]"},
    **TRUNCATION,
    "raw_scores": BOOLEAN,
    "parameters": OBJECT,
    "model": STRING,
}
_FUNCTIONS = ("sigmoid", "softmax", "none")
_PARAMETERS = {"top_k": INTEGER, "function_to_apply": enum(*_FUNCTIONS)}
_RANK_FIELDS = {
    "query": STRING,
    "texts": STRINGS,
    **TRUNCATION,
    "raw_scores": BOOLEAN,
    "return_text": BOOLEAN,
    "model": STRING,
}


class _Prediction(NamedTuple):
    """A request for predictions. single: the response is one list."""

    scorer: Scorer
    items: list[Pair | str]
    scoring: Scoring
    whole: bool
    single: bool
    top_k: int | None = None
    function: str | None = None


class _Ranking(NamedTuple):
    """A request for a ranking."""

    scorer: Reranker
    query: str
    texts: list[str]
    scoring: Scoring
    whole: bool
    return_text: bool


class TeiScores:
    """The routes for scores. The route /rerank accepts two formats: TEI's has `texts`, the other one
    `documents`."""

    def __init__(self, service: Service, tei: Tei, rerank: Rerank) -> None:
        self._service, self._tei, self._rerank = service, tei, rerank

    def operations(self) -> list[Operation]:
        """The routes of this protocol."""
        fields = {**RERANK_FIELDS, **_RANK_FIELDS}
        inputs = {"inputs": {"description": "as of /embed, /predict or /similarity"}}
        predict, root = "Labels of texts or pairs, with scores", "/embed, /predict or /similarity"
        return [
            Operation(
                "TEI", ("/predict",), self.predict, predict, _PREDICT_FIELDS, ("inputs",), tei_error
            ),
            Operation(
                "TEI", ("/rerank",), self.rerank, "Texts by their scores", fields, ("query",)
            ),
            Operation("TEI", ("/",), self.root, root, inputs, ("inputs",), tei_error),
        ]

    async def root(self, call: Call) -> Response:
        """The requests that Hugging Face's client sends without a path."""

        def read(fields: RequestFields) -> tuple[str, Any]:
            if isinstance(fields.any("inputs"), dict):
                return "similarity", self._tei.read_similarity(fields)
            kinds: tuple[type[Embedder | Scorer], ...] = (Embedder, Scorer)
            found, _ = self._service.models.find(kinds, fields.text("model"))
            if isinstance(found, Embedder):
                return "embed", self._tei.read_embed(fields)
            return "predict", self._read_prediction(fields)

        kind, request = await self._service.read(call, read)
        if kind == "similarity":
            return await self._tei.answer_similarity(call, request)
        if kind == "embed":
            return await self._tei.answer_embed(call, request)
        return await self._answer_prediction(call, request)

    # --- predictions ---

    async def predict(self, call: Call) -> Response:
        """Labels of texts or pairs."""
        request = await self._service.read(call, self._read_prediction)
        return await self._answer_prediction(call, request)

    def _read_prediction(self, fields: RequestFields) -> _Prediction:
        fields.only(_PREDICT_FIELDS)
        parameters = fields.inner("parameters", _PARAMETERS)
        scorer, _ = self._service.models.find(Scorer, fields.text("model"))
        value, most = fields.any("inputs"), self._service.limits.client_batch
        single = not (isinstance(value, list) and value and isinstance(value[0], list))
        rows = [value] if single else value
        check_number(rows, "inputs", most)
        items = [
            _item(scorer, row, "inputs" if single else f"inputs[{i}]") for i, row in enumerate(rows)
        ]
        whole, side, _ = read_truncation(fields)
        function = parameters.choice("function_to_apply", (None, *_FUNCTIONS))
        raw = fields.flag("raw_scores", default=False) or function is not None
        return _Prediction(
            scorer,
            items,
            Scoring(raw, side),
            whole,
            # Hugging Face's client, which sends parameters, reads a list for each text.
            single and "parameters" not in fields,
            parameters.integer("top_k", 1),
            function,
        )

    async def _answer_prediction(self, call: Call, request: _Prediction) -> Response:
        output = await self._scored(call, request, "inputs")
        rows = _applied(output.rows, request.function)
        labels = request.scorer.labels()
        answers = [_ordered(row, labels, request.top_k) for row in rows.tolist()]
        answer = answers[0] if request.single else answers
        return await self._service.written(rows.size * 50, lambda: json.dumps(answer).encode())

    async def _scored(self, call: Call, request: _Prediction, name: str) -> Output:
        scorer, items, scoring = request.scorer, request.items, request.scoring
        if request.whole:
            await self._service.aside(lambda: scorer.check_lengths(items, scoring, name))
        return await self._service.compute(call.request, scorer, items, scoring)

    # --- rankings ---

    async def rerank(self, call: Call) -> Response:
        """Texts by their scores."""

        def read(fields: RequestFields) -> tuple[bool, Any]:
            if "texts" in fields and "documents" not in fields:
                return True, self._read_ranking(fields)
            return False, self._rerank.read(fields)

        texts, request = await self._service.read(call, read)
        if texts:
            return await self._answer_ranking(call, request)
        return await self._rerank.answer(call, request)

    def _read_ranking(self, fields: RequestFields) -> _Ranking:
        fields.only(_RANK_FIELDS)
        scorer, _ = self._service.models.find(Reranker, fields.text("model"))
        query = checked_text(fields.any("query"), "query", MAX_QUERY_CHARACTERS)
        rows = fields.array("texts")
        check_number(rows, "texts", self._service.limits.client_batch)
        whole, side, _ = read_truncation(fields)
        return _Ranking(
            scorer,
            query,
            [checked_text(row, f"texts[{i}]") for i, row in enumerate(rows)],
            Scoring(fields.flag("raw_scores", default=False), side),
            whole,
            fields.flag("return_text", default=False),
        )

    async def _answer_ranking(self, call: Call, request: _Ranking) -> Response:
        scorer, texts = request.scorer, request.texts
        pairs = [scorer.prompted(request.query, text) for text in texts]
        scored = _Prediction(scorer, pairs, request.scoring, request.whole, single=False)
        output = await self._scored(call, scored, "texts")
        scores = output.rows[:, 0].tolist()
        order = descending(scores)
        answer = [
            {"index": index, "score": scores[index]}
            | ({"text": texts[index]} if request.return_text else {})
            for index in order
        ]
        return await self._service.written(
            sum(map(len, texts)), lambda: json.dumps(answer).encode()
        )


def _item(scorer: Scorer, row: object, place: str) -> Pair | str:
    """A text, [text] or [text, text] with the model's prompt."""
    texts = [row] if isinstance(row, str) else row
    if not isinstance(texts, list) or len(texts) not in (1, 2):
        raise invalid(f"{place} must be a text, [text] or [text, text]", place)
    first, *second = (checked_text(text, f"{place}[{i}]") for i, text in enumerate(texts))
    if second:
        return scorer.prompted(first, second[0])
    if isinstance(scorer.prompted("", ""), str):
        raise invalid(
            f"{place} must be a pair: this model's chat template reads pairs alone", place
        )
    return scorer.prompt + first


def _applied(logits: Float32, function: str | None) -> Float32:
    """Apply Hugging Face's function_to_apply to logits. None: they are already scores."""
    if function in (None, "none"):
        return logits
    return np.asarray(sigmoid(logits) if function == "sigmoid" else softmax(logits))


def _ordered(scores: list[float], labels: list[str], top_k: int | None) -> list[dict[str, Any]]:
    order = descending(scores, top_k)
    return [{"score": scores[index], "label": labels[index]} for index in order]
