"""Where the API listens: on a socket for those who may change something, on one for everybody here, and on a port.

uvicorn answers, in one event loop in a thread of its own, so that nothing that the daemon does holds an answer up.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import stat
import struct
import threading
from collections.abc import Collection, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from llamarig.api.answers import raw, refusal
from llamarig.api.app import make_core
from llamarig.api.guard import SEALS, Bounded, Granted, Keyed, Metered, Named, Sealed
from llamarig.api.keys import KeyRing
from llamarig.api.pools import Pools
from llamarig.api.providers import Providers
from llamarig.api.reads import Reads
from llamarig.api.work import Work
from llamarig.config import paths

# After so long a connection that asks nothing is closed, and one that does not let itself be closed is cut.
_IDLE_SECONDS: Final = 15.0
_AGAIN_SECONDS: Final = 5.0
_GRACE_SECONDS: Final = 3
_START_SECONDS: Final = 20.0
# Of each place to listen, and of these for one client; who comes then is told so, as long as there are few of them.
_CONNECTIONS: Final = 256
_OF_ONE: Final = 128
_TOLD: Final = 32
_TOLD_SECONDS: Final = 2.0
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the API listens for the network, and by which names it is called there.

    Attributes:
        bind, port: the address; a port of 0 is any that is free.
        hosts: names, beside localhost and the address itself.

    """

    bind: str = "127.0.0.1"
    port: int = 8081
    hosts: Collection[str] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it."""
        return ipaddress.ip_address(self.bind).is_loopback

    def __str__(self) -> str:
        return f"[{self.bind}]:{self.port}" if ":" in self.bind else f"{self.bind}:{self.port}"


class Server:
    """The API at all its places. Sockets of files are there when :meth:`start` returns; the port may come later.

    Attributes:
        port: the one that it listens on; 0 while it listens on none.
        trouble: why it does not, in a sentence; empty where it does, or need not.

    """

    def __init__(self, providers: Providers, root: Path = Path("/"), address: Address | None = None) -> None:
        self._providers = providers
        self._root = root
        self._address = address
        self._ring = KeyRing(root)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ending = asyncio.Event()
        self._thread: threading.Thread | None = None
        self.port = 0
        self.trouble = ""

    def start(self) -> None:
        """Listen.

        Raises:
            OSError: a socket cannot be made.

        """
        with ExitStack() as failing:
            failing.callback(self._loop.close)
            places = []
            for path, mode in ((paths.MANAGE_SOCKET, 0o660), (paths.READ_SOCKET, 0o666)):
                places.append(_file(self._root, path, mode))
                failing.callback(places[-1].close)
            failing.pop_all()
        self._thread = threading.Thread(target=self._run, args=places, name="api", daemon=True)
        self._thread.start()
        self._ready.wait(_START_SECONDS)

    def stop(self, seconds: float) -> None:
        """Take no more requests, give those under way a moment, and end."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ending.set)
        if self._thread is not None:
            self._thread.join(seconds)

    def answers(self, seconds: float) -> bool:
        """Tell whether the event loop goes round within so many seconds."""
        gone_round = threading.Event()
        try:
            self._loop.call_soon_threadsafe(gone_round.set)
        except RuntimeError:
            return False
        return gone_round.wait(seconds)

    def _run(self, manage: socket.socket, read: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(manage, read))

    async def _serve(self, manage: socket.socket, read: socket.socket) -> None:
        with ExitStack() as closing:
            work: list[Coroutine[Any, Any, None]] = [
                self._listen(Sealed(Granted(self._core(closing), "manage")), manage),
                self._listen(Sealed(Metered(Granted(self._core(closing), "read"))), read),
                self._network(self._core(closing)),
            ]
            tasks = [asyncio.create_task(item) for item in work]
            self._loop.call_soon(self._ready.set)
            await asyncio.gather(*tasks)

    def _core(self, closing: ExitStack) -> ASGIApp:
        """Return the API for one place to listen: its threads and what it counts are its own."""
        pools = Pools()
        closing.callback(pools.close)
        reads = Reads(self._providers, pools, self._ending)
        return Bounded(make_core(reads, Work(self._providers, pools, self._ending)))

    async def _listen(self, app: ASGIApp, place: socket.socket) -> None:
        await _Listener(app, self._ending).serve([place])

    async def _network(self, core: ASGIApp) -> None:
        """Listen on the port, as soon as that can be."""
        address = self._address
        while address is not None and not self._ending.is_set():
            try:
                place = self._bound(address)
            except OSError as error:
                self._say(address, f"the API does not listen on {address}: {error.strerror or error}")
            else:
                self._say(address, "")
                self.port = place.getsockname()[1]
                keyed = Keyed(core, self._ring, always=not address.is_loopback)
                names = {address.bind, *address.hosts}
                await self._listen(Sealed(Named(Metered(keyed), names)), place)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await self._ending.wait()

    def _bound(self, address: Address) -> socket.socket:
        if not (address.is_loopback or self._ring.required):
            raise OSError("it is reached from elsewhere, and there is no key: sudo llamarig keys add NAME")
        place = socket.socket(socket.AF_INET6 if ":" in address.bind else socket.AF_INET)
        try:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            place.bind((address.bind, address.port))
            place.listen()
        except OSError:
            place.close()
            raise
        return place

    def _say(self, address: Address, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            _LOG.error("%s; its sockets on this host answer, and the port is tried again", trouble)
        if not trouble:
            _LOG.info("the API listens on %s", address)
        self.trouble = trouble


class _Listener(uvicorn.Server):
    """uvicorn on one socket, until the daemon ends; signals and the log are the daemon's."""

    def __init__(self, app: ASGIApp, ending: asyncio.Event) -> None:
        self._ending = ending
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                # A header is no proof of where a request comes from.
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=128,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )

    async def main_loop(self) -> None:
        """Wait for the end; the original looks for it ten times a second."""
        await self._ending.wait()


class _Connection(H11Protocol):
    """One connection; one that asks nothing is not kept for ever, and no client has all of them."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn warns of what is no HTTP: whoever likes could fill the journal.
        self.logger = _UVICORN
        self.client = self.client or _user(transport)
        self._is_full = False
        self._quiet_since = self.loop.time()
        here, client = len(self.connections), self.client and self.client[0]
        of_one = sum(
            isinstance(other, _Connection) and other.client is not None and other.client[0] == client
            for other in self.connections
        )
        # Each costs the daemon a file.
        if here > _CONNECTIONS + _TOLD or of_one > _OF_ONE + _TOLD:
            self._timer = self.loop.call_soon(transport.abort)
        elif here > _CONNECTIONS or of_one > _OF_ONE:
            self._is_full = True
            self._timer = self.loop.call_later(_TOLD_SECONDS, transport.abort)
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # A timer would keep all of it in memory until it fires.
        self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_full:
            self._end_with(_FULL)
        else:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
                return
        what = "this is no request in HTTP, or its head has more than 16 KiB"
        remedy = "GET /openapi.json says what can be asked, and how"
        self._end_with(raw(refusal(HTTPStatus.BAD_REQUEST, what, remedy), SEALS))

    def on_response_complete(self) -> None:
        self._quiet_since = self.loop.time()
        super().on_response_complete()

    def _end_with(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()

    def _watch(self) -> None:
        is_quiet = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing():
            self.transport.abort()
        elif is_quiet and self.loop.time() - self._quiet_since > _IDLE_SECONDS:
            self.transport.close()
        self._timer = self.loop.call_later(_IDLE_SECONDS / 2, self._watch)


_UVICORN: Final = logging.getLogger("llamarig.api.uvicorn")
_UVICORN.setLevel(logging.ERROR)
_PEER: Final = struct.Struct("3i")
_FULL: Final = raw(
    refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "there are too many connections",
        "close some, or come again later",
        {"Retry-After": "5"},
    ),
    SEALS,
)


def _user(transport: asyncio.Transport) -> tuple[str, int]:
    """Return the user at the other end of a UNIX socket, and the process, as the kernel says it."""
    here = transport.get_extra_info("socket")
    process, user, _ = _PEER.unpack(here.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return f"uid {user}", process


def _file(root: Path, path: str, mode: int) -> socket.socket:
    """Return a socket that is a file; one that an earlier daemon left is replaced."""
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.new")
    temporary.unlink(missing_ok=True)
    found = socket.socket(socket.AF_UNIX)
    try:
        # Not before its mode is right is it found where it is looked for.
        found.bind(str(temporary))
        temporary.chmod(mode)
        found.listen(128)
        if place.exists() and not stat.S_ISSOCK(place.stat().st_mode):
            raise FileExistsError(17, os.strerror(17), str(place))
        temporary.replace(place)
    except OSError:
        found.close()
        raise
    return found
