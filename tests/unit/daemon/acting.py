"""A Switcher of which a test says when and how it ends."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from llamarig.daemon.request import Outcome, Reporter, Request

SECONDS = 20
Script = Callable[[Reporter], Outcome]


class Acting:
    """``perform`` waits for :meth:`end`; ``began`` are the requests, in the order in which they were begun."""

    def __init__(self) -> None:
        self.began: list[Request] = []
        self.reporter: Reporter | None = None
        self.together = 0
        self._inside = 0
        self._scripts: queue.Queue[Script] = queue.Queue()
        self._started: queue.Queue[Request] = queue.Queue()
        self._lock = threading.Lock()

    def perform(self, request: Request, reporter: Reporter) -> Outcome:
        with self._lock:
            self._inside += 1
            self.together = max(self.together, self._inside)
        self.began.append(request)
        self.reporter = reporter
        self._started.put(request)
        try:
            return self._scripts.get(timeout=SECONDS)(reporter)
        finally:
            with self._lock:
                self._inside -= 1

    def wait_for_start(self) -> Request:
        """Wait until the next request is begun."""
        return self._started.get(timeout=SECONDS)

    def end(self, script: Script | BaseException | None = None) -> None:
        """Let the request that runs, or the next one, end: by a script, an error, or well."""

        def raises(_: Reporter) -> Outcome:
            assert isinstance(script, BaseException)
            raise script

        if isinstance(script, BaseException):
            self._scripts.put(raises)
        else:
            self._scripts.put(script or (lambda _: Outcome(("chat",), changed=True, message="chat serves")))
