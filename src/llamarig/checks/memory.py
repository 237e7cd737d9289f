"""The check of predicted against real memory: a plan that is wrong is found here before a card is full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from llamarig.checks.box import Box
from llamarig.checks.result import CheckResult, fail, ok, warn
from llamarig.config.spec import Spec
from llamarig.daemon.comparison import Line, Verdict, compare
from llamarig.daemon.memory import Measured, MemoryStore, Record
from llamarig.errors import LlamarigError
from llamarig.runtime.breakdown import read_log, start_log
from llamarig.runtime.cgroups import service_of

_NAME: Final = "memory-plan"
_LOOK: Final = "sudo llamarig plan --check shows the figures; see docs/explanation/engine-as-judge.md"


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one service, and what it comes to."""

    spec: Spec
    record: Record
    lines: list[Line]
    is_active: bool


def check_memory_plan(box: Box, log: Callable[[str], list[str]] = start_log) -> CheckResult | None:
    """What services take is what was predicted, and on the cards that they were given.

    Left out where nothing was predicted, estimated or measured, and where specs cannot be read, which check specs
    tells. ``log`` returns what a running service logged first.
    """
    try:
        known = _everything(box, log)
    except LlamarigError:
        return None
    if not known:
        return None
    unused: list[str] = []
    differing: list[str] = []
    for one in known:
        for line in one.lines:
            if line.verdict in {Verdict.OK, Verdict.UNKNOWN}:
                continue
            (unused if _is_unused(box, one, line) else differing).append(f"{one.spec.service} on {line.text}")
    if unused:
        remedy = "see checks gpus and compute, and whether the engine's image is built for these cards"
        return fail(_NAME, "; ".join([*unused, *differing]), remedy)
    if differing:
        return warn(_NAME, "; ".join(differing), _LOOK)
    return ok(_NAME, _said(known))


def _everything(box: Box, log: Callable[[str], list[str]]) -> list[_Known]:
    active, store = {spec.service for spec in box.active()}, MemoryStore(box.root)
    known = []
    for spec in box.specs.all():
        is_active = spec.service in active
        record = store.read(spec)
        if is_active:
            record = _running(box, spec, record, log)
        if record.predicted or record.engine or record.measured:
            known.append(_Known(spec, record, compare(spec, record, _names(box)), is_active))
    return known


def _is_unused(box: Box, one: _Known, line: Line) -> bool:
    """Say whether an active service really does not use a card; the driver's word is stronger than the log's."""
    if line.verdict is not Verdict.NOT_USED or not one.is_active or one.record.measured is None:
        return False
    return not _holds(box, one.spec, line.where)


def _running(box: Box, spec: Spec, record: Record, log: Callable[[str], list[str]]) -> Record:
    """Return the record with what runs now, which may be another start than the one that was recorded."""
    running = box.specs.running(spec.service)
    if running is None or running.spec_sha256 != spec.spec_sha256:
        return record
    parts = read_log(log(spec.service))
    return replace(record, measured=Measured(0, parts)) if parts is not None else record


def _holds(box: Box, spec: Spec, where: str) -> bool:
    """Say whether the driver counts memory of a service on a card, whatever the engine's log says."""
    named = _names(box)
    for card in box.reading.cards if box.reading else ():
        if card.uuid in spec.gpus and where in {card.uuid, named.get(card.uuid)}:
            owners = {service_of(process.pid, box.root) for process in card.processes or ()}
            return spec.service in owners
    return False


def _names(box: Box) -> dict[str, str]:
    return {card.uuid: card.name for card in box.declared.cards if card.uuid}


def _said(known: list[_Known]) -> str:
    measured = [
        f"{one.spec.service} {', '.join(_figures(line) for line in one.lines)}"
        for one in known
        if one.record.measured is not None
    ]
    rest = [one.spec.service for one in known if one.record.measured is None]
    return "; ".join([*measured, *([f"never measured: {', '.join(rest)}"] if rest else [])])


def _figures(line: Line) -> str:
    planned = line.engine if line.predicted is None else line.predicted
    by = "estimated" if line.predicted is None else "predicted"
    text = f"{line.where} {line.measured:.0f} MiB" if line.measured is not None else f"{line.where} not measured"
    return f"{text} ({planned:.0f} {by})" if planned is not None else text
