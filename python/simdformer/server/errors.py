# SPDX-License-Identifier: Apache-2.0
"""Error responses: a status, and a message in the format of a protocol.

And log messages of the server: one line per fault.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

logger = logging.getLogger("simdformer")

# Longer values of the client are cut in messages.
_SHOWN_CHARACTERS = 80
# Seconds between identical lines in the log.
_SECONDS_BETWEEN_LINES = 60

_logged: dict[str, float] = {}


class ApiError(Exception):
    """The response to a failed request.

    param: the invalid field of the request body. code: a name for programs.
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

    def content(self, form: ErrorForm | None = None) -> bytes:
        """The body of the HTTP response, by default in OpenAI's format."""
        return json.dumps((form or openai_error)(self)).encode()

    def response(self, form: ErrorForm | None = None) -> Response:
        """The HTTP response."""
        content = self.content(form)
        return Response(content, self.status, headers=self.headers, media_type="application/json")


# The body of an error in a protocol.
ErrorForm = Callable[[ApiError], dict[str, Any]]


def openai_error(error: ApiError) -> dict[str, Any]:
    """OpenAI's format."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    members = {
        "message": error.message,
        "type": "rate_limit_error" if error.status == 429 else kind,
        "param": error.param,
        "code": error.code,
    }
    return {"error": members}


def tei_error(error: ApiError) -> dict[str, Any]:
    """TEI's format."""
    kinds = {429: "Overloaded", 500: "Backend", 503: "Unhealthy"}
    return {"error": error.message, "error_type": kinds.get(error.status, "Validation")}


def cohere_error(error: ApiError) -> dict[str, Any]:
    """Cohere's format."""
    return {"message": error.message}


def ollama_error(error: ApiError) -> dict[str, Any]:
    """Ollama's format."""
    return {"error": error.message}


def invalid(message: str, param: str | None = None) -> ApiError:
    """The body of a request is invalid."""
    return ApiError(400, message, param=param, code="invalid_value" if param else None)


def overloaded(message: str, retry_after: int = 1) -> ApiError:
    """The server is overloaded; the client may try again after some seconds."""
    headers = {"Retry-After": str(retry_after)}
    return ApiError(429, message, code="overloaded", headers=headers)


def shown(value: object) -> str:
    """A value in a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def log_sometimes(line: str) -> None:
    """Log a warning, at most once per minute for the same cause: clients must not be able to fill the disk
    with logs."""
    now = time.monotonic()
    if now - _logged.get(line, -_SECONDS_BETWEEN_LINES) < _SECONDS_BETWEEN_LINES:
        return
    if len(_logged) > 1000:
        _logged.clear()
    _logged[line] = now
    logger.warning("%s", line)
