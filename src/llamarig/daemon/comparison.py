"""Predicted, estimated and measured memory of a service against each other, and against what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from llamarig.config.spec import Spec
from llamarig.daemon.memory import Record
from llamarig.runtime.breakdown import Breakdown, Part
from llamarig.runtime.fit_params import Answer

# A projector is added to what the tool says; what else it does not see makes its figures others than a server's.
_MADE_UP_FOR: Final = {"--mmproj"}
# A prediction is right where it is within 3 % or 64 MiB, whichever is larger.
TOLERANCE: Final = 0.03
TOLERANCE_MIB: Final = 64
# By so much a service may go into the margin that the plan keeps free on every card (128 MiB).
INTO_MARGIN_MIB: Final = 64
HOST_NAME: Final = "host"


class Verdict(StrEnum):
    """What the figures of a device come to."""

    OK = "ok"
    DIFFERS = "differs"
    TOO_LARGE = "does not fit"
    NOT_USED = "not used"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Line:
    """One device of a service, or the host's memory; all in MiB, None where nobody has said it.

    Attributes:
        where: the card's name, or ``host``.
        predicted, engine, measured: weights, cache and compute buffers together.
        said: the engine's figure before it was corrected, where that is another one.
        vision: of the measured process, the compute buffer of the vision projector, which nobody predicts.
        budget: what the service may take.
        verdict: what the figures come to.
        text: why, where all is not well.

    """

    where: str
    predicted: float | None
    engine: float | None
    measured: float | None
    said: float | None
    vision: float
    budget: float | None
    verdict: Verdict
    text: str = ""


def differs(figure: float, reference: float) -> bool:
    """Say whether two figures are further apart than a prediction may be."""
    return abs(figure - reference) > max(TOLERANCE * reference, TOLERANCE_MIB)


def compare(spec: Spec, record: Record, cards: Mapping[str, str] = MappingProxyType({})) -> list[Line]:
    """Return a line for each card of a service, in the server's order, and one for the host.

    ``cards`` are names by UUID, for a service without a prediction, which has them.
    """
    names = _names(spec, cards)
    return [_line(spec, record, names, number) for number in [*range(len(names)), None]]


def shortfalls(spec: Spec, record: Record) -> list[str]:
    """Return where the engine's estimate is more than there is, with the numbers; empty where it fits.

    An estimate of an engine that does not see the cards says nothing of them, and so nothing of the host either. What
    was measured has served, and so fits whatever is estimated.
    """
    judged = record.engine
    if judged is None or record.measured is not None:
        return []
    if judged.answer is Answer.NO_LAYOUT:
        return [f"the engine finds no layout that fits: {judged.text}"]
    if judged.corrected is None or len(judged.corrected.devices) < len(spec.gpus):
        return []
    return [line.text for line in compare(spec, record) if line.verdict is Verdict.TOO_LARGE]


def remedy(spec: Spec) -> str:
    """Return what helps where a service does not fit."""
    if spec.memory is not None and spec.gpus:
        return "a smaller ctx_size or cache type, fewer blocks on the card, or strategy auto; then playbooks/site.yml"
    return "a smaller ctx_size or cache type, or more memory_mib for the service; then playbooks/site.yml"


def _names(spec: Spec, cards: Mapping[str, str]) -> list[str]:
    named = {**cards, **({card.uuid: card.name for card in spec.memory.devices} if spec.memory else {})}
    return [named.get(uuid, uuid) for uuid in spec.gpus]


def _line(spec: Spec, record: Record, names: Sequence[str], number: int | None) -> Line:
    judged, measured = record.engine, record.measured.parts if record.measured else None
    where = HOST_NAME if number is None else names[number]
    own = _part(measured, number)
    engine = _part(judged.corrected if judged else None, number)
    said = _part(judged.said if judged else None, number)
    figures = _Figures(
        where=where,
        predicted=_total(_part(record.predicted, number)),
        engine=_total(engine),
        measured=_total(own),
        vision=own.vision if own else 0.0,
        budget=_budget(spec, number),
        missing=_missing(judged.corrected if judged else None, measured, number),
        whole=judged is not None and set(judged.unseen) <= _MADE_UP_FOR,
    )
    verdict, text = figures.verdict()
    return Line(
        where,
        figures.predicted,
        figures.engine,
        figures.measured,
        _total(said) if said and engine and said.total != engine.total else None,
        figures.vision,
        figures.budget,
        verdict,
        text,
    )


@dataclass(frozen=True, slots=True)
class _Figures:
    """What is known of one device."""

    where: str
    predicted: float | None
    engine: float | None
    measured: float | None
    vision: float
    budget: float | None
    missing: str
    whole: bool

    def verdict(self) -> tuple[Verdict, str]:
        """Return what the figures come to, and why."""
        if self.missing:
            return Verdict.NOT_USED, f"{self.where}: {self.missing}"
        if self.measured is None and self.engine is not None and self._is_over(self.engine):
            text = f"{self.where}: the engine needs {self.engine:.0f} MiB, and the service may take {self.budget:.0f}"
            return Verdict.TOO_LARGE, text
        texts = [*self._differences(), *self._overdrawn()]
        if texts:
            return Verdict.DIFFERS, f"{self.where}: {'; '.join(texts)}"
        known = [figure for figure in (self.predicted, self._estimate, self.measured) if figure is not None]
        return (Verdict.OK if len(known) > 1 else Verdict.UNKNOWN), ""

    @property
    def _estimate(self) -> float | None:
        """The engine's figure; where it saw not all that decides memory, it can confirm a prediction, not refute it."""
        confirms = self.engine is not None and self.predicted is not None and not differs(self.engine, self.predicted)
        return self.engine if self.whole or confirms else None

    def _differences(self) -> list[str]:
        reference, by = (self._estimate, "estimated") if self.predicted is None else (self.predicted, "predicted")
        if reference is None:
            return []
        pairs = [(self.measured, "measured")]
        if self.predicted is not None:
            pairs.append((self._estimate, "estimated by the engine"))
        return [
            f"{figure:.0f} MiB {what}, {reference:.0f} {by} ({figure - reference:+.0f})"
            for figure, what in pairs
            if figure is not None and differs(figure, reference)
        ]

    def _overdrawn(self) -> list[str]:
        """Say where a running server takes more than it may, which a full card shows as a crash some day."""
        if self.measured is None or not self._is_over(self.measured + self.vision):
            return []
        vision = f", {self.vision:.0f} of them for images" if self.vision else ""
        return [f"takes {self.measured + self.vision:.0f} MiB{vision}, and may take {self.budget:.0f}"]

    def _is_over(self, taken: float) -> bool:
        return self.budget is not None and taken > self.budget + INTO_MARGIN_MIB


def _part(parts: Breakdown | None, number: int | None) -> Part | None:
    if parts is None:
        return None
    if number is None:
        return parts.host
    return parts.devices[number] if number < len(parts.devices) else None


def _total(part: Part | None) -> float | None:
    return round(part.total, 2) if part is not None else None


def _missing(engine: Breakdown | None, measured: Breakdown | None, number: int | None) -> str:
    """Say where a card is not used that the service was given: what it should hold is then on the CPU."""
    if number is None:
        return ""
    if measured is not None and number >= len(measured.devices):
        return "the running engine does not use it: the model is on the CPU"
    if measured is None and engine is not None and number >= len(engine.devices):
        return "the engine does not see it: it would lay the model on the CPU"
    return ""


def _budget(spec: Spec, number: int | None) -> float | None:
    """Return the MiB that a service may take of a card, or of the host; None where nobody said it."""
    if spec.memory is None:
        return float(spec.memory_mib) if number is None else None
    if number is None:
        return float(spec.memory.host.limit - spec.memory.host.other)
    card = spec.memory.devices[number]
    return float(card.memory - card.kept - card.context)
