# SPDX-License-Identifier: Apache-2.0
"""uvicorn's HTTP protocol with limits for connections, headers and waiting times."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import sys
from typing import Literal, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from simdformer.server.errors import ApiError, log_sometimes

if sys.platform != "win32":
    import fcntl
    import termios

# A long body may take longer. 8 Mbit/s is fast enough.
_BODY_BYTES_PER_SECOND = 2**20
# How long a rejected client may continue to send, so that it can read the reason.
_LINGER_SECONDS = 2
_RETRY_SECONDS = 1
# How many of the oldest connections are looked at when one has to be closed.
_MOST_LOOKED_AT = 32

# In state "answer" a connection waits for the model, in the other states for the client.
_State = Literal["header", "body", "answer", "idle", "closing"]


class ConnectionLimits(NamedTuple):
    """Time limits for a client.

    In seconds: for the header of a request; for its body, plus one per MiB; for reading the answer; between
    two requests.
    """

    connections: int = 1024
    header_bytes: int = 65536
    header_seconds: float = 5
    body_seconds: float = 10
    answer_seconds: float = 60
    idle_seconds: float = 30


class BoundedProtocol(HttpToolsProtocol):
    """A connection. If there are too many, the one that has waited longest for its client is closed.

    `limits` is an attribute of the class. `check` must be called about once per second.
    """

    limits = ConnectionLimits()

    state: _State = "header"
    since = 0.0
    _unread_since: float | None = None  # the time since the client has unread data
    _overhead = 0  # bytes of the request that are not its body: header, chunk sizes, trailers
    _body_bytes = 0
    _refusal = (400, "this is not an HTTP request")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._enter("header")
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        if self.state == "closing":
            return
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > self.limits.header_bytes:
            self._refuse(*self._too_large())

    # --- callbacks of the parser ---

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._enter("header")

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum([len(name) + len(value) for name, value in self.headers])
        if size > self.limits.header_bytes:
            self._refusal = self._too_large()
            raise ValueError(self._refusal[1])  # this stops the parser; see send_400_response
        super().on_headers_complete()
        self._body_bytes = 0
        self._enter("body")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._overhead = max(0, self._overhead - 2 * len(body))  # a chunk counts as its content
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        self._enter("idle" if self.cycle.response_complete else "answer")
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._enter("idle" if self.state == "answer" else self.state)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn if the parser fails."""
        del msg
        self._refuse(*self._refusal)

    # --- bounds ---

    def check(self, now: float) -> None:
        """Close the connection if its client exceeds a time limit."""
        limits, waited = self.limits, now - self.since
        if self._is_unread_for(now) > limits.answer_seconds:
            self.transport.abort()
        if self.state == "closing":
            if waited > _LINGER_SECONDS:
                self.transport.abort()
        elif self.state == "header" and waited > limits.header_seconds and not self._answering:
            if self._overhead:
                self._refuse(408, "the request header was not received in time")
            else:
                self.transport.abort()
        elif self.state == "body" and not self.pipeline:
            seconds = limits.body_seconds + self._body_bytes / _BODY_BYTES_PER_SECOND
            if waited > seconds:
                self._refuse(408, f"the request body was not received in {seconds:.0f} s")

    def refuse_unfinished(self) -> None:
        """Answer an incomplete request with 503, because the server stops."""
        if self.state == "body" or (self.state == "header" and self._overhead):
            self._refuse(503, "the server is stopping")
            self.transport.close()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _enter(self, state: _State) -> None:
        self.state, self.since = state, self.loop.time()

    def _is_unread_for(self, now: float) -> float:
        if self.transport.get_write_buffer_size() == 0:
            self._unread_since = None
            return 0
        if self._unread_since is None:
            self._unread_since = now
        return now - self._unread_since

    def _make_room(self) -> None:
        log_sometimes(
            f"{self.limits.connections} connections are open; for each further one a silent one is "
            "closed, or it is refused"
        )
        everyone = cast(set[BoundedProtocol], self.connections)
        connected = [c for c in everyone if not c.transport.is_closing()]
        refused = sum(c.state == "closing" for c in connected)
        if len(connected) - refused <= self.limits.connections:
            return
        others = [c for c in connected if c.state not in ("answer", "closing") and c is not self]
        oldest = heapq.nsmallest(_MOST_LOOKED_AT, others, key=lambda c: c.since)
        silent = next((c for c in oldest if not c.has_unread_bytes()), None)
        if silent:
            silent.transport.abort()
        elif refused < self.limits.connections:  # more of them get no reason
            self._refuse(503, "too many connections")
        else:
            self.transport.abort()

    def has_unread_bytes(self) -> bool:
        """Whether the client waits for the server: under load bytes arrive before they are read."""
        if sys.platform == "win32":
            return False
        descriptor = self.transport.get_extra_info("socket").fileno()
        if descriptor < 0:  # it is being closed
            return False
        number = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
        return number != bytes(4)

    def _too_large(self) -> tuple[int, str]:
        return 431, f"the request header has over {self.limits.header_bytes} bytes"

    def _refuse(self, status: int, message: str) -> None:
        """Answer, stop reading, and close when the client closes or after a timeout."""
        cycle, started = self.cycle, False
        if self._answering:
            cycle.disconnected = True  # tells the application
            cycle.message_event.set()
            started = cycle.response_started
        started |= self.state == "body" and cycle.response_started
        self._enter("closing")
        self._unset_keepalive_if_required()
        if started or self.pipeline or self.transport.is_closing():
            self.transport.abort()
            return
        content = ApiError(status, message).content()
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: application/json\r\nconnection: close\r\n"
            + (b"retry-after: %d\r\n" % _RETRY_SECONDS if status == 503 else b"")
            + b"content-length: %d\r\n\r\n" % len(content)
            + content
        )
        with contextlib.suppress(OSError):  # the client disconnected
            self.transport.write_eof()
        self.flow.resume_reading()
