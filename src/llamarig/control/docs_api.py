"""The reference page of the management API, from the declaration that its routes are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

from llamarig.api.openapi import OPERATIONS, Operation, document
from llamarig.api.schemas import Schema
from llamarig.control.docs_table import markdown_table

_SCOPES: Final = {"open": "everybody", "read": "read", "manage": "manage"}
_BAD: Final = "Error"
_KINDS: Final = {"string": "text", "boolean": "true or false", "integer": "whole number"}


def management_api() -> str:
    """Return every route with its scope, its bodies and answers; then what their objects hold."""
    schemas: dict[str, Any] = document()["components"]["schemas"]
    routes = [
        (
            f"`{operation.method} {operation.path}`",
            _SCOPES[operation.scope],
            f"{operation.summary}.",
            ", ".join(_taken(operation)) or "-",
            ", ".join(_answered(operation)),
        )
        for operation in OPERATIONS
    ]
    parameters: dict[tuple[str, str, str], list[str]] = {}
    for operation in OPERATIONS:
        for item in (*operation.query, *operation.headers):
            kind = (f"`{item.name}`", _values(item.schema), item.description)
            parameters.setdefault(kind, []).append(f"`{operation.path}`")
    said = [(name, ", ".join(where), values, meaning) for (name, values, meaning), where in parameters.items()]
    objects = [(f"`{name}`", "; ".join(_keys(schema))) for name, schema in schemas.items() if schema.get("properties")]
    anywhere = sorted(
        {
            (status, answer["description"])
            for methods in document()["paths"].values()
            for operation in methods.values()
            for status, answer in operation["responses"].items()
            if status >= "400"
        }
    )
    return "\n\n".join(
        [
            "## Routes",
            markdown_table(("route", "scope", "what it is", "takes", "answers"), routes),
            "`?` marks a parameter of the query, and what is no object is a header.",
            "## Parameters",
            markdown_table(("name", "of", "values", "meaning"), said),
            "## Objects",
            "A key in parentheses may be missing. Answers may get new keys; a body may have no other than these.",
            markdown_table(("object", "keys"), objects),
            "## When it is refused",
            f"Each of these is an `{_BAD}`, but 502, which is a `Failed`.",
            markdown_table(("status", "why"), anywhere),
        ]
    )


def _taken(operation: Operation) -> Iterator[str]:
    if operation.body:
        yield f"`{operation.body}`"
    yield from (f"`?{item.name}`" for item in operation.query)
    yield from (f"`{item.name}`" for item in operation.headers)


def _answered(operation: Operation) -> Iterator[str]:
    good = {status: schema for status, schema in operation.answers.items() if schema != _BAD}
    if operation.events and not good.get(200):
        yield "200 events"
    for status, schema in sorted(good.items()):
        text = f"{status} `{schema}`" if schema else str(status)
        yield f"{text} or events" if operation.events and status == HTTPStatus.OK else text


def _keys(schema: Schema) -> Iterator[str]:
    for key, value in schema["properties"].items():
        name = f"`{key}`" if key in schema["required"] else f"(`{key}`)"
        yield f"{name} {_kind(value)}"


def _kind(schema: Schema) -> str:
    """Return what a value is, in words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    if "additionalProperties" in schema:
        return f"object of {_kind(schema['additionalProperties'])}"
    return _KINDS.get(schema["type"], str(schema["type"]))


def _values(schema: Schema) -> str:
    found = f"{schema['minimum']} to {schema['maximum']}" if "maximum" in schema else _kind(schema)
    return f"{found}; {json.dumps(schema['default'])} where it is not said" if "default" in schema else found
