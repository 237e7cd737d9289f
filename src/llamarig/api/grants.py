"""What a request may, by its key or by the socket that it came through; guards like those of web/."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llamarig.api.keys import KeyRing

# Where a guard leaves what may be done, for the routes.
GRANT: Final = "llamarig.grant"
# Where one leaves how to see whether that is still so, for answers that go on.
STANDS: Final = "llamarig.stands"


class Keyed:
    """Says what a request may, by its key; and refuses it where a key is wanted and there is none that is right."""

    def __init__(self, app: ASGIApp, ring: KeyRing, *, always: bool) -> None:
        self._app = app
        self._ring = ring
        self._always = always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        text = _key(Headers(scope=scope))
        scope[GRANT] = grant = self._grant(text)
        scope[STANDS] = lambda: self._grant(text) == grant
        await self._app(scope, receive, send)

    def _grant(self, text: str) -> str:
        if not (self._always or self._ring.required):
            return "manage"
        return (self._ring.scope(text) if text else None) or ("wrong" if text else "none")


class Granted:
    """Lets every request do the same, whoever asks: the file's mode says who may ask on a socket."""

    def __init__(self, app: ASGIApp, grant: str) -> None:
        self._app = app
        self._grant = grant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        scope[GRANT] = self._grant
        await self._app(scope, receive, send)


def _key(headers: Headers) -> str:
    scheme, _, text = headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
