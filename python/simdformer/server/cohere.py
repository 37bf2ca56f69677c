# SPDX-License-Identifier: Apache-2.0
"""Cohere's embeddings, v1 and v2. Its rankings are in rerank.py."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
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
from simdformer.server.errors import cohere_error, invalid, shown
from simdformer.server.operation import INTEGER, STRING, STRINGS, Operation, Schema, enum
from simdformer.server.passes import Output
from simdformer.server.request_fields import RequestFields, check_number, checked_text
from simdformer.server.served import Embedder
from simdformer.server.service import Service

_INPUT_TYPES = (None, "search_query", "search_document", "classification", "clustering")
_SIDES = {"END": "right", "START": "left"}

_V1: dict[str, Schema] = {
    "texts": STRINGS,
    "model": STRING,
    "input_type": enum(*_INPUT_TYPES[1:]),
    "embedding_types": {"type": "array", "items": enum(*FORMATS)},
    "truncate": enum("END", "START", "NONE"),
    "prompt_name": STRING,
}
_V2: dict[str, Schema] = {
    **_V1,
    "inputs": {"type": "array", "description": 'objects {"content": [{"type": "text", "text"}]}'},
    "max_tokens": INTEGER,
    "output_dimension": INTEGER,
    "priority": INTEGER,
}


class _Request(NamedTuple):
    """A request for embeddings. forms: the types of the response; None for v1's array."""

    embedder: Embedder
    texts: list[str]
    items: Items
    forms: list[str] | None
    dimensions: int | None


class Cohere:
    """The routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        """The routes of this protocol."""
        rows = (
            (("/v1/embed",), self.embed_v1, _V1, ("texts",)),
            (("/v2/embed",), self.embed_v2, _V2, ()),
        )
        return [
            Operation("Cohere", paths, handler, "Vectors of texts", fields, required, cohere_error)
            for paths, handler, fields, required in rows
        ]

    async def embed_v1(self, call: Call) -> Response:
        """Vectors of texts, as an array or by type."""
        return await self._answer(call, await self._service.read(call, self._read_v1), 1)

    async def embed_v2(self, call: Call) -> Response:
        """Vectors of texts by type."""
        return await self._answer(call, await self._service.read(call, self._read_v2), 2)

    def _read_v1(self, fields: RequestFields) -> _Request:
        return self._read(fields.only(_V1), fields.array("texts"), "texts")

    def _read_v2(self, fields: RequestFields) -> _Request:
        fields.only(_V2)
        fields.integer("priority", 0, 999)
        if "inputs" not in fields:
            request = self._read(fields, fields.array("texts"), "texts")
        elif "texts" in fields:
            raise invalid("send one of texts and inputs", "inputs")
        else:
            rows = [_content(row, f"inputs[{i}]") for i, row in enumerate(fields.array("inputs"))]
            request = self._read(fields, rows, "inputs")
        return request._replace(forms=request.forms or ["float"])

    def _read(self, fields: RequestFields, rows: Sequence[object], name: str) -> _Request:
        check_number(rows, name, self._service.limits.client_batch)
        texts = [checked_text(row, f"{name}[{i}]") for i, row in enumerate(rows)]
        embedder, _ = self._service.models.find(Embedder, fields.text("model"))
        mode = fields.choice("truncate", ("END", "START", "NONE"))
        most = embedder.model.max_seq_length
        limit = fields.integer("max_tokens", embedder.num_special_tokens + 1)
        side = _SIDES.get(mode) if "truncate" in fields else None
        truncation = Truncation(mode == "NONE", side, None if limit is None else min(limit, most))
        prompt = prompt_of_task(fields, embedder, fields.choice("input_type", _INPUT_TYPES))
        listed = RequestFields({name: texts})
        return _Request(
            embedder,
            texts,
            read_items(listed, name, embedder, len(texts), truncation, prompt),
            _forms(fields) if "embedding_types" in fields else None,
            fields.integer("output_dimension", 1, embedder.dimension),
        )

    async def _answer(self, call: Call, request: _Request, version: int) -> Response:
        embedder, _, items, forms, dimensions = request
        output = await embedded(self._service, call, embedder, items, dimensions)
        size = output.rows.size * NUMBER_BYTES * len(forms or [""])
        call.held.take(size)  # several types, and the texts
        return await self._service.written(size, lambda: _json(request, output, version))


def _forms(fields: RequestFields) -> list[str]:
    forms = fields.array("embedding_types")
    if wrong := [form for form in forms if form not in FORMATS]:
        # int8 needs the ranges of a corpus.
        known = ", ".join(FORMATS)
        raise invalid(
            f"embedding_types must be of {known}, got {shown(wrong[0])}", "embedding_types"
        )
    return list(dict.fromkeys(forms))


def _content(row: object, place: str) -> str:
    """The text of an input; images are refused."""
    parts = row.get("content") if isinstance(row, dict) and set(row) == {"content"} else None
    if not isinstance(parts, list) or len(parts) != 1:
        raise invalid(f'{place} must be an object {{"content": [one part]}}', place)
    (part,) = parts
    if not isinstance(part, dict) or part.get("type") != "text" or set(part) != {"type", "text"}:
        raise invalid(f'{place}.content[0] must be {{"type": "text", "text"}}', place)
    return checked_text(part["text"], f"{place}.content[0].text")


def _json(request: _Request, output: Output, version: int) -> bytes:
    forms = request.forms
    if forms is None:
        kind, embeddings = "embeddings_floats", array(rows_json(output.rows))
    else:
        kind = "embeddings_by_type"
        by_form = (f'"{form}":{array(rows_json(output.rows, form))}' for form in forms)
        embeddings = "{" + ",".join(by_form) + "}"
    members = {
        "id": f"embed-{uuid.uuid4().hex}",
        "texts": request.texts,
        "response_type": kind,
        "meta": {
            "api_version": {"version": str(version)},
            "billed_units": {"input_tokens": output.num_tokens},
        },
    }
    return f'{json.dumps(members)[:-1]},"embeddings":{embeddings}}}'.encode()
