"""``llamarig`` without words, on a terminal: a menu of what this host can serve; choosing one switches to it."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from llamarig.cli.dashboard import show
from llamarig.cli.draw import Terminal
from llamarig.cli.output import fail, say
from llamarig.cli.services import listed
from llamarig.cli.switch import with_sudo
from llamarig.cli.verb import host_root
from llamarig.cli.waiting import WaitEndedError, follow, told
from llamarig.errors import DaemonGoneError, ExitCode, LlamarigError
from llamarig.runtime.logline import plain
from llamarig.runtime.management import Management, outcome_of

# What stands around the services: a head, a line with the letters, the question, and room for an answer to a wrong one.
_AROUND: Final = 7
_NUMBER: Final = 6
_LONGEST_NAME: Final = 20
_LONGEST_SPEED: Final = 16
_YES: Final = frozenset({"y", "yes"})


class _LeaveError(Exception):
    """Whoever sits at the terminal wants no more."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the menu: its services, and the letters that do something on it."""

    title: str
    services: Sequence[Mapping[str, Any]]
    letters: Mapping[str, str]


def run() -> None:
    """Show the menu, and switch to what is chosen; Ctrl-C and Ctrl-D leave quietly."""
    try:
        _choose_and_switch()
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo()
        sys.exit(int(ExitCode.INTERRUPTED))
    except _LeaveError:
        return
    except LlamarigError as error:
        fail("switch", with_sudo(error), as_json=False)


def _choose_and_switch() -> None:
    client = Management.here(host_root())
    services = listed(host_root())
    terminal = Terminal.here()
    bench = False
    while True:
        page = _page(services, bench=bench)
        click.echo("\n".join(lines(page, terminal, shutil.get_terminal_size((80, 24)).lines, _now(client))))
        chosen = _answer(page)
        if isinstance(chosen, str):
            bench = chosen == "b"
            if chosen == "d":
                show()
        elif _is_sure(client, chosen):
            _stay_or_leave(_switched(client, str(chosen["service"])))
        services = listed(host_root())


def _switched(client: Management, service: str) -> ExitCode:
    """Switch, and say how it ended.

    Raises:
        WaitEndedError: Ctrl-C was typed; the switch goes on.

    """
    try:
        outcome = outcome_of(follow(client, client.submit("/switch", {"model": service}), quiet=False))
    except WaitEndedError:
        raise
    except LlamarigError as error:
        say("switch", with_sudo(error))
        return error.exit_code
    click.echo("\n".join(told(outcome)))
    return ExitCode.OK


def _stay_or_leave(code: ExitCode) -> None:
    """Ask how to go on after a switch, be it that it failed; leave with its exit code."""
    click.echo()
    while True:
        try:
            said = _read("  Enter leaves, d dashboard, r menu: ").lower()
        except _LeaveError:
            said = "q"
        if said in {"", "q"}:
            sys.exit(int(code))
        if said == "d":
            show()
        if said in {"d", "r"}:
            return


def _page(services: Sequence[Mapping[str, Any]], *, bench: bool) -> Page:
    shown = [service for service in services if service["bench"] == bench]
    count = sum(bool(service["bench"]) for service in services)
    if bench:
        return Page("services for benchmarks", shown, {"r": "back", "q": "quit"})
    more = {"b": f"benchmarks ({count})"} if count else {}
    return Page("services", shown, {**more, "d": "dashboard", "q": "quit"})


def lines(page: Page, terminal: Terminal, height: int, now: str) -> Iterator[str]:
    """Draw a page: two lines for each service, or one where two do not fit the terminal.

    Args:
        page: what is on it.
        terminal: where to.
        height: of the terminal, in lines.
        now: what serves, in words.

    """
    name = min(max((len(item["service"]) for item in page.services), default=0), _LONGEST_NAME)
    speed = min(max((len(item["speed"]) for item in page.services), default=0), _LONGEST_SPEED)
    title = terminal.width - _NUMBER - name - speed - 5 - 3 * 2
    both = 2 * len(page.services) + _AROUND <= height
    now = _cut(now, terminal.width // 2)
    yield ""
    yield f"{terminal.style(f'llamarig: {page.title}', bold=True)}  {now}"
    yield ""
    for number, item in enumerate(page.services, start=1):
        star = "*" if item["active"] else " "
        columns = (
            _cut(item["service"], name).ljust(name),
            _cut(item["title"], title).ljust(title),
            item["context_label"].rjust(5),
            _cut(item["speed"], speed),
        )
        text = f"{star}{number:>3}  {'  '.join(columns)}".rstrip()
        yield terminal.style(text, fg="green") if item["active"] else text
        if both and item["description"]:
            yield terminal.style(f"{' ' * _NUMBER}{_cut(item['description'], terminal.width - _NUMBER)}", dim=True)
    if not page.services:
        yield "      none"
    yield ""
    yield "  " + "   ".join(f"{letter} {what}" for letter, what in page.letters.items())


def _answer(page: Page) -> str | dict[str, Any]:
    """Ask until something is chosen: a letter of the page, or one of its services by number or name.

    Raises:
        _LeaveError: to leave was chosen, or Ctrl-D typed.

    """
    while True:
        said = _read("  choose: ").lower()
        if said == "q":
            raise _LeaveError
        if said in page.letters:
            return said
        by_name = {str(item["service"]).lower(): item for item in page.services}
        by_number = {str(number): item for number, item in enumerate(page.services, start=1)}
        item = by_number.get(said) or by_name.get(said)
        if item is not None:
            return dict(item)
        choices = [f"1 to {len(page.services)}"] if page.services else []
        click.echo(f"  there is no {plain(said)!r}; choose {', '.join([*choices, *page.letters])}")


def _is_sure(client: Management, item: Mapping[str, Any]) -> bool:
    """Say what would end, and ask where somebody is being answered."""
    plan = client.get(f"/plan/{item['service']}")
    leaves = set(plan.get("leaves") or [])
    if plan.get("active") and not leaves:
        click.echo(f"  {item['service']} serves already, at {item['url']}")
        return False
    ending = [each for each in client.get("/status").get("active") or [] if each.get("service") in leaves]
    busy = {str(each["service"]): int(each.get("in_flight") or 0) for each in ending}
    count = sum(busy.values())
    if not count:
        return True
    names = ", ".join(name for name, requests in busy.items() if requests)
    requests = "1 request" if count == 1 else f"{count} requests"
    click.echo(f"  {names} is answering {requests}, which may end first, as long as the service allows")
    return _read(f"  switch to {item['service']} all the same? [y/N] ").lower() in _YES


def _now(client: Management) -> str:
    try:
        data = client.get("/status")
    except DaemonGoneError:
        return "llamarigd does not run"
    serving = ", ".join(str(each.get("service")) for each in data.get("active") or [])
    return f"{serving} serves" if serving else "nothing serves"


def _read(question: str) -> str:
    """Ask, and return what was typed.

    Raises:
        _LeaveError: Ctrl-D was typed.

    """
    click.echo(question, nl=False)
    with contextlib.suppress(UnicodeDecodeError):
        line = sys.stdin.readline()
        if not line:
            click.echo()
            raise _LeaveError
        return line.strip()
    return ""


def _cut(text: str, width: int) -> str:
    text = plain(text)
    return text if len(text) <= width else f"{text[: max(width - 3, 0)]}..."
