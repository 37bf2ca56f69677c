# SPDX-License-Identifier: Apache-2.0
"""What comes from a client: its key, its body, and that it has gone."""

from __future__ import annotations

import hmac

from starlette.requests import Request

from simdformer.server.errors import ApiError


def check_key(request: Request, key: bytes | None) -> None:
    """ApiError unless the request carries the key as a bearer token; None asks for none."""
    if key is None:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    # Starlette decodes headers by latin-1; comparing takes the same time for any wrong key.
    right = hmac.compare_digest(token.strip().encode("latin-1"), key)
    if scheme.lower() != "bearer" or not right:
        raise ApiError(
            401,
            "missing or wrong API key: send Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body. ApiError as soon as it is known to be too long."""
    too_long = ApiError(413, f"the body is longer than {max_bytes} bytes", code="body_too_large")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise too_long
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise too_long
        parts.append(part)
    return b"".join(parts)


async def disconnected(request: Request) -> None:
    """Returns when the client has gone. The body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
