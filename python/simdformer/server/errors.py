# SPDX-License-Identifier: Apache-2.0
"""What a client is told when there is no answer: a status, and OpenAI's envelope around a message."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

# A longer value of the client's is not worth sending back.
_SHOWN_CHARACTERS = 80


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

    def response(self) -> Response:
        """The HTTP response."""
        content = {
            "message": self.message,
            "type": _error_type(self.status),
            "param": self.param,
            "code": self.code,
        }
        return Response(
            json.dumps({"error": content}),
            self.status,
            headers=self.headers,
            media_type="application/json",
        )


def invalid(message: str, param: str | None = None) -> ApiError:
    """What is wrong with the body of a request."""
    return ApiError(400, message, param=param, code="invalid_value" if param else None)


def shown(value: object) -> str:
    """A value in a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _error_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
