"""What changes something: asking for it, waiting for it, cancelling it, and following it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp

from llamarig.api.pools import Pools
from llamarig.api.providers import Data, Providers
from llamarig.api.sse import Stream, event, left
from llamarig.api.waking import Ears
from llamarig.errors import BusyError, ExitCode
from llamarig.web.answers import Answer, refusal, refused

if TYPE_CHECKING:
    from llamarig.api.app import Asked

OVER: Final = frozenset({"succeeded", "failed", "cancelled"})
# Of errors that are no failure of what was asked for: it was not there, or it was not its turn.
_STATUS: Final = {ExitCode.NOT_FOUND: HTTPStatus.NOT_FOUND, ExitCode.BUSY: HTTPStatus.CONFLICT}


class Work:
    """Answers what changes something."""

    def __init__(self, providers: Providers, pools: Pools, ending: asyncio.Event) -> None:
        self._board = providers.board
        self._desk = providers.desk
        self._pools = pools
        self._ending = ending

    async def switch(self, asked: Asked) -> ASGIApp:
        """Make a service serve."""
        return await self._work("switch", asked)

    async def stop(self, asked: Asked) -> ASGIApp:
        """End a service, or all."""
        return await self._work("stop", asked)

    async def reconcile(self, asked: Asked) -> ASGIApp:
        """Make what serves what should serve."""
        return await self._work("reconcile", asked)

    async def cancel(self, asked: Asked) -> ASGIApp:
        """Cancel a job."""
        name = asked.path["job"]
        taken = await self._pools.asking(self._desk.cancel, name)
        job = self._desk.job(name)
        if taken:
            return Answer({"job": job}, HTTPStatus.ACCEPTED)
        why = f"job {name} is over: it {job['state']}"
        return refusal(HTTPStatus.CONFLICT, why, "GET /status says what serves", job=job)

    async def job_events(self, asked: Asked) -> ASGIApp:
        """Follow a job until it is over."""
        name, after = asked.path["job"], asked.after
        job = self._desk.job(name)
        if after is not None and job["state"] in OVER and self._desk.told(name) <= after:
            # By this a browser knows that it need not come back.
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return Stream(lambda: self._steps(name, after), self._ending)

    async def _work(self, kind: str, asked: Asked) -> ASGIApp:
        with closing(Ears(self._desk)) as ears:
            try:
                job = await self._pools.asking(self._desk.ask, kind, asked.body, asked.origin)
            except BusyError as error:
                status = self._board.status()
                return refused(error, state=status["state"], job=status["job"])
            if not asked.query["wait"]:
                return Answer({"job": job}, HTTPStatus.ACCEPTED, {"Location": f"/jobs/{job['id']}"})
            return self._said(await self._end_of(job, ears, asked))

    async def _end_of(self, job: Data, ears: Ears, asked: Asked) -> Data:
        """Wait until a job is over, whoever asked has left, or the daemon ends; returns it as it is then."""
        gone = [asyncio.create_task(left(asked.receive)), asyncio.create_task(self._ending.wait())]
        try:
            while job["state"] not in OVER and not any(task.done() for task in gone):
                happening = asyncio.create_task(ears.wait(1.0 if ears.lost else None))
                await asyncio.wait([*gone, happening], return_when=asyncio.FIRST_COMPLETED)
                happening.cancel()
                ears.take()
                job = self._desk.job(job["id"])
        finally:
            for task in gone:
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
        return job

    def _said(self, job: Data) -> ASGIApp:
        """Return how a job ended, in the seeds' words and ours."""
        status = self._board.status()
        now: dict[str, Any] = {key: status[key] for key in ("model", "model_name", "state")}
        if job["state"] == "succeeded":
            return Answer({"success": True, **now, "job": job})
        if job["state"] not in OVER:
            return refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the daemon is ending, and what was asked for is not over",
                f"GET /jobs/{job['id']} when it is back",
                {"Retry-After": "5"},
                job=job,
            )
        error = job["error"]
        failed = _STATUS.get(error["exit_code"], HTTPStatus.BAD_GATEWAY)
        if job["state"] == "cancelled":
            failed = HTTPStatus.CONFLICT
        said = {"error": error["message"], "remedy": error["remedy"], "log_lines": error["log_lines"]}
        return Answer({"success": False, **said, **now, "job": job}, failed)

    async def _steps(self, name: str, after: int | None) -> AsyncGenerator[bytes, None]:
        """Yield a job as it goes on; to one who comes back, what happened since, or how it stands."""
        with closing(Ears(self._desk, after)) as ears:
            told, job = self._desk.told(name), self._desk.job(name)
            known = after if after is not None and after <= told else -1
            for step in ears.take():
                if step.data["id"] == name and step.id > known:
                    known, job = step.id, step.data
                    yield event("job", job, known)
            if known < told:
                known, job = told, self._desk.job(name)
                yield event("job", job, known)
            while job["state"] not in OVER and not ears.lost:
                await ears.wait()
                for step in ears.take():
                    if step.data["id"] == name and step.id > known:
                        known, job = step.id, step.data
                        yield event("job", job, known)
