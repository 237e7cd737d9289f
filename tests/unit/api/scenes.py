"""A host as the page may find it: cards under load, an hour of samples, a history."""

from __future__ import annotations

import math
import time
from typing import Any

from tests.unit.api import world
from tests.unit.api.world import World

MODELS = ("RTX 4090", "RTX 5070 Ti")
PHASES = {"validate": 0.002, "prepare": 1.4, "drain": 0.3, "stop": 1.1, "free": 0.2, "start": 0.1, "load": 24.8}
WHY = "vision loaded, but holds no memory of rtx4090-0: the model is on the CPU"
LATE = {"completion": 0.9, "placement": 0.2, "commit": 0.01}
# When switches came to their end, in seconds before now; and how.
SWITCHES = ((3300, "code", "ok"), (2100, "chat", "ok"), (1500, "vision", "failed"), (240, "code", "ok"))


def card(number: int, **changes: Any) -> dict[str, Any]:
    """A card at work."""
    large = number % 2 == 0
    total, limit = (24564, 450.0) if large else (16303, 300.0)
    held = {"code": total * 7 // 10, "eyes": total // 8} if large else {"code": total * 8 // 10}
    return {
        "uuid": f"GPU-8d1c5b4e-0000-4000-8000-{number:012}",
        "name": f"{MODELS[number % 2].lower().replace(' ', '')}-{number}",
        "model": f"NVIDIA GeForce {MODELS[number % 2]}",
        "memory_mib": total,
        "used_mib": sum(held.values()) + 412,
        "utilisation": 0.97 if large else 0.41,
        "temperature_c": 83 if large else 61,
        "power_w": limit * 0.9 if large else limit / 2,
        "power_limit_w": limit,
        "clock_mhz": 2520,
        "memory_clock_mhz": 10501,
        "throttle": ["power-cap"] if large else [],
        "services": held,
        **changes,
    }


def samples(cards: list[dict[str, Any]], now: float) -> dict[str, Any]:
    """An hour of samples, with switches, and a time in which the cards did not answer."""
    times = [int(now) - 3590 + 10 * step for step in range(360)]

    def figures(one: dict[str, Any], number: int) -> list[tuple[float, float, float] | None]:
        found: list[tuple[float, float, float] | None] = []
        for step in range(360):
            before = 3590 - 10 * step
            load = (math.sin(step / (4 + number)) + math.sin(step / 17)) / 4 + 0.5
            busy = load if (step // (31 + 5 * number)) % 2 else 0.02
            loading = any(0 <= before - end < 30 for end, *_ in SWITCHES)
            held = one["used_mib"] / one["memory_mib"]
            share = 0.05 if loading else held if before < 2100 or before > 3300 else 0.62 * held
            power = one["power_limit_w"] * (0.1 + 0.85 * busy)
            found.append((one["memory_mib"] * share, busy, power) if not 2500 < before < 2700 else None)
        # The last is what the cards say now.
        return [*found[:-1], (one["used_mib"], one["utilisation"], one["power_w"])]

    columns = []
    for number, one in enumerate(cards):
        found = figures(one, number)
        keys = ("used_mib", "utilisation", "power_w")
        lists = {
            key: [None if row is None else round(row[place], 2) for row in found] for place, key in enumerate(keys)
        }
        facts = {key: one[key] for key in ("uuid", "name", "memory_mib", "power_limit_w")}
        columns.append({**facts, **lists, "temperature_c": [None] * 360})
    return {"every_seconds": 10.0, "time": now, "times": times, "gpus": columns}


def history(now: float) -> list[dict[str, Any]]:
    """Switches of the last hour, and what happened before."""
    found: list[dict[str, Any]] = [
        {
            "time": now - 90000,
            "kind": "stop",
            "service": "eyes",
            "outcome": "ok",
            "origin": "cli",
            "phases": {"stop": 2.0},
        },
        {"time": now - 5000, "kind": "health", "service": "chat", "outcome": "hung", "reason": "no token for 120 s"},
    ]
    for before, service, outcome in SWITCHES:
        back = {"back": 19.5} if outcome == "failed" else LATE
        found.append(
            {
                "time": now - before,
                "kind": "switch",
                "service": service,
                "previous": "code" if service == "chat" else "chat",
                "outcome": outcome,
                "reason": "vision loaded, but holds no memory of rtx4090-0: the model is on the CPU"
                if back != LATE
                else "",
                "phases": {**PHASES, **back},
                "origin": "api" if service == "chat" else "cli",
            }
        )
    return found


def active(service: str, now: float, **changes: Any) -> dict[str, Any]:
    """A service that has served for four minutes."""
    return world.active(service, **{"since": now - 240, **changes})


def status(now: float, *services: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What serves."""
    first = services[0] if services else None
    return {
        "model": first["service"] if first else None,
        "model_name": first["name"] if first else "",
        "state": "running" if first else "idle",
        "status": "; ".join(f"{one['service']} serves at {one['url']}" for one in services) or "nothing serves",
        "active": list(services),
        "default": "chat",
        "stopped": False,
        "job": None,
        "queue": [],
        "given_up": {},
        "warnings": [],
        "agent": {"version": "0.1.0", "release": "8c2f01ab34cd", "host": "gpu01"},
        "time": now,
        **changes,
    }


def play(api: World, cards: int = 2, **changes: Any) -> None:
    """Let the host be one of so many cards, at work."""
    now = time.time()
    services = (
        active("code", now, name="Qwen3 Coder 30B A3B", in_flight=3),
        active("eyes", now, name="Qwen3 VL 4B", url="http://127.0.0.1:8090", since=now - 86000, pinned=True),
    )
    found = [card(number) for number in range(cards)]
    api.board.status = lambda: status(time.time(), *services, **changes)  # type: ignore[method-assign]
    api.board.events = history(now)
    api.gauges.cards = {"gpus": found, "age_seconds": 0.4, "error": None}
    api.samples.said = samples(found, now)
