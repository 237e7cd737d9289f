"""Asking the engine about the services of a host: what was asked once is remembered until spec or image change."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from llamarig.config.spec import Spec
from llamarig.daemon.comparison import remedy, shortfalls
from llamarig.daemon.memory import Judged, MemoryStore, Record
from llamarig.errors import LlamarigError
from llamarig.runtime.fit_params import Answer, Judge, JudgeError
from llamarig.runtime.specs import SpecStore

_BLOCK: Final = 512
# Less of a file on disk than this, and it is a hole with a header: it can be judged, not served.
_SPARSE: Final = 0.9


class TooLargeError(LlamarigError):
    """The engine says that a service cannot fit; the message names host, service and device, with the numbers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of a service after it was asked about.

    Attributes:
        spec: of the service.
        record: all that is known, of now or of before.
        asked: whether the engine was asked now.
        why_not: why it was not, where nothing is remembered either or it was to be asked anew.
        note: what to know of the answer.

    """

    spec: Spec
    record: Record
    asked: bool
    why_not: str = ""
    note: str = ""

    @property
    def shortfalls(self) -> list[str]:
        """Where the engine says that there is too little."""
        return shortfalls(self.spec, self.record)

    @property
    def warning(self) -> str:
        """What a person should look at although nothing is refused; empty where there is nothing."""
        judged = self.record.engine
        if judged is None:
            return f"{self.spec.service}: the engine was not asked: {self.why_not}"
        if judged.answer in {Answer.REFUSED, Answer.ENGINE_BUG}:
            return f"{self.spec.service}: the engine gave no estimate ({judged.answer.value}): {judged.text}"
        seen = len(judged.corrected.devices) if judged.corrected else len(self.spec.gpus)
        if seen < len(self.spec.gpus):
            return f"{self.spec.service}: the engine sees {seen} of the service's {len(self.spec.gpus)} cards"
        return ""


class Judging:
    """The engine's word on each spec of a host.

    Args:
        specs: the specs and files of the host.
        store: where answers are kept.
        judge: asks the engine.
        busy: says why the cards of a service cannot be asked about now, empty where they can.
        now: the time.

    """

    def __init__(
        self,
        specs: SpecStore,
        store: MemoryStore,
        judge: Judge,
        busy: Callable[[Spec], str] = lambda _: "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self.specs = specs
        self.store = store
        self.judge = judge
        self.busy = busy
        self.now = now

    def is_known(self, spec: Spec) -> bool:
        """Say whether the engine's word on a spec is remembered; an answer without the cards is not its last."""
        judged = self.store.read(spec).engine
        if judged is None:
            return False
        return judged.corrected is None or len(judged.corrected.devices) >= len(spec.gpus)

    def ask(self, spec: Spec, *, anew: bool = False) -> Outcome:
        """Return the engine's word on a spec; with ``anew`` it is asked although it was before."""
        record = self.store.read(spec)
        if not anew and self.is_known(spec):
            return Outcome(spec, record, asked=False)
        why_not = self._unready(spec) or self.busy(spec)
        if why_not:
            return Outcome(spec, record, asked=False, why_not=why_not)
        try:
            estimate = self.judge.estimate(spec)
        except JudgeError as error:
            return Outcome(spec, record, asked=False, why_not=f"{error.message}; {error.remedy}")
        judged = Judged.of(spec, estimate, self.now())
        self.store.keep_judged(spec, judged)
        record = replace(record, engine=judged)
        return Outcome(spec, record, asked=True, note=self._holes(spec))

    def _unready(self, spec: Spec) -> str:
        for item in spec.files:
            path = self.specs.path(item.path)
            if not path.is_file():
                return f"{item.path} is not there yet"
            if path.stat().st_size != item.bytes:
                return f"{item.path} has {path.stat().st_size} of {item.bytes} bytes"
        return ""

    def _holes(self, spec: Spec) -> str:
        for item in spec.files:
            on_disk = self.specs.path(item.path).stat().st_blocks * _BLOCK
            if on_disk < _SPARSE * item.bytes:
                return f"{item.path} is sparse: {on_disk >> 20} of {item.bytes >> 20} MiB are on disk"
        return ""


def too_large(found: list[tuple[Spec, list[str]]], note: str = "") -> TooLargeError:
    """Return the error that names every service that does not fit, and on which device; ``note`` comes last."""
    lines = [f"{spec.host}, service {spec.service!r}: {text}" for spec, texts in found for text in texts]
    head = "the engine says that it does not fit, and nothing was started:"
    message = "\n".join([head, *lines, *([note] if note else [])])
    return TooLargeError(message, "; ".join(dict.fromkeys(remedy(spec) for spec, _ in found)))
