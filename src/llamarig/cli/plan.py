"""What ``llamarig plan`` says: on a host of the specs it was given, on the control node of an inventory's."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from llamarig.cli.draw import Terminal, bar_line, head, incomplete_lines, panel_lines, wrapped
from llamarig.cli.picture import Panel, card_lines, entry, gib, strategy_of
from llamarig.cli.svg import drawing
from llamarig.config import budget
from llamarig.config.spec import Spec
from llamarig.daemon.state import StateStore
from llamarig.errors import LlamarigError, NotFoundError
from llamarig.runtime.specs import SpecStore

# More sets of services than a person reads; --json has every pair.
_MOST_SETS: Final = 8
_ONE_AT_A_TIME: Final = "One service is active at a time, also where more would fit."


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of one host.

    Attributes:
        name: of the host.
        specs: of its services.
        all_specs: also where ``specs`` are those that were asked for.
        active: the service that should be serving; None where that is not known, or none is.
        default: the service that serves when nobody chose another.
        memory: MiB of the host's memory that its services may take; None where nobody declared it here.
        cards: a line for each card.
        warnings: what a person should know.
        incomplete: why it cannot be deployed yet, each with its remedy.

    """

    name: str
    specs: Sequence[Spec]
    all_specs: Sequence[Spec]
    active: str | None = None
    default: str | None = None
    memory: int | None = None
    cards: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    incomplete: tuple[tuple[str, str], ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return what programs get: the specs with what leaves for each, pairs that fit, and what is to be known."""
        return {
            "specs": [{**spec.to_dict(), **self.leaving(spec)} for spec in self.specs],
            "together": [list(pair) for pair in budget.pairs(self.all_specs, self.memory)],
            "warnings": list(self.warnings),
            "incomplete": [{"problem": text, "remedy": remedy} for text, remedy in self.incomplete],
        }

    def leaving(self, spec: Spec) -> dict[str, Any]:
        """Say what stops for a service, and what would have to by the budget of memory alone."""
        others = [other for other in self.all_specs if other.service == self.active != spec.service]
        out = budget.must_leave(spec, others, self.memory, self.default)
        return {"leaves": [other.service for other in others], "must_leave": [other.service for other in out]}


def present(
    root: Path, service: str | None, inventory: Path | None, limit: str | None, svg: Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return what ``llamarig plan`` says, for programs and for people; with ``svg`` write it as a picture too.

    Raises:
        LlamarigError: no such service, the inventory has problems, or the picture cannot be written.

    """
    hosts = [_this_host(root, service)] if inventory is None else _of_inventory(inventory, service, limit)
    terminal = Terminal.here()
    lines: list[str] = []
    for names, host in _alike(hosts, terminal):
        if inventory is not None:
            lines += [*wrapped(f"{', '.join(names)}:", terminal, ""), ""] if not service else []
        lines += _detail(host, terminal, names) if service else panel_lines(_panel(host), terminal)
        lines.append("")
    data = hosts[0].to_dict() if inventory is None else {"hosts": {host.name: host.to_dict() for host in hosts}}
    if svg is not None:
        svg.write_text(drawing([replace(_panel(host), hosts=names) for names, host in _alike(hosts, terminal)]), "utf-8")
        data["svg"] = str(svg)
        lines += [f"wrote {svg}", ""]
    return data, lines[:-1]


def _this_host(root: Path, service: str | None) -> Host:
    store = SpecStore(root)
    specs = [store.get(service)] if service else store.all()
    every = store.all() if service else specs
    name = specs[0].host if specs else "this host"
    warnings = tuple(text for spec in specs for text in _unsure(spec))
    active = StateStore(root).read().active
    return Host(name, specs, every, active=active, default=store.default_service(), warnings=warnings)


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
                warnings=tuple([*wanted, *(text for spec in specs for text in _published(spec))]),
                incomplete=_incomplete(plan.incomplete, service),
            )
        )
    if not hosts:
        raise NotFoundError(f"no host of {inventory} runs a service {service!r}", "llamarig plan -i shows all of them")
    return hosts
