# SPDX-License-Identifier: Apache-2.0
"""The application: the routes of all protocols over one queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simdformer.cross_encoder import CrossEncoder
from simdformer.sentence_transformer import SentenceTransformer
from simdformer.server.batcher import Batcher
from simdformer.server.cohere import Cohere
from simdformer.server.endpoint import Endpoint
from simdformer.server.errors import ApiError
from simdformer.server.incoming import Memory, checked_key
from simdformer.server.models import Model, Models
from simdformer.server.ollama import Ollama
from simdformer.server.openai import OpenAI
from simdformer.server.operation import Operation
from simdformer.server.rerank import Rerank
from simdformer.server.scorer import Reranker
from simdformer.server.service import RequestLimits, Service
from simdformer.server.status import Status
from simdformer.server.tei import Tei
from simdformer.server.tei_scores import TeiScores
from simdformer.server.tei_tokens import TeiTokens
from simdformer.server.vllm import Vllm

# About four times the size of 2,048 texts of 500 tokens.
_MAX_BODY_BYTES = 16 * 1024 * 1024
_MAX_BYTES_IN_FLIGHT = 16 * _MAX_BODY_BYTES


def create_app(
    model: SentenceTransformer | None = None,
    reranker: CrossEncoder | None = None,
    *,
    name: str | None = None,
    reranker_name: str | None = None,
    models: Mapping[str, Model] | None = None,
    max_queue: int = 8192,
    max_wait: float = 10,
    max_client_batch: int = 2048,
    max_body_bytes: int = _MAX_BODY_BYTES,
    max_bytes_in_flight: int = _MAX_BYTES_IN_FLIGHT,
    api_key: str | None = None,
    cors_origins: Sequence[str] = (),
) -> Starlette:
    """Return an ASGI application that serves models over HTTP. One event loop may run it.

    Parameters
    ----------
    model, reranker
        The model that embeds, and the one that ranks, if any.
    name, reranker_name
        Their names in requests; default: the name by which each was loaded. Requests may also use
        the last part of a name, and the full name on the hub.
    models
        Further models by their names: SentenceTransformer, SparseEncoder and CrossEncoder. A request without
        a name means the first model that can answer it.
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
    cors_origins
        Origins of web pages that may send requests; "*" for all.

    Returns
    -------
    Starlette
        The application.

    Raises
    ------
    ValueError
        There is no model, or two have one name; the reranker gives several scores per pair, one request can
        overfill the queue or the memory, or no client can send the api_key.

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
    served = Models()
    if model is not None:
        served.add(name or model.name_or_path, model)
    if reranker is not None:
        Reranker(reranker)  # raises the error for a model that cannot rank
        served.add(reranker_name or reranker.name_or_path, reranker)
    for each_name, each in (models or {}).items():
        served.add(each_name, each)
    if not served.ids():
        raise ValueError("create_app needs a model")
    service = Service(
        served,
        Batcher(max_queue, max_wait),
        RequestLimits(max_client_batch, max_body_bytes),
        Memory(max_bytes_in_flight),
    )
    return _application(service, checked_key(api_key), list(cors_origins))


def _application(service: Service, key: bytes | None, cors_origins: list[str]) -> Starlette:
    """The routes of all protocols, and one format for all other errors."""
    status, tei, rerank = Status(service), Tei(service), Rerank(service)
    protocols = (
        *(status, OpenAI(service), tei, TeiScores(service, tei, rerank), TeiTokens(service)),
        *(Cohere(service), rerank, Vllm(service), Ollama(service)),
    )
    operations = [operation for protocol in protocols for operation in protocol.operations()]
    status.describe(operations)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        service.batcher.stop()

    app = Starlette(
        routes=[route for operation in operations for route in _routes(service, operation, key)],
        lifespan=lifespan,
        middleware=_cors(cors_origins),
        exception_handlers={HTTPException: _no_route},
    )
    app.router.redirect_slashes = False  # redirects would use the Host header that the client sends
    app.state.batcher = service.batcher
    return app


def _routes(service: Service, operation: Operation, key: bytes | None) -> list[Route]:
    key = None if operation.public else key
    shared = service.batcher, service.memory, service.metrics
    return [
        Route(
            path,
            Endpoint(path, operation.handler, operation.error_form, key, *shared),
            methods=[operation.method],
        )
        for path in operation.paths
    ]


def _cors(origins: list[str]) -> list[Middleware]:
    if not origins:
        return []
    methods, headers = ["GET", "POST"], ["*"]
    return [
        Middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=methods, allow_headers=headers
        )
    ]


async def _no_route(request: Request, error: Exception) -> Response:
    """Errors of starlette itself (404, 405), in the same format as other errors."""
    if not isinstance(error, HTTPException):
        raise error
    message = f"{error.detail}: {request.method} {request.url.path[:80]}"
    return ApiError(error.status_code, message, headers=error.headers).response()
