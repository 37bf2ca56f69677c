# SPDX-License-Identifier: Apache-2.0
"""The metrics of /metrics in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from simdformer.server.batcher import Batcher
from simdformer.server.incoming import Memory

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)


class Metrics:
    """The counters of one application."""

    def __init__(self, batcher: Batcher, memory: Memory) -> None:
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "simdformer_requests", "Answers", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "simdformer_request_seconds",
            "From a request's header to the end of its response",
            ["route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.texts = Counter("simdformer_texts", "Texts and pairs computed", registry=registry)
        self.tokens = Counter("simdformer_tokens", "Tokens computed", registry=registry)
        for name, text, value in (
            ("texts_waiting", "Texts and pairs in the queue", lambda: batcher.num_waiting),
            ("texts_running", "Texts and pairs being computed", lambda: batcher.num_running),
            (
                "expected_wait_seconds",
                "Expected time to compute the queue",
                batcher.expected_wait,
            ),
            ("large_bytes", "Memory of long bodies and answers in flight", lambda: memory.used),
        ):
            Gauge(f"simdformer_{name}", text, registry=registry).set_function(value)
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a response."""
        child = self._children.get((route, status))
        if child is None:  # labels() takes longer than both updates
            child = self._requests.labels(route, str(status)), self._seconds.labels(route)
            self._children[route, status] = child
        child[0].inc()
        child[1].observe(seconds)

    def response(self, request: Request) -> Response:
        """All metrics in the requested format."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": content_type})
