# SPDX-License-Identifier: Apache-2.0
"""Text Embeddings Inference: embeddings of texts and tokens, sparse embeddings, similarities, and its
information. Its other routes are in tei_scores.py and tei_tokens.py."""

from __future__ import annotations

from typing import NamedTuple

from starlette.responses import Response

from simdformer import __version__
from simdformer.server.embeddings import (
    NUMBER_BYTES,
    Items,
    Truncation,
    array,
    check_whole,
    embedded,
    read_items,
    rows_json,
)
from simdformer.server.endpoint import Call
from simdformer.server.errors import tei_error
from simdformer.server.operation import (
    BOOLEAN,
    INTEGER,
    OBJECT,
    STRING,
    TEXTS_OR_IDS,
    Operation,
    Schema,
    enum,
)
from simdformer.server.passes import PASS_CHARACTERS
from simdformer.server.request_fields import RequestFields, check_number, checked_text
from simdformer.server.scorer import Scorer
from simdformer.server.served import Embedder, SparseEmbedder, TextRunner
from simdformer.server.service import Service, json_response
from simdformer.sparse_embeddings import SparseEmbeddings
from simdformer.util.similarity import normalize_embeddings, pairwise_cos_sim

TRUNCATION: dict[str, Schema] = {
    "truncate": BOOLEAN,
    "truncation_direction": enum("Right", "Left", "right", "left"),
}
_ALL_FIELDS = {"inputs": TEXTS_OR_IDS, **TRUNCATION, "prompt_name": STRING, "model": STRING}
_EMBED_FIELDS = {
    **_ALL_FIELDS,
    "normalize": BOOLEAN,
    "dimensions": INTEGER,
    "encoding_format": enum("float"),
}
_PARAMETERS = {**TRUNCATION, "prompt_name": STRING}
_SIMILARITY_FIELDS = {"inputs": OBJECT, "parameters": OBJECT, "model": STRING}
# Characters of a weight of a sparse embedding: {"index":12345,"value":0.123456789}
_WEIGHT_BYTES = 40


class _Request(NamedTuple):
    """A request for embeddings. unit: whether vectors are normalized."""

    embedder: Embedder
    items: Items
    unit: bool
    dimensions: int | None


class Tei:
    """The routes for embeddings."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def operations(self) -> list[Operation]:
        """The routes of this protocol."""
        embed, all_, similarity = _EMBED_FIELDS, _ALL_FIELDS, _SIMILARITY_FIELDS
        rows = (
            ("/embed", self.embed, "Vectors of texts", embed),
            ("/embed_all", self.embed_all, "Vectors of the tokens of texts", all_),
            ("/embed_sparse", self.embed_sparse, "Sparse vectors of texts", all_),
            ("/similarity", self.similarity, "Cosines of a text and others", similarity),
        )
        operations = [
            Operation("TEI", (path,), handler, summary, fields, ("inputs",), tei_error)
            for path, handler, summary, fields in rows
        ]
        info = Operation(
            "TEI", ("/info",), self.info, "The model and the limits", error_form=tei_error
        )
        return [*operations, info]

    async def embed(self, call: Call) -> Response:
        """Vectors of texts."""
        return await self.answer_embed(call, await self._service.read(call, self.read_embed))

    def read_embed(self, fields: RequestFields) -> _Request:
        """The request for vectors of texts."""
        fields.only(_EMBED_FIELDS)
        fields.choice("encoding_format", ("float",))
        embedder, _ = self._service.models.find(Embedder, fields.text("model"))
        return _Request(
            embedder,
            self._items(fields, embedder),
            fields.flag("normalize", default=True),
            fields.integer("dimensions", 1, embedder.dimension),
        )

    async def answer_embed(self, call: Call, request: _Request) -> Response:
        """The response to it."""
        embedder, items, unit, dimensions = request
        output = await embedded(self._service, call, embedder, items)
        rows = output.rows[:, :dimensions]
        rows = normalize_embeddings(rows) if unit else rows
        size = rows.size * NUMBER_BYTES
        return await self._service.written(size, lambda: array(rows_json(rows)).encode())

    async def embed_all(self, call: Call) -> Response:
        """Vectors of the tokens of texts."""

        def read(fields: RequestFields) -> tuple[Embedder, Items]:
            fields.only(_ALL_FIELDS)
            embedder, _ = self._service.models.find(Embedder, fields.text("model"))
            return embedder, self._items(fields, embedder)

        embedder, items = await self._service.read(call, read)
        runner = embedder.token_vectors
        tokens = sum(map(runner.most_tokens, items.items))
        call.held.take(tokens * embedder.pipeline.encoder.hidden_size * NUMBER_BYTES)
        await check_whole(self._service, runner, items)
        output = await self._service.compute(call.request, runner, items.items, items.reading)
        size = sum(rows.size for rows in output.rows) * NUMBER_BYTES
        return await self._service.written(
            size, lambda: array(array(rows_json(rows)) for rows in output.rows).encode()
        )

    async def embed_sparse(self, call: Call) -> Response:
        """Sparse vectors of texts."""

        def read(fields: RequestFields) -> tuple[SparseEmbedder, Items]:
            fields.only(_ALL_FIELDS)
            embedder, _ = self._service.models.find(SparseEmbedder, fields.text("model"))
            return embedder, self._items(fields, embedder)

        embedder, items = await self._service.read(call, read)
        await check_whole(self._service, embedder, items)
        output = await self._service.compute(call.request, embedder, items.items, items.reading)
        # The number of weights of a text is not known in advance.
        size = sum(row.nnz for row in output.rows) * _WEIGHT_BYTES
        call.held.take(size)
        return await self._service.written(
            size, lambda: array(map(_sparse_json, output.rows)).encode()
        )

    async def similarity(self, call: Call) -> Response:
        """Cosines of a text and others."""
        request = await self._service.read(call, self.read_similarity)
        return await self.answer_similarity(call, request)

    def read_similarity(self, fields: RequestFields) -> tuple[Embedder, Items]:
        """The request for similarities."""
        fields.only(_SIMILARITY_FIELDS)
        parameters = fields.inner("parameters", _PARAMETERS)
        fields.any("inputs")
        inputs = fields.inner("inputs", ("source_sentence", "sentences"))
        most = self._service.limits.client_batch
        source = checked_text(inputs.any("source_sentence"), "inputs.source_sentence")
        rows = inputs.array("sentences")
        check_number(rows, "inputs.sentences", most)
        texts = [checked_text(row, f"inputs.sentences[{i}]") for i, row in enumerate(rows)]
        embedder, _ = self._service.models.find(Embedder, fields.text("model"))
        name = parameters.text("prompt_name")
        all_texts = RequestFields({"sentences": [source, *texts]})
        truncation = read_truncation(parameters)
        return embedder, read_items(all_texts, "sentences", embedder, most + 1, truncation, name)

    async def answer_similarity(self, call: Call, request: tuple[Embedder, Items]) -> Response:
        """The response to it."""
        embedder, items = request
        rows = (await embedded(self._service, call, embedder, items)).rows
        return json_response(pairwise_cos_sim(rows[:1], rows[1:]).tolist())

    async def info(self, call: Call) -> Response:
        """The model and the limits."""
        runner, name = self._service.models.any(call.request.query_params.get("model"))
        model, limits = runner.model, self._service.limits
        answer = {
            "model_id": name,
            "model_sha": None,
            "model_dtype": model.compute_type,
            "served_model_name": name,
            "model_type": _model_type(runner),
            "max_concurrent_requests": self._service.batcher.max_queue,
            "max_input_length": model.max_seq_length,
            "max_batch_tokens": PASS_CHARACTERS // 4,
            "max_batch_requests": None,
            "max_client_batch_size": limits.client_batch,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": __version__,
        }
        return json_response(answer)

    def _items(self, fields: RequestFields, runner: TextRunner) -> Items:
        name = fields.text("prompt_name")
        truncation = read_truncation(fields)
        most = self._service.limits.client_batch
        return read_items(fields, "inputs", runner, most, truncation, name)


def read_truncation(fields: RequestFields) -> Truncation:
    """truncate, true if it is missing, and truncation_direction."""
    whole = not fields.flag("truncate", default=True)
    side = fields.choice("truncation_direction", (None, "Right", "Left", "right", "left"))
    return Truncation(whole, None if side is None else side.lower())


def _model_type(runner: TextRunner | Scorer) -> dict[str, object]:
    if isinstance(runner, Scorer):
        labels = {label: index for index, label in enumerate(runner.labels())}
        kind = "reranker" if len(labels) == 1 else "classifier"
        id2label = {str(index): label for label, index in labels.items()}
        return {kind: {"id2label": id2label, "label2id": labels}}
    if isinstance(runner, Embedder):
        modes = getattr(runner.model, "pooling_modes", ())
        return {"embedding": {"pooling": "+".join(modes)}}
    return {"embedding": {"pooling": "splade"}}


def _sparse_json(row: SparseEmbeddings) -> str:
    pairs = zip(row.indices.tolist(), row.data.tolist(), strict=True)
    return array(f'{{"index":{index},"value":{value:.9g}}}' for index, value in pairs)
