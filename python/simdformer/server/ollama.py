# SPDX-License-Identifier: Apache-2.0
"""Ollama's embeddings, and its list of models."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from typing import NamedTuple

from starlette.responses import Response

from simdformer import __version__
from simdformer.server.embeddings import (
    NUMBER_BYTES,
    Items,
    Truncation,
    array,
    embedded,
    read_items,
    rows_json,
)
from simdformer.server.endpoint import Call
from simdformer.server.errors import invalid, ollama_error
from simdformer.server.operation import BOOLEAN, INTEGER, OBJECT, STRING, TEXTS, Operation, Schema
from simdformer.server.request_fields import RequestFields
from simdformer.server.served import Embedder
from simdformer.server.service import Service, json_response
from simdformer.util.similarity import normalize_embeddings

_EMBED: dict[str, Schema] = {
    "model": STRING,
    "input": TEXTS,
    "truncate": BOOLEAN,
    "dimensions": INTEGER,
    "options": OBJECT,
    "keep_alive": {},
}
_EMBEDDINGS: dict[str, Schema] = {
    "model": STRING,
    "prompt": STRING,
    "options": OBJECT,
    "keep_alive": {},
}
# Options of generation and speed, which do not change vectors.
_NO_EFFECT = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "tfs_z", "seed", "stop"),
    *("num_predict", "num_keep", "repeat_last_n", "repeat_penalty", "penalize_newline"),
    *("presence_penalty", "frequency_penalty", "mirostat", "mirostat_eta", "mirostat_tau"),
    *(
        "num_thread",
        "num_gpu",
        "main_gpu",
        "num_batch",
        "low_vram",
        "use_mmap",
        "use_mlock",
        "numa",
    ),
)


class _Request(NamedTuple):
    """A request for embeddings."""

    model: str
    embedder: Embedder
    items: Items
    dimensions: int | None


class Ollama:
    """The routes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        """The routes of this protocol."""
        rows = (
            ("/api/embed", self.embed, "Vectors of texts", _EMBED, "input"),
            ("/api/embeddings", self.embeddings, "The vector of a text", _EMBEDDINGS, "prompt"),
            ("/api/tags", self.tags, "The served models", None, ""),
            ("/api/version", self.version, "The version of the server", None, ""),
        )
        return [
            Operation("Ollama", (path,), handler, summary, fields, (required,), ollama_error)
            for path, handler, summary, fields, required in rows
        ]

    async def embed(self, call: Call) -> Response:
        """Normalized vectors of texts."""
        start = time.perf_counter()

        def read(fields: RequestFields) -> _Request:
            return self._read(fields.only(_EMBED), "input")

        model, embedder, items, dimensions = await self._service.read(call, read)
        output = await embedded(self._service, call, embedder, items, dimensions)
        rows = normalize_embeddings(output.rows)
        members = {
            "model": model,
            "total_duration": round((time.perf_counter() - start) * 1e9),
            "load_duration": 0,
            "prompt_eval_count": output.num_tokens,
        }

        def write() -> bytes:
            return f'{json.dumps(members)[:-1]},"embeddings":{array(rows_json(rows))}}}'.encode()

        return await self._service.written(rows.size * NUMBER_BYTES, write)

    async def embeddings(self, call: Call) -> Response:
        """The vector of a text, as `encode` gives it."""

        def read(fields: RequestFields) -> _Request:
            fields.only(_EMBEDDINGS)
            if not isinstance(fields.any("prompt"), str):
                raise invalid("prompt must be a string", "prompt")
            return self._read(fields, "prompt")

        request = await self._service.read(call, read)
        embedder, items = request.embedder, request.items
        rows = (await embedded(self._service, call, embedder, items)).rows
        (text,) = rows_json(rows)
        return Response(f'{{"embedding":{text}}}', media_type="application/json")

    def _read(self, fields: RequestFields, name: str) -> _Request:
        asked = fields.text("model")
        model = None if asked is None else asked.removesuffix(":latest")
        embedder, _ = self._service.models.find(Embedder, model)
        options = fields.inner("options", (*_NO_EFFECT, "num_ctx"))
        options.integer("num_ctx", embedder.model.max_seq_length)
        texts = fields.texts(name, self._service.limits.client_batch)
        truncation = Truncation(whole=not fields.flag("truncate", default=True))
        items = read_items(RequestFields({name: texts}), name, embedder, len(texts), truncation)
        dimensions = fields.integer("dimensions", 1, embedder.dimension)
        return _Request(asked or "", embedder, items, dimensions)

    async def tags(self, _: Call) -> Response:
        """The served models, with the names and details that Ollama's clients show."""
        modified = datetime.fromtimestamp(self._service.started, timezone.utc).isoformat()
        models = []
        for name in self._service.models.ids():
            model = self._service.models.any(name)[0].model
            family = getattr(model.config, "model_type", "")
            details = {
                "format": "safetensors",
                "family": family,
                "families": [family],
                "quantization_level": model.compute_type,
            }
            entry = {"name": name, "model": name, "modified_at": modified, "details": details}
            models.append(entry)
        return json_response({"models": models})

    async def version(self, _: Call) -> Response:
        """The version of the server."""
        return json_response({"version": __version__})
