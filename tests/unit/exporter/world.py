"""Cards that answer what a test says."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from llamarig.hardware.measured import Holder, Measured, MeasuredCard, Value, Versions, Xid

FIRST = "GPU-1"


def card(uuid: str = FIRST, **changes: Any) -> MeasuredCard:
    known: dict[str, Any] = {
        "index": 0,
        "uuid": uuid,
        "name": "NVIDIA GeForce RTX 4090",
        "pci_address": "0000:01:00.0",
        "compute_capability": "8.9",
        "values": (Value("power_watts", (), 21.5), Value("throttle", ("power-cap",), 1.0)),
        "holders": (Holder(7, 512), Holder(8, None)),
        "watched": True,
    }
    return MeasuredCard(**{**known, **changes})


def measured(*cards: MeasuredCard, **changes: Any) -> Measured:
    versions = Versions(driver="580.95.05", nvml="13.580.95.05", cuda="13.0", module="580.95.05")
    return Measured(**{"versions": versions, "cards": cards, **changes})


@dataclass
class PlayedMeter:
    """Gives each of ``answers`` once, and the last one from then on; an exception is raised."""

    answers: list[Measured | Exception]
    xids: list[Xid] = field(default_factory=list)
    asked: int = 0
    hang: threading.Event | None = None

    @property
    def listens(self) -> bool:
        return bool(self.xids)

    def read(self) -> Measured:
        self.asked += 1
        if self.hang is not None:
            self.hang.wait()
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, seconds: float) -> Xid | None:
        assert seconds > 0
        return self.xids.pop(0)
