"""The exporter's pages as an application: they can be read, and nothing can be changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llamarig.exporter.daemon import DaemonError
from llamarig.web.answers import refusal, unforeseen
from llamarig.web.guard import Bounded, Named, Sealed
from llamarig.web.post import Post

UNIT: Final = "llamarig-exporter"
Page = Callable[[], Awaitable[Response]]


def make_app(pages: Mapping[str, Page], names: Collection[str]) -> ASGIApp:
    """Return the application.

    Args:
        pages: what makes each page, by its path.
        names: host names under which it may be asked, beside localhost and the address that was connected to.

    """
    post, there = Post(), ", ".join(pages)

    async def unknown(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
        headers = error.headers if isinstance(error, HTTPException) else None
        path = request.scope["path"]
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            return refusal(status, f"{request.method} is not for {path}", "everything here is read, with GET", headers)
        return refusal(status, f"there is nothing at {path}", f"there are {there}", headers)

    async def broken(_: Request, __: Exception) -> Response:
        return unforeseen(UNIT)

    routes = [Route(path, _Place(page, post), methods=["GET"]) for path, page in pages.items()]
    app = Starlette(routes=routes, exception_handlers={HTTPException: unknown, Exception: broken})
    app.router.redirect_slashes = False
    return Sealed(Named(Bounded(app), names, "exporter_hosts"), UNIT)


class _Place:
    """What answers at one path."""

    def __init__(self, page: Page, post: Post) -> None:
        self._page = page
        self._post = post

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._page()
        except DaemonError as error:
            answer = refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error), "systemctl status llamarigd")
        await self._post.send(answer, scope, receive, send)
