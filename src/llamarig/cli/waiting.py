"""Waiting for a job of the daemon, and saying meanwhile how far it is: Ctrl-C ends the wait and not the job."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TextIO

from llamarig.cli.output import fail
from llamarig.errors import ExitCode, LlamarigError
from llamarig.runtime.logline import plain
from llamarig.runtime.management import Job, Management, outcome_of

# On a terminal the line is written anew this often, so that its seconds go on; a log gets a sentence this often.
_BEAT_SECONDS: Final = 0.5
_LOG_SECONDS: Final = 5.0


class WaitEndedError(LlamarigError):
    """Somebody waits no more; the job goes on."""

    exit_code = ExitCode.INTERRUPTED


class Showing:
    """Says how far a job is: in one line that lives on a terminal, and line by line in a log."""

    def __init__(
        self, *, quiet: bool = False, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare.

        Args:
            quiet: say nothing.
            stream: where to say it, by default standard error.
            clock: the time, in seconds.

        """
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._clock = clock
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._job: Job = {}
        self._phase, self._since = "", clock()
        self._said, self._spoke = "", -_LOG_SECONDS
        self._done: set[str] = set()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> Self:
        if self._terminal and not self._quiet:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
            self._write("\r\x1b[K")

    def show(self, job: Job) -> None:
        """Say how far the job is now."""
        if self._quiet:
            return
        with self._lock:
            phase = str(job.get("phase") or "")
            if phase != self._phase:
                self._phase, self._since = phase, self._clock()
            self._job = job
            if self._terminal:
                self._draw()
            else:
                self._log()

    def _live(self) -> None:
        while not self._over.wait(_BEAT_SECONDS):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        """Write the one line anew."""
        if not self._job:
            return
        seconds = f"{self._phase} {self._clock() - self._since:.0f} s" if self._phase else ""
        parts = [what(self._job), seconds or str(self._job.get("state") or ""), str(self._job.get("text") or "")]
        line = plain(": ".join(part for part in parts if part))
        width = shutil.get_terminal_size((80, 24)).columns - 1
        self._write(f"\r{line[:width]}\x1b[K")

    def _log(self) -> None:
        """Write phases that are over, and what happens now where that is news and not said too often."""
        for name, seconds in (self._job.get("phases") or {}).items():
            if name not in self._done:
                self._done.add(name)
                self._write(f"  {name} {seconds:.1f} s\n")
                self._spoke = -_LOG_SECONDS
        text = plain(str(self._job.get("text") or ""))
        if text and text != self._said and self._clock() - self._spoke >= _LOG_SECONDS:
            self._said, self._spoke = text, self._clock()
            self._write(f"  {text}\n")

    def _write(self, text: str) -> None:
        # The terminal may be gone, and it may be unable to write what a model is called.
        with contextlib.suppress(OSError, UnicodeEncodeError):
            self._stream.write(text)
            self._stream.flush()


def what(job: Mapping[str, Any]) -> str:
    """Say what a job is for."""
    kind, service = str(job.get("kind") or "job"), job.get("service")
    if kind == "switch":
        return f"switch to {service}"
    return f"{kind} {service}" if service else kind


def follow(client: Management, job: Job, *, quiet: bool) -> Job:
    """Wait until a job is over, and return it.

    Raises:
        WaitEndedError: Ctrl-C was typed; the job goes on.
        LlamarigError: the daemon does not answer any more, or knows the job no more.

    """
    number, last = job["id"], job
    with Showing(quiet=quiet) as showing:
        try:
            showing.show(last)
            for last in client.follow(str(number)):
                showing.show(last)
        except KeyboardInterrupt:
            message = f"nobody waits any more, and job {number} ({what(job)}) goes on"
            remedy = f"llamarig jobs --follow {number} waits again, llamarig cancel {number} ends it"
            raise WaitEndedError(message, remedy) from None
    return last


def conclude(command: str, client: Management, job: Job, *, as_json: bool) -> tuple[dict[str, Any], list[str]]:
    """Wait for a job and return what came of it, for programs and for people; leave where nothing good did."""
    try:
        job = follow(client, job, quiet=as_json)
        outcome = outcome_of(job)
    except LlamarigError as error:
        fail(command, error, as_json=as_json, job=job)
    return {**outcome, "job": job}, told(outcome)


def told(outcome: Mapping[str, Any]) -> list[str]:
    """Say what came of a job."""
    phases = outcome.get("phases") or {}
    total = sum(phases.values())
    lines = [f"{plain(str(outcome.get('message') or 'done'))}{f' ({total:.1f} s)' if total else ''}"]
    if outcome.get("answer"):
        lines.append(f"  it answers: {str(outcome['answer']).strip()!r}")
    return lines
