"""What ``llamarig plan`` says: on a host of the specs it was given, on the control node of an inventory's."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from llamarig.cli.draw import UNPREDICTED, Terminal, bar_line, head, incomplete_lines, panel_lines, wrapped
from llamarig.cli.hosts import Host, turns
from llamarig.cli.picture import Missing, Panel, card_lines, entry, gib, hosts_named, strategy_of
from llamarig.config import budget
from llamarig.config.spec import Spec
from llamarig.daemon.state import StateStore
from llamarig.errors import LlamarigError, NotFoundError, Problem
from llamarig.runtime.management import Management
from llamarig.runtime.specs import SpecStore

# More sets of services than a person reads; --json has every pair.
_MOST_SETS: Final = 8
_LABEL: Final = 13
# For the daemon's word, which the host's files can do without.
_SECONDS: Final = 5.0
# One of several files that are one model, as llama.cpp names them.
_PART: Final = re.compile(r"-\d{5}-of-(?=\d{5}\.gguf$)")


def present(
    root: Path, service: str | None, inventory: Path | None, limit: str | None, svg: Path | None, *, as_json: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return what ``llamarig plan`` says, for programs or for people: a large fleet is not said twice.

    With ``svg`` it is written as a picture too.

    Raises:
        LlamarigError: no such service, the inventory has problems, or the picture cannot be written.

    """
    hosts = [_this_host(root, service)] if inventory is None else _of_inventory(inventory, service, limit)
    if svg is not None:
        svg.write_text(_drawn(hosts), encoding="utf-8")
    if not as_json:
        lines = list(_lines(hosts, whole=service is None, named=inventory is not None))
        return {}, [*lines, "", f"wrote {svg}"] if svg is not None else lines
    told = {host.name: host.to_dict() for host in hosts}
    data = told[hosts[0].name] if inventory is None else {"hosts": told}
    return data | ({} if svg is None else {"svg": str(svg)}), []


def picture(inventory: Path, service: str | None = None, limit: str | None = None) -> str:
    """Return the picture of an inventory's plans, or of those of one service, as SVG.

    Raises:
        LlamarigError: no such service, or the inventory has problems.

    """
    return _drawn(_of_inventory(inventory, service, limit))


def _drawn(hosts: Sequence[Host]) -> str:
    from llamarig.cli.svg import drawing  # noqa: PLC0415  only few want a picture

    return drawing([replace(_panel(host), hosts=names) for names, host in _alike(hosts)])


def _lines(hosts: Sequence[Host], *, whole: bool, named: bool) -> Iterator[str]:
    terminal = Terminal.here()
    for number, (names, host) in enumerate(_alike(hosts)):
        if number:
            yield ""
        if not whole:
            yield from _detail(host, terminal, names)
            continue
        if named:
            yield from (terminal.style(line, bold=True) for line in wrapped(f"{hosts_named(names)}:", terminal, ""))
        yield from panel_lines(_panel(host), terminal)


def _this_host(root: Path, service: str | None) -> Host:
    store = SpecStore(root)
    specs = [store.get(service)] if service else store.all()
    every = store.all() if service else specs
    name = specs[0].host if specs else "this host"
    warnings = tuple(text for spec in specs for text in _unsure(spec)) if specs else ("this host runs no service",)
    active, default = StateStore(root).read().names, store.default_service()
    said = _said(root, specs) if service else {}
    return Host(
        name,
        specs,
        every,
        active=active,
        default=default,
        warnings=warnings,
        notes=tuple(turns(every)),
        deployed=True,
        said=said,
    )


def _said(root: Path, specs: Sequence[Spec]) -> dict[str, dict[str, Any]]:
    """Ask the daemon what a switch to services would do; where it does not say, the files of the host do."""
    client = Management(root, seconds=_SECONDS)
    try:
        return {spec.service: client.get(f"/plan/{spec.service}") for spec in specs}
    except LlamarigError:
        return {}


def _of_inventory(inventory: Path, service: str | None, limit: str | None) -> list[Host]:
    try:
        from llamarig.control.inventory import plan_inventory  # noqa: PLC0415  not part of a host's release
    except ImportError as error:
        raise LlamarigError("inventories are planned on the control node", "run it there, or leave -i out") from error
    hosts = []
    for name, plan in plan_inventory(inventory, limit).items():
        specs = [spec for spec in plan.specs if service in {None, spec.service}]
        if service and not specs:
            continue
        wanted = [text for text in plan.warnings if not service or text.startswith(f"{service}: ")]
        hosts.append(
            Host(
                name,
                specs,
                plan.specs,
                default=plan.default_service,
                memory=plan.hardware["memory_mib"] - plan.hardware["reserve_mib"],
                cards=card_lines(plan.hardware),
                uuids=tuple(card["uuid"] for card in plan.hardware["gpus"]),
                warnings=(*wanted, *(text for spec in specs for text in _published(spec))),
                notes=tuple(plan.notes),
                incomplete=_incomplete(plan.incomplete, service),
            )
        )
    if not hosts:
        raise NotFoundError(f"no host of {inventory} runs a service {service!r}", "llamarig plan -i shows all of them")
    return hosts


def _incomplete(problems: Sequence[Problem], service: str | None) -> tuple[Missing, ...]:
    """Say each thing that is missing once, though several services need it; files that are parts of one, as one."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for problem in problems:
        if service in {None, problem.service}:
            profile, _, file = problem.key.partition(", file ")
            part = _PART.sub("-*-of-", file)
            where = f"{profile.removeprefix('profile ')}: {part}" if file else profile
            found.setdefault((problem.message, problem.remedy), {}).setdefault(part or profile, where)
    return tuple(Missing(what, tuple(where.values()), remedy) for (what, remedy), where in found.items())


def _unsure(spec: Spec) -> Iterator[str]:
    """Say what of a spec's memory is not known, or not exactly."""
    if spec.memory is not None:
        yield from (f"{spec.service}: not predicted: {text}" for text in spec.memory.unknown)
    yield from _published(spec)


def _published(spec: Spec) -> Iterator[str]:
    if spec.memory is not None and spec.memory.shape == "published":
        yield f"{spec.service}: sizes are approximate: what is published of the model, not read from its file"


def _panel(host: Host) -> Panel:
    marks = {host.default: "default"} | dict.fromkeys(host.active, "active")
    return Panel(
        hosts=(host.name,),
        cards=host.cards,
        entries=tuple(entry(spec, marks.get(spec.service, "")) for spec in host.specs),
        together=tuple(_together(host)),
        warnings=_said_once(host.warnings),
        incomplete=host.incomplete,
    )


def _together(host: Host) -> Iterator[str]:
    """Say which services may be active side by side: every largest set, or how many pairs where there are too many."""
    if len(host.all_specs) < 2:  # noqa: PLR2004  nothing can stand beside one
        return
    if len(host.specs) < len(host.all_specs):
        yield from (f"{spec.service} fits beside {_beside(host, spec)}." for spec in host.specs)
        return
    sets = list(islice(host.together(), _MOST_SETS + 1))
    if not sets:
        yield "No two of these services may be active together."
    elif len(sets) <= _MOST_SETS:
        yield from (" + ".join(names) for names in sets)
    else:
        yield f"{len(host.pairs())} pairs of services fit; llamarig plan <service> says what fits beside one."
    yield from (f"{note}." for note in host.notes)


def _said_once(warnings: Sequence[str]) -> tuple[str, ...]:
    """Put what is said of several services in one line, with all their names before it."""
    services: dict[str, list[str]] = {}
    for warning in warnings:
        name, apart, text = warning.partition(": ")
        services.setdefault(text if apart else warning, []).append(name if apart else "")
    return tuple(f"{', '.join(names)}: {text}" if any(names) else text for text, names in services.items())


def _alike(hosts: Sequence[Host]) -> Iterator[tuple[tuple[str, ...], Host]]:
    """Yield hosts that differ in nothing but their names and their cards' UUIDs together, with all their names."""
    groups: dict[tuple[object, ...], list[Host]] = {}
    for host in hosts:
        cards = {uuid: number for number, uuid in enumerate(host.uuids)}
        services = tuple(_seen(spec, cards) for spec in host.all_specs)
        shown = tuple(spec.service for spec in host.specs)
        about = (host.cards, host.default, host.warnings, host.incomplete)
        groups.setdefault((*about, shown, services), []).append(host)
    for group in groups.values():
        yield tuple(host.name for host in group), group[0]


def _seen(spec: Spec, cards: Mapping[str, int]) -> tuple[object, ...]:
    """Return all that is shown of a service, its cards by their places."""
    memory = spec.memory
    takes: tuple[object, ...] = ()
    if memory is not None:
        devices = tuple(replace(device, uuid="") for device in memory.devices)
        takes = (devices, memory.host, memory.shape, tuple(memory.unknown))
    return (
        *(spec.service, spec.profile, spec.strategy, spec.asked, spec.reason, spec.bind, spec.port, spec.memory_mib),
        *(spec.image, spec.api_key_file, tuple(spec.considered), tuple(spec.argv), tuple(spec.files)),
        *(tuple(cards.get(uuid, -1) for uuid in spec.gpus), takes),
    )


def _detail(host: Host, terminal: Terminal, names: Sequence[str]) -> Iterator[str]:
    """Write one service in full: why it lies so, what else was considered, what stops for it, its arguments."""
    (spec,) = host.specs
    title = f"{spec.service} on {hosts_named(names)}: {spec.profile}, strategy {strategy_of(spec)}"
    first, *rest = wrapped(title, terminal, "")
    yield from (first.replace(spec.service, terminal.style(spec.service, bold=True), 1), *rest)
    for label, texts in _facts(host, spec).items():
        for number, text in enumerate(texts):
            yield from _labelled(label if number == 0 else "", text, terminal)
    bars = entry(spec).bars
    yield from (
        "",
        *([*head(bars, terminal), *(bar_line(bar, bars, terminal) for bar in bars)] if bars else [UNPREDICTED]),
    )
    for warning in host.warnings:
        yield from _labelled("warning", warning.removeprefix(f"{spec.service}: "), terminal)
    if host.incomplete:
        yield from ("", terminal.style("Cannot be deployed yet:", bold=True, fg="red"))
        yield from incomplete_lines(host.incomplete, terminal)
    yield from ("", f"llama-server {shlex.join(spec.argv)}")


def _labelled(label: str, text: str, terminal: Terminal) -> list[str]:
    """Write a text behind a label, all its lines under each other."""
    first, *rest = wrapped(text, terminal, " " * _LABEL, _LABEL)
    return [f"{label.ljust(_LABEL)}{first}", *rest]


def _facts(host: Host, spec: Spec) -> Mapping[str, Sequence[str]]:
    key = ", with API key" if spec.api_key_file else ""
    return {
        "why": [spec.reason],
        "considered": spec.considered,
        "engine": [spec.image],
        "address": [f"{spec.bind}:{spec.port}{key}"],
        "file": [
            f"{item.path} ({gib(max(item.bytes >> 20, 1))} GiB)" if item.bytes else item.path for item in spec.files
        ],
        "memory limit": [f"{gib(spec.memory_mib)} GiB"],
        **({"fits beside": [_beside(host, spec)]} if len(host.all_specs) > 1 else {}),
        **({"what leaves": list(_leaving(host, spec))} if host.deployed else {}),
        "settings": [f"llamarig explain {spec.service} says where each comes from"],
    }


def _beside(host: Host, spec: Spec) -> str:
    others = [other for other in host.all_specs if other.port != spec.port]
    fit = [other.service for other in others if budget.fits([spec, other], host.limit)]
    return ", ".join(fit) or "none of the other services"


def _leaving(host: Host, spec: Spec) -> Iterator[str]:
    """Say what stops for a service, and why."""
    said = host.leaving(spec)
    if said["refused"]:
        yield f"a switch to it would be refused: {said['refused']}"
        return
    if not said["leaves"]:
        yield "nothing"
        return
    yield ", ".join(said["leaves"])
    turns = [name for name in said["same_port"] if name in said["leaves"]]
    if turns:
        yield f"it takes turns with {', '.join(turns)} on port {spec.port}"
    active = [other for other in host.all_specs if other.service in said["leaves"] and other.service not in turns]
    for lack in budget.shortages([spec, *active], host.limit) if active else ():
        yield f"side by side they do not fit: {lack.named(_names(host.all_specs))}"


def _names(specs: Sequence[Spec]) -> dict[str, str]:
    """Return the names of cards by UUID, as far as any service's prediction has them."""
    return {part.uuid: part.name for spec in specs if spec.memory for part in spec.memory.devices}
