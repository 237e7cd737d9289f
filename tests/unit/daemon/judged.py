"""A service on two cards, figures for it, and an engine that gives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llamarig.config.spec import DeviceMemory, HostMemory, Memory, Spec
from llamarig.daemon.memory import Judged, Measured, MemoryStore, Record, predicted
from llamarig.runtime.breakdown import Breakdown, Part
from llamarig.runtime.fit_params import Answer, Estimate, JudgeError
from tests.support import make_spec

Figures = tuple[float, float, float]
UUIDS = ["GPU-1", "GPU-2"]
# What is predicted of each device, and of the host, as weights, cache and compute buffers.
PLANNED = ((18000, 1000, 200), (9000, 800, 100), (400, 0, 64))


def planned(service: str = "chat", **changes: Any) -> Spec:
    """A service that may take 23,552 MiB of the one card, 15,291 of the other and 58,912 of the host."""
    first, second, (weights, cache, compute) = changes.pop("figures", PLANNED)
    cards = [
        DeviceMemory("rtx4090", UUIDS[0], 24564, 612, 400, *first),
        DeviceMemory("rtx5070ti", UUIDS[1], 16303, 612, 400, *second),
    ]
    memory = Memory(cards, HostMemory(60000, weights, cache, compute, 1088), "header", 32, changes.pop("logits", 0), [])
    return make_spec(service, **{"gpus": UUIDS, "memory": memory, "memory_mib": 60000, **changes})


def parts(*figures: Figures, vision: float = 0.0) -> Breakdown:
    """Figures of devices, and last of the host; ``vision`` is the first device's."""
    devices = tuple(Part(f"CUDA{number}", *each) for number, each in enumerate(figures[:-1]))
    if vision:
        devices = (replace(devices[0], vision=vision), *devices[1:])
    return Breakdown(devices, Part("Host", *figures[-1]), "48/48")


def record(spec: Spec, engine: Breakdown | None = None, measured: Breakdown | None = None, **changes: Any) -> Record:
    """What is known of a spec."""
    judged = Judged(**{**_JUDGED, "said": engine, "corrected": engine, **changes}) if engine or changes else None
    read = Measured(20, measured) if measured else None
    return Record(spec.service, spec.spec_sha256, spec.image, predicted(spec), judged, read)


def keep(root: Path, spec: Spec, known: Record) -> None:
    """Leave on a host what is known of a spec, as root and the daemon do."""
    store = MemoryStore(root)
    if known.engine is not None:
        store.keep_judged(spec, known.engine)
    if known.measured is not None:
        store.keep_measured(spec, known.measured.parts, known.measured.time)


# The words of a split whose last device is the second card.
WORDS = ["--tensor-split", "34,14"]
_JUDGED: dict[str, Any] = {"time": 10, "answer": Answer.ESTIMATED, "text": "", "unseen": [], "words": WORDS}


class FakeJudge:
    """An engine that says what it was told to, by service; ``asked`` are the services in the order of the questions."""

    def __init__(self, **answers: Breakdown | JudgeError | tuple[Answer, str]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def estimate(self, spec: Spec) -> Estimate:
        self.asked.append(spec.service)
        answer = self.answers[spec.service]
        if isinstance(answer, JudgeError):
            raise answer
        if isinstance(answer, tuple):
            return Estimate(answer[0], None, answer[1], WORDS, [], 0.1)
        return Estimate(Answer.ESTIMATED, answer, "", WORDS, [], 0.1)
