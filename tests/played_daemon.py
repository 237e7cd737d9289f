"""HTTP servers on UNIX sockets that answer what a test says: the daemon, as far as its clients can tell."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from llamarig.config import paths
from tests.support import below


@dataclass(frozen=True)
class Request:
    """What a client asked, and on which socket."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]
    may_manage: bool = True


@dataclass(frozen=True)
class Answer:
    """What it is told: JSON, or ``stream`` piece by piece; ``cut`` ends the connection in its middle."""

    status: int = 200
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[str] | None = None
    cut: bool = False


def event(name: str, data: object, number: int | None = None) -> str:
    """One server-sent event."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n"


class Daemon:
    """Answers on both sockets below a root by what ``answer`` returns, and remembers what it was asked."""

    def __init__(self, root: Path, answer: Callable[[Request], Answer]) -> None:
        self.root = root
        self.answer = answer
        self.asked: list[Request] = []
        self.over = threading.Event()
        self._servers: list[_Server] = []

    def start(self) -> Daemon:
        self.over.clear()
        for path, may_manage in ((paths.MANAGE_SOCKET, True), (paths.READ_SOCKET, False)):
            place = below(self.root, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            server = _Server(str(place), self, may_manage=may_manage)
            self._servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        """End it as a kill does: what is under way is cut."""
        self.over.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers.clear()
        for path in (paths.MANAGE_SOCKET, paths.READ_SOCKET):
            below(self.root, path).unlink(missing_ok=True)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = True

    def __init__(self, path: str, daemon: Daemon, *, may_manage: bool) -> None:
        self.daemon = daemon
        self.may_manage = may_manage
        self._open: list[socket.socket] = []
        super().__init__(path, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no trouble."""

    def server_close(self) -> None:
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it is closed already
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._work()

    def do_POST(self) -> None:
        self._work()

    def do_DELETE(self) -> None:
        self._work()

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def _work(self) -> None:
        address = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        query = dict(parse_qsl(address.query))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, unquote(address.path), query, body, headers, self.server.may_manage)
        self.server.daemon.asked.append(request)
        self._send(self.server.daemon.answer(request))

    def _send(self, answer: Answer) -> None:
        if answer.cut:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.stream is None:
            raw = answer.data if isinstance(answer.data, bytes) else json.dumps(answer.data, indent=2).encode()
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
            return
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in answer.stream:
                raw = piece.encode()
                self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
