"""What a request must pass before anybody reads it. Each guard is an ASGI application around another.

A page of any site that somebody looks at on this host, or on one that reaches it, can send requests here. It cannot
read answers, for no header allows it to; it cannot send JSON, for that it would have to ask first; and under a name of
its own that it lets point here, the Host it sends is not ours.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llamarig.web.answers import refusal, unforeseen

BODY_BYTES: Final = 64 * 1024
BODY_SECONDS: Final = 10.0
_SWALLOWED: Final = 1 << 20
# How many clients are counted apart from each other.
_CLIENTS: Final = 1024
_LOOKS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# A name or an address, and a port.
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@?#\\]+)(?::[0-9]{1,5})?")
_POLICY: Final = "Content-Security-Policy"
SEALS: Final = {
    "Cache-Control": "no-store",
    _POLICY: "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_LOG: Final = logging.getLogger(__name__)


class Sealed:
    """Gives every answer the headers by which browsers do nothing with it, also where a guard fails.

    The page brings a policy of its own, which lets it do what it is for.

    Args:
        app: what is guarded.
        unit: whose log says more where it fails.

    """

    def __init__(self, app: ASGIApp, unit: str) -> None:
        self._app = app
        self._unit = unit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        begun = False

        async def sealed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                policy = headers.get(_POLICY, SEALS[_POLICY])
                headers.update({**SEALS, _POLICY: policy, "Date": formatdate(usegmt=True)})
            await send(message)

        try:
            await self._app(scope, receive, sealed)
        except Exception:
            if begun:
                raise
            _LOG.exception("a request failed before it was read")
            await unforeseen(self._unit)(scope, receive, sealed)


class Named:
    """Refuses requests under a name that is not this host's, or from pages of another site.

    Args:
        app: what is guarded.
        names: of this host, beside localhost and the address that was connected to.
        variable: the host variable that has more of them.

    """

    def __init__(self, app: ASGIApp, names: Collection[str], variable: str) -> None:
        self._app = app
        self._variable = variable
        known = {"localhost", "127.0.0.1", "::1", *(_bare(name) for name in names)}
        # All addresses are no name of any.
        self._names = frozenset(known - {"0.0.0.0", "::"})  # noqa: S104  not listened on here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        headers = Headers(scope=scope)
        host = headers.get("host", "").strip()
        if not self._knows(host, scope):
            answer = refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"{host!r} is no name of this host",
                f"ask by its address, or by a name of {self._variable}",
            )
            await answer(scope, receive, send)
            return
        origin = headers.get("origin")
        # On another port of this host is another's page.
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            answer = refusal(
                HTTPStatus.FORBIDDEN, f"{origin!r} is another site", "pages of other sites may ask nothing"
            )
            await answer(scope, receive, send)
            return
        # A picture or a frame of another site comes without Origin; what it holds open others would miss.
        if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
            answer = refusal(
                HTTPStatus.FORBIDDEN, "it is a page of another site", "pages of other sites may ask nothing"
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, host: str, scope: Scope) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name, here = _bare(found[1]), scope.get("server")
        # The address that was connected to is no name that somebody could let point here.
        return name in self._names or (here is not None and _is_address(name) and name == _bare(str(here[0])))


@dataclass(slots=True)
class _Bucket:
    """How many requests a client has left."""

    left: float
    since: float


class Metered:
    """Refuses clients that ask too often; what changes something has a limit of its own.

    Args:
        app: what is guarded.
        looks, changes: requests per second, and how many more at once.

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        looks: tuple[float, float] = (200.0, 1000.0),
        changes: tuple[float, float] = (2.0, 30.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._limits = {True: looks, False: changes}
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, bool], _Bucket] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        client = scope.get("client")
        seconds = self._wait(str(client[0]) if client else "", looks=scope["method"] in _LOOKS)
        if seconds:
            headers = {"Retry-After": str(seconds)}
            answer = refusal(
                HTTPStatus.TOO_MANY_REQUESTS, "too many requests", f"ask again in {seconds} s, and less often", headers
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _wait(self, client: str, *, looks: bool) -> int:
        """Count a request; returns the seconds after which it may come again, 0 where it may pass."""
        rate, most = self._limits[looks]
        now = self._clock()
        bucket = self._buckets.pop((client, looks), None) or _Bucket(most, now)
        bucket.left = min(most, bucket.left + (now - bucket.since) * rate)
        bucket.since = now
        self._buckets[client, looks] = bucket
        while len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if bucket.left < 1:
            return max(1, round((1 - bucket.left) / rate))
        bucket.left -= 1
        return 0


class Bounded:
    """Reads bodies, and refuses those that are too large, too slow, or not said to be JSON."""

    def __init__(self, app: ASGIApp, *, seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        headers = Headers(scope=scope)
        try:
            async with asyncio.timeout(self._seconds):
                body = await _read(headers, receive)
        except _HalfError:
            # Whoever left in the middle of it did not ask for what it would have been.
            return
        except TimeoutError:
            answer = refusal(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time", "send it at once", _CLOSE)
            await answer(scope, receive, send)
            return
        if len(body) > BODY_BYTES:
            why = f"the body has more than {BODY_BYTES} bytes"
            answer = refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why, "nothing that is asked here is so long", _CLOSE)
            await answer(scope, receive, send)
            return
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if (body or scope["method"] == "POST") and kind != "application/json":
            why = (
                f"the body is said to be {kind!r}, and not application/json"
                if kind
                else "nothing says what the body is"
            )
            remedy = "send the header Content-Type: application/json"
            await refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, why, remedy)(scope, receive, send)
            return
        await self._app(scope, _again(body, receive), send)


_CLOSE: Final = {"Connection": "close"}


class _HalfError(Exception):
    """The client left before the body was whole."""


async def _read(headers: Headers, receive: Receive) -> bytes:
    """Return the body, or more of it than may be.

    What is too large is read on for a while all the same: a client that is still sending when it is refused, and finds
    nobody there, sees no answer.

    Raises:
        _HalfError: the client left before the body was whole.

    """
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > len(str(_SWALLOWED)) or int(length) > _SWALLOWED:
        return bytes(BODY_BYTES + 1)
    body, size = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _HalfError
        size += len(message.get("body", b""))
        if len(body) <= BODY_BYTES:
            body += message.get("body", b"")
        if size > _SWALLOWED or not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives the body, and then what comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _bare(name: str) -> str:
    """Return a name as it is compared; an address has many forms, and IPv6 has one for each of IPv4."""
    text = name.strip().strip("[]").lower().removesuffix(".")
    try:
        # What follows is the interface by which a neighbour is reached.
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
