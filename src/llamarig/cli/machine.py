"""The verbs about a machine itself: detect, doctor, tune, version."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from llamarig import __version__, release
from llamarig.cli.output import fail, finish
from llamarig.cli.verb import JSON, host_root, needs_root
from llamarig.errors import ExitCode, LlamarigError


@click.command(short_help="Write the host_vars of boxes from what they have.")
@click.argument("hosts", nargs=-1)
@click.option(
    "-i",
    "--inventory",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="The inventory that names the hosts and gets their host_vars.",
)
@click.option("--check", "dry", is_flag=True, help="Say what would be written; write nothing.")
@click.option("-K", "--ask-become-pass", "ask_sudo", is_flag=True, help="Ask for the password of sudo on the hosts.")
@JSON
def detect(hosts: tuple[str, ...], *, inventory: Path, dry: bool, ask_sudo: bool, as_json: bool) -> None:
    """Write the host_vars of HOSTS, by default of all hosts of an inventory, from what their boxes have.

    For the control node. It reads memory, threads and cards, changes nothing on a host, and writes
    host_vars/HOST/hardware.yml: what a person added there stays. Exits 1 where a host could not be read or written, or
    its driver does not answer; the other hosts are written.

    \b
    Examples:
      llamarig detect -i inventories/mysite
      llamarig detect -i inventories/mysite gpu01.example.com --check
    """  # noqa: D301  click's mark
    from llamarig.cli.detect import run  # noqa: PLC0415

    try:
        data, lines, code = run(inventory, hosts, dry=dry, ask_sudo=ask_sudo)
    except LlamarigError as error:
        fail("detect", error, as_json=as_json)
    finish("detect", data, lines, as_json=as_json, code=code)


@click.command(short_help="Check this host; what is wrong comes with its remedy.")
@JSON
def doctor(*, as_json: bool) -> None:
    """Check this host; one line a check, with the remedy where something is wrong.

    Exits 0 when all is well, 7 when the host serves and something needs a look, 6 when a check fails.

    \b
    Examples:
      llamarig doctor
      sudo llamarig doctor --json
    """  # noqa: D301  click's mark
    data = examine(show=not as_json)
    said, code = "healthy", ExitCode.OK
    if not data["healthy"]:
        said, code = "unhealthy", ExitCode.UNHEALTHY
    elif data["warnings"]:
        said, code = f"healthy, with {data['warnings']} warning{'s'[: data['warnings'] > 1]}", ExitCode.WARNINGS
    finish("doctor", data, [said], as_json=as_json, code=code)


def examine(*, show: bool) -> dict[str, Any]:
    """Run the doctor and return its verdict; with ``show``, print each line as it comes."""
    from llamarig.checks.box import Box  # noqa: PLC0415
    from llamarig.checks.doctor import examine as each  # noqa: PLC0415
    from llamarig.checks.doctor import verdict  # noqa: PLC0415

    box = Box.of_host(host_root())
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    results = []
    for result in each(box):
        results.append(result)
        if show:
            word = click.style(result.status.value.ljust(4), fg=colours[result.status.value])
            click.echo(f"{word}  {result.name}: {result.message}")
            if result.remedy:
                click.echo(f"      remedy: {result.remedy}")
    return verdict(box, results)


@click.command(hidden=True)
@click.option("--check", "dry", is_flag=True, help="Say what would be changed; change nothing.")
@JSON
def tune(*, dry: bool, as_json: bool) -> None:
    """Give the GPUs their persistence, power limits and clock locks; the host's start and the playbooks call it.

    Exits 0 when the cards are as declared, 2 when a card does not take a declared value (no card is touched then), and
    1 when NVML refuses, or a declared card is not there; the other cards are as declared then.
    """
    from llamarig.cli.tune import run  # noqa: PLC0415

    needs_root("tune", as_json=as_json)
    try:
        data, lines = run(host_root(), dry=dry)
    except LlamarigError as error:
        fail("tune", error, as_json=as_json)
    finish("tune", data, lines, as_json=as_json)


@click.command()
@JSON
def version(*, as_json: bool) -> None:
    """Say which llamarig this is.

    \b
    Examples:
      llamarig version --json
    """  # noqa: D301  click's mark
    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    data = {"version": __version__, "release": release(), "python": python}
    line = f"llamarig {__version__} (release {release() or 'none: a checkout'}, Python {python})"
    finish("version", data, [line], as_json=as_json)
