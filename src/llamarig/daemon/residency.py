"""How long services stay when nobody asks for another, and which one returns when nothing serves. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from llamarig.config.policy import Policy
from llamarig.daemon.request import Kind, Origin, Request
from llamarig.daemon.state import Serving, State
from llamarig.runtime.door import Traffic

_FIRST_PAUSE: Final = 30.0
_LONGEST_PAUSE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Idle:
    """Since when a service has had no request, by a clock that does not jump; ``total`` is what its port had then."""

    since: float
    total: int | None = None

    @classmethod
    def first(cls, traffic: Traffic | None, age: float, time: float) -> Idle:
        """Begin to watch a service that has been serving for ``age`` seconds.

        The door remembers when a port was asked last, be it for another service; before its own beginning a service
        was not asked. A port that was never asked counts from now: the door may have been restarted.
        """
        if traffic is None or traffic.in_flight or traffic.idle_seconds is None:
            return cls(time, traffic.total if traffic else None)
        return cls(time - max(0.0, min(traffic.idle_seconds, age)), traffic.total)

    def seen(self, traffic: Traffic | None, time: float, *, busy: bool = False) -> Idle:
        """Take in what goes through its port now, and whether its engine works.

        A request that lasts for an hour keeps it from being idle for that hour, and ends now at the earliest.
        """
        total = self.total if traffic is None else traffic.total
        if busy or (traffic is not None and (traffic.in_flight > 0 or total != self.total)):
            return Idle(time, total)
        return self

    def seconds(self, time: float) -> float:
        """Return how long it has been idle."""
        return max(0.0, time - self.since)


def leaves(policy: Policy, serving: Serving, idle_seconds: float, now: float) -> bool:
    """Tell whether a service has been idle long enough to leave: never a pinned one, nor one that is too young."""
    stay = policy.of(serving.service)
    if stay.pinned or stay.idle_seconds is None or serving.service == policy.default_service:
        return False
    return idle_seconds >= max(1, stay.idle_seconds) and remaining([serving], policy, now) == 0.0


def idle_request(
    policy: Policy, state: State, idle: Mapping[str, float], now: float, known: Collection[str]
) -> Request | None:
    """Return what is to be asked for because a service was idle for too long; None where nothing is.

    The default service returns in its place: a switch to it makes those leave that it has no room beside. One that is
    idle beside a default service that serves is stopped. Where the default service was given up, the idle one stays.

    Args:
        policy: how long services stay.
        state: what serves.
        idle: seconds of each active service without a request.
        now: the time, as the state has it.
        known: the services that this host runs.

    """
    default = policy.default_service if policy.default_service in known else None
    for serving in state.active:
        name = serving.service
        if not leaves(policy, serving, idle.get(name, 0.0), now):
            continue
        reason = f"{name} had no request for {idle[name]:.0f} s"
        if default is None or default in state.names:
            return Request(Kind.STOP, name, Origin.IDLE, reason)
        if default not in state.given_up:
            return Request(Kind.SWITCH, default, Origin.IDLE, reason)
    return None


def remaining(leaving: Iterable[Serving], policy: Policy, now: float) -> float:
    """Return how long a switch must wait before these may leave, in seconds; a clock that was set back makes none wait.

    Whoever leaves must have served for the policy's minimum.
    """
    ages = [now - serving.since for serving in leaving]
    return max((policy.minimum_seconds - old for old in ages if 0 <= old < policy.minimum_seconds), default=0.0)


def comeback(policy: Policy, state: State, known: Collection[str], before: Sequence[str], attempts: int) -> str | None:
    """Return the service that is to be tried next where none serves; None where there is none to try.

    The default service, unless it was given up; else the last one before it that was not. Where several attempts have
    failed, they take turns; where all were given up, the default service is tried again.

    Args:
        policy: which one is the default.
        state: what was given up.
        known: the services that this host runs.
        before: services that served, the last one first.
        attempts: how many have failed in a row.

    """
    default = policy.default_service
    hopeful = [name for name in dict.fromkeys([default, *before]) if name in known and name not in state.given_up]
    turns = list(dict.fromkeys([*hopeful[:2], *([default] if default in known else [])]))
    return turns[attempts % len(turns)] if turns else None


def comeback_pause(attempts: int, *, given_up: bool) -> float:
    """Return the seconds before the next attempt; at once where none has failed and the service was not given up."""
    if attempts == 0 and not given_up:
        return 0.0
    return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts, 10))


def served_before(history: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the services that a history (oldest first) saw come to serve, the last one first, each once."""
    came = [str(event.get("service")) for event in history if event.get("kind") == "switch" and _is_ok(event)]
    return list(dict.fromkeys(reversed(came)))


def _is_ok(event: Mapping[str, Any]) -> bool:
    return event.get("outcome") == "ok"
