"""A web server for tests on a port of this machine: it serves one answer for each path, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Site:
    """What is served.

    Attributes:
        files: path and what is there.
        answers: path and how it is answered instead of as a file.
        asked: path, range and authorisation of every request.
        sent: bytes of bodies that were handed to the network.

    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    sent: int = 0

    def redirect(self, path: str, to: str, status: int = 302, headers: dict[str, str] | None = None) -> None:
        """Redirect a path."""
        self.answers[path] = lambda handler: handler.reply(status, headers={"Location": to, **(headers or {})})

    def status(self, path: str, status: int) -> None:
        """Answer a path with nothing but a status."""
        self.answers[path] = lambda handler: handler.reply(status)


class Handler(BaseHTTPRequestHandler):
    """Answers ranges as RFC 9110 has it, over connections that stay open."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        self.site.asked.append((self.path, self.headers["Range"], self.headers["Authorization"]))
        with contextlib.suppress(ConnectionError):
            answer = self.site.answers.get(self.path)
            if answer:
                answer(self)
            elif self.path in self.site.files:
                self.give(self.site.files[self.path])
            else:
                self.reply(404)

    def give(self, data: bytes) -> None:
        """Send the range that was asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert found
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        if first > last:
            self.reply(416, headers={"Content-Range": f"bytes */{len(data)}"})
            return
        self.reply(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Send an answer, with its length unless ``headers`` say otherwise."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        for start in range(0, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])
            self.site.sent += len(body[start : start + (1 << 16)])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up: that is what they are meant to do."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Site]:
    """Serve a site as long as the block lasts."""
    site = Site()
    server = Server((host, 0), type("Answering", (Handler,), {"site": site}))
    site.address = f"http://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
