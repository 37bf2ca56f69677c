# SPDX-License-Identifier: Apache-2.0
"""What all routes share: authorization, errors as responses, memory accounting and metrics."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from simdformer.server.batcher import Batcher
from simdformer.server.errors import ApiError, ErrorForm, log_sometimes
from simdformer.server.incoming import SMALL_BYTES, Held, Memory, check_key
from simdformer.server.metrics import Metrics

CLIENT_GONE = 499  # nginx's status; no client reads it


class Call(NamedTuple):
    """A request, and the memory that it uses until it is answered."""

    request: Request
    held: Held


Handler = Callable[[Call], Awaitable[Response]]


class Endpoint:
    """An ASGI application for one route."""

    def __init__(
        self,
        path: str,
        handler: Handler,
        error_form: ErrorForm,
        api_key: bytes | None,
        batcher: Batcher,
        memory: Memory,
        metrics: Metrics,
    ) -> None:
        self._path, self._handler, self._api_key = path, handler, api_key
        self._error_form = error_form
        self._batcher, self._memory, self._metrics = batcher, memory, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        start = time.perf_counter()
        held = Held(self._memory)
        try:
            response = await self._answer(Call(Request(scope, receive), held))
            await _send(response, scope, receive, send)
        finally:
            held.release()
        self._metrics.answered(self._path, response.status_code, time.perf_counter() - start)

    async def _answer(self, call: Call) -> Response:
        request = call.request
        try:
            check_key(request, self._api_key)
            return await self._handler(call)
        except ApiError as error:
            return error.response(self._error_form)
        except asyncio.CancelledError:
            if not self._batcher.stopped:
                raise
            # the server stops waiting for this client
            return stopping().response(self._error_form)
        except ClientDisconnect:  # while the client sent the body
            return Response(status_code=CLIENT_GONE)
        except Exception as error:  # noqa: BLE001  (any exception becomes a response)
            place = traceback.extract_tb(error.__traceback__)[-1]
            log_sometimes(
                f"{request.method} {self._path} failed: {type(error).__name__}: {error}"
                f" ({place.filename}, line {place.lineno})"
            )
            failed = ApiError(500, "internal error", code="internal_error")
            return failed.response(self._error_form)


async def _send(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the response, a long one in pieces. The next piece is sent when the client has read one, and only
    then is its memory released."""
    body = response.body
    if len(body) <= SMALL_BYTES:
        await response(scope, receive, send)
        return
    start = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "http.response.start", **start})
    for begin in range(0, len(body), SMALL_BYTES):
        end = begin + SMALL_BYTES
        piece = bytes(body[begin:end])
        await send({"type": "http.response.body", "body": piece, "more_body": end < len(body)})


def stopping() -> ApiError:
    """The response to new and waiting requests while the server stops."""
    headers = {"Retry-After": "1"}
    return ApiError(503, "the server is stopping", code="stopping", headers=headers)
