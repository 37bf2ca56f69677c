# SPDX-License-Identifier: Apache-2.0
"""The routes, authorization, and timeouts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simdformer import __version__
from simdformer.cross_encoder import CrossEncoder
from simdformer.sentence_transformer import SentenceTransformer
from simdformer.server.batcher import Batcher, QueueFullError, StoppedError
from simdformer.server.endpoint import CLIENT_GONE, Call, Endpoint, stopping
from simdformer.server.errors import ApiError, overloaded, shown
from simdformer.server.incoming import SMALL_BYTES, Memory, checked_key, disconnected, read_body
from simdformer.server.metrics import Metrics
from simdformer.server.openai import (
    EMBED_FIELDS,
    EMBEDDINGS_FIELDS,
    Items,
    embeddings_json,
    plain_json,
    read_openai,
    read_tei,
)
from simdformer.server.passes import Output, Runner
from simdformer.server.request_fields import Fields
from simdformer.server.rerank import RERANK_FIELDS, Ranking, ranking_json, read_ranking
from simdformer.server.served import Embedder, Reranker, ServedName, check_finite
from simdformer.util.similarity import normalize_embeddings

# About four times the size of 2,048 texts of 500 tokens.
_MAX_BODY_BYTES = 16 * 1024 * 1024
_MAX_BYTES_IN_FLIGHT = 16 * _MAX_BODY_BYTES
# Size of a number in a JSON response.
_NUMBER_BYTES = 14

T = TypeVar("T")


def create_app(
    model: SentenceTransformer,
    reranker: CrossEncoder | None = None,
    *,
    name: str | None = None,
    reranker_name: str | None = None,
    max_queue: int = 8192,
    max_wait: float = 10,
    max_client_batch: int = 2048,
    max_body_bytes: int = _MAX_BODY_BYTES,
    max_bytes_in_flight: int = _MAX_BYTES_IN_FLIGHT,
    api_key: str | None = None,
) -> Starlette:
    """Return an ASGI application that serves models over HTTP. One event loop may run it.

    Parameters
    ----------
    model, reranker
        The model that embeds, and the one that ranks, if any.
    name, reranker_name
        Their names in requests; default: the name by which each was loaded. Requests may also use
        the last part of a name, and the full name on the hub.
    max_queue
        The number of texts that may wait. A request that would exceed it gets 429.
    max_wait
        The seconds of work that may wait, estimated from the previous passes. Exceeding it gives 429.
    max_client_batch
        The number of texts in one request.
    max_body_bytes
        The size of the body of one request.
    max_bytes_in_flight
        The total size of bodies and responses of more than 64 KiB. Exceeding it gives 429.
    api_key
        The bearer token that requests must send; None accepts all requests.

    Returns
    -------
    Starlette
        The application.

    Raises
    ------
    ValueError
        The reranker gives several scores per pair, one request can overfill the queue or the memory,
        or no client can send the api_key.

    Examples
    --------
    >>> from simdformer import SentenceTransformer
    >>> app = create_app(SentenceTransformer("all-MiniLM-L6-v2"))
    """
    if max_queue < max_client_batch:
        raise ValueError(
            f"max_queue must be at least max_client_batch, got {max_queue} and {max_client_batch}"
        )
    if max_bytes_in_flight < max_body_bytes:
        raise ValueError(
            "max_bytes_in_flight must be at least max_body_bytes,"
            f" got {max_bytes_in_flight} and {max_body_bytes}"
        )
    ranks = None
    if reranker is not None:
        ranks = (
            Reranker(reranker),
            ServedName(reranker_name or reranker.name_or_path, "cross-encoder"),
        )
    service = _Service(
        (Embedder(model), ServedName(name or model.name_or_path, "sentence-transformers")),
        ranks,
        Batcher(max_queue, max_wait),
        max_client_batch,
        max_body_bytes,
        Memory(max_bytes_in_flight),
        checked_key(api_key),
    )
    return service.application()


class _Service:
    """The models, their queue, and a handler per route."""

    def __init__(
        self,
        embedder: tuple[Embedder, ServedName],
        reranker: tuple[Reranker, ServedName] | None,
        batcher: Batcher,
        max_client_batch: int,
        max_body_bytes: int,
        memory: Memory,
        api_key: bytes | None,
    ) -> None:
        self._embedder, self._embedder_name = embedder
        self._reranker = reranker
        self._batcher = batcher
        self._max_client_batch, self._max_body_bytes = max_client_batch, max_body_bytes
        self._memory, self._api_key = memory, api_key
        self._metrics = Metrics(batcher, memory)
        # Long JSON is read and written outside the event loop. One thread is enough because of the GIL.
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="simdformer-server-json")
        self._started = int(time.time())

    def application(self) -> Starlette:
        """The routes, and one form for all other errors."""
        routes = [
            self._route("/", self._root, public=True),
            self._route("/health", self._health, public=True),
            self._route("/metrics", self._show_metrics),
            self._route("/v1/models", self._models),
            self._route("/v1/embeddings", self._embeddings, method="POST"),
            self._route("/embed", self._embed, method="POST"),
            *(
                self._route(path, self._rerank, method="POST")
                for path in ("/v1/rerank", "/v2/rerank", "/rerank")
            ),
        ]

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            self._batcher.stop()

        app = Starlette(
            routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _no_route}
        )
        app.router.redirect_slashes = False  # it would use the Host in the request
        app.state.batcher = self._batcher
        return app

    def _route(
        self,
        path: str,
        handler: Callable[[Call], Awaitable[Response]],
        *,
        method: str = "GET",
        public: bool = False,
    ) -> Route:
        key = None if public else self._api_key
        endpoint = Endpoint(path, handler, key, self._batcher, self._memory, self._metrics)
        return Route(path, endpoint, methods=[method])

    # --- the routes ---

    async def _root(self, _: Call) -> Response:
        return _json({"name": "simdformer", "version": __version__})

    async def _health(self, _: Call) -> Response:
        if self._batcher.stopped:
            raise stopping()
        return _json({"status": "ok"})

    async def _show_metrics(self, call: Call) -> Response:
        return self._metrics.response(call.request)

    async def _models(self, _: Call) -> Response:
        names = [self._embedder_name, *([] if self._reranker is None else [self._reranker[1]])]
        models = [
            {"id": n.id, "object": "model", "created": self._started, "owned_by": "simdformer"}
            for n in names
        ]
        return _json({"object": "list", "data": models})

    async def _embeddings(self, call: Call) -> Response:
        def read(body: bytes) -> tuple[Items, str, int | None]:
            fields = Fields(body, EMBEDDINGS_FIELDS)
            _check_model(fields, self._embedder_name)
            form = fields.choice("encoding_format", ("float", "base64"))
            dimensions = fields.integer("dimensions", 1, self._embedder.dimension)
            return read_openai(fields, self._embedder, self._max_client_batch), form, dimensions

        items, form, dimensions = await self._read(call, read)
        output = await self._embedded(call, items, "input")
        if dimensions not in (None, self._embedder.dimension):
            output = output._replace(rows=normalize_embeddings(output.rows[:, :dimensions]))
        name = self._embedder_name.id
        return await self._written(output, lambda: embeddings_json(output, form, name))

    async def _embed(self, call: Call) -> Response:
        """The plain format of TEI."""

        def read(body: bytes) -> tuple[Items, bool, int | None]:
            fields = Fields(body, EMBED_FIELDS)
            unit = fields.flag("normalize", default=True)
            dimensions = fields.integer("dimensions", 1, self._embedder.dimension)
            return read_tei(fields, self._embedder, self._max_client_batch), unit, dimensions

        items, unit, dimensions = await self._read(call, read)
        output = await self._embedded(call, items, "inputs")
        rows = output.rows[:, :dimensions]
        rows = normalize_embeddings(rows) if unit else rows
        return await self._written(output, lambda: plain_json(rows))

    async def _rerank(self, call: Call) -> Response:
        if self._reranker is None:
            raise ApiError(
                404, "no reranker is served: start with --reranker", code="model_not_found"
            )
        reranker, name = self._reranker

        def read(body: bytes) -> Ranking:
            fields = Fields(body, RERANK_FIELDS)
            _check_model(fields, name)
            return read_ranking(fields, self._max_client_batch, reranker.model.max_seq_length)

        ranking = await self._read(call, read)
        pairs = [reranker.prompted(ranking.query, document) for document in ranking.documents]
        output = await self._compute(call.request, reranker, pairs, ranking.raw_scores)
        return await self._written(output, lambda: ranking_json(ranking, output, name.id))

    # --- shared by the routes ---

    async def _read(self, call: Call, read: Callable[[bytes], T]) -> T:
        """The result of `read` for the body. A long body is read in another thread, so that other requests
        continue."""
        body = await read_body(call.request, self._max_body_bytes, call.held)
        return await self._beside(len(body) > SMALL_BYTES, lambda: read(body))

    async def _beside(self, long: bool, work: Callable[[], T]) -> T:
        if not long:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)

    async def _embedded(self, call: Call, items: Items, name: str) -> Output:
        call.held.take(len(items.items) * self._embedder.dimension * _NUMBER_BYTES)
        if items.whole:
            await self._beside(True, lambda: self._embedder.check_lengths(items.items, name))
        return await self._compute(call.request, self._embedder, items.items, items.group)

    async def _compute(
        self, request: Request, runner: Runner, items: Sequence[Any], group: Hashable
    ) -> Output:
        """The output of the model for the items. When the client disconnects, pending items are dropped."""
        try:
            done = self._batcher.submit(runner, items, group)
            gone = asyncio.ensure_future(disconnected(request))
            try:
                await asyncio.wait((done, gone), return_when=asyncio.FIRST_COMPLETED)
                if not done.done():
                    raise ApiError(CLIENT_GONE, "the client disconnected")
                output = done.result()
            finally:
                done.cancel()
                gone.cancel()
        except QueueFullError as error:
            raise overloaded("too many texts are waiting, try again", error.retry_after) from None
        except StoppedError:
            raise stopping() from None
        check_finite(output.rows)
        self._metrics.texts.inc(len(items))
        self._metrics.tokens.inc(output.num_tokens)
        return output

    async def _written(self, output: Output, write: Callable[[], bytes]) -> Response:
        long = output.rows.size * _NUMBER_BYTES > SMALL_BYTES
        return Response(await self._beside(long, write), media_type="application/json")


def _check_model(fields: Fields, name: ServedName) -> None:
    """ApiError if the request names another model. Without a name, this model is used."""
    asked = fields.text("model")
    if asked is not None and asked not in name.all:
        raise ApiError(
            404,
            f"unknown model {shown(asked)}; served here: {name.id}",
            param="model",
            code="model_not_found",
        )


def _json(content: object) -> Response:
    return Response(json.dumps(content), media_type="application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    """Convert starlette's own responses (404, 405) to the format of all errors."""
    if not isinstance(error, HTTPException):
        raise error
    message = f"{error.detail}: {request.method} {request.url.path[:80]}"
    return ApiError(error.status_code, message, headers=error.headers).response()
