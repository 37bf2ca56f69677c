# SPDX-License-Identifier: Apache-2.0
"""vLLM's scores of pairs. Its embeddings and rankings are OpenAI's and Cohere's."""

from __future__ import annotations

import json
import time
import uuid
from typing import NamedTuple

import numpy as np
from starlette.responses import Response

from simdformer.server.embeddings import Items, embedded, read_items
from simdformer.server.endpoint import Call
from simdformer.server.errors import invalid
from simdformer.server.operation import BOOLEAN, INTEGER, STRING, TEXTS, Operation, Schema
from simdformer.server.request_fields import RequestFields
from simdformer.server.scorer import Reranker, Scoring
from simdformer.server.served import Embedder
from simdformer.server.service import Service
from simdformer.text.tokenizer import Pair
from simdformer.util.similarity import pairwise_cos_sim

# The names of the two fields in different releases of vLLM.
_NAMES = (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2"))
_FIELDS: dict[str, Schema] = {
    **{name: TEXTS for names in _NAMES for name in names},
    "model": STRING,
    "user": STRING,
    "priority": INTEGER,
    "truncate_prompt_tokens": INTEGER,
    "use_activation": BOOLEAN,
}


class _Request(NamedTuple):
    """A request for scores of pairs. For cosines of an embedding model, texts has the first texts of all
    pairs, then the second ones."""

    model: str
    runner: Reranker | Embedder
    pairs: list[Pair | str]
    texts: Items | None
    raw: bool | None


class Vllm:
    """The routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        """The routes of this protocol."""
        paths = ("/score", "/v1/score")
        return [Operation("vLLM", paths, self.score, "Scores of pairs of texts", _FIELDS)]

    async def score(self, call: Call) -> Response:
        """Scores of pairs."""
        request = await self._service.read(call, self._read)
        runner = request.runner
        if isinstance(runner, Embedder):
            assert request.texts is not None
            output = await embedded(self._service, call, runner, request.texts)
            first, second = np.split(output.rows, 2)
            scores = pairwise_cos_sim(first, second)
        else:
            scoring = Scoring(request.raw)
            output = await self._service.compute(call.request, runner, request.pairs, scoring)
            scores = output.rows[:, 0]
        usage = {"prompt_tokens": output.num_tokens, "total_tokens": output.num_tokens}
        answer = {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": request.model,
            "data": [
                {"index": index, "object": "score", "score": score}
                for index, score in enumerate(scores.tolist())
            ],
            "usage": usage,
        }
        return await self._service.written(60 * len(scores), lambda: json.dumps(answer).encode())

    def _read(self, fields: RequestFields) -> _Request:
        fields.only(_FIELDS)
        fields.integer("truncate_prompt_tokens", -1, -1)
        names = next((pair for pair in _NAMES if pair[0] in fields or pair[1] in fields), _NAMES[0])
        if others := [n for pair in _NAMES if pair != names for n in pair if n in fields]:
            raise invalid(f"send one of {names[0]} and {others[0]}", others[0])
        most = self._service.limits.client_batch
        first, second = (fields.texts(name, most) for name in names)
        if len(first) == 1:
            first *= len(second)
        if len(first) != len(second):
            raise invalid(
                f"{names[0]} must have one text, or as many as {names[1]} ({len(second)}),"
                f" got {len(first)}",
                names[0],
            )
        use = fields.choice("use_activation", (None, True, False))
        # A cross-encoder if one is served, else an embedding model.
        kinds: tuple[type[Reranker | Embedder], ...] = (Reranker, Embedder)
        runner, model = self._service.models.find(kinds, fields.text("model"))
        if isinstance(runner, Reranker):
            pairs = [runner.prompted(*pair) for pair in zip(first, second, strict=True)]
            return _Request(model, runner, pairs, None, None if use is not False else True)
        if use is not None:
            raise invalid("use_activation can be used with cross-encoders alone", "use_activation")
        both = RequestFields({"texts": [*first, *second]})
        return _Request(model, runner, [], read_items(both, "texts", runner, 2 * most), None)
