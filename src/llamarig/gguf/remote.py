"""A header over HTTP: ranges of the file, and no more of it than the header takes."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
from typing import Final
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

from llamarig import __version__
from llamarig.gguf.address import Hub, Proxy, address, origin, split_address
from llamarig.gguf.error import GgufError, MissingFileError

_FIRST_RANGE: Final = 1 << 20
_LARGEST_RANGE: Final = 16 << 20
_PIECE: Final = 1 << 18
_MOST_REDIRECTS: Final = 5
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_LATER: Final = "try again later"


class HttpSource:
    """A file on a web server, read by ranges, or from its beginning where the server knows no ranges.

    A range is read as it arrives and left as soon as no more of it is wanted. The next one is twice as long.
    """

    def __init__(self, name: str, hub: Hub, *, timeout: float = 30, patience: float = 300) -> None:
        """Prepare to read; nothing is asked yet.

        Args:
            name: an address, or ``hf:owner/repository/file[@revision]``.
            hub: where the latter leads.
            timeout: seconds that a server may be silent.
            patience: seconds that the whole may take.

        Raises:
            GgufError: the name is no address.

        """
        self.name = name
        self.size: int | None = None
        self.revision: str | None = None
        self.sha256: str | None = None
        self._hub, self._timeout, self._patience = hub, timeout, patience
        self._url = split_address(address(name, hub), name)
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._proxy_headers: dict[str, str] | None = None
        self._watch: threading.Timer | None = None
        self._late = False
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
            wanted = min(gap or length, _PIECE)
            piece = self._receive(wanted if self._end is None else min(wanted, self._end - self._next))
            if not piece and self._end is None and not gap:
                return b""  # a server that said neither a size nor a range
            if not piece:
                raise self._fault("the connection was cut", _LATER)
            if not gap:
                return piece

    def close(self) -> None:
        """Hang up."""
        if self._watch is not None:
            self._watch.cancel()
        self._hang_up()

    def _hang_up(self) -> None:
        self._response = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fault(self, why: str, remedy: str) -> GgufError:
        return GgufError(f"{self.name}: {why}", remedy)

    def _too_late(self) -> None:
        """End whatever waits for the server: a byte now and then would keep a timeout from doing so."""
        self._late = True
        sock = self._connection.sock if self._connection else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _check_time(self) -> None:
        if self._watch is None:
            self._watch = threading.Timer(self._patience, self._too_late)
            self._watch.daemon = True
            self._watch.start()
        if self._late:
            raise self._fault(f"the server sent no whole header within {self._patience:g} seconds", _LATER)

    def _receive(self, length: int) -> bytes:
        if self._response is None:
            return b""
        try:
            piece = self._response.read1(length)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._check_time()
            raise self._fault(f"the connection broke: {_why(error)}", _LATER) from error
        self._check_time()
        self._next += len(piece)
        return piece

    def _ask(self, offset: int) -> None:
        """Ask for a range, following redirects, and remember what the answer holds."""
        wanted = f"bytes={offset}-{offset + self._length - 1}"
        for _ in range(_MOST_REDIRECTS + 1):
            response = self._send(wanted)
            self._remember(response)
            if response.status not in _REDIRECTS:
                break
            self._follow(response)
        else:
            raise self._fault(f"more than {_MOST_REDIRECTS} redirects", "name the file's own address")
        self._length = min(2 * self._length, _LARGEST_RANGE)
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            self._partial(response, offset)
        elif response.status == http.HTTPStatus.OK:
            said = response.getheader("Content-Length") or ""
            size = int(said) if re.fullmatch(r"\d{1,18}", said) else None
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
        if self._hub.token and self._at_hub():
            headers["Authorization"] = f"Bearer {self._hub.token}"
        target = self._url.path + (f"?{self._url.query}" if self._url.query else "")
        fresh = self._connection is None or self._response is None or not self._response.isclosed()
        if fresh:
            self._hang_up()
        while True:
            self._check_time()
            connection = self._connection or self._connect()
            told, with_headers = target, headers
            if self._proxy_headers is not None:  # not tunnelled through: it is told the whole address
                told, with_headers = f"http://{self._url.netloc}{target}", {**headers, **self._proxy_headers}
            try:
                connection.request("GET", told, headers=with_headers)
                return connection.getresponse()
            except (OSError, ValueError, http.client.HTTPException) as error:
                self._hang_up()
                self._check_time()
                # A server may close a connection between two requests; a new one may not fail so.
                if fresh or not isinstance(error, ConnectionError):
                    raise self._unreachable(error) from error
                fresh = True

    def _connect(self) -> http.client.HTTPConnection:
        scheme, host, port = origin(self._url)
        said = None if proxy_bypass(host) else getproxies().get(scheme)
        proxy = Proxy.read(said) if said else None
        where = (proxy.host, proxy.port) if proxy else (host, port)
        self._proxy_headers = None
        if scheme == "https":
            secure = http.client.HTTPSConnection(*where, timeout=self._timeout, context=ssl.create_default_context())
            if proxy:
                secure.set_tunnel(host, port, proxy.headers)
            self._connection = secure
        else:
            self._connection = http.client.HTTPConnection(*where, timeout=self._timeout)
            self._proxy_headers = proxy.headers if proxy else None
        return self._connection

    def _at_hub(self) -> bool:
        return origin(self._url) == origin(split_address(self._hub.endpoint, "the hub"))

    def _remember(self, response: http.client.HTTPResponse) -> None:
        """Keep what the hub says about the file: its commit, and its sha256 as the tag of what it redirects to."""
        if self._at_hub():
            commit = response.getheader("X-Repo-Commit") or ""
            tag = (response.getheader("X-Linked-ETag") or "").strip('"')
            self.revision = commit if re.fullmatch(r"[0-9a-f]{40}", commit) else self.revision
            self.sha256 = tag if re.fullmatch(r"[0-9a-f]{64}", tag) else self.sha256

    def _follow(self, response: http.client.HTTPResponse) -> None:
        location = response.getheader("Location")
        if not location:
            raise self._fault("the server redirects to nowhere", "name the file's own address")
        try:
            there = urljoin(self._url.geturl(), location)
        except ValueError:
            there = ""
        target = split_address(there, f"{self.name}: what the server redirects to, {location!r},")
        if self._url.scheme == "https" and target.scheme != "https":
            raise self._fault(f"the server redirects to {target.hostname} without encryption", "name another server")
        self._hang_up()
        self._url = target

    def _refused(self, response: http.client.HTTPResponse) -> GgufError:
        status, host = response.status, self._url.hostname
        why = f"{host} answers {status} {response.reason}".rstrip()
        if status == http.HTTPStatus.NOT_FOUND:
            return MissingFileError(f"{self.name}: {why}", "look at the names of repository, revision and file")
        if status in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}:
            remedy = (
                "it is gated, private, or not there: accept its licence on the hub's page, and set HF_TOKEN"
                if self._at_hub()
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
