"""Whether every service still fits with a candidate, as far as the candidate's own llama-fit-params says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from llamarig.config.spec import Spec
from llamarig.daemon.comparison import shortfalls
from llamarig.daemon.memory import Judged, Record, predicted
from llamarig.runtime.breakdown import Breakdown
from llamarig.runtime.fit_params import Answer, Judge, JudgeError


@dataclass(frozen=True, slots=True)
class Need:
    """What a service would take with a candidate.

    Attributes:
        service: its name.
        trouble: why it would not run; empty where it would.
        unasked: why nobody could be asked; empty where one could.
        note: what changes, for people.
        figures: MiB of each device and of the host, with the old engine and with the candidate.

    """

    service: str
    trouble: str = ""
    unasked: str = ""
    note: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def need(spec: Spec, candidate: str, judge: Judge, old: Callable[[Spec], Judged | None], why_not: str) -> Need:
    """Ask the candidate about one service.

    Args:
        spec: of the service, with the old engine's image.
        candidate: the image.
        judge: asks an engine.
        old: returns what the old engine says of the spec.
        why_not: why its cards cannot be asked about now; empty where they can.

    """
    if why_not:
        return Need(spec.service, unasked=why_not)
    new = replace(spec, image=candidate)
    try:
        now = Judged.of(new, judge.estimate(new), 0)
        before = old(spec)
    except JudgeError as error:
        return Need(spec.service, unasked=error.message)
    trouble = _trouble(new, now)
    if trouble and before is not None and (worse := _trouble(spec, before)):
        # It runs, or would, all the same: this is no difference between the engines.
        return Need(spec.service, note=f"as with the old engine: {worse}", figures=_figures(before, now))
    return Need(spec.service, trouble, note=_note(before, now), figures=_figures(before, now))


def _trouble(spec: Spec, judged: Judged) -> str:
    """Return why an engine's word on a service means that it would not run."""
    if judged.answer is not Answer.ESTIMATED:
        return f"the engine gives no estimate ({judged.answer.value}): {judged.text}"
    found = shortfalls(spec, Record(spec.service, spec.spec_sha256, spec.image, predicted(spec), judged))
    seen = len(judged.corrected.devices) if judged.corrected else 0
    if not found and seen < len(spec.gpus):
        return f"the engine sees {seen} of the service's {len(spec.gpus)} cards"
    return "; ".join(found)


def _note(before: Judged | None, now: Judged) -> str:
    old, new = _totals(before.corrected if before else None), _totals(now.corrected)
    changes = [
        f"{place} {new[place] - old[place]:+.0f} MiB" for place in new if place in old and new[place] != old[place]
    ]
    return ", ".join(changes)


def _figures(before: Judged | None, now: Judged) -> dict[str, Any]:
    return {"against": _totals(before.corrected if before else None), "candidate": _totals(now.corrected)}


def _totals(parts: Breakdown | None) -> dict[str, float]:
    return {part.name: part.total for part in [*parts.devices, parts.host]} if parts else {}
