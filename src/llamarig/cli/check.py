"""What ``llamarig plan --check`` does and says: it asks the engine on this host, and compares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from llamarig.cli.output import table
from llamarig.config.spec import Spec
from llamarig.daemon.chores import held
from llamarig.daemon.comparison import Line, Verdict, compare
from llamarig.daemon.judging import Judging, Outcome, too_large
from llamarig.daemon.memory import Measured, MemoryStore, Record
from llamarig.daemon.state import StateStore
from llamarig.errors import ExitCode
from llamarig.hardware.declared import read_declared
from llamarig.hardware.gpus import Card, NvmlError, Reading
from llamarig.hardware.nvml_process import NvmlProcess
from llamarig.runtime.breakdown import read_log, start_log
from llamarig.runtime.cgroups import service_of
from llamarig.runtime.fit_params import Answer, DockerJudge, question
from llamarig.runtime.specs import SpecStore

# Of a card whose budget no plan says: what asking takes there, and what stays free.
_ROOM_MIB: Final = 1024

Say = Callable[[str], None]


def run(root: Path, service: str | None, say: Say) -> tuple[dict[str, Any], list[str], ExitCode]:
    """Ask the engine about the services of this host, or about one, for programs and for people.

    Raises:
        LlamarigError: no such service, or a switch is under way.

    """
    specs = SpecStore(root)
    chosen = [specs.get(service)] if service else specs.all()
    judging, store = _judging(root), MemoryStore(root)
    store.prune({spec.service for spec in specs.all()})
    declared = read_declared(root)
    names = {card.uuid: card.name for card in declared.cards if card.uuid} if declared else {}
    told = []
    for number, spec in enumerate(chosen, start=1):
        say(f"asking the engine about {spec.service} ({number} of {len(chosen)})")
        with StateStore(root).lock():
            outcome = judging.ask(spec, anew=True)
        record = _measured_now(specs, outcome.record, spec)
        told.append(_Told(root, replace(outcome, record=record), compare(spec, record, names)))
    code = max((one.code for one in told), key=_GRAVITY.index, default=ExitCode.OK)
    lines = _lines(told) if told else ["this host runs no service"]
    return {"services": [one.to_dict() for one in told]}, lines, code


def ask_new(root: Path, say: Say, *, dry: bool, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Ask the engine about every service that it was never asked about and that never served; remember its word.

    Returns which were asked, and what a person should look at. With ``dry`` it says which would be asked. Whoever holds
    the host, as the daemon while it switches, is waited for.

    Raises:
        BusyError: they do not let go of it.
        TooLargeError: the engine says that a service cannot fit; what serves goes on as it does.

    """
    specs, judging = SpecStore(root), _judging(root)
    every = specs.all()
    new = [spec for spec in every if not judging.is_known(spec) and judging.store.read(spec).measured is None]
    if dry:
        return {"asked": [], "would_ask": [spec.service for spec in new], "warnings": []}
    asked, warnings = [], []
    for spec in new:
        say(f"asking the engine about {spec.service}")
        with held(StateStore(root), say, sleep):
            outcome = judging.ask(spec)
        asked += [spec.service] if outcome.asked else []
        warnings += [outcome.warning] if outcome.warning else []
    found = [(spec, Outcome(spec, judging.store.read(spec), asked=False).shortfalls) for spec in every]
    refused = [(spec, texts) for spec, texts in found if texts]
    if refused:
        active = StateStore(root).read().names
        raise too_large(refused, f"what serves goes on: {', '.join(active)}" if active else "")
    return {"asked": asked, "would_ask": [], "warnings": warnings}


def busy_cards(root: Path) -> Callable[[Spec], str]:
    """Return what says why the engine cannot be asked about a service's cards now; empty where it can."""
    return _Cards(root).busy


def _judging(root: Path) -> Judging:
    return Judging(SpecStore(root), MemoryStore(root), DockerJudge(), _Cards(root).busy)


def _measured_now(specs: SpecStore, record: Record, spec: Spec) -> Record:
    """Read what a service that runs with this spec allocated; to remember it is the daemon's, as its directory is."""
    running = specs.running(spec.service)
    if running is None or running.spec_sha256 != spec.spec_sha256:
        return record
    parts = read_log(start_log(spec.service))
    if parts is None:
        return record
    return replace(record, measured=Measured(round(time.time()), parts))


@dataclass(frozen=True)
class _Cards:
    """The cards of this host, read once and only where somebody asks."""

    root: Path

    @cached_property
    def _reading(self) -> Reading | None:
        try:
            return NvmlProcess().read()
        except NvmlError:
            return None  # the container of the judge says what is wrong

    def busy(self, spec: Spec) -> str:
        """Say why the engine cannot be asked about a service now: asking takes room on its cards, as serving does."""
        if not spec.gpus:
            return ""
        specs = SpecStore(self.root)
        running = [found for one in specs.all() if (found := specs.running(one.service))]
        holders = [one.service for one in running if set(one.gpus) & set(spec.gpus)]
        if holders and question(spec).fits_itself:
            return f"strategy fit lays it out by what is free, and {', '.join(holders)} holds its cards"
        cards = {card.uuid: card for card in self._reading.cards} if self._reading else {}
        room = {part.uuid: part.kept + part.context for part in spec.memory.devices} if spec.memory else {}
        for uuid in spec.gpus:
            need = room.get(uuid, _ROOM_MIB)
            if uuid in cards and cards[uuid].memory_mib - cards[uuid].memory_used_mib < need:
                free = cards[uuid].memory_mib - cards[uuid].memory_used_mib
                beside = f" beside {', '.join(holders)}" if holders else ""
                return f"{cards[uuid].name} has {free} MiB free{beside}, and asking needs {need}"
        return ""

    def held(self, spec: Spec) -> dict[str, int]:
        """Return the MiB that the driver counts for a service's processes, by card; nothing where it does not say."""
        found = {}
        for card in self._reading.cards if self._reading else ():
            used = _used(card, spec.service, self.root)
            if card.uuid in spec.gpus and used is not None:
                found[card.uuid] = used
        return found


def _used(card: Card, service: str, root: Path) -> int | None:
    own = [process.used_mib for process in card.processes or () if service_of(process.pid, root) == service]
    return sum(mib for mib in own if mib is not None) if own and None not in own else None


_GRAVITY: Final = (ExitCode.OK, ExitCode.WARNINGS, ExitCode.UNHEALTHY)


@dataclass(frozen=True)
class _Told:
    """One service: what is known, and what it comes to."""

    root: Path
    outcome: Outcome
    lines: list[Line]

    @cached_property
    def held(self) -> dict[str, int]:
        """MiB of the service's processes by card, as the driver counts them; asked only where it runs."""
        return _Cards(self.root).held(self.outcome.spec) if self._runs and self.outcome.spec.gpus else {}

    @property
    def _runs(self) -> bool:
        return SpecStore(self.root).running(self.outcome.spec.service) is not None

    @property
    def code(self) -> ExitCode:
        """What the service adds to the exit code."""
        judged = self.outcome.record.engine
        verdicts = {line.verdict for line in self.lines}
        if verdicts & {Verdict.TOO_LARGE, Verdict.NOT_USED} or self.outcome.shortfalls:
            return ExitCode.UNHEALTHY
        if judged is not None and judged.answer is Answer.REFUSED:
            return ExitCode.UNHEALTHY
        if Verdict.DIFFERS in verdicts or self.outcome.why_not or self.outcome.warning:
            return ExitCode.WARNINGS
        return ExitCode.OK

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        outcome = self.outcome
        return {
            "service": outcome.spec.service,
            "strategy": outcome.spec.strategy,
            "asked": outcome.asked,
            "why_not": outcome.why_not,
            "note": outcome.note,
            "devices": [{**asdict(line), "verdict": line.verdict.value} for line in self.lines],
            "process_mib": self.held,
            "record": outcome.record.to_dict(),
        }

    def notes(self) -> list[str]:
        """Return what a person should know beside the table."""
        outcome, judged = self.outcome, self.outcome.record.engine
        name = outcome.spec.service
        found = [line.text for line in self.lines if line.text]
        found += [text for text in outcome.shortfalls if text not in found]
        if outcome.why_not:
            old = f"; the figures of {_day(judged.time)} stand" if judged else ""
            found.append(f"the engine was not asked: {outcome.why_not}{old}")
        elif outcome.warning:
            found.append(outcome.warning.removeprefix(f"{name}: "))
        if outcome.note:
            found.append(outcome.note)
        found += [
            f"llama-fit-params itself says {line.said:.0f} MiB for {line.where}; {line.engine:.0f} is that without the "
            "logits that a server does not reserve, and with its vision projector"
            for line in self.lines
            if line.said is not None and line.engine is not None
        ]
        if judged and judged.unseen:
            found.append(f"the engine's tool knows no {', '.join(judged.unseen)}: what they take it does not say")
        return [f"{name}: {text}" for text in [*found, *self._processes()]]

    def _processes(self) -> Iterator[str]:
        """Say what the driver counts of the running process, which has a CUDA context beside its buffers."""
        spec = self.outcome.spec
        contexts = {part.uuid: part.context for part in spec.memory.devices} if spec.memory else {}
        for uuid, line in zip(spec.gpus, self.lines, strict=False):
            if uuid in self.held and line.measured is not None:
                beside = self.held[uuid] - line.measured - line.vision
                planned = f", and {contexts[uuid]} are planned for that" if uuid in contexts else ""
                text = (
                    f"on {line.where} the driver counts {self.held[uuid]} MiB, {beside:.0f} of them beside the buffers"
                )
                yield f"{text}{planned}"


def _lines(told: Sequence[_Told]) -> list[str]:
    head = ("SERVICE", "DEVICE", "PREDICTED", "ENGINE", "MEASURED", "DIFFERENCE", "MAY TAKE", "VERDICT")
    rows = [
        (
            one.outcome.spec.service if first == 0 else "",
            line.where,
            _mib(line.predicted),
            _mib(line.engine),
            _mib(line.measured),
            _difference(line),
            _mib(line.budget),
            line.verdict.value,
        )
        for one in told
        for first, line in enumerate(one.lines)
    ]
    notes = [note for one in told for note in one.notes()]
    return ["MiB of weights, cache and compute buffers", *table(head, rows), *([""] if notes else []), *notes]


def _mib(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.0f}"


def _difference(line: Line) -> str:
    """Return by how much what is known best differs from what was known first."""
    known = [figure for figure in (line.predicted, line.engine, line.measured) if figure is not None]
    return f"{round(known[-1] - known[0]):+d}" if len(known) > 1 else "-"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
