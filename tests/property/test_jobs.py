"""Whatever is asked for, cancelled and ended, jobs come to their end one at a time and in their order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llamarig.daemon.job import JobState
from llamarig.daemon.jobs import WAITING, BusyJobError, Jobs
from llamarig.daemon.request import Kind, Origin, Outcome, Reporter, Request
from llamarig.errors import CancelledError, SwitchError
from tests.unit.daemon.acting import SECONDS, Acting

REQUESTS = st.builds(
    Request,
    st.sampled_from(Kind),
    st.sampled_from([*"abcdefgh", None]),
    origin=st.sampled_from(Origin),
    now=st.booleans(),
)


def obedient(reporter: Reporter) -> Outcome:
    """End well, unless that is not wanted any more."""
    if reporter.cancelled():
        raise CancelledError("cancelled", "", None, [])
    return Outcome(("chat",))


class Queue(RuleBasedStateMachine):
    """A model of the queue beside the queue: names in their order, and which of them was cancelled."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.acting = Acting()
        self.jobs = Jobs(self.acting.perform, Path(self.directory.name))
        self.jobs.start()
        self.running: str | None = None
        self.waiting: list[str] = []
        self.expected: dict[str, JobState] = {}
        self.cancelled = False

    @rule(request=REQUESTS, queue=st.booleans())
    def submit(self, request: Request, queue: bool) -> None:
        before = list(self.waiting)
        if self.running and not queue:
            with pytest.raises(BusyJobError) as caught:
                self.jobs.submit(request, queue=False)
            assert caught.value.job.id == self.running
            return
        try:
            job = self.jobs.submit(request, queue=queue)
        except BusyJobError:
            event("full")
            full = len(before) >= WAITING  # more where health asked
            assert full
            return
        if job.id in self.expected:
            assert job.id == before[-1], "only the last one that waits is joined"
            return
        self.waiting.append(job.id)
        self.expected[job.id] = JobState.QUEUED
        self._next()

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        # By its place: names are drawn by chance.
        name = list(self.expected)[data.draw(st.integers(0, len(self.expected) - 1))]
        assert self.jobs.cancel(name) == (not self.expected[name].is_over)
        if name in self.waiting:
            self.waiting.remove(name)
            self.expected[name] = JobState.CANCELLED
        self.cancelled = self.cancelled or name == self.running

    @precondition(lambda self: self.running)
    @rule(how=st.sampled_from(["well", "badly", "strangely"]))
    def end(self, how: str) -> None:
        assert self.running
        ends: dict[str, Any] = {"badly": SwitchError("no", "", None, []), "strangely": ZeroDivisionError()}
        self.acting.end(ends.get(how, obedient))
        state = JobState.FAILED
        if how == "well":
            state = JobState.CANCELLED if self.cancelled else JobState.SUCCEEDED
        assert self.jobs.wait(self.running, SECONDS).state is state
        self.expected[self.running] = state
        self.running = None
        self._next()

    def _next(self) -> None:
        if self.running is None and self.waiting:
            self.acting.wait_for_start()
            self.running = self.waiting.pop(0)
            self.expected[self.running] = JobState.RUNNING
            self.cancelled = False

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "jobs"):
            return
        current = self.jobs.current()
        assert (current.id if current else None) == self.running
        assert [job.id for job in self.jobs.waiting()] == self.waiting
        found = {job.id: job for job in self.jobs.all()}
        assert {name: job.state for name, job in found.items()} == self.expected
        assert self.acting.together <= 1
        assert all((job.finished is not None) == job.state.is_over for job in found.values())
        assert all((job.error is not None) == (job.state.is_over and job.outcome is None) for job in found.values())

    def teardown(self) -> None:
        if hasattr(self, "jobs"):
            self.jobs.close(0)
            self.acting.end()
            assert self.jobs.close(SECONDS)
            self.directory.cleanup()


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=50, stateful_step_count=50)
