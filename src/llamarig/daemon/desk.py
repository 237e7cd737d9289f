"""Where the daemon is asked for something: the API's words become requests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from llamarig.daemon.feed import Subscription
from llamarig.daemon.jobs import Jobs
from llamarig.daemon.request import Kind, Origin, Request
from llamarig.errors import NotFoundError


class Desk:
    """Takes requests of the API's clients.

    ``known`` returns the services that the host runs, and ``serving`` those that should be serving, which may be
    others while it is being changed.
    """

    def __init__(
        self, jobs: Jobs, known: Callable[[], Collection[str]], serving: Callable[[], Collection[str]]
    ) -> None:
        self._jobs = jobs
        self._known = known
        self._serving = serving

    def ask(self, kind: str, body: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """Ask for a ``switch``, a ``stop`` or a ``reconcile``, and return its job.

        Only a switch is refused while something else is under way, unless it says ``queue``: the others say how things
        should be at last, and may as well wait.

        Raises:
            NotFoundError: no such service here.
            BusyError: something else is under way, or too much waits.

        """
        service = body.get("model")
        may = {*self._known(), *(self._serving() if kind == Kind.STOP else ())}
        if service is not None and service not in may:
            names = ", ".join(sorted(may)) or "none"
            raise NotFoundError(f"this host runs no service {service!r}", f"choose one of: {names}")
        request = Request(
            Kind(kind), service, Origin(origin), now=body.get("now", False), adopt=body.get("adopt", False)
        )
        return self._jobs.submit(request, queue=body.get("queue", kind != Kind.SWITCH)).to_dict()

    def cancel(self, job: str) -> bool:
        """Cancel a job; False where it is over.

        Raises:
            NotFoundError: there is no such job.

        """
        return self._jobs.cancel(job)

    def job(self, job: str) -> dict[str, Any]:
        """Return a job.

        Raises:
            NotFoundError: there is no such job.

        """
        return self._jobs.get(job).to_dict()

    def jobs(self) -> list[dict[str, Any]]:
        """Return the last jobs, oldest first."""
        return [job.to_dict() for job in self._jobs.all()]

    def told(self, job: str) -> int:
        """Return the number of the last thing that happened to a job."""
        return self._jobs.told(job)

    def listen(self, wake: Callable[[], object], after: int | None = None) -> Subscription:
        """Listen to what happens to jobs."""
        return self._jobs.subscribe(wake, after)
