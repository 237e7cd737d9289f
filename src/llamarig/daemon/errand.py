"""A call that may hang, made in a thread of its own, so that nobody waits for it longer than he wants to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Errand(Generic[T]):
    """One call, begun at once; the thread does not keep the process from ending.

    ``began`` is when, by the clock of whoever sends it.
    """

    def __init__(self, call: Callable[[], T], began: float = 0.0) -> None:
        self.began = began
        self._call = call
        self._over = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="errand", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait for its end at most so long; returns whether it has come."""
        return self._over.wait(max(0.0, seconds))

    @property
    def is_over(self) -> bool:
        """Whether the call has returned."""
        return self._over.is_set()

    def result(self) -> T | None:
        """Return what the call did, None while it is not over.

        Raises:
            BaseException: what the call raised.

        """
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            self._error = error
        self._over.set()
