# SPDX-License-Identifier: Apache-2.0
"""The input of a client: its key, its body, its disconnection, and the memory that it uses."""

from __future__ import annotations

import hmac

from starlette.requests import Request

from simdformer.server.errors import ApiError, overloaded

# Bodies and responses up to this size are processed in the event loop, which takes less than a millisecond.
# Their memory is bounded by the number of connections.
SMALL_BYTES = 65536


def check_key(request: Request, key: bytes | None) -> None:
    """ApiError unless the request has the key as a bearer token or in Azure's header. key None: no check."""
    if key is None:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = request.headers.get("api-key", "")
    # Starlette decodes headers as latin-1. The comparison takes constant time.
    if not hmac.compare_digest(token.strip().encode("latin-1"), key):
        raise ApiError(
            401,
            "missing or wrong API key: send Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def checked_key(key: str | None) -> bytes | None:
    """The key as clients send it. ValueError if it cannot be sent in a header."""
    if key is None:
        return None
    if not key or key != key.strip() or not key.isprintable():
        raise ValueError(
            "the API key must be printable, without spaces or line ends around it; None for no check"
        )
    return key.encode()


class Memory:
    """The total size of bodies and answers in flight, without small ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.used = 0

    def check(self, size: int) -> None:
        """ApiError if this size is larger than the whole limit."""
        if size > self._most:
            raise ApiError(
                413,
                f"the answer could take {size} bytes, at most {self._most}; send fewer texts at a time",
                code="answer_too_large",
            )

    def take(self, size: int) -> None:
        """ApiError if there is no room."""
        if self.used + size > self._most:
            raise overloaded("the bodies and answers in flight take too much memory, try again")
        self.used += size


class Held:
    """The memory of one request, until it is answered."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._size = 0

    def take(self, size: int, before: int = 0) -> None:
        """ApiError if there is no room. size: of a body or an answer; before: the part already counted."""
        self._memory.check(size)
        if size > SMALL_BYTES:
            more = size - (before if before > SMALL_BYTES else 0)
            self._memory.take(more)
            self._size += more

    def release(self) -> None:
        """Release the memory: the request is answered."""
        self._memory.used -= self._size
        self._size = 0


async def read_body(request: Request, max_bytes: int, held: Held) -> bytes:
    """The whole body. ApiError as soon as it is too long, or there is no room for it."""
    too_long = ApiError(413, f"the body is longer than {max_bytes} bytes", code="body_too_large")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise too_long
    parts, size = [], 0
    async for part in request.stream():
        held.take(size + len(part), before=size)
        size += len(part)
        if size > max_bytes:
            raise too_long
        parts.append(part)
    return b"".join(parts)


async def disconnected(request: Request) -> None:
    """Return when the client disconnects. The body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
