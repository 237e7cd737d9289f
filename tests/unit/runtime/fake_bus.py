"""A D-Bus server with a systemd behind it, as far as BusUnits can tell it from the real ones."""

from __future__ import annotations

import contextlib
import itertools
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jeepney import HeaderFields, Message, Parser
from jeepney.wrappers import new_error, new_method_return, new_signal

from llamarig.runtime.bus import SOCKET

Answer = Callable[[Message], Message | None]


class FakeBus:
    """Answers on a socket below ``root``; ``calls`` are method and body of everything asked but Hello.

    ``properties`` are those of units, by object path and name. ``errors`` are refused, by method: the error's name,
    and how often, for ever where it is None. ``silent`` methods are never answered. With ``cut``, so many connections
    are closed when they ask something.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / SOCKET.lstrip("/")
        self.path.parent.mkdir(parents=True)
        self.calls: list[tuple[str, Any]] = []
        self.messages: list[Message] = []
        self.properties: dict[tuple[str, str], tuple[str, Any]] = {}
        self.units: list[str] = []
        self.errors: dict[str, tuple[str, int | None]] = {}
        self.silent: set[str] = set()
        self.refuses_everybody = False
        self.cut = 0
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self.path.unlink(missing_ok=True)
        self.hang_up()

    def hang_up(self) -> None:
        """Close every connection, as a bus that is restarted does."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            if not self._let_in(connection):
                return
            parser, serials = Parser(), itertools.count(1)
            while data := connection.recv(1 << 16):
                parser.add_data(data)
                while (message := parser.get_next_message()) is not None:
                    if self.cut and message.header.fields[HeaderFields.member] != "Hello":
                        self.cut -= 1
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    for answer in self._answers(message):
                        connection.sendall(answer.serialise(serial=next(serials)))

    def _let_in(self, connection: socket.socket) -> bool:
        said = b""
        while not said.endswith(b"\r\n"):
            said += connection.recv(1024)
        if self.refuses_everybody:
            connection.sendall(b"REJECTED\r\n")
            return False
        connection.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
        begin = connection.recv(7, socket.MSG_WAITALL)
        return begin == b"BEGIN\r\n"

    def _answers(self, message: Message) -> Iterator[Message]:
        method = message.header.fields[HeaderFields.member]
        if method == "Hello":
            yield new_method_return(message, "s", (":1.1",))
            # Whatever a bus says unasked must not be taken for an answer.
            yield new_signal(_Bus, "NameAcquired", "s", (":1.1",))
            return
        self.calls.append((method, message.body))
        self.messages.append(message)
        if method in self.silent:
            return
        name, times = self.errors.get(method, ("", 0))
        if times is None or times > 0:
            self.errors[method] = (name, None if times is None else times - 1)
            yield new_error(message, name, "s", (f"{method} is refused here",))
        elif method == "Get":
            path = message.header.fields[HeaderFields.path]
            yield new_method_return(message, "v", (self.properties[path, message.body[1]],))
        elif method == "ListUnitsByPatterns":
            rows = [(name, "", "loaded", "active", "running", "", "/", 0, "", "/") for name in self.units]
            yield new_method_return(message, "a(ssssssouso)", (rows,))
        else:
            yield new_method_return(message, "o", ("/org/freedesktop/systemd1/job/1",))


class _Bus:
    object_path = "/org/freedesktop/DBus"
    interface = "org.freedesktop.DBus"


@contextlib.contextmanager
def fake_bus() -> Iterator[FakeBus]:
    """A bus in a directory with a short name: a socket's path has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="bus") as directory:
        bus = FakeBus(Path(directory))
        try:
            yield bus
        finally:
            bus.close()
