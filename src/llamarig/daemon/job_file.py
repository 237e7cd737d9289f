"""The last jobs, as they outlive the daemon."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from llamarig.config import paths
from llamarig.daemon.job import Job, JobState, failure
from llamarig.daemon.state import replace_file
from llamarig.errors import LlamarigError

WRITTEN: Final = 50
_SCHEMA: Final = 1
_LOG: Final = logging.getLogger(__name__)


class JobFile:
    """Jobs below ``/var/lib/llamarig/daemon``; what cannot be read or written is only forgotten sooner."""

    def __init__(self, root: Path) -> None:
        self._path = root / paths.DAEMON_STATE.lstrip("/") / "jobs.json"
        self._lock = threading.Lock()

    def read(self, now: float) -> list[Job]:
        """Return the jobs of the daemon before; what it had not ended is over with it."""
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            jobs = [Job.from_dict(item) for item in data["jobs"]]
            # One that cannot be told again would break whoever tells it.
            json.dumps([(job.said, job.to_dict()) for job in jobs])
        except FileNotFoundError:
            return []
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            _LOG.warning("%s cannot be read, and its jobs are forgotten: %s", self._path, error)
            return []
        ended = failure(LlamarigError("the daemon ended before this was over", "llamarig status"))
        over = {"state": JobState.FAILED, "text": ended["message"], "error": ended, "finished": now}
        return [job if job.state.is_over else replace(job, **over) for job in jobs]

    def write(self, jobs: Callable[[], Sequence[Job]]) -> None:
        """Replace the file by the last ones of what ``jobs`` returns when it is this call's turn."""
        with self._lock:
            content = {"schema_version": _SCHEMA, "jobs": [job.to_dict() for job in jobs()[-WRITTEN:]]}
            try:
                replace_file(self._path, json.dumps(content, separators=(",", ":")).encode())
            except OSError as error:
                _LOG.warning("jobs could not be written to %s: %s", self._path, error)
