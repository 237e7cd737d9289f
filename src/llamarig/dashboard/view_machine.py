"""What the panel of the system shows. Pure."""

from __future__ import annotations

from typing import Final

from llamarig.dashboard.machine import Machine
from llamarig.dashboard.reading import share
from llamarig.dashboard.text import Line, apart, bar, column, cut, gib, level, line, percent, width, wrapped

_WARN, _BAD = 0.70, 0.85
# Swap below it is what every machine has; from the second on the machine is in trouble.
_SWAP_SHOWN, _SWAP_BAD = 100.0, 4096.0
_LABEL: Final = 5
# Where bars need the room that units and loads would take.
_NARROW: Final = 26
_SHORTEST_BAR: Final = 8


def machine_lines(machine: Machine | None, cells: int, height: int, failure: str = "") -> list[Line]:
    """Return the lines of processors and memory, the most important first where there is little room."""
    if machine is None:
        return [line((text, "faint")) for text in wrapped(failure or "asking for the system", cells)][:height]
    swap = _swap(machine, cells)
    alarm = machine.swap_used is not None and machine.swap_used >= _SWAP_BAD
    services = _services(machine, cells)
    lines = [_cpu(machine, cells), _memory(machine, cells)]
    lines += [swap] if swap and alarm else []
    lines += _split(machine, cells, height - len(lines) - bool(swap and not alarm) - min(1, len(services)))
    lines += [swap] if swap and not alarm else []
    return [cut(text, cells) for text in [*lines, *services]][:height]


def _cpu(machine: Machine, cells: int) -> Line:
    loads = [f"{value:.1f}" for value in machine.load]
    load = f"  load {' '.join(loads)}" if loads else ""
    share_now = f" {percent(machine.cpu):>4}"
    if len(load) > cells - _LABEL - len(share_now) - _SHORTEST_BAR:
        load = f"  load {loads[0]}" if loads and cells >= _NARROW else ""
    right = line(share_now, (load, "faint"))
    style = level(machine.cpu, _WARN, _BAD)
    return line(("CPU  ", "faint"), *bar([(machine.cpu or 0.0, style)], max(0, cells - _LABEL - width(right))), *right)


def _used(machine: Machine) -> float | None:
    """All that is taken, what the page cache keeps included."""
    parts = [part for part in (machine.model, machine.cache, machine.system) if part is not None]
    if parts:
        return sum(parts)
    return None if machine.total is None or machine.available is None else machine.total - machine.available


def _memory(machine: Machine, cells: int) -> Line:
    # Its colour says what is not available; the page cache is, so it frightens nobody.
    gone = None if machine.available is None else share((machine.total or 0.0) - machine.available, machine.total)
    style = level(gone, _WARN, _BAD)
    number = f" {gib(_used(machine))}/{gib(machine.total)}{' GiB' if cells >= _NARROW else ''}"
    parts = [(share(machine.model, machine.total), "model"), (share(machine.cache, machine.total), "cache")]
    parts.append((share(machine.system, machine.total), "system"))
    if all(part is None for part, _ in parts):
        parts = [(gone, style)]
    drawn = bar([(part or 0.0, name) for part, name in parts], max(0, cells - _LABEL - len(number)))
    return line(("RAM  ", "faint"), *drawn, (number, "plain" if style == "ok" else style))


def _split(machine: Machine, cells: int, height: int) -> list[Line]:
    """Say what the memory is used for; in one line, in whole GiB, where there is little room."""
    parts = [("model", machine.model, "model"), ("cache", machine.cache, "cache"), ("system", machine.system, "system")]
    parts.append(("available", machine.available, "faint"))
    known = [(name, value, style) for name, value, style in parts if value is not None]
    exact = [line((f"{name} ", style), gib(value)) for name, value, style in known]
    lines = _beside(exact, cells - _LABEL)
    if len(lines) <= height:
        return [line(" " * _LABEL, *text) for text in lines]
    return _beside([line((f"{name} ", style), f"{value / 1024:.0f}") for name, value, style in known], cells)[:1]


def _beside(items: list[Line], cells: int) -> list[Line]:
    """Put items beside each other, as many to a line as fit."""
    lines: list[Line] = []
    for item in items:
        if lines and width(lines[-1]) + 2 + width(item) <= cells:
            lines[-1] = line(*lines[-1], "  ", *item)
        else:
            lines.append(item)
    return lines


def _swap(machine: Machine, cells: int) -> Line:
    used = machine.swap_used
    if used is None or used < _SWAP_SHOWN:
        return line()
    style = "bad" if used >= _SWAP_BAD else "warn"
    number = f" {gib(used)}/{gib(machine.swap_total)} GiB"
    drawn = bar([(share(used, machine.swap_total) or 0.0, style)], max(0, cells - _LABEL - len(number)))
    return line(("swap ", "faint"), *drawn, (number, style))


def _services(machine: Machine, cells: int) -> list[Line]:
    rows = []
    for service, cores, memory in machine.services:
        cpu = f"{'-' if cores is None else f'{cores:.1f}'} cores"
        right = line(f"{cpu}  {gib(memory):>5} GiB")
        rows.append(apart(line((column(service, max(0, cells - width(right) - 1)), "accent")), right, cells))
    return rows
