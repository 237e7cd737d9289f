"""The API as an application: each route is made of its declaration, and asks whoever knows."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llamarig.api.grants import GRANT
from llamarig.api.openapi import OPERATIONS, Operation
from llamarig.api.reads import Reads
from llamarig.api.schemas import SCHEMAS, mistake
from llamarig.api.work import Work
from llamarig.errors import LlamarigError
from llamarig.web.answers import refusal, refused, unforeseen
from llamarig.web.post import Post

_ORIGINS: Final = frozenset({"cli", "playbook"})
_AGAIN_SECONDS: Final = "5"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, read.

    Attributes:
        path, query, body: as declared.
        origin: who asks.
        after: number of the last event that the reader knows, where it came back.
        receive: says when the reader has left.

    """

    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    origin: str
    after: int | None
    receive: Receive


Handler = Callable[[Asked], Awaitable[ASGIApp]]


def make_core(reads: Reads, work: Work) -> ASGIApp:
    """Return the API without guards; a guard around it says what each request may (``grants.GRANT``)."""
    places: dict[str, dict[str, _Endpoint]] = {}
    for operation in OPERATIONS:
        handler: Handler = getattr(work, operation.name, None) or getattr(reads, operation.name)
        places.setdefault(operation.path, {})[operation.method] = _Endpoint(operation, handler)
    post = Post()
    routes = [Route(path, _Place(endpoints, post), methods=list(endpoints)) for path, endpoints in places.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unknown, Exception: _broken})
    app.router.redirect_slashes = False
    return app


class _Place:
    """Everything that can be asked at one path."""

    def __init__(self, endpoints: Mapping[str, _Endpoint], post: Post) -> None:
        self._endpoints = endpoints
        self._post = post

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        answer = await self._endpoints[method].answer(Request(scope, receive))
        await self._post.send(answer, scope, receive, send)


class _Endpoint:
    """One thing to ask for."""

    def __init__(self, operation: Operation, handler: Handler) -> None:
        self._operation = operation
        self._handler = handler

    async def answer(self, request: Request) -> ASGIApp:
        denied = _denied(self._operation, str(request.scope.get(GRANT, "none")))
        if denied is not None:
            return denied
        try:
            asked = await self._read(request)
        except ValueError as error:
            return refusal(HTTPStatus.BAD_REQUEST, str(error), "GET /openapi.json says what can be asked, and how")
        try:
            return await self._handler(asked)
        except LlamarigError as error:
            return refused(error)
        except TimeoutError:
            headers = {"Retry-After": _AGAIN_SECONDS}
            what = "the machine did not answer in time"
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, what, "journalctl --unit llamarigd", headers)

    async def _read(self, request: Request) -> Asked:
        """Read a request.

        Raises:
            ValueError: it is not as declared.

        """
        operation, headers = self._operation, request.headers
        body: Any = {}
        raw = await request.body()
        if raw and not operation.body:
            raise ValueError("there is a body, where none is asked for")
        if operation.body:
            try:
                body = json.loads(raw)
            except (ValueError, RecursionError) as error:
                raise ValueError("the body is no JSON; where nothing is to be said it is {}") from error
            wrong = mistake(SCHEMAS[operation.body], body)
            if wrong:
                raise ValueError(wrong)
        origin, after = headers.get("x-llamarig-origin", ""), headers.get("last-event-id", "")
        return Asked(
            path=request.path_params,
            query=operation.read_query(request.query_params.multi_items()),
            body=body,
            origin=origin if origin in _ORIGINS else "api",
            after=int(after) if after.isascii() and after.isdigit() and len(after) <= _LONGEST_NUMBER else None,
            receive=request.receive,
        )


_LONGEST_NUMBER: Final = 18


def _denied(operation: Operation, grant: str) -> Response | None:
    """Return why a request may not do this, by what it may."""
    if operation.scope == "open" or grant in {"manage", operation.scope}:
        return None
    if grant == "read":
        remedy = "use a key of scope manage; on the host, sudo, or join the group llamarig"
        return refusal(HTTPStatus.FORBIDDEN, "this may only be looked at here", remedy)
    what = "this key is none" if grant == "wrong" else "a key is needed"
    remedy = "sudo llamarig keys add NAME makes one; send it as Authorization: Bearer KEY"
    return refusal(HTTPStatus.UNAUTHORIZED, what, remedy, {"WWW-Authenticate": 'Bearer realm="llamarig"'})


async def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = error.headers if isinstance(error, HTTPException) else None
    # Not of request.url, which is made of the Host too, whatever that is.
    remedy, path = "GET /openapi.json says what can be asked, and how", request.scope["path"]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return refusal(status, f"{request.method} is not for {path}", remedy, headers)
    return refusal(status, f"there is nothing at {path}", remedy, headers)


async def _broken(_: Request, __: Exception) -> Response:
    return unforeseen("llamarigd")
