# SPDX-License-Identifier: Apache-2.0
"""A route of a protocol, with the data for its OpenAPI description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from simdformer.server.endpoint import Handler
from simdformer.server.errors import ErrorForm, openai_error

Schema = Mapping[str, Any]

# JSON schemas of fields.
STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
OBJECT: Schema = {"type": "object"}
STRINGS: Schema = {"type": "array", "items": STRING}
IDS: Schema = {"type": "array", "items": INTEGER}
TEXTS: Schema = {"oneOf": [STRING, STRINGS]}
TEXTS_OR_IDS: Schema = {"oneOf": [STRING, STRINGS, IDS, {"type": "array", "items": IDS}]}


def enum(*values: object) -> Schema:
    """The schema of one of several values."""
    return {"enum": list(values)}


class Operation(NamedTuple):
    """Paths with one handler.

    summary: a line for the description. fields: the schemas of the body's fields; None for GET. required:
    the names of required fields. public: whether it needs no key.
    """

    protocol: str
    paths: tuple[str, ...]
    handler: Handler
    summary: str
    fields: Mapping[str, Schema] | None = None
    required: tuple[str, ...] = ()
    error_form: ErrorForm = openai_error
    public: bool = False

    @property
    def method(self) -> str:
        """GET or POST."""
        return "GET" if self.fields is None else "POST"
