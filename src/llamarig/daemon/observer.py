"""Gathers what a look sees: from systemd, the engines themselves, the door, the gates, /proc and NVML.

Whatever may hang is asked in a thread of its own: an engine, NVML, the journal. What has not answered in time is
silent. Where this process itself cannot ask, as without a descriptor left, nothing is known of a service, and nobody
is to blame.
"""

from __future__ import annotations

import errno
import http.client
import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from llamarig.config.spec import Spec
from llamarig.daemon.cards import NvmlCards
from llamarig.daemon.errand import Errand
from llamarig.daemon.health import CARDS_SECONDS, CARDS_SOON_SECONDS, PATIENCE_SECONDS, PROOF_SECONDS
from llamarig.daemon.processes import Processes, Work
from llamarig.daemon.sights import Health, Lost, Proof, Record, Run, Sight, same_run
from llamarig.errors import LlamarigError
from llamarig.hardware.gpus import LOST, NOT_FOUND, RESET_REQUIRED, NvmlError, Reading
from llamarig.hardware.usage import read_uptime
from llamarig.runtime.door import Door, DoorError, Traffic
from llamarig.runtime.engine import PROMPT, SLEEPS, TOKENS, Engine, EngineError, GarbageError, Slot
from llamarig.runtime.engines import Engines
from llamarig.runtime.gate import Gate
from llamarig.runtime.logline import last_words
from llamarig.runtime.specs import SpecStore
from llamarig.runtime.systemd import Units, UnitState

_log: Final = logging.getLogger(__name__)
# How long one question to an engine may take; the look does not wait for it.
_ASK_SECONDS: Final = 10.0
_LOG_LINES: Final = 60
_WORDS: Final = 200
# What NVML says of a card that is no more there; anything else may pass.
_GONE: Final = frozenset({NOT_FOUND, LOST, RESET_REQUIRED})
# What is amiss with whoever asks, and not with who is asked: no descriptor, or no memory, for a socket.
_OWN_TROUBLE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
# A clock that was set by more than this since a service was proven tells nothing of the order of things.
_CLOCK_SECONDS: Final = 60.0


class CannotAskError(Exception):
    """Nothing is left to ask with: the trouble is this process's own."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What an engine said: ``/health``, and its slots; None where it did not answer that.

    ``is_known`` is false where it could not be asked.
    """

    health: str
    slots: tuple[Slot, ...] | None
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one service, and what goes through its port; None where the door does not say."""

    sight: Sight
    traffic: Traffic | None

    def with_proof(self, run: Run | None, proof: Proof | None) -> Sight:
        """Return the sight with a proof, where that is of the start that was seen."""
        sight = self.sight
        fits = run is not None and same_run(run, (sight.unit.restarts, sight.process))
        return replace(sight, proof=proof) if fits else sight


@dataclass(slots=True)
class _Asked:
    """A question, the start of the engine that it was put to, and whether its answer was made use of."""

    run: Run
    errand: Errand[Answered]
    taken: bool = False


class Observer:
    """The eyes of the supervisor; used by one thread, but for :meth:`prove`."""

    def __init__(
        self,
        *,
        units: Units,
        engine: Engine,
        engines: Engines,
        door: Door,
        gate: Gate,
        specs: SpecStore,
        cards: Callable[[], Reading],
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.units = units
        self.engine = engine
        self.door = door
        self.gate = gate
        self.specs = specs
        self.cards = cards
        self.root = root
        self.clock = clock
        self.now = now
        self.processes = Processes(engines.pids, root, clock)
        self._specs: dict[tuple[str, str], Spec] = {}
        self._asked: dict[str, _Asked] = {}
        self._answers: dict[str, Answered] = {}
        self._late: dict[str, Answered] = {}
        self._totals: dict[str, int] = {}
        self._reading: Reading | None = None
        self._read_at: float | None = None
        self._cards_asked: Errand[Reading] | None = None
        self._journals: dict[str, Errand[str]] = {}

    def spec(self, service: str, version: str) -> Spec | None:
        """Return a version of a service's spec."""
        return self.specs.version(service, version)

    def look(
        self, specs: Mapping[str, Spec], records: Mapping[str, Record], since: Mapping[str, float]
    ) -> dict[str, Seen]:
        """Look at services; those of which systemd says nothing, or that cannot be asked, are left out.

        Args:
            specs: what each of them runs.
            records: what is known of each.
            since: when each was last proven, in seconds since 1970.

        """
        units = self._units(specs)
        if units is None:
            return {}
        docker, states = units
        ports = self._traffic({specs[name].port for name in states})
        work = {name: None if _is_over(unit) else self._work(name) for name, unit in states.items()}
        ended = [name for name, unit in states.items() if records[name].has_ended(unit)]
        runs: dict[str, Run] = {}
        fresh = []
        self._late.clear()
        for name, unit in states.items():
            found = work[name]
            runs[name] = (unit.restarts, found.first if found else None)
            if _is_over(unit):
                self._asked.pop(name, None)
                self._answers.pop(name, None)
            elif self._question(specs[name], runs[name], records[name], ports[specs[name].port]):
                fresh.append(name)
        troubled = any(_is_over(unit) or not records[name].ready for name, unit in states.items())
        self._ask_cards(specs, troubled=troubled)
        journals = self._ask_journals(ended)
        self._wait([*(self._asked[name].errand for name in fresh), *journals.values()])
        seen = {}
        for name, unit in states.items():
            answered, words = self._answered(name, runs[name]), journals.get(name)
            if not answered.is_known:
                continue
            try:
                sight = self._sight(specs[name], unit, runs[name], work[name], ports[specs[name].port])
            except Exception:  # noqa: BLE001  one service must not blind the daemon for the others
                _log.exception("%s cannot be looked at", name)
                continue
            sight = replace(
                sight,
                docker=docker,
                proven_since=self._is_proven_since(work[name], since.get(name, 0.0)),
                health=answered.health,
                slots=answered.slots,
                words=_said(words) if words is not None else "",
            )
            seen[name] = Seen(sight, ports[specs[name].port])
        return seen

    def _sight(self, spec: Spec, unit: UnitState, run: Run, work: Work | None, traffic: Traffic | None) -> Sight:
        """Return what is seen of a service without its engine's answer."""
        name = spec.service
        return Sight(
            time=self.clock(),
            unit=unit,
            process=run[1],
            works=work.works if work is not None else None,
            gate=self.gate.is_open(name),
            door=None if traffic is None else self.door.behind(spec.port) == name,
            oom_kills=self.processes.oom_kills(name),
            lost=self._lost(spec),
        )

    def prove(self, spec: Spec) -> Proof:
        """Ask a service for a completion, and look whether its model is on its cards; takes up to two minutes.

        Raises:
            CannotAskError: it cannot be asked now.

        """
        try:
            self.engine.complete(spec, PROMPT, TOKENS, PROOF_SECONDS)
        except EngineError as error:
            text = str(error)
            if _is_own_trouble(error):
                raise CannotAskError(text) from error
            # One that lets nobody in any more is as silent as one that does not answer.
            if isinstance(error.__cause__, (TimeoutError, BlockingIOError)):
                return Proof(None, text)
            if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, ConnectionError):
                _log.warning("%s cannot be asked for a proof: %s", spec.service, text)
                return Proof(Health.OK)
            return Proof(Health.GARBAGE if isinstance(error, GarbageError) else Health.FAILING, text)
        empty = NvmlCards(self.cards, self.root).empty(spec)
        if empty:
            text = f"it holds no memory of {', '.join(empty)}: the model is silently on the CPU"
            return Proof(Health.CPU_FALLBACK, text)
        return Proof(Health.OK)

    # systemd, the door, the journal.

    def _units(self, specs: Mapping[str, Spec]) -> tuple[float | None, dict[str, UnitState]] | None:
        """Ask systemd; where it says nothing of one unit, that hides no other, unless it is slow to say nothing."""
        states: dict[str, UnitState] = {}
        begun = time.monotonic()
        try:
            docker = self.units.docker_since()
        except LlamarigError as error:
            _log.warning("nobody can be looked at: %s", error.message)
            return None
        for name in specs:
            try:
                states[name] = self.units.state(name)
            except LlamarigError as error:
                _log.warning("%s cannot be looked at: %s", name, error.message)
                if time.monotonic() - begun > PATIENCE_SECONDS:
                    break
        return docker, states

    def _work(self, service: str) -> Work | None:
        try:
            return self.processes.look(service)
        except OSError as error:
            _log.warning("nobody can say what the processes of %s do: %s", service, error)
            return None

    def _traffic(self, ports: Collection[int]) -> dict[int, Traffic | None]:
        """Ask the door, which answers for each port; where it does not for one, the others are not waited for."""
        found: dict[int, Traffic | None] = dict.fromkeys(ports)
        try:
            for port in ports:
                found[port] = self.door.traffic(port)
        except (DoorError, OSError, ValueError, KeyError) as error:
            _log.debug("the door does not say what goes through it: %s", error)
        return found

    def _ask_journals(self, services: Iterable[str]) -> dict[str, Errand[str]]:
        """Ask what services said last; not again where a journal that hangs has not answered the last time."""
        free = [name for name in services if name not in self._journals or self._journals[name].is_over]
        asked = {name: Errand(partial(self._last_words, name), self.clock()) for name in free}
        self._journals |= asked
        return asked

    def _last_words(self, service: str) -> str:
        try:
            words = last_words(self.units.log(service, _LOG_LINES), 1)
        except (LlamarigError, OSError) as error:
            _log.warning("the journal does not say how %s ended: %s", service, error)
            return ""
        return words[0][:_WORDS] if words else ""

    # The engines.

    def _question(self, spec: Spec, run: Run, record: Record, traffic: Traffic | None) -> bool:
        """Ask an engine how it is; False where it has not answered the last question yet."""
        name = spec.service
        asked = self._asked.get(name)
        if asked is not None and not same_run(asked.run, run):
            self._answers.pop(name, None)
            asked = None
        if asked is not None:
            if not asked.errand.is_over:
                return False
            answered = asked.errand.result()
            if answered is not None and not asked.taken:  # it came after the look that asked had ended
                self._late[name] = answered
        for_slots = record.ready and self._may_wake(spec, traffic)
        self._asked[name] = _Asked(run, Errand(lambda: self._ask_anything(spec, for_slots=for_slots), self.clock()))
        return True

    def _ask_anything(self, spec: Spec, *, for_slots: bool) -> Answered:
        """Ask; whatever an engine answers with, the others are looked at all the same."""
        try:
            return self._ask(spec, for_slots=for_slots)
        except CannotAskError as error:
            _log.warning("%s cannot be asked how it is: %s", spec.service, error)
            return Answered("unknown", None, is_known=False)
        except Exception:  # noqa: BLE001  one engine must not blind the daemon for the others
            _log.exception("%s answers in a way that nobody foresaw", spec.service)
            return Answered("down", None)

    def _ask(self, spec: Spec, *, for_slots: bool) -> Answered:
        if for_slots:
            try:
                return Answered("ok", tuple(self.engine.slots(spec, _ASK_SECONDS)))
            except EngineError as error:
                if _is_own_trouble(error):
                    raise CannotAskError(str(error)) from error
                silent = isinstance(error.__cause__, (TimeoutError, ConnectionError, http.client.HTTPException))
                health = self._health(spec)
                # One that answers and tells nothing (--no-slots) shows no sign of life, and none of death.
                return Answered(health, () if health == "ok" and not silent else None)
        health = self._health(spec)
        return Answered(health, () if health == "ok" else None)

    def _health(self, spec: Spec) -> str:
        """Ask for ``/health``; it does not say why one is down, so whether anybody could be asked is tried."""
        health = self.engine.health(spec)
        if health == "down":
            try:
                socket.socket(socket.AF_UNIX).close()
            except OSError as error:
                raise CannotAskError(str(error)) from error
        return health

    def _may_wake(self, spec: Spec, traffic: Traffic | None) -> bool:
        """Tell whether an engine may be asked for its slots: one that sleeps when idle only after a request."""
        if SLEEPS not in spec.argv:
            return True
        if traffic is None:
            return False
        known = self._totals.get(spec.service)
        self._totals[spec.service] = traffic.total
        return traffic.in_flight > 0 or (known is not None and traffic.total != known)

    @staticmethod
    def _wait(errands: Iterable[Errand[Any]]) -> None:
        """Wait for answers, for all of them together no longer than a look may."""
        end = time.monotonic() + PATIENCE_SECONDS
        for errand in errands:
            errand.wait(end - time.monotonic())

    def _answered(self, service: str, run: Run) -> Answered:
        """Return what an engine said since the last look; one that said nothing is silent."""
        asked = self._asked.get(service)
        if asked is None or not same_run(asked.run, run):
            return Answered("down", None)
        answered = asked.errand.result()
        asked.taken = answered is not None
        answered = answered or self._late.get(service)
        if answered is not None:
            self._answers[service] = answered
            return answered
        before = self._answers.get(service)
        # What /health says is known of one that was asked for it because it did not tell its slots.
        return Answered(before.health if before and before.slots is None else "down", None)

    def _is_proven_since(self, work: Work | None, proven: float) -> bool:
        uptime = read_uptime(self.root)
        if work is None or uptime is None:
            return proven > 0.0
        now = self.now()
        # One that was proven in a time to come was proven before the clock was set back, nobody knows when.
        return now - (uptime - work.first[1]) <= proven <= now + _CLOCK_SECONDS

    # The cards.

    def _ask_cards(self, specs: Mapping[str, Spec], *, troubled: bool) -> None:
        """Ask NVML now and then where a service has cards; soon again where one is missing or a service has trouble."""
        errand, moment = self._cards_asked, self.clock()
        if errand is not None and errand.is_over:
            self._cards_asked, self._read_at = None, moment
            try:
                self._reading = errand.result()
            except Exception as error:  # noqa: BLE001  a driver or a disk in trouble must not blind the daemon
                self._reading = None  # containers that run may go on: what is not known is no fault
                said = error.message if isinstance(error, NvmlError) else f"{type(error).__name__}: {error}"
                _log.warning("the cards cannot be read: %s", said)
        if self._cards_asked is not None or not any(spec.gpus for spec in specs.values()):
            return
        worried = troubled or any(lost.cards for spec in specs.values() if (lost := self._lost(spec)) is not None)
        if self._read_at is None or moment - self._read_at >= (CARDS_SOON_SECONDS if worried else CARDS_SECONDS):
            self._cards_asked = Errand(self.cards, moment)

    def _lost(self, spec: Spec) -> Lost | None:
        """Return which cards of a service are gone; None where the reading does not tell."""
        reading, moment = self._reading, self._read_at
        if not spec.gpus or reading is None or moment is None:
            return None
        there = {card.uuid for card in reading.cards}
        doubtful = [fault for fault in reading.faults if fault.code not in _GONE]
        if any(fault.uuid is None for fault in doubtful):
            return None
        there |= {str(fault.uuid) for fault in doubtful}
        names = {part.uuid: part.name for part in spec.memory.devices} if spec.memory else {}
        return Lost(moment, tuple(f"{names.get(uuid, 'card')} ({uuid})" for uuid in spec.gpus if uuid not in there))


def _said(words: Errand[str]) -> str:
    """Return what a service said last; nothing where the journal has not answered in time."""
    return words.result() or ""


def _is_own_trouble(error: EngineError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _OWN_TROUBLE


def _is_over(unit: UnitState) -> bool:
    return unit.is_over or unit.is_failed
