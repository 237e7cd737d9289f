"""A registry on loopback that speaks the distribution API: manifests by tag, and the Hub's way to a token."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass
class Registry:
    """What is served and how; ``asked`` is every request, as method, path and authorization."""

    manifests: dict[tuple[str, str], bytes] = field(default_factory=dict)
    login: str = ""
    wants_token: bool = False
    wants_basic: bool = False
    knows_head: bool = True
    says_digest: bool = True
    lies: bool = False
    realm: str = ""
    status: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def put(self, repository: str, tag: str, content: str = "") -> str:
        """Push a manifest; return its digest."""
        manifest = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "of": content}).encode()
        self.manifests[repository, tag] = manifest
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


class _Handler(BaseHTTPRequestHandler):
    registry: Registry

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        authorization = self.headers.get("Authorization") or ""
        self.registry.asked.append((self.command, self.path, authorization))
        path, _, query = self.path.partition("?")
        if path == "/token":
            self._token(authorization, parse_qs(query))
        elif self.registry.status:
            self._send(self.registry.status, b"", {"Location": f"http://{self.registry.address}/elsewhere"})
        elif (self.registry.wants_token or self.registry.wants_basic) and not self._let_in(authorization, path):
            self._send(401, b"", {"WWW-Authenticate": self._challenge(path)})
        elif self.command == "HEAD" and not self.registry.knows_head:
            self._send(405, b"", {})
        else:
            self._manifest(path)

    def _manifest(self, path: str) -> None:
        repository, _, reference = path.removeprefix("/v2/").rpartition("/manifests/")
        manifest = self.registry.manifests.get((repository, reference))
        if manifest is None or INDEX not in (self.headers.get("Accept") or ""):
            self._send(404, b"", {})
            return
        digest = f"sha256:{hashlib.sha256(manifest + (b'x' if self.registry.lies else b'')).hexdigest()}"
        self._send(200, manifest, {"Docker-Content-Digest": digest} if self.registry.says_digest else {})

    def _challenge(self, path: str) -> str:
        if self.registry.wants_basic:
            return 'Basic realm="here"'
        repository = path.removeprefix("/v2/").partition("/manifests/")[0]
        realm = self.registry.realm or f"http://{self.registry.address}/token"
        return f'Bearer realm="{realm}",service="stand-in",scope="repository:{repository}:pull"'

    def _let_in(self, authorization: str, path: str) -> bool:
        if self.registry.wants_basic:
            return authorization == f"Basic {base64.b64encode(self.registry.login.encode()).decode()}"
        repository = path.removeprefix("/v2/").partition("/manifests/")[0]
        return authorization == f"Bearer for-{repository}"

    def _token(self, authorization: str, query: dict[str, list[str]]) -> None:
        expected = f"Basic {base64.b64encode(self.registry.login.encode()).decode()}" if self.registry.login else ""
        if authorization != expected or query.get("service") != ["stand-in"]:
            self._send(401, b"", {})
            return
        repository = query["scope"][0].split(":")[1]
        self._send(200, json.dumps({"token": f"for-{repository}"}).encode(), {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name in the base
        """Say nothing."""


@contextmanager
def serving(registry: Registry) -> Iterator[Registry]:
    """Serve a registry; ``address`` says where."""

    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"registry": registry})) as server:
        registry.address = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
