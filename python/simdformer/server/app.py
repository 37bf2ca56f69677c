# SPDX-License-Identifier: Apache-2.0
"""The routes: what is asked for, who may ask, and how long an answer is waited for."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from simdformer import __version__
from simdformer.cross_encoder import CrossEncoder
from simdformer.sentence_transformer import SentenceTransformer
from simdformer.server.batcher import Batcher, Output, QueueFullError, Runner, StoppedError
from simdformer.server.errors import ApiError, shown
from simdformer.server.incoming import check_key, disconnected, read_body
from simdformer.server.openai import EMBEDDINGS_FIELDS, embeddings_json, plain_json, read_items
from simdformer.server.request_fields import Fields
from simdformer.server.rerank import RERANK_FIELDS, ranking_json, read_ranking
from simdformer.server.served import Embedder, Reranker, ServedName, check_finite
from simdformer.util.similarity import normalize_embeddings

_logger = logging.getLogger("simdformer")

# Some four times what 2,048 texts of 500 tokens take.
_MAX_BODY_BYTES = 16 * 1024 * 1024
# Numbers of an answer that is written in another thread, for it takes more than some milliseconds.
_MANY_NUMBERS = 65536
_CLIENT_GONE = 499  # nginx's number; nobody reads it

Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    model: SentenceTransformer,
    reranker: CrossEncoder | None = None,
    *,
    name: str | None = None,
    reranker_name: str | None = None,
    max_queue: int = 8192,
    max_client_batch: int = 2048,
    max_body_bytes: int = _MAX_BODY_BYTES,
    api_key: str | None = None,
) -> Starlette:
    """An ASGI application; one event loop may run it.

    model, reranker: what embeds and what ranks. name, reranker_name: what they are called, by
      default what they were loaded by; requests may use the last part of it too.
    max_queue: how many texts may wait; a request that would exceed it gets 429.
    max_client_batch: how many texts a request may have. max_body_bytes: how long its body may be.
    api_key: what requests must carry as a bearer token; None for no check.

    Errors: ValueError for a reranker of several scores a pair, a queue that one request overfills,
    and an empty api_key.
    """
    if max_queue < max_client_batch:
        raise ValueError(
            f"max_queue must be at least max_client_batch, got {max_queue} and {max_client_batch}"
        )
    if api_key == "":
        raise ValueError("api_key must not be empty; None for no check")
    service = _Service(
        (Embedder(model), ServedName(name or model.name_or_path)),
        None
        if reranker is None
        else (Reranker(reranker), ServedName(reranker_name or reranker.name_or_path)),
        Batcher(max_queue),
        max_client_batch,
        max_body_bytes,
        api_key,
    )
    return service.application()


class _Service:
    """The models, the queue before them, and a handler for each route."""

    def __init__(
        self,
        embedder: tuple[Embedder, ServedName],
        reranker: tuple[Reranker, ServedName] | None,
        batcher: Batcher,
        max_client_batch: int,
        max_body_bytes: int,
        api_key: str | None,
    ) -> None:
        self._embedder, self._embedder_name = embedder
        self._reranker = reranker
        self._batcher = batcher
        self._max_client_batch, self._max_body_bytes = max_client_batch, max_body_bytes
        self._api_key = None if api_key is None else api_key.encode()
        self._started = int(time.time())

    def application(self) -> Starlette:
        """The routes, and errors in one form for all that has none."""
        routes = [
            Route("/", self._guarded(self._root, public=True)),
            Route("/health", self._guarded(self._health, public=True)),
            Route("/v1/models", self._guarded(self._models)),
            Route("/v1/embeddings", self._guarded(self._embeddings), methods=["POST"]),
            Route("/embed", self._guarded(self._embed), methods=["POST"]),
            *(
                Route(path, self._guarded(self._rerank), methods=["POST"])
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
        app.state.batcher = self._batcher
        return app

    # --- the routes ---

    async def _root(self, _: Request) -> Response:
        return _json({"name": "simdformer", "version": __version__})

    async def _health(self, _: Request) -> Response:
        if self._batcher.stopped:
            raise _stopping()
        return _json({"status": "ok"})

    async def _models(self, _: Request) -> Response:
        names = [self._embedder_name, *([] if self._reranker is None else [self._reranker[1]])]
        models = [
            {"id": n.id, "object": "model", "created": self._started, "owned_by": "simdformer"}
            for n in names
        ]
        return _json({"object": "list", "data": models})

    async def _embeddings(self, request: Request) -> Response:
        fields = Fields(await read_body(request, self._max_body_bytes), EMBEDDINGS_FIELDS)
        _check_model(fields, self._embedder_name)
        form = fields.choice("encoding_format", ("float", "base64"))
        dimensions = fields.integer("dimensions", 1, self._embedder.dimension)
        items = read_items(fields, "input", self._embedder, self._max_client_batch)
        output = await self._compute(request, self._embedder, *items)
        if dimensions not in (None, self._embedder.dimension):
            output = output._replace(rows=normalize_embeddings(output.rows[:, :dimensions]))
        return await _written(output, lambda: embeddings_json(output, form, self._embedder_name.id))

    async def _embed(self, request: Request) -> Response:
        """TEI's plain form."""
        known = ("inputs", "normalize", "truncate", "prompt_name")
        fields = Fields(await read_body(request, self._max_body_bytes), known)
        fields.choice("truncate", (True,))  # as everywhere here; false would have to fail
        unit = fields.flag("normalize", default=True)
        items = read_items(fields, "inputs", self._embedder, self._max_client_batch)
        output = await self._compute(request, self._embedder, *items)
        rows = normalize_embeddings(output.rows) if unit else output.rows
        return await _written(output, lambda: plain_json(rows))

    async def _rerank(self, request: Request) -> Response:
        body = await read_body(request, self._max_body_bytes)
        if self._reranker is None:
            raise ApiError(
                404, "no reranker is served: start with --reranker", code="model_not_found"
            )
        reranker, name = self._reranker
        fields = Fields(body, RERANK_FIELDS)
        _check_model(fields, name)
        ranking = read_ranking(fields, self._max_client_batch)
        query = reranker.prompt + ranking.query
        pairs = [(query, document) for document in ranking.documents]
        output = await self._compute(request, reranker, pairs, None)
        return await _written(output, lambda: ranking_json(ranking, output, name.id))

    # --- what they share ---

    def _guarded(self, handler: Handler, *, public: bool = False) -> Handler:
        """The handler behind the check of the key; what it raises becomes an answer."""

        async def endpoint(request: Request) -> Response:
            try:
                if not public:
                    check_key(request, self._api_key)
                return await handler(request)
            except ApiError as error:
                return error.response()
            except asyncio.CancelledError:
                if not self._batcher.stopped:
                    raise
                return _stopping().response()  # the server waits no longer for this client
            except ClientDisconnect:  # in the middle of its body
                return Response(status_code=_CLIENT_GONE)
            except Exception:
                _logger.exception("%s %s failed", request.method, request.url.path)
                return ApiError(500, "internal error", code="internal_error").response()

        return endpoint

    async def _compute(
        self, request: Request, runner: Runner, items: Sequence[Any], group: Hashable
    ) -> Output:
        """What the model makes of the items; a client that goes takes them out of the queue."""
        try:
            done = self._batcher.submit(runner, items, group)
            gone = asyncio.ensure_future(disconnected(request))
            try:
                await asyncio.wait((done, gone), return_when=asyncio.FIRST_COMPLETED)
                if not done.done():
                    raise ApiError(_CLIENT_GONE, "the client has gone")
                output = done.result()
            finally:
                done.cancel()
                gone.cancel()
        except QueueFullError:
            raise ApiError(
                429, "too many texts wait, try again", code="overloaded", headers=_RETRY
            ) from None
        except StoppedError:
            raise _stopping() from None
        check_finite(output.rows)
        return output


_RETRY = {"Retry-After": "1"}


def _stopping() -> ApiError:
    return ApiError(503, "the server is stopping", code="stopping", headers=_RETRY)


def _check_model(fields: Fields, name: ServedName) -> None:
    """ApiError if the request names another model; one that names none means this one."""
    asked = fields.text("model")
    if asked is not None and asked not in name.all:
        raise ApiError(
            404,
            f"unknown model {shown(asked)}; served here: {name.id}",
            param="model",
            code="model_not_found",
        )


async def _written(output: Output, write: Callable[[], bytes]) -> Response:
    """The answer as a response; a long one is written in another thread, others go on meanwhile."""
    many = output.rows.size > _MANY_NUMBERS
    content = await asyncio.to_thread(write) if many else write()
    return Response(content, media_type="application/json")


def _json(content: object) -> Response:
    return Response(json.dumps(content), media_type="application/json")


async def _no_route(request: Request, error: Exception) -> Response:
    """What starlette itself answers (404, 405), in the form of all errors."""
    if not isinstance(error, HTTPException):
        raise error
    message = f"{error.detail}: {request.method} {request.url.path[:80]}"
    return ApiError(error.status_code, message, headers=error.headers).response()
