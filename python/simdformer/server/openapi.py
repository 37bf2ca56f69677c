# SPDX-License-Identifier: Apache-2.0
"""The description of the routes: OpenAPI 3.1, and a page without scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from simdformer import __version__
from simdformer.server.operation import Operation, Schema

_STYLE = "body{font-family:sans-serif;max-width:60em;margin:2em auto}td,th{text-align:left;padding:.2em 1em .2em 0}"


def openapi_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """An OpenAPI document of all operations."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        for path in operation.paths:
            plain = re.sub(r"{(\w+):\w+}", r"{\1}", path)
            paths.setdefault(plain, {})[operation.method.lower()] = _described(operation, plain)
    return {
        "openapi": "3.1.0",
        "info": {"title": "simdformer", "version": __version__},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _described(operation: Operation, path: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": [operation.protocol],
        "summary": operation.summary,
        "responses": {"200": {"description": "OK"}, "default": {"description": "an error"}},
        "security": [{}] if operation.public else [{}, {"key": []}],
    }
    if "{model}" in path:
        name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        described["parameters"] = [name]
    if operation.fields is not None:
        schema = {
            "type": "object",
            "properties": dict(operation.fields),
            "required": list(operation.required),
        }
        content = {"application/json": {"schema": schema}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def openapi_page(operations: Sequence[Operation]) -> str:
    """The same as an HTML page."""
    sections = "".join(map(_section, operations))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>simdformer</title>'
        f"<style>{_STYLE}</style><h1>simdformer {escape(__version__)}</h1>"
        f'<p>As OpenAPI: <a href="openapi.json">openapi.json</a></p>{sections}</html>'
    )


def _section(operation: Operation) -> str:
    paths = " ".join(f"<code>{escape(path)}</code>" for path in operation.paths)
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' (required)' * (name in operation.required)}</td>"
        f"<td>{escape(_kind(schema))}</td></tr>"
        for name, schema in (operation.fields or {}).items()
    )
    return (
        f"<h2>{operation.method} {paths}</h2><p>{escape(operation.protocol)}:"
        f" {escape(operation.summary)}</p><table>{rows}</table>"
    )


def _kind(schema: Schema) -> str:
    """The description of a schema."""
    if "oneOf" in schema:
        return " or ".join(map(_kind, schema["oneOf"]))
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array" and "items" in schema:
        return f"array of {_kind(schema['items'])}"
    return str(schema.get("description", schema.get("type", "any")))
