"""llamarig-exporter: what cards and host measure, and what the daemon says, for Prometheus.

It looks, and changes nothing. It ends by itself where only a new process can go on; systemd starts that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from starlette.responses import Response

from llamarig import __version__, release
from llamarig.errors import LlamarigError
from llamarig.exporter.collection import Collection
from llamarig.exporter.daemon import DaemonLink
from llamarig.exporter.pages import make_app
from llamarig.exporter.settings import Settings, read_settings
from llamarig.exporter.worker import Worker
from llamarig.hardware.nvml_meter import NvmlMeter
from llamarig.runtime.notify import log_to_systemd, notify, watchdog_seconds
from llamarig.web.answers import Answer
from llamarig.web.exposition import Exposition, Sample, exposition
from llamarig.web.listener import Listener, bound

# A collection computes for long; who is to be answered meanwhile does not wait for the usual 5 ms each time.
_SWITCH_SECONDS: Final = 0.0005
# How often it is looked whether the daemon answers, and systemd is told that the loop goes round.
_WATCH_SECONDS: Final = 5.0
_LOG: Final = logging.getLogger(__name__)


class Exporter:
    """Everything that the exporter is made of, below a root."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self._settings = settings
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        meter = NvmlMeter(root, throughput=settings.pcie_throughput)
        self._worker = Worker(meter, Collection(meter, root), self._end, settings.period_seconds)
        self._daemon = DaemonLink(root)
        self._daemon_up = False
        # What name servers call this host is not asked: they may be away, and are not who says what its names are.
        names = {socket.gethostname(), settings.address.bind, *settings.address.hosts}
        pages = {"/metrics": self._metrics, "/services": self._services, "/healthz": self._healthz}
        self._listener = Listener(make_app(pages, names), self._over)

    def _end(self) -> None:
        """Come to an end, from whichever thread."""
        self._loop.call_soon_threadsafe(self._over.set)

    async def run(self) -> str:
        """Serve until told to end; return why it cannot go on, empty where it was told.

        Raises:
            OSError: it cannot listen.

        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._over.set)
        address = self._settings.address
        place = bound(address.bind, address.port)
        self._worker.start()
        watching = asyncio.create_task(self._watch())
        port = place.getsockname()[1]
        _LOG.info("llamarig-exporter %s answers on %s port %d", __version__, address.bind, port)
        notify("READY=1\nSTATUS=It measures cards and host.")
        await self._listener.serve([place])
        notify("STOPPING=1")
        watching.cancel()
        return self._worker.failure

    async def _watch(self) -> None:
        """Say to systemd that this loop goes round, and look whether the daemon answers."""
        wanted = watchdog_seconds()
        pause = min(_WATCH_SECONDS, wanted / 3) if wanted else _WATCH_SECONDS
        while True:
            notify("WATCHDOG=1")
            self._daemon_up = await self._daemon.answers(pause)
            await asyncio.sleep(pause)

    async def _metrics(self) -> Response:
        own = [
            Sample("llamarig_exporter_info", (__version__, release() or ""), 1),
            Sample("llamarig_daemon_up", (), float(self._daemon_up)),
        ]
        return Exposition(self._worker.text() + exposition([*self._worker.samples(), *own]))

    async def _services(self) -> Response:
        return Exposition(await self._daemon.metrics())

    async def _healthz(self) -> Response:
        return Answer({"ok": True, "stuck_seconds": round(self._worker.stuck_seconds, 1)})


async def _serve(root: Path) -> str:
    return await Exporter(root, read_settings(root)).run()


def main() -> NoReturn:
    """Run the exporter; ``LLAMARIG_ROOT`` is where the host's files are, by default ``/``."""
    log_to_systemd()
    sys.setswitchinterval(_SWITCH_SECONDS)
    code = 0
    try:
        # Never closed: that would wait for threads, and one of them may wait for a daemon that hangs.
        loop = asyncio.new_event_loop()
        failure = loop.run_until_complete(_serve(Path(os.environ.get("LLAMARIG_ROOT", "/"))))
    except LlamarigError as error:
        failure = f"{error.message}: {error.remedy}"
    except OSError as error:
        failure = f"llamarig-exporter cannot serve: {error}"
    if failure:
        _LOG.error("%s", failure)
        code = 1
    # A thread that waits for a driver that hangs must not keep the exporter from ending.
    logging.shutdown()
    os._exit(code)


if __name__ == "__main__":
    main()
