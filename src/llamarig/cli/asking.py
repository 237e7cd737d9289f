"""The daemon, as a way back asks it: each thing is waited for, and Ctrl-C undoes it before the wait ends."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from llamarig.cli.waiting import WaitEndedError, follow
from llamarig.daemon.request import Outcome
from llamarig.errors import LlamarigError
from llamarig.runtime.management import Job, Management, outcome_of


class Asking:
    """Asks the daemon, and says meanwhile how far it is."""

    def __init__(self, client: Management, *, quiet: bool) -> None:
        self.client = client
        self.quiet = quiet

    def switch(self, service: str) -> Outcome:
        """Make a service serve.

        Raises:
            LlamarigError: it does not come to serve, or the daemon does not answer.

        """
        return self._done("/switch", {"model": service, "now": True, "queue": True})

    def reconcile(self) -> Outcome:
        """Make all that serve do so with their present specs; raises as :meth:`switch`."""
        return self._done("/reconcile", {"adopt": True})

    def _done(self, path: str, body: Mapping[str, Any]) -> Outcome:
        job = self.client.submit(path, body)
        try:
            said = outcome_of(follow(self.client, job, quiet=self.quiet))
        except WaitEndedError:
            self._undo(job)
            raise KeyboardInterrupt from None
        names = ("changed", "message", "phases")
        more = {name: said[name] for name in names if name in said}
        return Outcome(tuple(said.get("active") or ()), tuple(said.get("left") or ()), **more)

    def _undo(self, job: Job) -> None:
        """Cancel a job and wait until it is over: files are put back only when nobody starts anything with them."""
        with contextlib.suppress(LlamarigError):
            self.client.delete(f"/jobs/{job['id']}")
            follow(self.client, job, quiet=self.quiet)
