"""What the host knows of each service's memory: predicted, estimated by the engine, measured. Survives a power cut."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.state import replace_file
from llamarig.runtime.breakdown import HOST, Breakdown, Part
from llamarig.runtime.fit_params import Answer, Estimate, corrected

SCHEMA_VERSION: Final = 2
_log: Final = logging.getLogger(__name__)
# What the engine was asked is root's, what the daemon measured is the daemon's.
JUDGED: Final = f"{paths.STATE}/memory"
MEASURED: Final = f"{paths.DAEMON_STATE}/memory"


@dataclass(frozen=True, slots=True)
class Judged:
    """What the engine said of a spec.

    Attributes:
        time: seconds since 1970.
        answer: how it answered.
        said: what each device would hold, as the tool printed it; None where it gave no estimate.
        corrected: the same as a server would have it (:func:`llamarig.runtime.fit_params.corrected`).
        text: its own words where it gave no estimate.
        unseen: options that decide memory and that the tool does not know.
        words: the arguments it was asked with; of strategy fit, those that it chose.

    """

    time: float
    answer: Answer
    said: Breakdown | None
    corrected: Breakdown | None
    text: str
    unseen: list[str]
    words: list[str]

    @classmethod
    def of(cls, spec: Spec, estimate: Estimate, now: float) -> Judged:
        """Build it from an estimate."""
        better = corrected(spec, estimate.parts, estimate.words) if estimate.parts else None
        unseen, words = list(estimate.unseen), list(estimate.words)
        return cls(round(now), estimate.answer, estimate.parts, better, estimate.text, unseen, words)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "time": self.time,
            "answer": self.answer.value,
            "said": self.said.to_dict() if self.said else None,
            "corrected": self.corrected.to_dict() if self.corrected else None,
            "text": self.text,
            "unseen": self.unseen,
            "words": self.words,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], spec: Spec) -> Judged:
        """Build it from its JSON; the correction is the spec's own, which a newer plan may know better."""
        said = Breakdown.from_dict(data["said"]) if data["said"] else None
        better = corrected(spec, said, data["words"]) if said else None
        return cls(data["time"], Answer(data["answer"]), said, better, data["text"], data["unseen"], data["words"])


@dataclass(frozen=True, slots=True)
class Measured:
    """What a running server allocated, and when that was read."""

    time: float
    parts: Breakdown

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"time": self.time, "parts": self.parts.to_dict()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Measured:
        """Build it from its JSON."""
        return cls(data["time"], Breakdown.from_dict(data["parts"]))


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one spec in one image; ``predicted`` is its plan's, None where nothing was predicted."""

    service: str
    spec_sha256: str
    image: str
    predicted: Breakdown | None
    engine: Judged | None = None
    measured: Measured | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "service": self.service,
            "spec_sha256": self.spec_sha256,
            "image": self.image,
            "predicted": self.predicted.to_dict() if self.predicted else None,
            "engine": self.engine.to_dict() if self.engine else None,
            "measured": self.measured.to_dict() if self.measured else None,
        }


class MemoryStore:
    """One file for each service and each of the two that know something of it."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.judged = root / JUDGED.lstrip("/")
        self.measured = root / MEASURED.lstrip("/")

    def read(self, spec: Spec) -> Record:
        """Return what is known of a spec; of another spec or image of its service nothing counts.

        Prediction and correction are always the spec's own: a newer plan may know better what runs the same.
        """
        fresh = Record(spec.service, spec.spec_sha256, spec.image, predicted(spec))
        judged, measured = self._read(self.judged, spec), self._read(self.measured, spec)
        # As if nobody had looked, where it cannot be read: it is asked and measured again.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            fresh = replace(fresh, engine=Judged.from_dict(judged, spec) if judged else None)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            fresh = replace(fresh, measured=Measured.from_dict(measured) if measured else None)
        return fresh

    def keep_judged(self, spec: Spec, judged: Judged) -> None:
        """Remember what the engine said of a spec, on disk before this returns."""
        self._write(self.judged, spec, judged.to_dict())

    def keep_measured(self, spec: Spec, parts: Breakdown, now: float) -> None:
        """Remember what a spec's server allocated, on disk before this returns."""
        self._write(self.measured, spec, Measured(round(now), parts).to_dict())

    def prune(self, services: Collection[str]) -> None:
        """Forget what the engine said of services that are no longer here."""
        self._prune(self.judged, services)

    def forget_measured(self, services: Collection[str]) -> None:
        """Forget what was measured of services that are no longer here; a disk that refuses keeps none from serving."""
        try:
            self._prune(self.measured, services)
        except OSError as error:
            _log.warning("what was measured before could not be removed: %s", error)

    @staticmethod
    def _prune(directory: Path, services: Collection[str]) -> None:
        for path in directory.glob("*.json"):
            if path.stem not in services:
                path.unlink(missing_ok=True)

    @staticmethod
    def _read(directory: Path, spec: Spec) -> Any:
        try:
            data = json.loads((directory / f"{spec.service}.json").read_text(encoding="utf-8"))
            same = (data["schema_version"], data["spec_sha256"], data["image"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return data.get("known") if same == (SCHEMA_VERSION, spec.spec_sha256, spec.image) else None

    @staticmethod
    def _write(directory: Path, spec: Spec, known: Any) -> None:
        content = {
            "schema_version": SCHEMA_VERSION,
            "service": spec.service,
            "spec_sha256": spec.spec_sha256,
            "image": spec.image,
            "known": known,
        }
        replace_file(directory / f"{spec.service}.json", (json.dumps(content, indent=2) + "\n").encode())


def predicted(spec: Spec) -> Breakdown | None:
    """Return what a plan predicts of a service; None where nothing is, or not all of it."""
    if spec.memory is None or spec.memory.unknown:
        return None
    devices = tuple(Part(card.name, card.weights, card.cache, card.compute) for card in spec.memory.devices)
    host = spec.memory.host
    return Breakdown(devices, Part(HOST, host.weights, host.cache, host.compute))
