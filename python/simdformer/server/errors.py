# SPDX-License-Identifier: Apache-2.0
"""What a client is told when there is no answer: a status, and OpenAI's envelope around a message.

And what the server's own log is told: one line a fault.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping

from starlette.responses import Response

logger = logging.getLogger("simdformer")

# A longer value of the client's is not worth sending back.
_SHOWN_CHARACTERS = 80
# How often the log has the same line.
_SECONDS_BETWEEN_LINES = 60

_logged: dict[str, float] = {}


class ApiError(Exception):
    """The answer to a request that fails: {"error": {"message", "type", "param", "code"}}.

    param: the member of the request's body that is wrong. code: a name for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers

    def content(self) -> bytes:
        """The body of the HTTP response."""
        error = {
            "message": self.message,
            "type": _error_type(self.status),
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}).encode()

    def response(self) -> Response:
        """The HTTP response."""
        return Response(
            self.content(), self.status, headers=self.headers, media_type="application/json"
        )


def invalid(message: str, param: str | None = None) -> ApiError:
    """What is wrong with the body of a request."""
    return ApiError(400, message, param=param, code="invalid_value" if param else None)


def overloaded(message: str, retry_after: int = 1) -> ApiError:
    """There is too much to do; the client may try again after so many seconds."""
    headers = {"Retry-After": str(retry_after)}
    return ApiError(429, message, code="overloaded", headers=headers)


def shown(value: object) -> str:
    """A value in a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def log_sometimes(line: str) -> None:
    """Warn, of one thing once a minute: what a client can cause must not fill a disk."""
    now = time.monotonic()
    if now - _logged.get(line, -_SECONDS_BETWEEN_LINES) < _SECONDS_BETWEEN_LINES:
        return
    if len(_logged) > 1000:
        _logged.clear()
    _logged[line] = now
    logger.warning("%s", line)


def _error_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
