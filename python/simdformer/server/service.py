# SPDX-License-Identifier: Apache-2.0
"""Shared by the protocols: the models, their queue, reading of bodies and writing of responses."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from simdformer.server.batcher import Batcher, QueueFullError, StoppedError
from simdformer.server.endpoint import CLIENT_GONE, Call, stopping
from simdformer.server.errors import ApiError, invalid, overloaded
from simdformer.server.incoming import SMALL_BYTES, Memory, disconnected, read_body
from simdformer.server.metrics import Metrics
from simdformer.server.models import Models
from simdformer.server.passes import Output, Rows, Runner
from simdformer.server.request_fields import RequestFields
from simdformer.sparse_embeddings import SparseEmbeddings

T = TypeVar("T")


class RequestLimits(NamedTuple):
    """Limits of one request: texts, and the size of its body."""

    client_batch: int
    body_bytes: int


class Service:
    """The models, their queue, and the limits of requests."""

    def __init__(
        self, models: Models, batcher: Batcher, limits: RequestLimits, memory: Memory
    ) -> None:
        self.models, self.batcher, self.limits, self.memory = models, batcher, limits, memory
        self.metrics = Metrics(batcher, memory)
        self.started = int(time.time())
        # Long JSON is read and written outside the event loop, in one thread because of the GIL.
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="simdformer-server-json")

    async def read(self, call: Call, read: Callable[[RequestFields], T]) -> T:
        """The result of `read` for the body. A long body is read in another thread, so others need not wait."""
        body = await read_body(call.request, self.limits.body_bytes, call.held)
        return await self.aside(lambda: read(RequestFields.of_body(body)), len(body) > SMALL_BYTES)

    async def aside(self, work: Callable[[], T], long: bool = True) -> T:
        """The result of `work`, computed in another thread if it is long."""
        if not long:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)

    async def compute(
        self, request: Request, runner: Runner, items: Sequence[Any], group: Hashable
    ) -> Output:
        """The output of the model for the items. When the client disconnects, pending items are dropped."""
        output = await self.queued(request, runner, items, group)
        _check_finite(output.rows)
        self.metrics.texts.inc(len(items))
        self.metrics.tokens.inc(output.num_tokens)
        return output

    async def queued(
        self, request: Request, runner: Runner, items: Sequence[Any], group: Hashable
    ) -> Output:
        """The same for work without a model."""
        if len(items) > self.batcher.max_queue:  # trying again would not help
            raise invalid(
                f"the request needs {len(items)} places in the queue, which has {self.batcher.max_queue}"
            )
        try:
            done = self.batcher.submit(runner, items, group)
            gone = asyncio.ensure_future(disconnected(request))
            try:
                await asyncio.wait((done, gone), return_when=asyncio.FIRST_COMPLETED)
                if not done.done():
                    raise ApiError(CLIENT_GONE, "the client disconnected")
                return done.result()
            finally:
                done.cancel()
                gone.cancel()
        except QueueFullError as error:
            raise overloaded("too many texts are waiting, try again", error.retry_after) from None
        except StoppedError:
            raise stopping() from None

    async def written(self, size: int, write: Callable[[], bytes]) -> Response:
        """The response with the JSON that `write` gives. size: its approximate number of bytes."""
        content = await self.aside(write, size > SMALL_BYTES)
        return Response(content, media_type="application/json")


def json_response(content: object) -> Response:
    """A short response."""
    return Response(json.dumps(content), media_type="application/json")


def _check_finite(rows: Rows) -> None:
    """ApiError for NaN and infinity, which JSON cannot represent."""
    for part in [rows] if isinstance(rows, np.ndarray) else rows:
        if not np.isfinite(part.data if isinstance(part, SparseEmbeddings) else part).all():
            raise ApiError(500, "the model's output is not finite", code="not_finite")
