# SPDX-License-Identifier: Apache-2.0
"""Information about the server: name, health, readiness, metrics, and the description of routes."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.responses import HTMLResponse, Response

from simdformer import __version__
from simdformer.server.endpoint import Call, stopping
from simdformer.server.errors import ApiError
from simdformer.server.openapi import openapi_document, openapi_page
from simdformer.server.operation import Operation
from simdformer.server.service import Service, json_response


class Status:
    """The routes. `describe` is called with all operations before the first request."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._described: Sequence[Operation] = ()

    def describe(self, operations: Sequence[Operation]) -> None:
        """Set the operations that /openapi.json and /docs list."""
        self._described = operations

    def operations(self) -> list[Operation]:
        """The routes that belong to no protocol."""
        rows = (
            (("/",), self.root, "Name and version"),
            (("/health", "/ping"), self.health, "200 while the server runs"),
            (("/ready",), self.ready, "200 if a request would be accepted now"),
            (("/openapi.json",), self.openapi, "This description"),
            (("/docs",), self.docs, "This description as a page"),
        )
        status = [
            Operation("Status", paths, handler, summary, public=True)
            for paths, handler, summary in rows
        ]
        return [*status, Operation("Status", ("/metrics",), self.metrics, "Prometheus' metrics")]

    async def root(self, _: Call) -> Response:
        """Name and version."""
        return json_response({"name": "simdformer", "version": __version__})

    async def health(self, _: Call) -> Response:
        """Whether the server runs."""
        if self._service.batcher.stopped:
            raise stopping()
        return json_response({"status": "ok"})

    async def ready(self, _: Call) -> Response:
        """Whether a request would be accepted."""
        if self._service.batcher.stopped:
            raise stopping()
        if not self._service.batcher.ready:
            headers = {"Retry-After": "1"}
            raise ApiError(503, "too many texts are waiting", code="overloaded", headers=headers)
        return json_response({"status": "ready"})

    async def metrics(self, call: Call) -> Response:
        """Prometheus' metrics."""
        return self._service.metrics.response(call.request)

    async def openapi(self, _: Call) -> Response:
        """The description in OpenAPI's format."""
        return json_response(openapi_document(self._described))

    async def docs(self, _: Call) -> Response:
        """The description as a page."""
        return HTMLResponse(openapi_page(self._described))
