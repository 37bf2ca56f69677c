# SPDX-License-Identifier: Apache-2.0
"""OpenAI's embeddings and models, with the fields that NIM, vLLM and Jina add, and Azure's path."""

from __future__ import annotations

import json
from typing import NamedTuple

from starlette.responses import Response

from simdformer.server.embeddings import (
    FORMATS,
    NUMBER_BYTES,
    Items,
    Truncation,
    array,
    embedded,
    prompt_of_task,
    read_items,
    rows_json,
)
from simdformer.server.endpoint import Call
from simdformer.server.errors import invalid
from simdformer.server.operation import BOOLEAN, INTEGER, STRING, TEXTS_OR_IDS, Operation, enum
from simdformer.server.passes import Output
from simdformer.server.request_fields import RequestFields
from simdformer.server.served import Embedder, TextRunner
from simdformer.server.service import Service, json_response
from simdformer.util.similarity import normalize_embeddings

# of NIM and Cohere
_INPUT_TYPES = (None, "query", "passage", "search_query", "search_document")
# of Jina, without what comes before "retrieval."
_TASKS = (
    *(None, "retrieval.query", "retrieval.passage", "code.query", "code.passage"),
    *("text-matching", "classification", "separation", "clustering"),
)
_SIDES = {"END": "right", "START": "left"}

FIELDS = {
    "input": TEXTS_OR_IDS,
    "model": STRING,
    "encoding_format": enum("float", "base64"),
    "dimensions": INTEGER,
    "user": STRING,
    "prompt_name": STRING,
    "input_type": enum(*_INPUT_TYPES[1:]),
    "truncate": enum("END", "START", "NONE", True, False),
    "truncate_prompt_tokens": INTEGER,
    "task": enum(*_TASKS[1:]),
    "embedding_type": enum(*FORMATS),
    "normalized": BOOLEAN,
    "late_chunking": enum(False),
}


class _Request(NamedTuple):
    """A request for embeddings. normalized: whether vectors are divided by their norms."""

    embedder: Embedder
    model: str
    items: Items
    form: str
    dimensions: int | None
    normalized: bool


class OpenAI:
    """The routes, with and without /v1."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        """The routes of this protocol."""
        name, required = "OpenAI", ("input",)
        azure = "/openai/deployments/{model:path}/embeddings"
        embeddings = ("/v1/embeddings", "/embeddings", "/openai/v1/embeddings", azure)
        models, model = (
            ("/v1/models", "/models"),
            ("/v1/models/{model:path}", "/models/{model:path}"),
        )
        return [
            Operation(name, embeddings, self.embeddings, "Vectors of texts", FIELDS, required),
            Operation(name, models, self.models, "The served models"),
            Operation(name, model, self.model, "A served model"),
        ]

    async def embeddings(self, call: Call) -> Response:
        """Vectors of texts."""
        path_model = call.request.path_params.get("model")
        request = await self._service.read(call, lambda fields: self._read(fields, path_model))
        embedder, model, items, form, dimensions, normalized = request
        output = await embedded(self._service, call, embedder, items, dimensions)
        if normalized:
            output = output._replace(rows=normalize_embeddings(output.rows))
        size = output.rows.size * NUMBER_BYTES
        return await self._service.written(size, lambda: _answer(output, form, model))

    def _read(self, fields: RequestFields, path_model: str | None) -> _Request:
        fields.only(FIELDS)
        # Azure's clients send the deployment's name in both places, or a model's own name in the body.
        asked = path_model or fields.text("model")
        embedder, model = self._service.models.find(Embedder, asked)
        form = fields.choice("encoding_format", ("float", "base64"))
        kind = fields.choice("embedding_type", (None, *FORMATS))
        if kind not in (None, form) and "encoding_format" in fields:
            raise invalid("send one of encoding_format and embedding_type", "embedding_type")
        fields.choice("late_chunking", (False,))
        items = _read_items(fields, embedder, self._service.limits.client_batch)
        return _Request(
            embedder,
            model,
            items,
            kind or form,
            fields.integer("dimensions", 1, embedder.dimension),
            fields.flag("normalized", default=False),
        )

    async def models(self, _: Call) -> Response:
        """The served models."""
        models = [self._description(name) for name in self._service.models.ids()]
        return json_response({"object": "list", "data": models})

    async def model(self, call: Call) -> Response:
        """A served model."""
        _, name = self._service.models.any(call.request.path_params["model"])
        return json_response(self._description(name))

    def _description(self, name: str) -> dict[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": self._service.started,
            "owned_by": "simdformer",
        }


def _read_items(fields: RequestFields, embedder: TextRunner, most: int) -> Items:
    fields.integer("truncate_prompt_tokens", -1, -1)  # the model's limit
    mode = fields.choice("truncate", (None, "END", "START", "NONE", True, False))
    truncation = Truncation(mode in ("NONE", False) and mode is not None, _SIDES.get(mode))
    input_type = fields.choice("input_type", _INPUT_TYPES)
    task = fields.choice("task", _TASKS)
    if input_type is not None and task is not None:
        raise invalid("input_type and task both select a prompt; send one of them", "task")
    name = "input_type" if task is None else "task"
    prompt = prompt_of_task(fields, embedder, input_type or task, name)
    return read_items(fields, "input", embedder, most, truncation, prompt)


def _answer(output: Output, form: str, model: str) -> bytes:
    data = array(
        f'{{"object":"embedding","index":{index},"embedding":{text}}}'
        for index, text in enumerate(rows_json(output.rows, form))
    )
    usage = f'{{"prompt_tokens":{output.num_tokens},"total_tokens":{output.num_tokens}}}'
    name = json.dumps(model)
    return f'{{"object":"list","data":{data},"model":{name},"usage":{usage}}}'.encode()
