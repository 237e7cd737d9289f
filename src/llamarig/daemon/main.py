"""llamarigd: the owner of what serves on this host. It is asked over the API, and by what it sees itself.

Its end stops no service: engines, doors and gates are units, links and files that outlive it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

from llamarig.api.counts import Counts
from llamarig.api.providers import Providers
from llamarig.api.server import Server
from llamarig.config import paths
from llamarig.config.address import MANAGEMENT_PORT, Address, read_address
from llamarig.daemon.board import Board
from llamarig.daemon.cards import NvmlCards
from llamarig.daemon.desk import Desk
from llamarig.daemon.gauges import Gauges
from llamarig.daemon.jobs import Jobs
from llamarig.daemon.memory import MemoryStore
from llamarig.daemon.metrics import Metrics
from llamarig.daemon.observer import Observer
from llamarig.daemon.request import Kind, Origin, Request
from llamarig.daemon.samples import Samples
from llamarig.daemon.state import StateStore
from llamarig.daemon.steps import Means
from llamarig.daemon.supervisor import Supervisor
from llamarig.daemon.switching import Switcher
from llamarig.daemon.tally import Tally
from llamarig.errors import LlamarigError
from llamarig.hardware.nvml_process import NvmlProcess
from llamarig.runtime.bus import BusUnits
from llamarig.runtime.door import LinkDoor
from llamarig.runtime.engine import EngineSocket
from llamarig.runtime.engines import HostEngines
from llamarig.runtime.gate import FileGate
from llamarig.runtime.journal import Journal
from llamarig.runtime.notify import log_to_systemd, notify, watchdog_seconds
from llamarig.runtime.specs import SpecStore

# How long a job that runs gets to come to its end when the daemon is told to end; TimeoutStopSec is longer.
GRACE_SECONDS: Final = 20.0
_API_SECONDS: Final = 5.0
# After so long an engine's metrics are of no use to the scrape that asked for them, which waited for a shorter time.
ENGINE_SECONDS: Final = 5.0
_ROUND_SECONDS: Final = 20.0
# Where the API listens if nobody says otherwise.
_ADDRESS: Final = Address("127.0.0.1", MANAGEMENT_PORT)
_LOG: Final = logging.getLogger(__name__)


class Daemon:
    """Everything that the daemon is made of, below a root."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.config_trouble = ""
        specs, state, memory = SpecStore(root), StateStore(root), MemoryStore(root)
        reading, engine, tally, counts = NvmlProcess().read, EngineSocket(root), Tally(), Counts()
        means = Means(
            specs=specs,
            units=BusUnits(root),
            engine=engine,
            door=LinkDoor(root),
            gate=FileGate(root),
            engines=HostEngines(root),
            cards=NvmlCards(reading, root),
        )
        self.jobs = Jobs(Switcher(state=state, means=means, memory=memory, tally=tally).perform, root)
        observer = Observer(
            units=means.units,
            engine=means.engine,
            engines=means.engines,
            door=means.door,
            gate=means.gate,
            specs=specs,
            cards=reading,
            root=root,
        )
        self.supervisor = Supervisor(
            observer=observer, specs=specs, state=state, submit=self.jobs.submit, busy=self._is_busy, tally=tally
        )
        self.board = Board(
            specs=specs,
            state=state,
            memory=memory,
            jobs=self.jobs,
            door=means.door,
            views=self.supervisor,
            warnings=self._warnings,
        )
        desk = Desk(self.jobs, self.board.known, self.board.serving)
        gauges = Gauges(root, specs, reading)
        self.samples = Samples(gauges.gpus)
        metrics = Metrics(
            board=self.board,
            views=self.supervisor,
            specs=specs,
            memory=memory,
            tally=tally,
            ask=lambda spec: engine.metrics(spec, ENGINE_SECONDS),
            requests=counts.read,
        )
        providers = Providers(self.board, desk, Journal(self.board.known), gauges, metrics, self.samples)
        self.server = Server(providers, root, self._address(), counts)

    def run(self, ending: threading.Event) -> None:
        """Serve until ``ending`` is set.

        Raises:
            OSError: it cannot listen on its own sockets.

        """
        self.server.start()
        self.jobs.start()
        self.jobs.submit(Request(Kind.RECONCILE, origin=Origin.START))
        self.supervisor.start()
        self.samples.start()
        notify("READY=1\nSTATUS=It looks after the services of this host.")
        _LOG.info("llamarigd looks after %s", ", ".join(self.board.known()) or "no service so far")
        wanted = watchdog_seconds()
        while not ending.wait(min(_ROUND_SECONDS, wanted / 3) if wanted else _ROUND_SECONDS):
            if self.jobs.is_alive and self.supervisor.is_alive and self.server.answers(_API_SECONDS):
                notify("WATCHDOG=1")
            else:
                _LOG.error("a part of the daemon does not go on; systemd will start it anew")
        self._end()

    def _end(self) -> None:
        """Come to an end: first nothing more is begun, then what runs gets its time, and at last nobody is answered."""
        notify("STOPPING=1\nSTATUS=It ends; services go on.")
        _LOG.info("told to end; services go on")
        self.supervisor.close()
        self.samples.close()
        if not self.jobs.close(GRACE_SECONDS):
            job = self.jobs.current()
            _LOG.warning("%s is not over: it is settled at the next start", job.said if job else "a job")
        self.server.stop(_API_SECONDS)

    def _is_busy(self) -> bool:
        return self.jobs.current() is not None or bool(self.jobs.waiting())

    def _warnings(self) -> list[str]:
        return [text for text in (self.config_trouble, self.server.trouble) if text]

    def _address(self) -> Address | None:
        """Return where the API listens for the network; nowhere where that cannot be read."""
        path = self.root / paths.DAEMON_FILE.lstrip("/")
        try:
            return read_address(json.loads(path.read_text(encoding="utf-8")), _ADDRESS)
        except FileNotFoundError:
            return _ADDRESS
        except (OSError, ValueError) as error:
            self.config_trouble = f"the API listens on no port: {path} cannot be read: {error}"
            _LOG.error("%s; run playbooks/site.yml for this host again", self.config_trouble)
            return None


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Be the only daemon of a host.

    Raises:
        LlamarigError: there is another.

    """
    place = root / paths.MANAGE_SOCKET.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    # Only the daemon may open it: whoever can could lock it, and keep the daemon from ever starting again.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(place.with_name("daemon.lock"), flags, 0o600)
    os.fchmod(descriptor, 0o600)
    with os.fdopen(descriptor, "r+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LlamarigError("another llamarigd runs on this host", "systemctl status llamarigd") from error
        yield


def main() -> NoReturn:
    """Run the daemon; ``LLAMARIG_ROOT`` is where the host's files are, by default ``/``."""
    log_to_systemd()
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    root, code = Path(os.environ.get("LLAMARIG_ROOT", "/")), 0
    try:
        with _alone(root):
            Daemon(root).run(ending)
    except LlamarigError as error:
        _LOG.error("%s: %s", error.message, error.remedy)
        code = int(error.exit_code)
    except OSError as error:
        _LOG.error("llamarigd cannot serve: %s", error)
        code = 1
    # A thread that waits for a driver that hangs must not keep the daemon from ending.
    logging.shutdown()
    os._exit(code)


if __name__ == "__main__":
    main()
