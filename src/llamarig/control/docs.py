"""Generate the reference pages from what they describe, and dashboards: ``python -m llamarig.control.docs [--check]``.

A page is hand-written text with one generated block between two marker comments; only the block is ever replaced.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from llamarig.control import docs_api, docs_catalogue, docs_host, docs_intent, docs_metrics, generated, grafana_boards
from llamarig.control.docs_table import DocsError, markdown_table
from llamarig.control.generated import ROOT
from llamarig.errors import (
    BusyError,
    ConfigError,
    DaemonGoneError,
    ExitCode,
    LlamarigError,
    NotAllowedError,
    NotFoundError,
    SwitchError,
)

_MODULE: Final = "llamarig.control.docs"
_WIDTH: Final = 100
_EXIT_CODES: Final = {
    ExitCode.OK: "Done, or nothing had to be done.",
    ExitCode.FAILED: "It failed; what failed and what serves now is said.",
    ExitCode.USAGE: "The command or the inventory is wrong.",
    ExitCode.NOT_FOUND: "The host runs no service of that name.",
    ExitCode.NOT_ALLOWED: "The verb needs root, or what it asks of llamarigd needs root, the group llamarig or a key.",
    ExitCode.BUSY: "Another command holds the host, or another switch is under way.",
    ExitCode.UNHEALTHY: "The doctor found a check that fails.",
    ExitCode.WARNINGS: "The doctor found the host healthy, with warnings.",
    ExitCode.DAEMON_GONE: "llamarigd does not answer.",
    ExitCode.INTERRUPTED: "Ctrl-C ended the wait and the switch goes on, or a switch was cancelled and went back.",
}


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Return every page with its whole text as it should be.

    Raises:
        DocsError: something new is not described anywhere.

    """
    bodies = {
        root / "docs/reference/inventory.md": ("The inventory", docs_intent.inventory(root)),
        root / "docs/reference/catalogue.md": ("The catalogue", docs_catalogue.catalogue(root)),
        root / "docs/reference/cli.md": ("The command llamarig", command_line()),
        root / "docs/reference/api.md": ("The management API", docs_api.management_api()),
        root / "docs/reference/metrics.md": ("Metrics", docs_metrics.metrics(root)),
        root / "docs/reference/files-on-host.md": ("Files on a host", docs_host.files_on_host(root)),
        root / "docs/adr/README.md": ("Decision records", decisions(root)),
        root / "templates/README.md": ("Templates", docs_host.templates(root)),
    }
    for spec in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        role = spec.parent.parent
        bodies[role / "README.md"] = (role.name, role_variables(yaml.safe_load(spec.read_text(encoding="utf-8"))))
    return {path: _spliced(path, title, body) for path, (title, body) in bodies.items()}


def files(root: Path = ROOT) -> dict[Path, str]:
    """Return all that the command writes, with its text as it should be: the pages, and the dashboards of Grafana.

    Raises:
        DocsError: something new is not described anywhere.

    """
    return pages(root) | grafana_boards.files(root)


def outdated(root: Path = ROOT) -> list[Path]:
    """Return the pages and dashboards that are not what they should be."""
    return generated.outdated(files(root))


def role_variables(specs: dict[str, Any]) -> str:
    """Return the variables of a role as a table, one for each entry point."""
    parts = []
    for entry, spec in specs["argument_specs"].items():
        rows = _option_rows(spec.get("options") or {}, "")
        head = "## Variables" if entry == "main" else f"## Variables of tasks_from: {entry}"
        body = markdown_table(("variable", "type", "default", "meaning"), rows) if rows else "None."
        parts.append(f"{head}\n\n{body}")
    return "\n\n".join(parts)


def command_line() -> str:
    """Return every verb with its own help, the exit codes and the JSON envelope."""
    import click  # noqa: PLC0415  control nodes only look at the command, they do not run it

    from llamarig.cli.main import cli  # noqa: PLC0415
    from llamarig.cli.output import ENVELOPE, envelope  # noqa: PLC0415

    top = click.Context(cli, info_name="llamarig", terminal_width=_WIDTH, **cli.context_settings)
    parts = ["## Verbs", _block("text", cli.get_help(top))]
    for name, command in cli.commands.items():
        context = click.Context(command, info_name=name, parent=top, terminal_width=_WIDTH)
        hidden = "\n\nNot in the list above: the playbooks call it." if command.hidden else ""
        parts.append(f"### {name}{hidden}\n\n{_block('text', command.get_help(context))}")
        for under, verb in getattr(command, "commands", {}).items():
            below = click.Context(verb, info_name=under, parent=context, terminal_width=_WIDTH)
            parts.append(f"#### {name} {under}\n\n{_block('text', verb.get_help(below))}")
    codes = [(str(int(code)), f"`{code.name}`", _EXIT_CODES[code]) for code in ExitCode]
    errors = [
        (f"`{_code(kind)}`", str(int(kind.exit_code)), str(kind.__doc__).strip().splitlines()[0])
        for kind in (
            LlamarigError,
            ConfigError,
            NotFoundError,
            NotAllowedError,
            BusyError,
            DaemonGoneError,
            SwitchError,
        )
    ]
    failed = SwitchError("chat did not start", "llamarig logs chat", "code", ["error: out of memory"])
    parts += [
        "## Exit codes",
        markdown_table(("code", "name", "meaning"), codes),
        "## JSON envelope",
        (
            f"With `--json` a verb prints one object, version {ENVELOPE}: `version`, `command`, and either `data` or"
            " `error`; the other is `null`. New keys may be added to `data` without a new version."
        ),
        _block("json", envelope("version", {"version": "0.1.0", "release": "0123456789ab", "python": "3.12.3"})),
        (
            "A doctor that is not content prints `data`, not `error`, and exits 6, or 7 where there are only warnings."
            " An error has `code`, `message` and `remedy`. A failed switch adds `serving`, the service that answers"
            " now, `log_lines`, and the `job` as llamarigd has it; a wrong inventory adds `problems`."
        ),
        _block("json", envelope("switch", None, failed)),
        markdown_table(("error code", "exit code", "meaning"), errors),
        "A usage error of the command line itself (an unknown verb or option) is printed as text, with exit code 2.",
    ]
    return "\n\n".join(parts)


def decisions(root: Path) -> str:
    """Return the index of decision records."""
    rows = []
    for path in sorted(root.glob("docs/adr/[0-9]*.md")):
        text = path.read_text(encoding="utf-8")
        title = re.search(r"^# (\d{4}): (.+)$", text, re.MULTILINE)
        status = re.search(r"^Status: (\w+), (\d{4}-\d{2}-\d{2})", text, re.MULTILINE)
        if title is None or status is None:
            msg = f"{path.relative_to(root)} has no '# NNNN: title' or no 'Status: word, date'"
            raise DocsError(msg, "begin it as the other records begin")
        rows.append((f"[{title[1]}]({path.name})", title[2], status[1], status[2]))
    return markdown_table(("record", "decision", "status", "date"), rows)


def _option_rows(options: dict[str, Any], prefix: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, option in options.items():
        kind = option.get("type", "str")
        kind = f"list of {option['elements']}" if kind == "list" and "elements" in option else kind
        if option.get("choices"):
            kind += f", one of {', '.join(f'`{choice}`' for choice in option['choices'])}"
        default = f"`{json.dumps(option['default'])}`" if "default" in option else ""
        meaning = option.get("description", "")
        meaning = " ".join(meaning) if isinstance(meaning, list) else meaning
        shown = "required" if option.get("required") else default
        rows.append((f"`{prefix}{name}`", kind, shown, re.sub(r"\b[CVO]\(([^)]*)\)", r"`\1`", meaning)))
        rows += _option_rows(option.get("options") or {}, f"{prefix}{name}.")
    return rows


def _code(kind: type[LlamarigError]) -> str:
    return kind.__name__.removesuffix("Error").lower()


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _spliced(path: Path, title: str, body: str) -> str:
    """Put the generated block into the page: in place of the old one, or at the end of what was written by hand."""
    block = f"<!-- generated by python -m {_MODULE}: do not edit -->\n\n{body}\n\n<!-- end of the generated part -->"
    text = generated.present(path) or f"# {title}\n"
    old = re.compile(r"<!-- generated by .*?<!-- end of the generated part -->", re.DOTALL)
    if old.search(text):
        return old.sub(lambda _: block, text, count=1)
    return f"{text.rstrip()}\n\n{block}\n"


if __name__ == "__main__":
    generated.run(_MODULE, "Generate the reference pages and the dashboards.", files)
