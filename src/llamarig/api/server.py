"""Where the API listens: on a socket for those who may change something, on one for everybody here, and on a port.

uvicorn answers, in one event loop in a thread of its own, so that nothing that the daemon does holds an answer up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
import threading
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp

from llamarig.api.app import make_core
from llamarig.api.counts import Counted, Counts
from llamarig.api.grants import Granted, Keyed
from llamarig.api.keys import KeyRing
from llamarig.api.pools import Pools
from llamarig.api.providers import Providers
from llamarig.api.reads import Reads
from llamarig.api.work import Work
from llamarig.config import paths
from llamarig.config.address import Address
from llamarig.web.guard import Bounded, Metered, Named, Sealed
from llamarig.web.listener import Listener, bound

_AGAIN_SECONDS: Final = 5.0
_START_SECONDS: Final = 20.0
_LOG: Final = logging.getLogger(__name__)


class Server:
    """The API at all its places. Sockets of files are there when :meth:`start` returns; the port may come later.

    Attributes:
        port: the one that it listens on; 0 while it listens on none.
        trouble: why it does not, in a sentence; empty where it does, or need not.

    """

    def __init__(
        self,
        providers: Providers,
        root: Path = Path("/"),
        address: Address | None = None,
        counts: Counts | None = None,
    ) -> None:
        self._providers = providers
        self._counts = counts or Counts()
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
                self._listen(_sealed(Granted(self._core(closing), "manage")), manage),
                self._listen(_sealed(Metered(Granted(self._core(closing), "read"))), read),
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
        await Listener(Counted(app, self._counts), self._ending).serve([place])

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
                await self._listen(_sealed(Named(Metered(keyed), names, "agent_api_hosts")), place)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_SECONDS):
                    await self._ending.wait()

    def _bound(self, address: Address) -> socket.socket:
        if not (address.is_loopback or self._ring.required):
            raise OSError("it is reached from elsewhere, and there is no key: sudo llamarig keys add NAME")
        return bound(address.bind, address.port)

    def _say(self, address: Address, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            _LOG.error("%s; its sockets on this host answer, and the port is tried again", trouble)
        if not trouble:
            _LOG.info("the API listens on %s", address)
        self.trouble = trouble


def _sealed(app: ASGIApp) -> ASGIApp:
    return Sealed(app, "llamarigd")


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
