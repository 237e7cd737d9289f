"""The verb that says what a host can serve: list. Read from the host's files, so that it works whatever runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from llamarig.cli.output import fail, finish, table
from llamarig.cli.verb import JSON, host_root
from llamarig.errors import LlamarigError

if TYPE_CHECKING:
    from llamarig.config.spec import Spec

_K: Final = 1024


@click.command("list", short_help="List the services of this host; * marks the active ones.")
@click.option("-a", "--all", "every", is_flag=True, help="Those for benchmarks too.")
@JSON
def list_command(*, every: bool, as_json: bool) -> None:
    """List the services of this host; those that are active are starred.

    \b
    Examples:
      llamarig list
      llamarig list --all --json
    """  # noqa: D301  click's mark
    try:
        found = listed(host_root())
    except LlamarigError as error:
        fail("list", error, as_json=as_json)
    shown = [item for item in found if every or not item["bench"] or item["active"]]
    rows = [
        (
            "*" if item["active"] else "",
            item["service"],
            item["title"],
            item["context_label"],
            item["speed"] or "-",
            item["url"],
            ", ".join(word for word in ("default", "pinned", "bench") if item[word]),
        )
        for item in shown
    ]
    lines = table(("", "SERVICE", "MODEL", "CONTEXT", "SPEED", "URL", ""), rows) if rows else []
    hidden = len(found) - len(shown)
    if hidden:
        lines.append(f"and {hidden} for benchmarks: llamarig list --all")
    data = {"services": shown, "hidden": hidden}
    finish("list", data, lines or ["this host runs no service"], as_json=as_json)


def listed(host: Path) -> list[dict[str, Any]]:
    """Return every service of a host, with what people choose by.

    Raises:
        LlamarigError: a spec or the host's file cannot be read, or another host's daemon does not answer.

    """
    if os.environ.get("LLAMARIG_URL"):
        return _elsewhere(host)
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    store = SpecStore(host)
    policy, active = store.policy(), StateStore(host).read().names
    return [
        {
            "service": spec.service,
            "title": spec.title or spec.profile,
            "active": spec.service in active,
            "default": spec.service == policy.default_service,
            "pinned": policy.of(spec.service).pinned,
            "bench": spec.bench,
            "profile": spec.profile,
            "strategy": spec.strategy,
            "speed": spec.speed,
            "url": spec.url,
            "context": context_of(spec),
            "context_label": label(context_of(spec)),
            "description": spec.description,
        }
        for spec in store.all()
    ]


def _elsewhere(host: Path) -> list[dict[str, Any]]:
    """Return the same of the host whose daemon the environment names."""
    from llamarig.runtime.management import Management  # noqa: PLC0415

    same = ("service", "active", "default", "pinned", "profile", "strategy", "speed", "url", "context", "description")
    return [
        {
            **{key: item[key] for key in same},
            "title": item["name"],
            "bench": item["is_bench"],
            "context_label": label(item["context"]),
        }
        for item in Management.here(host).get("/services").get("services") or []
    ]


def context_of(spec: Spec) -> int | None:
    """Return the context that a service was given, in tokens; None where the engine decides."""
    value = spec.origins.get("ctx_size", {}).get("value")
    return value if isinstance(value, int) and value > 0 else None


def label(tokens: int | None) -> str:
    """Say a context as people do: 128K; a dash where it is not known."""
    if tokens is None:
        return "-"
    if tokens % (_K * _K) == 0:
        return f"{tokens // (_K * _K)}M"
    return f"{tokens / _K:.0f}K" if tokens >= _K else str(tokens)
