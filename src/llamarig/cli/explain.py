"""What ``llamarig explain`` says: where each setting of a service comes from, and what the planner decides itself."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llamarig.cli.draw import Terminal, wrapped
from llamarig.cli.output import table
from llamarig.cli.picture import hosts_named, strategy_of
from llamarig.config.engine_options import Option, recorded_options
from llamarig.config.owned import OWNED
from llamarig.config.spec import Spec
from llamarig.errors import LlamarigError, NotFoundError
from llamarig.runtime.specs import SpecStore

_LONGEST_VALUE: Final = 40
_LABEL: Final = 10
_ARGUMENT: Final = 24
_DOUBTFUL: Final = 0.5


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument that the planner wrote: its option without dashes, what it gave it, and why it is not the user's."""

    option: str
    value: str | None
    why: str


def present(
    root: Path, service: str, setting: str | None, inventory: Path | None, host: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what ``llamarig explain`` says, for programs and for people.

    Raises:
        LlamarigError: no such service, host or setting, or the inventory has problems.

    """
    if inventory is None:
        if host is not None:
            raise LlamarigError("--host names a host of an inventory", "say which: -i inventories/<site>")
        spec = _of_this_host(root, service)
        return _told(spec, setting), [*_lines(spec, setting, [spec.host])]
    specs = _of_inventory(inventory, service, host)
    data = {"hosts": {spec.host: _told(spec, setting) for spec in specs}}
    lines: list[str] = []
    for group in _alike(specs):
        lines += [*_lines(group[0], setting, [spec.host for spec in group]), ""]
    return data, lines[:-1]


def owned(spec: Spec) -> list[Argument]:
    """Return the arguments that no setting brought, in the order of the command line."""
    words = [*spec.argv, ""]
    found = []
    place = 0
    while place < len(words) - 1:
        option, value = words[place].removeprefix("--"), words[place + 1]
        key = option.replace("-", "_")
        if key in spec.origins:
            # A switch has no value; what is on or off is a word, and everything else has one.
            place += 1 if isinstance(spec.origins[key]["value"], bool) and value not in {"on", "off"} else 2
        elif words[place].startswith("--no-") and key.removeprefix("no_") in spec.origins:
            place += 1
        else:
            given = None if value.startswith("--") or not value else value
            found.append(Argument(option, given, OWNED.get(option, "is decided by the planner")))
            place += 1 if given is None else 2
    return found


def _of_this_host(root: Path, service: str) -> Spec:
    store = SpecStore(root)
    try:
        return store.get(service)
    except NotFoundError as error:
        raise _no_service(error.message, service, [spec.service for spec in store.all()]) from None


def _of_inventory(inventory: Path, service: str, host: str | None) -> list[Spec]:
    try:
        from llamarig.control.inventory import plan_inventory  # noqa: PLC0415  not part of a host's release
    except ImportError as error:
        raise LlamarigError("inventories are planned on the control node", "run it there, or leave -i out") from error
    plans = plan_inventory(inventory, host)
    specs = [spec for plan in plans.values() for spec in plan.specs if spec.service == service]
    if not specs:
        names = sorted({spec.service for plan in plans.values() for spec in plan.specs})
        raise _no_service(f"{host or f'no host of {inventory}'} runs no service {service!r}", service, names)
    return specs


def _no_service(message: str, service: str, names: Sequence[str]) -> NotFoundError:
    near = difflib.get_close_matches(service, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return NotFoundError(message, f"{hint}choose one of: {', '.join(names) or 'none'}")


def _alike(specs: Sequence[Spec]) -> Iterator[list[Spec]]:
    """Yield specs whose settings and arguments are the same together."""
    groups: dict[str, list[Spec]] = {}
    for spec in specs:
        same = [spec.profile, strategy_of(spec), spec.reason, spec.origins, spec.argv]
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(spec)
    yield from groups.values()


def _told(spec: Spec, setting: str | None) -> dict[str, Any]:
    arguments = [{"option": argument.option, "value": argument.value, "why": argument.why} for argument in owned(spec)]
    data: dict[str, Any] = {
        "host": spec.host,
        "service": spec.service,
        "profile": spec.profile,
        "strategy": spec.strategy,
        "asked": spec.asked or spec.strategy,
        "reason": spec.reason,
    }
    if setting is None:
        settings = [{"setting": key, **origin, "over": origin.get("over", [])} for key, origin in spec.origins.items()]
        return data | {"settings": settings, "owned": arguments}
    key = _canonical(spec, setting)
    origin = spec.origins.get(key)
    said = {"setting": key, "value": None, "layer": None, "over": []} | (origin or {})
    mine = next((argument for argument in arguments if argument["option"] == key.replace("_", "-")), None)
    why = OWNED.get(key.replace("_", "-"))
    return data | said | {"owned": mine or ({"option": key, "value": None, "why": why} if why else None)}


def _lines(spec: Spec, setting: str | None, hosts: Sequence[str]) -> Iterator[str]:
    terminal = Terminal.here()
    if setting is not None:
        yield from _one(spec, _canonical(spec, setting), hosts, terminal)
        return
    yield from wrapped(
        f"{spec.service} on {hosts_named(hosts)}: {spec.profile}, strategy {strategy_of(spec)} ({spec.reason})",
        terminal,
        "",
    )
    rows = [
        (key, _shown(origin["value"]), str(origin["layer"]), ", ".join(_over(origin)))
        for key, origin in spec.origins.items()
    ]
    yield from ("", *table(("SETTING", "VALUE", "LAYER", "OVER"), rows))
    arguments = owned(spec)
    if arguments:
        yield from ("", "The planner writes these itself; server cannot set them:")
    for item in arguments:
        text = f"--{item.option} {shlex.quote(item.value) if item.value else ''}".rstrip()
        if len(text) < _ARGUMENT and _ARGUMENT + 4 + len(item.why) <= terminal.width:
            yield f"  {text.ljust(_ARGUMENT)}  {terminal.style(item.why, dim=True)}"
        else:
            yield f"  {text}"
            yield from (terminal.style(line, dim=True) for line in wrapped(item.why, terminal, "      "))


def _one(spec: Spec, key: str, hosts: Sequence[str], terminal: Terminal) -> Iterator[str]:
    """Say all of one setting: its value, and below it what every weaker layer had said."""
    option = key.replace("_", "-")
    where = f"{spec.service} on {hosts_named(hosts)}"
    origin = spec.origins.get(key)
    if origin is not None:
        yield from wrapped(f"{key} of {where}", terminal, "")
        said = [(str(origin["layer"]), origin["value"])]
        said += [(str(item["layer"]), item["value"]) for item in origin.get("over", [])]
        for number, (layer, value) in enumerate(said):
            line = f"  {layer.ljust(_LABEL)}{json.dumps(value)}"
            yield terminal.style(line, bold=True) if number == 0 else line
    elif option in OWNED:
        given = next((item for item in owned(spec) if item.option == option), None)
        is_now = f"is {given.value or 'on'}" if given else "is not on its command line"
        yield from wrapped(f"--{option} of {where} {is_now}; it cannot be set in server: {OWNED[option]}", terminal, "")
    else:
        yield from wrapped(f"{key} of {where}: no layer says it, llama-server's own default holds", terminal, "")
    names = _recorded().get(option)
    if names is not None:
        yield f"  llama-server: {', '.join(sorted(names.names, key=len))} {names.metavar}".rstrip()


def _over(origin: Mapping[str, Any]) -> Iterator[str]:
    for item in origin.get("over", []):
        yield f"{item['layer']} {_shown(item['value'])}"


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _canonical(spec: Spec, setting: str) -> str:
    """Return the name of a setting as the spec has it, from any of llama-server's names for it.

    Raises:
        NotFoundError: llama-server has no such option.

    """
    dashed = setting.strip().lstrip("-").replace("_", "-")
    key = dashed.replace("-", "_")
    if key in spec.origins or dashed in OWNED:
        return key
    options = _recorded()
    if dashed in options:
        return options[dashed].name.lstrip("-").replace("-", "_")
    names = sorted({*spec.origins, *(option.name.lstrip("-").replace("-", "_") for option in options.values())})
    near = difflib.get_close_matches(key, names, n=3, cutoff=_DOUBTFUL)
    remedy = f"did you mean {', '.join(near)}?" if near else f"llamarig explain {spec.service} lists its settings"
    raise NotFoundError(f"{spec.service} has no setting {setting!r}", remedy)


def _recorded() -> Mapping[str, Option]:
    """Return the engine's options by all their names; none where its recorded help was not brought along."""
    try:
        return recorded_options()
    except OSError:
        return {}
