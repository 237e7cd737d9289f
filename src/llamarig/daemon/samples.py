"""What the cards did in the last hour, a sample every half a minute, for whoever draws it. Kept in memory alone."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

# A reading of NVML is a process of its own: more often, and the idle daemon would take half a percent of a CPU.
EVERY_SECONDS: Final = 30.0
KEPT_SECONDS: Final = 3600.0
# A host without a card is asked less often whether it has one now.
_NONE_SECONDS: Final = 60.0
_MOST_CARDS: Final = 64
_KEYS: Final = ("used_mib", "utilisation", "power_w", "temperature_c")
_FACTS: Final = ("uuid", "name", "memory_mib", "power_limit_w")
_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Sample:
    """Figures of each card, in the order of ``_KEYS``, at one moment in seconds since 1970."""

    time: int
    cards: Mapping[str, tuple[Any, ...]]


class Samples:
    """Samples of the cards, taken by a thread of its own.

    Args:
        gpus: returns what the cards say, as ``GET /gpus`` does; may take a few seconds, and raise anything.

    """

    def __init__(self, gpus: Callable[[], Mapping[str, Any]], *, now: Callable[[], float] = time.time) -> None:
        self._gpus = gpus
        self._now = now
        self._lock = threading.Lock()
        self._kept: deque[_Sample] = deque(maxlen=round(KEPT_SECONDS / EVERY_SECONDS))
        self._facts: dict[str, dict[str, Any]] = {}
        self._ending = threading.Event()

    def start(self) -> None:
        """Begin to take samples."""
        threading.Thread(target=self._run, name="samples", daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self._ending.set()

    def take(self) -> float:
        """Take one sample; returns the seconds until the next one.

        Where the cards do not answer there are no figures: the last ones are not those of now.
        """
        said = self._gpus()
        age = said["age_seconds"]
        cards = said["gpus"][:_MOST_CARDS] if age is not None and age < EVERY_SECONDS else []
        with self._lock:
            moment = int(self._now())
            # A clock that was set back would draw a line to and fro.
            while self._kept and self._kept[-1].time >= moment:
                self._kept.pop()
            self._kept.append(_Sample(moment, {card["uuid"]: tuple(card[key] for key in _KEYS) for card in cards}))
            known = {uuid for sample in self._kept for uuid in sample.cards}
            fresh = {card["uuid"]: {key: card[key] for key in _FACTS} for card in cards}
            self._facts = {uuid: facts for uuid, facts in {**self._facts, **fresh}.items() if uuid in known}
        return EVERY_SECONDS if cards or said["error"] else _NONE_SECONDS

    def recent(self, seconds: int) -> dict[str, Any]:
        """Return the samples of the last seconds, oldest first: times, and of each card a list for each figure."""
        with self._lock:
            moment = self._now()
            kept = [sample for sample in self._kept if 0 <= moment - sample.time <= seconds]
            facts = dict(self._facts)
        none = (None,) * len(_KEYS)
        columns = {uuid: list(zip(*(sample.cards.get(uuid, none) for sample in kept), strict=True)) for uuid in facts}
        return {
            "every_seconds": EVERY_SECONDS,
            "time": round(moment, 3),
            "times": [sample.time for sample in kept],
            "gpus": [
                {**facts[uuid], **dict(zip(_KEYS, map(list, found or [()] * len(_KEYS)), strict=True))}
                for uuid, found in columns.items()
            ],
        }

    def _run(self) -> None:
        pause, fails = 0.0, False
        while not self._ending.wait(pause):
            try:
                pause, fails = self.take(), False
            except Exception:  # noqa: BLE001  a thread that ends would leave the hour empty for good
                _LOG.log(logging.DEBUG if fails else logging.WARNING, "no sample of the cards", exc_info=True)
                pause, fails = EVERY_SECONDS, True
