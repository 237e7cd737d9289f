"""What the API can be asked, declared once: routes are made of it, requests are checked by it, and so is the document.

https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

from llamarig import __version__
from llamarig.api.schemas import SCHEMAS, SERVICE, Schema, reference

# Who may: everybody, who may look, who may change what serves.
Scope = Literal["open", "read", "manage"]
_FIELD: Final = re.compile(r"\{(\w+)\}")
_EVENTS: Final = "text/event-stream"
_JSON: Final = "application/json"
# Of Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/
EXPOSITION: Final = "text/plain"
HTML: Final = "text/html"
# What any request may be answered with.
_ALWAYS: Final = {
    401: "no key, or one that is none",
    403: "a key or a socket that may not do this, or a page of another site",
    421: "a Host that is not this one's",
    429: "too many requests; Retry-After says when to come again",
    503: "too many at once, or the machine does not answer in time; Retry-After says when to come again",
}
_BODY: Final = {
    408: "the body did not come in time",
    413: "a body of more than 64 KiB",
    415: "a body that is not said to be application/json",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query, or a header."""

    name: str
    description: str
    schema: Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing to ask for.

    Attributes:
        method, path: how it is asked for; fields of the path are in braces.
        name: of the function that answers.
        scope: who may.
        summary: what it is.
        query: parameters of the query.
        headers: what is listened to, beside what any request may have.
        body: name of the body's schema, if it has one.
        answers: name of the schema of each answer beside those that any request may get.
        events: whether it may answer with events.
        media: of a good answer.

    """

    method: str
    path: str
    name: str
    scope: Scope
    summary: str
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    body: str = ""
    answers: Mapping[int, str] = field(default_factory=dict)
    events: bool = False
    media: str = _JSON

    @property
    def fields(self) -> list[str]:
        """Fields of the path."""
        return _FIELD.findall(self.path)

    def default(self, parameter: str) -> Any:
        """Return what a parameter of the query is where nobody said it."""
        return next(item.schema["default"] for item in self.query if item.name == parameter)

    def read_query(self, pairs: list[tuple[str, str]]) -> dict[str, Any]:
        """Read the query.

        Raises:
            ValueError: a parameter is unknown, repeated, or has a value that is none of its kind.

        """
        known = {item.name: item.schema for item in self.query}
        values = {name: schema["default"] for name, schema in known.items()}
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a parameter of the query is there twice")
        for name, text in pairs:
            if name not in known:
                names = f"there are {', '.join(known)}" if known else "there is none here"
                raise ValueError(f"there is no parameter {name!r}: {names}")
            values[name] = _value(name, known[name], text)
        return values

    def to_openapi(self) -> dict[str, Any]:
        """Return the document's object for it."""
        described = {**_ALWAYS, **(_BODY if self.body else {})}
        answers: dict[str, Any] = {
            str(status): {"description": text, "content": _content(reference("Error"))}
            for status, text in described.items()
        }
        for status, schema in self.answers.items():
            answers[str(status)] = {"description": _SAID.get(status, self.summary)}
            if schema:
                good = status == HTTPStatus.OK
                media = self.media if good else _JSON
                answers[str(status)]["content"] = _content(reference(schema), events=self.events and good, media=media)
        if self.events and HTTPStatus.OK not in self.answers:
            answers["200"] = {"description": self.summary, "content": {_EVENTS: {"schema": {"type": "string"}}}}
        parameters = [
            {"name": name, "in": "path", "required": True, "schema": {**SERVICE, "pattern": "^[^/]+$"}}
            for name in self.fields
        ]
        parameters += [
            {"name": item.name, "in": where, "description": item.description, "schema": item.schema}
            for where, items in (("query", self.query), ("header", self.headers))
            for item in items
        ]
        found: dict[str, Any] = {
            "operationId": self.name,
            "summary": self.summary,
            "parameters": parameters,
            "responses": dict(sorted(answers.items())),
            "security": [] if self.scope == "open" else [{"bearer": []}, {"header": []}],
            "x-scope": self.scope,
        }
        if self.body:
            found["requestBody"] = {"required": True, "content": _content(reference(self.body))}
        return found


_SAID: Final = {
    202: "it was taken on; Location says where to look",
    204: "there is nothing more to come",
    400: "what was asked for is wrong",
    404: "there is nothing of that name",
    409: "something else is under way, or this is over already",
    500: "the daemon cannot say",
    502: "it failed; model says what serves now",
}
_WAIT: Final = Parameter(
    "wait", "Whether to answer when it is over, instead of at once.", {"type": "boolean", "default": True}
)
_ORIGIN: Final = Parameter(
    "X-Llamarig-Origin",
    "Who asks, for the history: cli or playbook; anything else is api.",
    {"type": "string"},
)
_AFTER: Final = Parameter(
    "Last-Event-ID",
    "Number of the last event that is known; those since then come first, as far as they are kept.",
    {"type": "string"},
)
_WORK: Final = {200: "Done", 202: "JobAnswer", 400: "Error", 404: "Error", 409: "Error", 502: "Failed"}
_READ: Final = {400: "Error", 500: "Error"}


def _lines(default: int, most: int) -> Parameter:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter("lines", "How many, the last ones.", schema)


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/models",
        name="models",
        scope="read",
        summary="What could serve",
        answers={200: "Models", **_READ},
    ),
    Operation(
        method="GET",
        path="/status",
        name="status",
        scope="read",
        summary="What serves, and what is under way",
        answers={200: "Status", **_READ},
    ),
    Operation(
        method="POST",
        path="/switch",
        name="switch",
        scope="manage",
        summary="Make a service serve",
        query=(_WAIT,),
        headers=(_ORIGIN,),
        body="Switch",
        answers=_WORK,
    ),
    Operation(
        method="POST",
        path="/stop",
        name="stop",
        scope="manage",
        summary="End a service, or all of them",
        query=(_WAIT,),
        headers=(_ORIGIN,),
        body="Stop",
        answers=_WORK,
    ),
    Operation(
        method="POST",
        path="/reconcile",
        name="reconcile",
        scope="manage",
        summary="Make what serves what should serve",
        query=(_WAIT,),
        headers=(_ORIGIN,),
        body="Reconcile",
        answers=_WORK,
    ),
    Operation(
        method="GET",
        path="/jobs",
        name="jobs",
        scope="read",
        summary="The last jobs, oldest first",
        answers={200: "Jobs", **_READ},
    ),
    Operation(
        method="GET",
        path="/jobs/{job}",
        name="job",
        scope="read",
        summary="A job",
        answers={200: "JobAnswer", 404: "Error", **_READ},
    ),
    Operation(
        method="DELETE",
        path="/jobs/{job}",
        name="cancel",
        scope="manage",
        summary="Cancel a job",
        answers={202: "JobAnswer", 400: "Error", 404: "Error", 409: "Error"},
    ),
    Operation(
        method="GET",
        path="/jobs/{job}/events",
        name="job_events",
        scope="read",
        summary="Events job, each a Job, until it is over",
        headers=(_AFTER,),
        answers={204: "", 404: "Error", **_READ},
        events=True,
    ),
    Operation(
        method="GET",
        path="/services",
        name="services",
        scope="read",
        summary="What could serve, and what would leave for it",
        answers={200: "Services", **_READ},
    ),
    Operation(
        method="GET",
        path="/plan/{service}",
        name="plan",
        scope="read",
        summary="What a switch to a service would do",
        answers={200: "Plan", 404: "Error", **_READ},
    ),
    Operation(
        method="GET",
        path="/logs/{service}",
        name="logs",
        scope="read",
        summary="The last lines of a service; with follow, events line, each a line that comes",
        query=(
            _lines(50, 1000),
            Parameter("follow", "Whether to go on with lines that come.", {"type": "boolean", "default": False}),
        ),
        answers={200: "Log", 404: "Error", **_READ},
        events=True,
    ),
    Operation(
        method="GET",
        path="/history",
        name="history",
        scope="read",
        summary="What happened, oldest first",
        query=(_lines(20, 10_000),),
        answers={200: "History", **_READ},
    ),
    Operation(
        method="GET",
        path="/gpus",
        name="gpus",
        scope="read",
        summary="What the cards say",
        answers={200: "Gpus", **_READ},
    ),
    Operation(
        method="GET",
        path="/samples",
        name="samples",
        scope="read",
        summary="What the cards did in the last hour: a list of times, and of each card lists of figures as long",
        query=(
            Parameter(
                "seconds",
                "How far back, at most.",
                {"type": "integer", "minimum": 1, "maximum": 3600, "default": 3600},
            ),
        ),
        answers={200: "Samples", **_READ},
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="metrics",
        scope="read",
        summary="Metrics for Prometheus: the daemon's, and those of the engines of active services",
        answers={200: "Text", **_READ},
        media=EXPOSITION,
    ),
    Operation(
        method="GET",
        path="/ui",
        name="page",
        # It says nothing of the host: what it shows it asks for itself, with a key where one is needed.
        scope="open",
        summary="A page that shows the host in a browser",
        answers={200: "Text", 400: "Error"},
        media=HTML,
    ),
    Operation(
        method="GET",
        path="/system",
        name="system",
        scope="read",
        summary="What processors and memory do",
        answers={200: "System", **_READ},
    ),
    Operation(
        method="GET",
        path="/events",
        name="events",
        scope="read",
        summary="Events status (a Status), job (a Job) and history (an Event), as they happen",
        headers=(_AFTER,),
        answers={400: "Error"},
        events=True,
    ),
    Operation(
        method="GET",
        path="/healthz",
        name="healthz",
        scope="open",
        summary="Whether the daemon does its work",
        answers={200: "Health", 400: "Error"},
    ),
    Operation(
        method="GET",
        path="/version",
        name="version",
        scope="read",
        summary="What this daemon is",
        answers={200: "Version", **_READ},
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        scope="read",
        summary="This document",
        answers={200: "Document", 400: "Error"},
    ),
)


def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    found: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        found.setdefault(operation.path, {})[operation.method.lower()] = operation.to_openapi()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llamarig's daemon",
            "version": __version__,
            "description": "What serves on a host, and how it is changed. Errors say what helps.",
        },
        "paths": found,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _content(schema: Schema, *, events: bool = False, media: str = _JSON) -> dict[str, Any]:
    content: dict[str, Any] = {media: {"schema": schema}}
    if events:
        content[_EVENTS] = {"schema": {"type": "string"}}
    return content


def _value(name: str, schema: Schema, text: str) -> bool | int:
    if schema["type"] == "boolean":
        if text not in {"true", "false"}:
            raise ValueError(f"{name} is {text!r}, and may be true or false")
        return text == "true"
    least, most = schema["minimum"], schema["maximum"]
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):  # noqa: PLR2004  digits
        raise ValueError(f"{name} is {text!r}, and may be a whole number from {least} to {most}")
    return int(text)
