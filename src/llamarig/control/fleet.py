"""The way from a control node to the daemon of every host of an inventory: ssh, as Ansible would call it."""

from __future__ import annotations

import os
import selectors
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from llamarig.config import paths
from llamarig.control.inventory import connections
from llamarig.dashboard.client import Host, Link
from llamarig.errors import LlamarigError
from llamarig.runtime.management import Management

_CONNECT_SECONDS: Final = 10
# Until ssh has logged in and the shell there answers.
_ANSWER_SECONDS: Final = 25.0
_END_SECONDS: Final = 2.0
# A connection of its own, that ends with this process, asks nobody for a password and notices a dead network.
_OPTIONS: Final = (
    *("ControlMaster=no", "ControlPath=none", "BatchMode=yes", "ExitOnForwardFailure=yes", "StreamLocalBindUnlink=yes"),
    *(f"ConnectTimeout={_CONNECT_SECONDS}", "ServerAliveInterval=5", "ServerAliveCountMax=3", "LogLevel=ERROR"),
)
_MANAGE, _READ, _NONE = "llamarig:manage", "llamarig:read", "llamarig:none"
# Says for each line that it is sent which socket this user may open, until nothing is sent any more.
_ASKED: Final = (
    f"while read -r _; do if [ -w {paths.MANAGE_SOCKET} ]; then echo {_MANAGE};"
    f" elif [ -w {paths.READ_SOCKET} ]; then echo {_READ}; else echo {_NONE}; fi; done"
)


@contextmanager
def fleet(inventory: Path, limit: str | None = None) -> Iterator[list[Host]]:
    """Yield the hosts of an inventory; none is reached before it is asked for, and every way ends with this.

    Raises:
        LlamarigError: with Ansible's words if it could not read the inventory.

    """
    found = connections(inventory, limit)
    with ExitStack() as ends:
        directory = Path(
            ends.enter_context(tempfile.TemporaryDirectory(prefix="llamarig-", ignore_cleanup_errors=True))
        )
        hosts = []
        for number, (name, connection) in enumerate(found.items()):
            way = _way(name, connection, directory / str(number))
            ends.callback(way.close)
            hosts.append(Host(name, way.connect))
        yield hosts


class Nearby:
    """The daemon of this machine, for a host that Ansible reaches without a network."""

    def connect(self) -> Link:
        """Return the way, which is there already."""
        client = Management()
        return Link(client, client.only_looks())

    def close(self) -> None:
        """Nothing was opened."""


class NoWay:
    """A host that cannot be reached as it is described."""

    def __init__(self, reason: LlamarigError) -> None:
        self._reason = reason

    def connect(self) -> Link:
        """Say why.

        Raises:
            LlamarigError: always.

        """
        raise self._reason

    def close(self) -> None:
        """Nothing was opened."""


class Tunnel:
    """Both sockets of a host's daemon, brought here by one ssh; it ends when it is closed, or this process dies."""

    def __init__(self, name: str, command: Sequence[str], target: str, directory: Path) -> None:
        self._name = name
        self._directory = directory
        # A client opens the socket for everything; which one it is over there decides what may be done.
        self._roots = {paths.MANAGE_SOCKET: directory / "m", paths.READ_SOCKET: directory / "r"}
        forwards = [f"{self._local(root)}:{socket}" for socket, root in self._roots.items()]
        self._command = [
            command[0],
            *(part for option in _OPTIONS for part in ("-o", option)),
            *command[1:],
            "-T",
            *(part for forward in forwards for part in ("-L", forward)),
            target,
            f"/bin/sh -c {shlex.quote(_ASKED)}",
        ]
        self._lock = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def _local(root: Path) -> Path:
        return root / paths.MANAGE_SOCKET.lstrip("/")

    def connect(self) -> Link:
        """Return the way, opened anew if it was lost; what may be done over it is asked each time.

        Raises:
            LlamarigError: the host cannot be reached, or no daemon runs there.

        """
        process = self._opened()
        said = self._ask(process)
        if said == _MANAGE:
            return Link(Management(self._roots[paths.MANAGE_SOCKET]))
        if said == _READ:
            why = f"the user that ssh logs in as on {self._name} is not in the group llamarig"
            return Link(Management(self._roots[paths.READ_SOCKET]), why)
        if said == _NONE:
            raise LlamarigError("llamarigd does not run there", f"on {self._name}: systemctl status llamarigd")
        _end(process)
        words = self._last_words().removeprefix("ssh: ")
        raise LlamarigError(f"ssh: {words}", f"try it by hand: ssh {self._command[-2]}")

    def _opened(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise LlamarigError("the dashboard was left")
            if self._process is not None and self._process.poll() is not None:
                _end(self._process)
                self._process = None
            if self._process is None:
                for root in self._roots.values():
                    self._local(root).parent.mkdir(parents=True, exist_ok=True)
                    self._local(root).unlink(missing_ok=True)
                with (self._directory / "said").open("wb") as said:
                    self._process = subprocess.Popen(
                        self._command,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=said,
                        start_new_session=True,
                    )
            return self._process

    def _ask(self, process: subprocess.Popen[bytes]) -> str:
        """Return what the shell there answers; empty where none does."""
        if process.stdin is None or process.stdout is None:
            return ""
        try:
            process.stdin.write(b"\n")
            process.stdin.flush()
            return _answer(process.stdout, time.monotonic() + _ANSWER_SECONDS)
        except (OSError, ValueError):
            return ""

    def _last_words(self) -> str:
        try:
            lines = (self._directory / "said").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        return next((text.strip() for text in reversed(lines) if text.strip()), "it says nothing")

    def close(self) -> None:
        """End ssh."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and keep nothing of it."""
    process.terminate()
    try:
        process.wait(timeout=_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def _answer(stream: IO[bytes], until: float) -> str:
    """Read lines until one is an answer; what a login shell says before is none."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(max(0.0, until - time.monotonic())):
            data = os.read(stream.fileno(), 4096)
            if not data:
                return ""
            *lines, rest = (rest + data).split(b"\n")
            for text in lines:
                if text.strip().decode("utf-8", "replace") in {_MANAGE, _READ, _NONE}:
                    return text.strip().decode()
    return ""


def _way(name: str, connection: Any, directory: Path) -> Nearby | NoWay | Tunnel:
    """Return the way to a host's daemon that fits how Ansible reaches the host."""
    from llamarig.control.rsync import ssh_command  # noqa: PLC0415  Ansible is imported after its settings are said

    if isinstance(connection, LlamarigError):
        return NoWay(connection)
    if connection.transport == "local":
        return Nearby()
    if connection.transport != "ssh":
        msg = f"its connection is {connection.transport}, and only ssh brings a socket here"
        return NoWay(LlamarigError(msg, "let ansible_connection be ssh"))
    user, address = connection.get_option("remote_user"), str(connection.get_option("host"))
    target = f"{user}@{address}" if user else address
    directory.mkdir()
    return Tunnel(name, ssh_command(connection), target, directory)
