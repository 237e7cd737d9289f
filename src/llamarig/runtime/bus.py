"""systemd over D-Bus: how a user without rights starts and stops the units that polkit lets it.

https://www.freedesktop.org/software/systemd/man/org.freedesktop.systemd1.html
"""

from __future__ import annotations

import itertools
import socket
import string
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from jeepney import DBusAddress, HeaderFields, Message, MessageType, Parser, new_method_call
from jeepney.io.blocking import prep_socket
from jeepney.wrappers import DBusErrorResponse

from llamarig.config import paths
from llamarig.errors import LlamarigError, NotAllowedError, NotFoundError
from llamarig.runtime.systemd import UnitState, journal

SOCKET: Final = "/run/dbus/system_bus_socket"
_NAME: Final = "org.freedesktop.systemd1"
_BUS: Final = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_MANAGER: Final = DBusAddress("/org/freedesktop/systemd1", _NAME, f"{_NAME}.Manager")
# Longer than a daemon-reload of a large host, which answers nobody while it lasts.
_SECONDS: Final = 25.0
_CONNECT_SECONDS: Final = 5.0
_PAUSE: Final = 0.2
_ATTEMPTS: Final = 10
_PLAIN: Final = frozenset(string.ascii_letters + string.digits)
# What the bus says while systemd executes itself anew, or is not there yet.
_AWAY: Final = frozenset(
    f"org.freedesktop.DBus.Error.{name}" for name in ("Disconnected", "NameHasNoOwner", "NoReply", "ServiceUnknown")
)
_REFUSED: Final = frozenset(
    f"org.freedesktop.DBus.Error.{name}" for name in ("AccessDenied", "InteractiveAuthorizationRequired")
)
_UNKNOWN: Final = f"{_NAME}.NoSuchUnit"
_MASKED: Final = f"{_NAME}.UnitMasked"


class BusError(LlamarigError):
    """systemd cannot be asked."""


class BusUnits:
    """The units of this host, over one connection for each thread; nobody is ever asked for a password."""

    def __init__(
        self, root: Path = Path("/"), *, seconds: float = _SECONDS, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._path = root / SOCKET.lstrip("/")
        self._seconds = seconds
        self._sleep = sleep
        self._own = threading.local()

    def state(self, service: str) -> UnitState:
        """Return the state of one service's unit; one that systemd does not know is inactive.

        Raises:
            BusError: systemd does not answer.

        """
        active, sub, result, restarts, status = self._properties(
            paths.unit(service),
            (("Unit", "ActiveState"), ("Unit", "SubState")),
            (("Service", "Result"), ("Service", "NRestarts"), ("Service", "ExecMainStatus")),
        )
        return UnitState(str(active), str(sub), str(result), int(restarts), int(status))

    def running(self) -> list[str]:
        """Return the services whose units are up or coming up.

        Raises:
            BusError: systemd does not answer.

        """
        body = (["active", "activating"], [paths.unit("*")])
        ((units,),) = self._ask([new_method_call(_MANAGER, "ListUnitsByPatterns", "asas", body)])
        return [str(unit[0]).removeprefix("llama-").removesuffix(".service") for unit in units]

    def start(self, service: str) -> None:
        """Have a unit started.

        Raises:
            NotFoundError: there is no such unit.
            NotAllowedError: polkit refuses it.
            LlamarigError: systemd refuses it, or does not answer.

        """
        try:
            self._ask([self._job("StartUnit", service)])
        except DBusErrorResponse as error:
            raise _refusal("start", service, error) from error

    def stop(self, service: str) -> None:
        """Have a unit stopped; nothing is to be done for one that systemd has not loaded.

        Raises:
            NotAllowedError: polkit refuses it.
            LlamarigError: systemd refuses it, or does not answer.

        """
        try:
            self._ask([self._job("StopUnit", service)])
        except DBusErrorResponse as error:
            if error.name != _UNKNOWN:
                raise _refusal("stop", service, error) from error

    def docker_since(self) -> float | None:
        """Return when Docker came up, in seconds since the host did; None while it is not up.

        Raises:
            BusError: systemd does not answer.

        """
        active, since = self._properties(
            "docker.service", (("Unit", "ActiveState"), ("Unit", "ActiveEnterTimestampMonotonic"))
        )
        return int(since) / 1e6 if active == "active" else None

    def log(self, service: str, lines: int) -> list[str]:
        """Return the last lines of a unit's log."""
        return journal(service, ["--lines", str(lines)])

    @staticmethod
    def _job(method: str, service: str) -> Message:
        return new_method_call(_MANAGER, method, "ss", (paths.unit(service), "replace"))

    def _properties(self, unit: str, *names: Iterable[tuple[str, str]]) -> list[Any]:
        """Ask for properties of a unit, all of them at once; systemd loads the unit where it has not yet."""
        address = DBusAddress(unit_path(unit), _NAME, "org.freedesktop.DBus.Properties")
        calls = [
            new_method_call(address, "Get", "ss", (f"{_NAME}.{interface}", name))
            for interface, name in itertools.chain(*names)
        ]
        try:
            return [variant[1] for (variant,) in self._ask(calls)]
        except DBusErrorResponse as error:
            raise BusError(f"systemd says nothing of {unit}: {_said(error)}", f"systemctl status {unit}") from error

    def _ask(self, calls: Sequence[Message]) -> list[Any]:
        """Send calls and return the bodies of their answers.

        A connection that broke while nobody used it is made anew; a systemd that executes itself anew is waited for.

        Raises:
            BusError: no answer.
            DBusErrorResponse: systemd refused one of them.

        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._connection().call(calls)
            except TimeoutError as error:
                self._forget()
                raise BusError(f"systemd did not answer within {self._seconds:.0f} s", "systemctl status") from error
            except (OSError, ValueError) as error:
                self._forget()
                if attempt == _ATTEMPTS:
                    raise BusError(f"the system bus cannot be asked: {error}", "systemctl status dbus") from error
            except DBusErrorResponse as error:
                if error.name not in _AWAY:
                    raise
                if attempt == _ATTEMPTS:
                    raise BusError(f"systemd is not on the bus: {_said(error)}", "systemctl status dbus") from error
            # The first attempt may only have found that its old connection is gone.
            self._sleep(_PAUSE if attempt > 1 else 0)

    def _connection(self) -> _Connection:
        found: _Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = _Connection(self._path, self._seconds)
        return found

    def _forget(self) -> None:
        found: _Connection | None = getattr(self._own, "connection", None)
        self._own.connection = None
        if found is not None:
            found.close()


class _Connection:
    """A connection to the bus; every wait has its end."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._seconds = seconds
        self._serials = itertools.count(1)
        self._parser = Parser()
        try:
            self._socket: socket.socket = prep_socket(str(path), timeout=_CONNECT_SECONDS)
        except TimeoutError as error:
            raise ConnectionError("it lets nobody in") from error
        # A thread that ends takes its connection with it.
        self.close = weakref.finalize(self, self._socket.close)
        try:
            self.call([new_method_call(_BUS, "Hello")])
        except BaseException:
            self.close()
            raise

    def call(self, calls: Sequence[Message]) -> list[Any]:
        """Send all calls, then wait for all answers."""
        deadline = time.monotonic() + self._seconds
        waiting = [next(self._serials) for _ in calls]
        self._socket.settimeout(self._seconds)
        self._socket.sendall(
            b"".join(message.serialise(serial=serial) for message, serial in zip(calls, waiting, strict=True))
        )
        answers: dict[int, Message] = {}
        while len(answers) < len(waiting):
            message = self._receive(deadline)
            serial = message.header.fields.get(HeaderFields.reply_serial)
            if serial in waiting:
                answers[serial] = message
        for serial in waiting:
            if answers[serial].header.message_type is MessageType.error:
                raise DBusErrorResponse(answers[serial])
        return [answers[serial].body for serial in waiting]

    def _receive(self, deadline: float) -> Message:
        while True:
            message: Message | None = self._parser.get_next_message()
            if message is not None:
                return message
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the bus closed the connection")
            self._parser.add_data(data)


def unit_path(unit: str) -> str:
    """Return the object that systemd has for a unit: its name, with everything but letters and digits as _xx."""
    words = (
        char if char in _PLAIN and not (place == 0 and char.isdigit()) else "".join(f"_{b:02x}" for b in char.encode())
        for place, char in enumerate(unit)
    )
    return f"/org/freedesktop/systemd1/unit/{''.join(words)}"


def _said(error: DBusErrorResponse) -> str:
    return str(error.data[0]) if error.data else str(error.name)


def _refusal(verb: str, service: str, error: DBusErrorResponse) -> LlamarigError:
    unit, said = paths.unit(service), _said(error)
    if error.name in _REFUSED:
        remedy = "run playbooks/site.yml for this host: its rule for polkit lets the daemon do this"
        return NotAllowedError(f"polkit does not let this user {verb} {unit}: {said}", remedy)
    if error.name == _UNKNOWN:
        return NotFoundError(f"this host has no unit {unit}: {said}", "run playbooks/site.yml for this host")
    if error.name == _MASKED:
        return LlamarigError(f"{unit} is masked, so that nothing can {verb} it", f"systemctl unmask {unit}")
    return LlamarigError(f"systemd refused to {verb} {unit}: {said}", f"systemctl status {unit}")
