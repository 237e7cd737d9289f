"""A header over HTTP: ranges of the file, and no more of it than the header takes."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from llamarig import __version__
from llamarig.gguf.error import GgufError, MissingFileError

HUGGING_FACE: Final = "https://huggingface.co"

_FIRST_RANGE: Final = 1 << 20
_LARGEST_RANGE: Final = 16 << 20
_PIECE: Final = 1 << 18
_MOST_REDIRECTS: Final = 5
_PORTS: Final = {"http": 80, "https": 443}
_SHORT: Final = re.compile(r"hf:([^/@]+)/([^/@]+)/([^@]+?)(?:@(.+))?")
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_LATER: Final = "try again later"


@dataclass(frozen=True, slots=True)
class Hub:
    """Where ``hf:`` names lead.

    Attributes:
        endpoint: address of the hub or of a mirror.
        token: sent to the hub itself and to nobody else.

    """

    endpoint: str = HUGGING_FACE
    token: str | None = field(default=None, repr=False)


def is_remote(name: str) -> bool:
    """Say whether a name is an address."""
    return name.startswith(("http://", "https://", "hf:"))


def address(name: str, hub: Hub) -> str:
    """Turn ``hf:owner/repository/file[@revision]`` into the address of the file; an address stays what it is.

    Raises:
        GgufError: it is neither.

    """
    if not name.startswith("hf:"):
        return name
    found = _SHORT.fullmatch(name)
    if found is None or {"", ".", ".."} & set(found[3].split("/")):
        raise GgufError(
            f"{name!r} names no file of a hub", "write hf:owner/repository/file.gguf or …file.gguf@revision"
        )
    owner, repository, path, revision = found.groups()
    place = "/".join([quote(owner), quote(repository), "resolve", quote(revision or "main", safe=""), quote(path)])
    return f"{hub.endpoint.rstrip('/')}/{place}"


class HttpSource:
    """A file on a web server, read by ranges, or from its beginning where the server knows no ranges.

    A range is read as it arrives and left as soon as no more of it is wanted. The next one is twice as long.
    """

    def __init__(
        self,
        name: str,
        hub: Hub,
        *,
        timeout: float = 30,
        patience: float = 300,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to read; nothing is asked yet.

        Args:
            name: an address, or ``hf:owner/repository/file[@revision]``.
            hub: where the latter leads.
            timeout: seconds that a server may be silent.
            patience: seconds that the whole may take.
            clock: a monotonic clock in seconds.

        Raises:
            GgufError: the name is no address.

        """
        self.name = name
        self.size: int | None = None
        self._hub, self._timeout = hub, timeout
        self._clock, self._deadline = clock, clock() + patience
        self._url = _split(address(name, hub), name)
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._next = 0  # offset of the response's next byte
        self._end: int | None = None  # offset at which the response ends, where that is known
        self._ranges = True
        self._length = _FIRST_RANGE

    def read(self, offset: int, length: int) -> bytes:
        """Return what has arrived from there on.

        Raises:
            GgufError: the server refuses, is silent, or does not keep to HTTP.

        """
        while True:
            if self.size is not None and offset >= self.size:
                return b""
            if self._response is None or self._next > offset or (self._ranges and offset >= (self._end or 0)):
                self._ask(offset)
                continue
            gap = offset - self._next
            piece = self._receive(min(length if not gap else gap, _PIECE))
            if not piece and self._end is None and not gap:
                return b""  # a server that said neither a size nor a range
            if not piece:
                raise self._fault("the connection was cut", _LATER)
            if not gap:
                return piece

    def close(self) -> None:
        """Hang up."""
        self._response = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fault(self, why: str, remedy: str) -> GgufError:
        return GgufError(f"{self.name}: {why}", remedy)

    def _receive(self, length: int) -> bytes:
        if self._response is None:
            return b""
        if self._clock() > self._deadline:
            raise self._fault("the server is too slow for its header to be read", _LATER)
        try:
            piece = self._response.read1(length)
        except (OSError, http.client.HTTPException) as error:
            raise self._fault(f"the connection broke: {_why(error)}", _LATER) from error
        self._next += len(piece)
        return piece

    def _ask(self, offset: int) -> None:
        """Ask for a range, following redirects, and remember what the answer holds."""
        wanted = f"bytes={offset}-{offset + self._length - 1}"
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send(wanted)
            if response.status not in _REDIRECTS:
                break
            self._follow(response)
        else:
            raise self._fault(f"more than {_MOST_REDIRECTS} redirects", "name the file's own address")
        self._length = min(2 * self._length, _LARGEST_RANGE)
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            self._partial(response, offset)
        elif response.status == http.HTTPStatus.OK:
            said = response.getheader("Content-Length")
            size = int(said) if said is not None and said.isdecimal() else None
            self._ranges, self._next, self._end, self.size = False, 0, size, size
        elif response.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.size = offset
        else:
            raise self._refused(response)
        self._response = response

    def _partial(self, response: http.client.HTTPResponse, offset: int) -> None:
        said = response.getheader("Content-Range") or ""
        found = _RANGE.fullmatch(said)
        total = int(found[3]) if found and found[3] != "*" else self.size
        end = int(found[2]) + 1 if found else 0
        if found is None or int(found[1]) != offset or end <= offset or (total is not None and end > total):
            raise self._fault(
                f"the server answers for bytes {offset} on with the range {said!r}", "name another server"
            )
        if self.size not in (None, total):
            raise self._fault(f"its size changed from {self.size} to {total} bytes on the way", "try again")
        self._next, self._end, self.size = offset, end, total

    def _send(self, wanted: str) -> http.client.HTTPResponse:
        headers = {"Accept-Encoding": "identity", "Range": wanted, "User-Agent": f"llamarig/{__version__}"}
        if self._hub.token and _origin(self._url) == _origin(_split(self._hub.endpoint, "the hub")):
            headers["Authorization"] = f"Bearer {self._hub.token}"
        target = self._url.path + (f"?{self._url.query}" if self._url.query else "")
        fresh = self._connection is None or self._response is None or not self._response.isclosed()
        if fresh:
            self.close()
        while True:
            connection = self._connection or self._connect()
            try:
                connection.request("GET", self._proxied(target), headers=headers)
                return connection.getresponse()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.close()
                # A server may close a connection between two requests; a new one may not fail so.
                if fresh or not isinstance(error, ConnectionError):
                    raise self._unreachable(error) from error
                fresh = True

    def _connect(self) -> http.client.HTTPConnection:
        scheme, host, port = _origin(self._url)
        proxy = None if proxy_bypass(host) else getproxies().get(scheme)
        at = _split(proxy if "//" in proxy else f"http://{proxy}", "the proxy") if proxy else None
        where = (at.hostname or "", at.port or _PORTS[at.scheme]) if at else (host, port)
        if scheme == "https":
            secure = http.client.HTTPSConnection(*where, timeout=self._timeout, context=ssl.create_default_context())
            if at:
                secure.set_tunnel(host, port)
            self._connection = secure
        else:
            self._connection = http.client.HTTPConnection(*where, timeout=self._timeout)
        self._plain_proxy = at is not None and scheme == "http"
        return self._connection

    def _proxied(self, target: str) -> str:
        """Name the whole address to a proxy that is not tunnelled through."""
        return f"{self._url.scheme}://{self._url.netloc}{target}" if self._plain_proxy else target

    def _follow(self, response: http.client.HTTPResponse) -> None:
        location = response.getheader("Location")
        if not location:
            raise self._fault("the server redirects to nowhere", "name the file's own address")
        target = _split(
            urljoin(self._url.geturl(), location), f"{self.name}: the server redirects to {location!r}, that"
        )
        if self._url.scheme == "https" and target.scheme != "https":
            raise self._fault(f"the server redirects to {target.hostname} without encryption", "name another server")
        self.close()
        self._url = target

    def _refused(self, response: http.client.HTTPResponse) -> GgufError:
        status, host = response.status, self._url.hostname
        why = f"{host} answers {status} {response.reason}".rstrip()
        if status == http.HTTPStatus.NOT_FOUND:
            return MissingFileError(f"{self.name}: {why}", "look at the names of repository, revision and file")
        if status in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}:
            remedy = (
                "it is gated, private, or not there: accept its licence on the hub's page, and set HF_TOKEN"
                if _origin(self._url) == _origin(_split(self._hub.endpoint, "the hub"))
                else "the server wants credentials: name an address that needs none"
            )
            return self._fault(why, remedy)
        return self._fault(why, _LATER if status >= http.HTTPStatus.TOO_MANY_REQUESTS else "look at the address")

    def _unreachable(self, error: Exception) -> GgufError:
        host = self._url.hostname
        if isinstance(error, socket.gaierror):
            return self._fault(
                f"there is no host {host} to be found", "look at the name, and at this machine's network"
            )
        if isinstance(error, ssl.SSLError):
            return self._fault(f"{host} cannot be trusted: {_why(error)}", "look at the clock and at the proxy")
        return self._fault(f"{host} does not answer: {_why(error)}", "look at the network, HTTPS_PROXY and NO_PROXY")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _split(url: str, name: str) -> SplitResult:
    """Take an address apart, with what is not allowed in one escaped."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or not host or parts.scheme not in _PORTS:
        raise GgufError(f"{name} is no address", "write https://host/path/file.gguf")
    if parts.username is not None:
        raise GgufError(f"{name} holds a user name or a password", "name an address that needs none")
    path = quote(parts.path or "/", safe="/%~!$&'()*+,;=:@")
    return parts._replace(path=path, query=quote(parts.query, safe="/%?~!$&'()*+,;=:@[]"), fragment="")


def _origin(url: SplitResult) -> tuple[str, str, int]:
    return url.scheme, (url.hostname or "").lower(), url.port or _PORTS[url.scheme]
