from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.runtime.exporter import ExporterError, exporter_health
from tests.support import below


@contextmanager
def played(root: Path, status: int, body: bytes) -> Iterator[None]:
    """An exporter that answers so, and a host that knows where it listens."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        configured(root, json.dumps({"bind": "0.0.0.0", "port": server.server_port}))  # noqa: S104  reached on loopback
        yield
        server.shutdown()
        thread.join()


def configured(root: Path, text: str) -> None:
    path = below(root, paths.EXPORTER_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_host_without_one_has_nothing_to_say(tmp_path: Path) -> None:
    assert exporter_health(tmp_path) is None


def test_what_it_says_of_itself_is_returned(tmp_path: Path) -> None:
    with played(tmp_path, 200, b'{"ok": true, "stuck_seconds": 0.0}'):
        assert exporter_health(tmp_path) == {"ok": True, "stuck_seconds": 0.0}


@pytest.mark.parametrize(
    ("status", "body", "said"), [(200, b"[]", "it answers 200"), (200, b"{", "does not answer"), (421, b"{}", "421")]
)
def test_another_answer_is_an_error(tmp_path: Path, status: int, body: bytes, said: str) -> None:
    with played(tmp_path, status, body), pytest.raises(ExporterError, match=said):
        exporter_health(tmp_path)


def test_one_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    with played(tmp_path, 200, b"{}"):
        pass
    with pytest.raises(ExporterError, match="it does not answer at"):
        exporter_health(tmp_path)


def test_a_configuration_that_is_none_is_an_error(tmp_path: Path) -> None:
    configured(tmp_path, '{"port": "here"}')
    with pytest.raises(ExporterError, match="port is 'here'"):
        exporter_health(tmp_path)
