"""Pictures of the dashboard for documents, drawn from a box that does not exist and a clock that stands still."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from llamarig.control.docs_screen import screen_picture
from llamarig.dashboard.app import Dashboard
from llamarig.dashboard.feed import Answered, LogBegun, Logged, Lost, Message, Said, Up
from llamarig.dashboard.watch import Watch

_NOW: Final = 1_800_000_000.0
_SIZE: Final = (100, 30)
_FLEET_SIZE: Final = (100, 20)

_LOG: Final = """\
srv  params_from_: Chat format: peg-native
slot launch_slot_: id  0 | task 4117 | processing task, is_child = 0
slot update_slots: id  0 | task 4117 | new prompt, n_ctx_slot = 262144, task.n_tokens = 6144
slot update_slots: id  0 | task 4117 | n_tokens = 4096, memory_seq_rm [4096, end)
slot update_slots: id  0 | task 4117 | prompt processing, n_tokens = 4608, progress = 0.75
slot update_slots: id  0 | task 4117 | prompt processing, n_tokens = 5120, progress = 0.83
slot update_slots: id  0 | task 4117 | prompt processing, n_tokens = 5632, progress = 0.92
slot update_slots: id  0 | task 4117 | prompt processing, n_tokens = 6144, progress = 1.00
slot update_slots: id  0 | task 4117 | prompt done, n_tokens = 6144, batch.n_tokens = 512
srv  log_server_r: done request: POST /v1/chat/completions 200
slot      release: id  0 | task 4117 | stop processing: n_tokens = 6702, truncated = 0
srv  update_slots: all slots are idle
srv  params_from_: Chat format: peg-native
slot launch_slot_: id  0 | task 4676 | processing task, is_child = 0
slot update_slots: id  0 | task 4676 | new prompt, n_ctx_slot = 262144, task.n_tokens = 6731
"""


def _serving(service: str, *, in_flight: int = 0, hours: float = 3.0, port: int = 8080, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}"
    known = {"service": service, "health": "ok", "url": url, "since": _NOW - hours * 3600, "in_flight": in_flight}
    return known | more


def _status(*active: dict[str, Any], name: str = "", state: str = "", **more: Any) -> dict[str, Any]:
    model = active[0]["service"] if active else None
    state = state or ("running" if active else "idle")
    sentence = f"{model} serves" if active else "nothing serves"
    known = {
        "model": model,
        "model_name": name,
        "state": state,
        "status": sentence,
        "active": list(active),
        "time": _NOW,
    }
    return known | {"agent": {"version": "0.1.0"}} | more


def _card(model: str, memory: int, used: int, *load: float, **services: int) -> dict[str, Any]:
    names = ("utilisation", "temperature_c", "power_w", "power_limit_w", "clock_mhz", "memory_clock_mhz")
    known = {"model": f"NVIDIA GeForce {model}", "memory_mib": memory, "used_mib": used, "services": services}
    return known | dict(zip(names, load, strict=False))


_STATUS: Final = _status(
    _serving("chat", in_flight=1), _serving("embed", hours=52.0, port=8082, pinned=True), name="Qwen3.5 35B A3B Q6"
)
_GPUS: Final = {
    "gpus": [
        _card("RTX 4090", 24564, 23830, 0.96, 63, 318, 450, 2520, 10501, chat=23020),
        _card("RTX 5070 Ti", 16303, 12230, 0.58, 57, 171, 300, 2482, 14001, chat=10480, embed=1210),
    ]
}
_SYSTEM: Final = {
    "cpu": 0.09,
    "load": [1.4, 1.1, 0.9],
    "memory": {"total_mib": 64205, "available_mib": 51900, "model_mib": 5200, "cache_mib": 34800, "system_mib": 4100},
    "swap": {"total_mib": 8192, "used_mib": 12},
    "services": {"chat": {"cpu": 1.2, "memory_mib": 3900}, "embed": {"cpu": 0.1, "memory_mib": 1300}},
}
_OFFERS: Final = {
    "services": [
        {"service": name, "name": model, "speed": speed, "context": context, "is_bench": bench, "leaves": leaves}
        | {"active": name in {"chat", "embed"}}
        for name, model, speed, context, bench, leaves in (
            ("chat", "Qwen3.5 35B A3B Q6", "~120 t/s", 262144, False, []),
            ("glm", "GLM 4.7 Flash Q8", "~112 t/s", 131072, False, ["chat"]),
            ("large", "Qwen3.5 122B A10B Q4", "~18 t/s", 262144, False, ["chat", "embed"]),
            ("dense", "Qwen3.5 27B Q6", "~31 t/s", 262144, False, ["chat"]),
            ("embed", "Embedding 4B Q8", "", 8192, False, []),
            ("bench-chat", "Qwen3.5 35B A3B Q6", "~120 t/s", 10240, True, ["chat"]),
        )
    ]
}
_SWITCH: Final = {"id": "41", "kind": "switch", "service": "large", "state": "running", "phase": "load"}


class Still:
    """A host that says the same for ever."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)
        self._asked = 0

    def start(self, wake: Callable[[], None]) -> None:
        """Say all there is."""
        wake()

    def stop(self) -> None:
        """Nothing goes on."""

    def drain(self) -> list[Message]:
        """Return what is left to say."""
        said, self._messages = self._messages, []
        return said

    def follow(self, _service: str) -> None:
        """Follow nothing: the log is what it is."""

    def look(self, *_kinds: str, seconds: float | None = None) -> None:
        """Nothing is asked again."""

    def ask(self, _question: Callable[[Any], Any]) -> int:
        """Answer with the services: nothing else is asked for a picture."""
        self._asked += 1
        self._messages.append(Answered(self._asked, _OFFERS))
        return self._asked


def _host(name: str, *said: Message) -> Watch:
    return Watch(name, Still(said), clock=lambda: 0.0, wall=lambda: _NOW)


def _box() -> Watch:
    known: list[Message] = [
        Said("status", _STATUS),
        Up(""),
        Said("gpus", _GPUS),
        Said("system", _SYSTEM),
        LogBegun("chat"),
    ]
    return _host("gpu01", *known, *(Logged("chat", text) for text in _LOG.splitlines()))


def _up(name: str, status: dict[str, Any], *cards: dict[str, Any]) -> Watch:
    return _host(name, Said("status", status), Up(""), Said("gpus", {"gpus": list(cards)}))


def _fleet() -> list[Watch]:
    loading = _status(state="starting", job=_SWITCH | {"started": _NOW - 34, "text": "large reads its weights"})
    return [
        _up("gpu01", _STATUS, *_GPUS["gpus"]),
        _up("gpu02", _status(_serving("chat")), _card("RTX 5080", 16303, 14560)),
        _up("gpu03", loading, _card("RTX 5080", 16303, 6420)),
        _up("gpu11", _status(_serving("glm", health="loading")), _card("RTX 4090", 24564, 19300)),
        _up("gpu12", _status(_serving("glm"), _serving("embed")), _card("RTX 4090", 24564, 21870)),
        _up("gpu13", _status(stopped=True), _card("RTX 4090", 24564, 410)),
        _host("gpu14", Lost("ssh: connect to host gpu14.example.com port 22: No route to host")),
        _up("gpu15", _status(_serving("glm")), _card("RTX 4090", 24564, 19420)),
        _up("gpu16", _status(_serving("dense")), _card("RTX 4090", 24564, 23480)),
        _up("gpu17", _status(_serving("dense")), _card("RTX 4090", 24564, 23610)),
        _up("cpu01", _status(_serving("embed"))),
    ]


def _dashboard() -> str:
    told = (
        "The dashboard of a host: its log, two cards with their memory, the system, two active services, and the keys."
    )
    return _shot([_box()], _SIZE, "llamarig dashboard", told)


def _switch() -> str:
    told = "A list of services lies over the dashboard: the chosen one would make the active one leave, which is busy."
    return _shot([_box()], _SIZE, "llamarig dashboard", told, "m", "down")


def _hosts() -> str:
    told = (
        "A table of eleven hosts: what each serves, its health and state, and a bar for its video memory; one is lost."
    )
    return _shot(_fleet(), _FLEET_SIZE, "llamarig dashboard --fleet", told, "down", "down", "down", fleet=True)


SCREENS: Final[Mapping[str, Callable[[], str]]] = {
    "docs/pictures/dashboard.svg": _dashboard,
    "docs/pictures/dashboard-switch.svg": _switch,
    "docs/pictures/dashboard-fleet.svg": _hosts,
}


def _shot(
    watches: Sequence[Watch], size: tuple[int, int], title: str, told: str, *keys: str, fleet: bool = False
) -> str:
    """Open a dashboard in a terminal that nobody sees, press keys, and return its picture."""

    async def shot() -> str:
        app = Dashboard(watches, fleet=fleet, few=False)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            for key in keys:
                await pilot.press(key)
                app.draw()
                await pilot.pause()
            return app.export_screenshot()

    with _coloured():
        return screen_picture(asyncio.run(shot()), title, told)


@contextmanager
def _coloured() -> Iterator[None]:
    """Let pictures have colours where the terminal of whoever draws them shall have none."""
    kept = os.environ.pop("NO_COLOR", None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ["NO_COLOR"] = kept
