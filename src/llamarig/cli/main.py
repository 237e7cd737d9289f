"""The command ``llamarig``: verbs over the host's specs and state. Thin; every verb says what other rooms know."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click

from llamarig import __version__
from llamarig.cli.engine import engine
from llamarig.cli.output import fail, finish, table
from llamarig.errors import ExitCode, LlamarigError, NotAllowedError

_JSON = click.option("--json", "as_json", is_flag=True, help="Print a versioned JSON envelope.")
_INVENTORY = click.option(
    "-i", "--inventory", type=click.Path(exists=True, path_type=Path), help="Ask an inventory, on the control node."
)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main() -> None:
    """Run the command; a user's mistake ends with a sentence, never with a traceback."""
    os.umask(0o022)
    try:
        cli.main(prog_name="llamarig", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(int(ExitCode.INTERRUPTED))
    except OSError as error:
        # A full disk, a file that this user may not read: said in a sentence like any other mistake.
        click.echo(f"llamarig: {error}\n    remedy: look at the file named, and at df; try with sudo", err=True)
        sys.exit(int(ExitCode.FAILED))


@click.group(context_settings=_CONTEXT, epilog="Exit codes: docs/reference/cli.md. Every verb takes --help and --json.")
def cli() -> None:
    """Serve models with llama.cpp on this host, and switch between them safely."""


cli.add_command(engine)


def _root() -> Path:
    return Path(os.environ.get("LLAMARIG_ROOT", "/"))


def _needs_root(command: str, *, as_json: bool) -> None:
    if os.geteuid() != 0:
        words = " ".join(sys.argv[1:])
        fail(command, NotAllowedError("only root may do this for now", f"sudo llamarig {words}"), as_json=as_json)


def _switcher(progress: Any) -> Any:
    from llamarig.cli.check import judge_between  # noqa: PLC0415  list and version start without all of it
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.daemon.switching import Switcher  # noqa: PLC0415
    from llamarig.runtime.engine import LlamaServer  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415
    from llamarig.runtime.systemd import Systemd  # noqa: PLC0415

    root = _root()
    return Switcher(
        specs=SpecStore(root),
        state=StateStore(root),
        units=Systemd(),
        engine=LlamaServer(root),
        progress=progress,
        judge=judge_between(root),
    )


def _stop_like_ctrl_c() -> None:
    """Let a closed terminal or a kill end a switch as Ctrl-C does: by going back, not by dying half-way."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def _say(*, as_json: bool) -> Any:
    def say(text: str) -> None:
        # The terminal may be gone; that must not keep a switch from going back.
        with contextlib.suppress(OSError):
            if not as_json:
                click.echo(f"  {text}", err=True)

    return say


@cli.command("list")
@_JSON
def list_command(*, as_json: bool) -> None:
    """List the services of this host; the active one is starred."""
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    root = _root()
    try:
        specs = SpecStore(root).all()
    except LlamarigError as error:
        fail("list", error, as_json=as_json)
    active = StateStore(root).read().active
    rows = [
        {
            "service": spec.service,
            "active": spec.service == active,
            "profile": spec.profile,
            "strategy": spec.strategy,
            "url": spec.url,
            "context": spec.origins.get("ctx_size", {}).get("value"),
            "description": spec.description,
        }
        for spec in specs
    ]
    lines = table(
        ("", "SERVICE", "PROFILE", "STRATEGY", "CONTEXT", "URL"),
        [
            ("*" if r["active"] else "", *(str(r[k]) for k in ("service", "profile", "strategy", "context", "url")))
            for r in rows
        ],
    )
    finish("list", {"services": rows}, lines if rows else ["this host runs no service"], as_json=as_json)


@cli.command()
@_JSON
def status(*, as_json: bool) -> None:
    """Say what serves now, since when its unit runs, and whether a switch is under way."""
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.engine import LlamaServer  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415
    from llamarig.runtime.systemd import Systemd  # noqa: PLC0415

    root = _root()
    state = StateStore(root).read()
    data: dict[str, Any] = {"active": state.active, "switching_to": state.switching_to, "unit": None, "health": None}
    lines = [f"active:  {state.active or 'none'}"]
    try:
        if state.active is not None:
            spec = SpecStore(root).get(state.active)
            unit = Systemd().state(state.active)
            data |= {
                "unit": {"active": unit.active, "sub": unit.sub, "restarts": unit.restarts, "enabled": unit.enabled},
                "health": LlamaServer(root).health(spec),
                "url": spec.url,
                "profile": spec.profile,
                "spec_sha256": spec.spec_sha256,
                "image": spec.image,
            }
            lines += [
                f"profile: {spec.profile} ({spec.strategy})",
                f"health:  {data['health']} at {spec.url}",
                f"unit:    {unit.active} ({unit.sub}), {unit.restarts} restarts",
                f"engine:  {spec.image}",
            ]
    except LlamarigError as error:
        fail("status", error, as_json=as_json)
    if state.switching_to is not None:
        lines.append(f"switch:  to {state.switching_to} is under way")
    finish("status", data, lines, as_json=as_json)


@cli.command()
@click.argument("service", required=False)
@_INVENTORY
@click.option("--limit", help="With --inventory: only these hosts, as Ansible says it.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the picture to this file too.")
@click.option("--check", "ask", is_flag=True, help="On a host: ask the engine itself, and compare.")
@_JSON
def plan(
    service: str | None, *, inventory: Path | None, limit: str | None, svg: Path | None, ask: bool, as_json: bool
) -> None:
    """Show how services are laid out: what each takes of every card and of the host's memory, and why.

    With SERVICE, in full: what was considered, what fits beside it and what stops for it, and the exact llama-server
    arguments. On a host it shows what the host was given. On a control node, with --inventory, it plans: no host is
    reached, and files whose size or checksum nobody has said yet are reported.

    \b
    Examples:
      llamarig plan            every service of this host
      llamarig plan chat       one of them in full
      llamarig plan -i inventories/example
      llamarig plan chat -i inventories/example --svg chat.svg
      sudo llamarig plan --check

    --check asks llama-fit-params in each service's own image, 1 to 40 s each, without loading weights, and compares
    it with what was predicted and with what the running service allocated. It exits 0 where all are within 3 % or
    64 MiB, 7 where a figure differs more or a service could not be asked about, and 6 where the engine says that a
    service cannot fit, refuses it, or does not see its cards.
    """  # noqa: D301  click's mark
    from llamarig.cli.plan import present  # noqa: PLC0415

    if ask:
        _check_plan(service, inventory, as_json=as_json)
        return
    try:
        data, lines = present(_root(), service, inventory, limit, svg, as_json=as_json)
    except LlamarigError as error:
        fail("plan", error, as_json=as_json)
    finish("plan", data, lines, as_json=as_json)


def _check_plan(service: str | None, inventory: Path | None, *, as_json: bool) -> None:
    from llamarig.cli.check import run  # noqa: PLC0415

    if inventory is not None:
        error = LlamarigError("--check asks the engine on a host, and an inventory has none", "run it on the host")
        fail("plan", error, as_json=as_json)
    _needs_root("plan", as_json=as_json)
    try:
        data, lines, code = run(_root(), service, _say(as_json=as_json))
    except LlamarigError as error:
        fail("plan", error, as_json=as_json)
    finish("plan", data, lines, as_json=as_json, code=code)


@cli.command()
@click.argument("service")
@click.argument("setting", required=False)
@_INVENTORY
@click.option("--host", help="With --inventory: the host, where several run the service.")
@_JSON
def explain(service: str, setting: str | None, *, inventory: Path | None, host: str | None, as_json: bool) -> None:
    """Say where each setting of SERVICE comes from, what weaker layers had said, and what the planner decides itself.

    Layers, the weakest first: built-in, profile, strategy, fleet, service. SETTING is one of them, by any name that
    llama-server has for it.

    \b
    Examples:
      llamarig explain chat
      llamarig explain chat ctx_size
      llamarig explain chat c -i inventories/example --host gpu01.example.com
    """  # noqa: D301
    from llamarig.cli.explain import present  # noqa: PLC0415

    try:
        data, lines = present(_root(), service, setting, inventory, host)
    except LlamarigError as error:
        fail("explain", error, as_json=as_json)
    finish("explain", data, lines, as_json=as_json)


@cli.command()
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
@_JSON
def detect(hosts: tuple[str, ...], *, inventory: Path, dry: bool, ask_sudo: bool, as_json: bool) -> None:
    """Write the host_vars of HOSTS, by default of all hosts of an inventory, from what their boxes have.

    For the control node. It reads memory, threads and cards, changes nothing on a host, and writes
    host_vars/HOST/hardware.yml: what a person added there stays. Exits 1 where a host could not be read or written, or
    its driver does not answer; the other hosts are written.

    \b
    Examples:
      llamarig detect -i inventories/mysite
      llamarig detect -i inventories/mysite gpu01.example.com --check
    """  # noqa: D301
    from llamarig.cli.detect import run  # noqa: PLC0415

    try:
        data, lines, code = run(inventory, hosts, dry=dry, ask_sudo=ask_sudo)
    except LlamarigError as error:
        fail("detect", error, as_json=as_json)
    finish("detect", data, lines, as_json=as_json, code=code)


@cli.command()
@click.argument("service")
@click.option("--check", "dry", is_flag=True, help="Say what would happen; change nothing.")
@_JSON
def switch(service: str, *, dry: bool, as_json: bool) -> None:
    """Make SERVICE the active one; if it does not come to serve, the one before serves again.

    Ctrl-C goes back to the service before.

    \b
    Examples:
      sudo llamarig switch chat
      sudo llamarig switch chat --json
    """  # noqa: D301
    _needs_root("switch", as_json=as_json)
    _stop_like_ctrl_c()
    try:
        outcome = _switcher(_say(as_json=as_json)).switch(service, dry=dry)
    except LlamarigError as error:
        fail("switch", error, as_json=as_json)
    data, lines = _told(outcome)
    finish("switch", data, lines, as_json=as_json)


@cli.command(hidden=True)
@click.option("--check", "dry", is_flag=True, help="Say what would happen; change nothing.")
@_JSON
def reconcile(*, dry: bool, as_json: bool) -> None:
    """Make what serves what should serve; the playbook's last word to a host."""
    from llamarig.cli.check import ask_new  # noqa: PLC0415

    _needs_root("reconcile", as_json=as_json)
    _stop_like_ctrl_c()
    switcher = _switcher(_say(as_json=as_json))
    try:
        judged = ask_new(_root(), switcher, _say(as_json=as_json), dry=dry)
        outcome = switcher.reconcile(dry=dry)
    except LlamarigError as error:
        fail("reconcile", error, as_json=as_json)
    # The doctor's verdict comes along, so that a playbook needs one visit to the host and not two.
    verdict = {} if dry else _examine(show=False)
    if outcome is None:
        data: dict[str, Any] = {"active": None, "changed": False}
        lines = ["this host runs no service"]
    else:
        data, lines = _told(outcome)
    code = ExitCode.OK if verdict.get("healthy", True) else ExitCode.UNHEALTHY
    finish("reconcile", {**data, "judge": judged, "doctor": verdict}, lines, as_json=as_json, code=code)


def _told(outcome: Any) -> tuple[dict[str, Any], list[str]]:
    """Return a switch's outcome, for programs and for people."""
    data = {
        "active": outcome.active,
        "previous": outcome.previous,
        "changed": outcome.changed,
        "message": outcome.message,
        "phases": outcome.phases,
        "answer": outcome.answer.text if outcome.answer else None,
    }
    total = sum(outcome.phases.values())
    lines = [f"{outcome.message}{f' ({total:.1f} s)' if total else ''}"]
    if outcome.answer:
        lines.append(f"  it answers: {outcome.answer.text.strip()!r}")
    return data, lines


@cli.command()
@_JSON
def stop(*, as_json: bool) -> None:
    """Stop the active service, and keep it from starting with the host.

    It lasts until the next switch, or until playbooks/site.yml starts the default service.
    """
    _needs_root("stop", as_json=as_json)
    try:
        stopped = _switcher(_say(as_json=as_json)).stop()
    except LlamarigError as error:
        fail("stop", error, as_json=as_json)
    text = f"{stopped} is stopped; start it again with: llamarig switch {stopped}" if stopped else "nothing was active"
    finish("stop", {"stopped": stopped, "changed": stopped is not None}, [text], as_json=as_json)


@cli.command()
@click.argument("service", required=False)
@click.option("-n", "--lines", default=50, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows; Ctrl-C ends it.")
@click.option("--raw", is_flag=True, help="The engine's JSON lines as they are.")
@_JSON
def logs(service: str | None, *, lines: int, follow: bool, raw: bool, as_json: bool) -> None:
    """Show the log of SERVICE, by default of the active one.

    \b
    Examples:
      llamarig logs -f
      llamarig logs chat -n 200 --raw
    """  # noqa: D301
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.logline import plain, readable  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415
    from llamarig.runtime.systemd import journal  # noqa: PLC0415

    name = service or StateStore(_root()).read().active
    if name is None:
        fail("logs", LlamarigError("no service is active", "name one: llamarig logs <service>"), as_json=as_json)
    try:
        SpecStore(_root()).get(name)
    except LlamarigError as error:
        fail("logs", error, as_json=as_json)
    show = plain if raw else readable
    if follow and not as_json:
        from llamarig.cli.follow import follow_log  # noqa: PLC0415

        follow_log(name, lines, show)
        return
    found = [show(line) for line in journal(name, ["--lines", str(lines)])]
    if not found and os.geteuid() != 0 and not as_json:
        hint = f"sudo llamarig logs {name}, or join the group systemd-journal"
        click.echo(f"this user sees no log lines: {hint}", err=True)
    finish("logs", {"service": name, "lines": found}, found, as_json=as_json)


@cli.command()
@_JSON
def doctor(*, as_json: bool) -> None:
    """Check this host; one line a check, with the remedy where something is wrong.

    Exits 0 when all is well, 7 when the host serves and something needs a look, 6 when a check fails.
    """
    data = _examine(show=not as_json)
    said, code = "healthy", ExitCode.OK
    if not data["healthy"]:
        said, code = "unhealthy", ExitCode.UNHEALTHY
    elif data["warnings"]:
        said, code = f"healthy, with {data['warnings']} warning{'s'[: data['warnings'] > 1]}", ExitCode.WARNINGS
    finish("doctor", data, [said], as_json=as_json, code=code)


def _examine(*, show: bool) -> dict[str, Any]:
    """Run the doctor; with ``show``, print each line as it comes."""
    from llamarig.checks.box import Box  # noqa: PLC0415
    from llamarig.checks.doctor import examine, verdict  # noqa: PLC0415
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.engine import LlamaServer  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415
    from llamarig.runtime.systemd import Systemd  # noqa: PLC0415

    root = _root()
    box = Box(SpecStore(root), StateStore(root), Systemd(), LlamaServer(root))
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    results = []
    for result in examine(box):
        results.append(result)
        if show:
            word = click.style(result.status.value.ljust(4), fg=colours[result.status.value])
            click.echo(f"{word}  {result.name}: {result.message}")
            if result.remedy:
                click.echo(f"      remedy: {result.remedy}")
    return verdict(box, results)


@cli.command(hidden=True)
@click.option("--check", "dry", is_flag=True, help="Say what would be changed; change nothing.")
@_JSON
def tune(*, dry: bool, as_json: bool) -> None:
    """Give the GPUs their persistence, power limits and clock locks; the host's start and the playbooks call it.

    Exits 0 when the cards are as declared, 2 when a card does not take a declared value (no card is touched then), and
    1 when NVML refuses, or a declared card is not there; the other cards are as declared then.
    """
    from llamarig.cli.tune import run  # noqa: PLC0415

    _needs_root("tune", as_json=as_json)
    try:
        data, lines = run(_root(), dry=dry)
    except LlamarigError as error:
        fail("tune", error, as_json=as_json)
    finish("tune", data, lines, as_json=as_json)


@cli.command()
@click.option("-n", "--lines", type=click.IntRange(min=0), default=20, show_default=True, help="How many events.")
@_JSON
def history(*, lines: int, as_json: bool) -> None:
    """Show past switches, newest last, with how they ended and why."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from llamarig.daemon.state import StateStore  # noqa: PLC0415

    events = StateStore(_root()).history()
    events = events[max(0, len(events) - lines) :]
    rows = [
        (
            datetime.fromtimestamp(event["time"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
            str(event["kind"]),
            str(event["service"]),
            str(event["previous"] or "-"),
            str(event["outcome"]),
            f"{sum(event['phases'].values()):.1f} s",
            str(event["reason"]),
        )
        for event in events
    ]
    lines_out = table(("TIME (UTC)", "WHAT", "SERVICE", "BEFORE", "OUTCOME", "TOOK", "REASON"), rows)
    finish("history", {"events": events}, lines_out if rows else ["nothing happened yet"], as_json=as_json)


@cli.command()
@click.argument("file", metavar="FILE|URL", required=False)
@click.option("--tensors", is_flag=True, help="List every tensor too.")
@click.option("--shape", is_flag=True, help="Print the record shape of a profile, as YAML.")
@click.option(
    "--profile",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Print a whole profile of the catalogue, as YAML; by default it is named after the file.",
)
@click.option("--mmproj", metavar="FILE|URL", help="With --profile: the vision projector that belongs to the model.")
@_JSON
def gguf(
    file: str | None, *, tensors: bool, shape: bool, profile: str | None, mmproj: str | None, as_json: bool
) -> None:
    """Say what the header of a GGUF model says: shape, attention layer by layer, quantisation, parts.

    Of a split model any part may be named. hf:OWNER/REPOSITORY/FILE[@REVISION] names a file of the hub at HF_ENDPOINT,
    by default huggingface.co, and so does the address of its page there; HF_TOKEN is sent to that hub alone. Weights
    are never read, but by --profile of a file on this machine: its sha256 takes reading all of it.

    --profile prints all that a host needs to serve the model: its files with size, sha256 and where they are, and its
    shape. docs/how-to/add-a-model.md says how to go on.

    \b
    Examples:
      llamarig gguf /srv/llamarig/models/model.gguf
      llamarig gguf https://example.com/model-00001-of-00003.gguf --json
      llamarig gguf hf:owner/repository/model.gguf --shape
      llamarig gguf hf:owner/repository/model.gguf --profile
      llamarig gguf hf:owner/repository/model.gguf --profile chat > group_vars/all/models/chat.yml
      llamarig gguf model.gguf --profile eyes --mmproj mmproj.gguf
    """  # noqa: D301
    from llamarig.cli.gguf import Wanted, present  # noqa: PLC0415

    if file is None and profile:
        file, profile = profile, ""  # --profile FILE: what follows is no name then
    if file is None:
        raise click.UsageError("Missing argument 'FILE|URL'.")
    if mmproj is not None and profile is None:
        raise click.UsageError("--mmproj goes with --profile.")
    stores = () if profile is None else _stores()
    if profile:
        _check_profile_name(profile)
    try:
        wanted = Wanted(tensors=tensors, shape=shape, profile=profile, mmproj=mmproj, quiet=as_json)
        data, lines = present(file, os.environ, stores, wanted)
    except LlamarigError as error:
        fail("gguf", error, as_json=as_json)
    finish("gguf", data, lines, as_json=as_json)


def _check_profile_name(name: str) -> None:
    from llamarig.gguf.draft import NAME  # noqa: PLC0415

    if not NAME.fullmatch(name):
        why = f"{name!r} is no name of a profile: letters, digits, and . _ - after the first of them."
        raise click.BadParameter(why, param_hint="--profile")


def _stores() -> tuple[str, ...]:
    """Return the models directories of the services that this host runs; none where it runs none."""
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    try:
        return tuple({spec.models_dir for spec in SpecStore(_root()).all()})
    except (LlamarigError, OSError):
        return ()


@cli.command()
@_JSON
def version(*, as_json: bool) -> None:
    """Say which llamarig this is."""
    try:
        from llamarig._release import RELEASE  # type: ignore[import-not-found]  # noqa: PLC0415  written by the build
    except ImportError:
        RELEASE = None  # noqa: N806
    python = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    data = {"version": __version__, "release": RELEASE, "python": python}
    finish(
        "version",
        data,
        [f"llamarig {__version__} (release {RELEASE or 'none: a checkout'}, Python {python})"],
        as_json=as_json,
    )
