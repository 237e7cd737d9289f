"""The daemon as its clients see it: the command, the dashboard and the playbooks ask it over HTTP.

On its own host it is asked on a UNIX socket: on the one for everything where that may be opened, otherwise on the one
that only reads. From elsewhere it is asked at an address, with a key.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from llamarig.config import paths
from llamarig.errors import (
    BusyError,
    CancelledError,
    DaemonGoneError,
    LlamarigError,
    NotAllowedError,
    NotFoundError,
    SwitchError,
)
from llamarig.runtime.connections import UnixConnection

# Where another host's daemon is, and the key for it.
URL: Final = "LLAMARIG_URL"
KEY: Final = "LLAMARIG_API_KEY"
# Who asks, for the history: the playbooks say that it is they.
ORIGIN: Final = "LLAMARIG_ORIGIN"
OVER: Final = frozenset({"succeeded", "failed", "cancelled"})
_ORIGIN_HEADER: Final = "X-Llamarig-Origin"
_LARGEST: Final = 1 << 24
_LONGEST_LINE: Final = 1 << 20
_PAUSE: Final = 0.2
_NO_JOB: Final = "none"

Job = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One of the events that the daemon sends: its name and what it carries."""

    name: str
    data: dict[str, Any]
    id: str = ""


class Management:
    """A client of the daemon.

    Args:
        root: of the host's files, below which the sockets are.
        url: of another host's daemon, in place of the sockets.
        key: for that one.
        origin: who asks, as the history will say: ``cli``, ``playbook``; empty where the daemon is to decide.
        seconds: how long any one wait for the daemon's word may take.
        patience: seconds that a daemon may be away, as while it is restarted, before a job is followed no more.

    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        url: str = "",
        key: str = "",
        origin: str = "",
        seconds: float = 30.0,
        patience: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = root
        self.url = url.rstrip("/")
        self.key = key.strip()
        self.origin = origin
        self.seconds = seconds
        self.patience = patience
        self.sleep = sleep
        if self.url:
            _checked(self.url, self.key)

    @classmethod
    def here(cls, root: Path = Path("/"), *, origin: str = "cli") -> Management:
        """Return the client of this host's daemon, or of the one that the environment names.

        Raises:
            LlamarigError: the environment names what is no address.

        """
        told = os.environ.get(ORIGIN) or origin
        return cls(root, url=os.environ.get(URL, ""), key=os.environ.get(KEY, ""), origin=told)

    @property
    def may_manage(self) -> bool:
        """Whether this user may change what serves, as far as that is known before it is tried."""
        return bool(self.url) or os.access(self._socket(paths.MANAGE_SOCKET), os.W_OK)

    def only_looks(self) -> str:
        """Return why this user may change nothing, empty where he may; another host's daemon is asked for that."""
        if not self.url:
            return "" if self.may_manage else "root and the group llamarig may change what serves"
        try:
            # There is no such job. Who may not cancel it is refused before anybody looks for it.
            self.delete(f"/jobs/{_NO_JOB}")
        except NotAllowedError:
            return "a key of scope manage may change what serves"
        except LlamarigError:
            return ""
        return ""

    def get(self, path: str, **query: str | float) -> dict[str, Any]:
        """Return what the daemon says at a path.

        Raises:
            DaemonGoneError: it does not answer.
            LlamarigError: it refuses; a subclass says in which way, with its exit code.

        """
        return self._exchange("GET", path, None, query)

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: str | float) -> dict[str, Any]:
        """Ask the daemon for something; raises as :meth:`get`, and SwitchError where it waited for what failed."""
        return self._exchange("POST", path, dict(body or {}), query)

    def delete(self, path: str) -> dict[str, Any]:
        """Have the daemon end something; raises as :meth:`get`."""
        return self._exchange("DELETE", path, None, {})

    def wait(self, seconds: float) -> None:
        """Wait until the daemon answers, as after it was started.

        Raises:
            DaemonGoneError: it does not within so many seconds.

        """
        until = time.monotonic() + seconds
        while True:
            try:
                self.get("/healthz")
            except DaemonGoneError:
                if time.monotonic() >= until:
                    raise
            else:
                return
            self.sleep(_PAUSE)

    def submit(self, path: str, body: Mapping[str, Any]) -> Job:
        """Ask for something that takes its time, and return the job that it became; raises as :meth:`get`."""
        return self._job(self.post(path, body, wait="false"))

    def job(self, job_id: str) -> Job:
        """Return a job as it is now; raises as :meth:`get`."""
        return self._job(self.get(f"/jobs/{job_id}"))

    def follow(self, job_id: str) -> Iterator[Job]:
        """Yield a job again and again as it goes on, over the daemon's restarts, until it is over.

        Raises:
            DaemonGoneError: the daemon is away for longer than anybody waits.
            NotFoundError: it knows no such job, be it that it forgot.

        """
        last, gone_since = "", None
        while True:
            try:
                for event in self._events(f"/jobs/{job_id}/events", {}, last):
                    last, gone_since = event.id or last, None
                    if event.name == "job":
                        yield event.data
                        if event.data.get("state") in OVER:
                            return
                job, gone_since = self.job(job_id), None
                if job.get("state") in OVER:
                    yield job
                    return
            except DaemonGoneError:
                now = time.monotonic()
                gone_since = now if gone_since is None else gone_since
                if now - gone_since > self.patience:
                    raise
            self.sleep(_PAUSE)

    def events(self) -> Iterator[Event]:
        """Yield what happens on the host: events ``status``, ``job`` and ``history``, as long as the daemon is there.

        Raises:
            DaemonGoneError: the daemon went away, or says nothing any more.

        """
        yield from self._events("/events", {})
        raise self._gone("it ended the connection")

    def log(self, service: str, lines: int = 50) -> Iterator[str]:
        """Yield the last lines of a service's log and then each new one, as long as the daemon is there.

        Raises:
            DaemonGoneError: the daemon went away.
            NotFoundError: there is no such service.

        """
        for event in self._events(f"/logs/{service}", {"lines": lines, "follow": "true"}):
            if event.name == "line":
                yield str(event.data.get("line", ""))
        raise self._gone("it ended the connection")

    def _socket(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    @staticmethod
    def _job(data: dict[str, Any]) -> Job:
        job = data.get("job", data)
        return job if isinstance(job, dict) else {}

    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str | float]
    ) -> dict[str, Any]:
        with self._asked(method, path, body, query, {"Accept": "application/json"}) as response:
            try:
                raw = response.read(_LARGEST)
            except (OSError, http.client.HTTPException) as error:
                raise self._gone(_why(error)) from error
            data = _read(raw)
            if response.status >= HTTPStatus.BAD_REQUEST:
                self._refuse(response, data)
            return data

    def _events(self, path: str, query: Mapping[str, str | float], last: str = "") -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        with self._asked("GET", path, None, query, headers) as response:
            if response.status != HTTPStatus.OK:
                self._refuse(response, _read(response.read(_LARGEST)))
            try:
                yield from _parsed(response)
            except (OSError, http.client.HTTPException) as error:
                raise self._gone(_why(error)) from error

    @contextlib.contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str | float],
        headers: Mapping[str, str],
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request, and yield the answer before it is read."""
        connection = self._connection()
        target = urlsplit(self.url).path + quote(path) + (f"?{urlencode(query)}" if query else "")
        sent = {**headers, "Content-Type": "application/json"}
        if self.origin:
            sent[_ORIGIN_HEADER] = self.origin
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        try:
            try:
                connection.request(method, target, None if body is None else json.dumps(body), sent)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise self._gone(_why(error)) from error
            with response:
                yield response
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.url:
            address = urlsplit(self.url)
            kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
            return kind(address.hostname or "", address.port, timeout=self.seconds)
        refused: OSError | None = None
        for path in (paths.MANAGE_SOCKET, paths.READ_SOCKET):
            connection = UnixConnection(str(self._socket(path)), self.seconds)
            try:
                connection.connect()
            except PermissionError as error:
                connection.close()
                refused = error
            except OSError as error:
                connection.close()
                raise self._gone(_why(error)) from error
            else:
                return connection
        raise self._gone("this user may not ask it") from refused

    def _gone(self, why: str) -> DaemonGoneError:
        if self.url:
            return DaemonGoneError(f"the daemon at {self.url} does not answer: {why}", f"see that {self.url} is right")
        return DaemonGoneError(f"llamarigd does not answer: {why}", "systemctl status llamarigd")

    def _refuse(self, response: http.client.HTTPResponse, data: Mapping[str, Any]) -> NoReturn:
        """Raise what an answer of 400 and more says."""
        status = response.status
        said = data.get("error")
        message = said if isinstance(said, str) and said else f"the daemon answers HTTP {status} {response.reason}"
        remedy = str(data.get("remedy") or "")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise NotAllowedError(message, remedy or self._how_to_be_allowed())
        if status == HTTPStatus.NOT_FOUND:
            raise NotFoundError(message, remedy)
        if status == HTTPStatus.CONFLICT:
            raise BusyError(message, remedy or "wait for it: llamarig status")
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise BusyError(message, remedy or f"try again in {response.headers.get('Retry-After', 'some')} s")
        if status == HTTPStatus.BAD_GATEWAY and "success" in data:
            lines = [str(line) for line in data.get("log_lines") or []]
            raise SwitchError(message, remedy, data.get("model"), lines)
        raise LlamarigError(message, remedy or ("journalctl --unit llamarigd" if not self.url else ""))

    def _how_to_be_allowed(self) -> str:
        return f"give a key that may, in {KEY}" if self.url else "try with sudo, or join the group llamarig"


def outcome_of(job: Job) -> dict[str, Any]:
    """Return what came of a job that is over.

    Raises:
        LlamarigError: it failed or was cancelled; of the kind, and with the exit code, that the daemon ended it with.

    """
    if job.get("state") == "succeeded":
        outcome = job.get("outcome")
        return outcome if isinstance(outcome, dict) else {}
    error = job.get("error") or {}
    message = str(error.get("message") or f"job {job.get('id')} {job.get('state')}")
    remedy, lines = str(error.get("remedy") or ""), [str(line) for line in error.get("log_lines") or []]
    if job.get("state") == "cancelled":
        raise CancelledError(message, remedy, error.get("serving"), lines)
    code = error.get("exit_code")
    for kind in (NotFoundError, NotAllowedError, BusyError):
        if code == kind.exit_code:
            raise kind(message, remedy)
    raise SwitchError(message, remedy, error.get("serving"), lines)


def _checked(url: str, key: str) -> None:
    """Refuse what is no address, and a key that no header can carry."""
    try:
        address = urlsplit(url)
        good = address.scheme in {"http", "https"} and address.hostname and (address.port or True)
    except ValueError:
        good = False
    if not good:
        raise LlamarigError(f"{url!r} is no address of a daemon", "name one as http://gpu01.example.com:8081")
    if not key.isascii() or any(not character.isprintable() for character in key):
        raise LlamarigError("the key for the daemon has characters that no key has", "llamarig keys add prints keys")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it says nothing"
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return "it does not run"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _read(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _parsed(response: http.client.HTTPResponse) -> Iterator[Event]:
    """Read server-sent events; one that was cut off is none."""
    name, number, data = "message", "", b""
    while line := response.readline(_LONGEST_LINE):
        text = line.rstrip(b"\r\n")
        field, _, value = text.partition(b":")
        value = value.removeprefix(b" ")
        if not text:
            if data:
                yield Event(name, _read(data), number)
            name, data = "message", b""
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field == b"id":
            number = value.decode("ascii", "replace")
        elif field == b"data":
            data += (b"\n" if data else b"") + value
