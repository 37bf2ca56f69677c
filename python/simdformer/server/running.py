# SPDX-License-Identifier: Apache-2.0
"""An application on a socket: uvicorn, with limits for clients."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette

from simdformer.server.batcher import Batcher
from simdformer.server.connections import BoundedProtocol, ConnectionLimits
from simdformer.server.errors import log_sometimes

if sys.platform != "win32":
    import resource

# asyncio accepts as many connections at once, and those that are closed to make room close a moment later.
_ACCEPTED_AT_ONCE = 128
# Connections that the system keeps until they are accepted. Clients of further ones would repeat their
# requests for a connection after one second, three, seven and so on.
_BACKLOG = 1024
CHECK_SECONDS = 1
_LAST_REQUESTS_SECONDS = 0.1
_OTHER_FILES = 64 + 4 * _ACCEPTED_AT_ONCE


def run_server(server: Server, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM on a bound socket. OSError if it cannot listen."""
    try:
        server.run([listener])
    except KeyboardInterrupt:
        # uvicorn sends itself the signal again at the end. For a server, a signal is a normal end.
        if not server.started:
            raise


class Server(uvicorn.Server):
    """Runs the application of `create_app` on a socket."""

    def __init__(
        self,
        app: Starlette,
        limits: ConnectionLimits,
        *,
        grace_seconds: float,
        on_start: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """grace_seconds: the time for running requests after a signal.

        on_start: called when connections are accepted. on_stop: called by the signal handler.
        """
        # As many again may be refused and still open.
        files = _raised_file_limit(2 * limits.connections) - _OTHER_FILES
        most = min(limits.connections, files // 2)
        limits = limits._replace(connections=max(1, most))
        config = uvicorn.Config(
            app,
            http=type("Protocol", (BoundedProtocol,), {"limits": limits}),
            ws="none",
            lifespan="off",  # shutdown does its work; a second signal would cancel it with a traceback
            backlog=_ACCEPTED_AT_ONCE,
            log_config=None,
            log_level="error",  # no log line for each invalid connection
            access_log=False,
            server_header=False,
            timeout_keep_alive=cast(int, limits.idle_seconds),
            timeout_graceful_shutdown=cast(int, grace_seconds),
        )
        super().__init__(config)
        self._batcher: Batcher = app.state.batcher
        self._on_start, self._on_stop = on_start, on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_report)
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_BACKLOG)
        self._checks = asyncio.create_task(self._check_connections())
        self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._on_stop()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # First reject pending requests, else uvicorn would wait for all of them.
        self._batcher.stop()
        await asyncio.sleep(_LAST_REQUESTS_SECONDS)  # time to send these responses
        for connection in self._connections():
            connection.refuse_unfinished()
        await super().shutdown(sockets)
        self._checks.cancel()

    def _connections(self) -> list[BoundedProtocol]:
        return cast(list[BoundedProtocol], list(self.server_state.connections))

    async def _check_connections(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.check(now)


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log one line instead of repeated tracebacks, when no file descriptor is left or a socket failed."""
    log_sometimes(f"{context['message']}: {context.get('exception', '')}")


def _raised_file_limit(wanted: int) -> int:
    """The number of files that the process may open, after raising the limit."""
    needed = wanted + _OTHER_FILES
    if sys.platform == "win32":  # on this system sockets do not count as files
        return needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        top = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, top), hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return needed if soft == resource.RLIM_INFINITY else soft
