"""What the host knows of each service's memory: predicted, estimated by the engine, measured. Survives a power cut."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.daemon.state import replace_file
from llamarig.runtime.breakdown import HOST, Breakdown, Part
from llamarig.runtime.fit_params import Answer, Estimate, corrected

SCHEMA_VERSION: Final = 1
DIRECTORY: Final = f"{paths.STATE}/memory"


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
    """One file for each service below ``/var/lib/llamarig/memory``."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.directory = root / DIRECTORY.lstrip("/")

    def read(self, spec: Spec) -> Record:
        """Return what is known of a spec; of another spec or image of its service nothing counts.

        Prediction and correction are always the spec's own: a newer plan may know better what runs the same.
        """
        fresh = Record(spec.service, spec.spec_sha256, spec.image, predicted(spec))
        try:
            data = json.loads((self.directory / f"{spec.service}.json").read_text(encoding="utf-8"))
            if (data["schema_version"], data["spec_sha256"], data["image"]) != (
                SCHEMA_VERSION,
                spec.spec_sha256,
                spec.image,
            ):
                return fresh
            engine = Judged.from_dict(data["engine"], spec) if data["engine"] else None
            measured = Measured.from_dict(data["measured"]) if data["measured"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return fresh  # as if nobody had looked: it is asked and measured again
        return replace(fresh, engine=engine, measured=measured)

    def write(self, record: Record) -> None:
        """Replace what is known of a service, on disk before this returns."""
        content = json.dumps(record.to_dict(), indent=2) + "\n"
        replace_file(self.directory / f"{record.service}.json", content.encode())

    def keep_measured(self, spec: Spec, parts: Breakdown, now: float) -> None:
        """Remember what a spec's server allocated."""
        self.write(replace(self.read(spec), measured=Measured(round(now), parts)))

    def prune(self, services: Collection[str]) -> None:
        """Forget services that are no longer here."""
        for path in self.directory.glob("*.json"):
            if path.stem not in services:
                path.unlink()


def predicted(spec: Spec) -> Breakdown | None:
    """Return what a plan predicts of a service; None where nothing is, or not all of it."""
    if spec.memory is None or spec.memory.unknown:
        return None
    devices = tuple(Part(card.name, card.weights, card.cache, card.compute) for card in spec.memory.devices)
    host = spec.memory.host
    return Breakdown(devices, Part(HOST, host.weights, host.cache, host.compute))
