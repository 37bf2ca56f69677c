"""Concurrent requests to the server's application without a socket, in one event loop."""

from __future__ import annotations

import asyncio
import base64

import httpx
import numpy as np


def ask_all(app, *requests):
    """The responses to requests sent at the same time; each is (method, path, keyword arguments for
    httpx)."""

    async def run():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(
                *(client.request(method, path, **options) for method, path, options in requests)
            )

    return asyncio.run(run())


def ask(app, path, body=None, method=None, **options):
    """The response to one request: POST with a body, else GET."""
    if body is not None:
        options["json"] = body
    method = method or ("GET" if body is None else "POST")
    return ask_all(app, (method, path, options))[0]


def vectors(response):
    """The vectors in a response of /v1/embeddings: float32 (n, dim)."""
    assert response.status_code == 200, response.text
    rows = [row["embedding"] for row in response.json()["data"]]
    if isinstance(rows[0], str):
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    return np.array(rows, np.float32)


def assert_error(response, status, message, **members):
    """Check OpenAI's error format, a message that contains the given text, and other fields."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    assert {name: error[name] for name in members} == members
