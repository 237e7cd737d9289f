"""The reference page of the catalogue: every profile, made whole, with what is published of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from llamarig.config.catalogue import ClientSettings, ModelFile, Profile, Speed
from llamarig.control.docs_table import DocsError, markdown_table
from llamarig.errors import Problem
from llamarig.planning.catalogue import expand, join_shapes
from llamarig.planning.intent import CATALOGUE_PREFIX


def read_catalogue(root: Path) -> dict[str, Profile]:
    """Read the catalogue in a checkout's group_vars, as a plan of a host that uses all of it would.

    Raises:
        DocsError: a profile that could not be planned.

    """
    variables: dict[str, Any] = {}
    for path in sorted((root / "group_vars/all/models").rglob("*.yml")):
        variables |= yaml.safe_load(path.read_text(encoding="utf-8"))
    parts = sorted(name for name in variables if name.startswith(CATALOGUE_PREFIX))
    said: dict[str, Profile] = {}
    for name, data in [entry for part in parts for entry in variables[part].items()]:
        try:
            said[name] = Profile.model_validate(data)
        except ValueError as error:
            msg = f"profile {name} is not valid: {error}"
            raise DocsError(msg, "correct it in group_vars/all/models/") from error
    problems: list[Problem] = []
    shapes = join_shapes("docs", variables, problems)
    whole, found = expand("docs", said, shapes, said)
    problems += found
    if problems:
        raise DocsError("\n".join(map(str, problems)), "correct it in group_vars/all/models/")
    return whole


def catalogue(root: Path) -> str:
    """Return the page."""
    known = read_catalogue(root)
    everyones = {name: item for name, item in known.items() if not item.bench}
    current = {name: item for name, item in everyones.items() if not item.retired}
    retired = {name: item for name, item in everyones.items() if item.retired}
    bench = {name: item for name, item in known.items() if item.bench}
    parts = ["## All profiles", _summary(current), "Retired, and still to be had:", _summary(retired)]
    parts += ["For benchmarks, left out of lists for people:", _benches(bench), _unknown(known.values())]
    parts += [_profile(name, item) for name, item in everyones.items()]
    return "\n\n".join(parts)


def _summary(profiles: Mapping[str, Profile]) -> str:
    rows = [
        (
            f"[`{name}`](#{name})",
            item.title,
            item.description,
            _number(item.server.get("ctx_size")),
            ", ".join(item.capabilities) or "-",
            _best(item.speeds),
        )
        for name, item in profiles.items()
    ]
    return markdown_table(("profile", "model", "for", "context", "can", "tokens per second"), rows)


def _benches(profiles: Mapping[str, Profile]) -> str:
    rows = [
        (
            f"`{name}`",
            f"[`{item.based_on}`](#{item.based_on})" if item.based_on else item.title,
            _number(item.server.get("ctx_size")),
            str(item.server.get("reasoning_format", "-")),
            "<br>".join(f"{speed.tokens_per_second:g}: {speed.layout}" for speed in item.speeds) or "not measured",
        )
        for name, item in profiles.items()
    ]
    head = ("profile", "based on", "context", "reasoning_format", "tokens per second")
    notes: dict[str, list[str]] = {}
    for name, item in profiles.items():
        for note in item.notes:
            notes.setdefault(note, []).append(f"`{name}`")
    return "\n\n".join([markdown_table(head, rows), *(f"{', '.join(names)}: {note}" for note, names in notes.items())])


def _unknown(profiles: Iterable[Profile]) -> str:
    files = {item.name: item for profile in profiles for item in _files(profile)}
    lacking = sum(1 for item in files.values() if item.bytes is None or item.sha256 is None)
    return (
        f"The catalogue names {len(files)} files. Of {lacking} the size and the checksum are not known: they cannot be"
        " looked up where this was written. Such a profile can be planned, and bytes and sha256 must be said before its"
        " files are put on a host."
    )


def _profile(name: str, profile: Profile) -> str:
    parts = [f"## {name}", f"{profile.title or name}: {profile.description}."]
    if profile.retired:
        parts.append(f"**Retired.** {profile.retired}")
    parts.append(markdown_table(("", ""), _facts(profile)))
    if profile.clients:
        parts += ["What clients send:", _clients(profile)]
    if profile.speeds:
        parts += ["Published:", _speeds(profile.speeds)]
    if profile.notes:
        parts.append("\n".join(f"- {' '.join(note.split())}" for note in profile.notes))
    return "\n\n".join(parts)


def _facts(profile: Profile) -> list[tuple[str, str]]:
    rows = [("files", "<br>".join(map(_file, profile.files)))]
    if profile.mmproj:
        rows.append(("vision projector", _file(profile.mmproj)))
    if profile.repository:
        rows.append(("hub", f"`{profile.repository}`" + (f" at `{profile.revision}`" if profile.revision else "")))
    if profile.licence:
        rows.append(("licence", profile.licence))
    shape = profile.model_shape
    if shape is not None:
        origin = "read from the file" if shape.source == "header" else "from what is published"
        size = f"{shape.parameters / 1e9:.1f} billion parameters in {shape.bytes / 2**30:.1f} GiB"
        blocks = shape.metadata.get("block_count")
        rows.append(("shape", f"{shape.architecture}, {blocks} blocks, {size}; {origin}"))
    rows.append(("can", ", ".join(profile.capabilities) or "write text"))
    options = ", ".join(f"`{key}: {_option(value)}`" for key, value in profile.server.items())
    rows.append(("server", options or "nothing beside the built-in layer"))
    return rows


def _files(profile: Profile) -> list[ModelFile]:
    return [*profile.files, *([profile.mmproj] if profile.mmproj else [])]


def _file(item: ModelFile) -> str:
    size = "size and checksum not known" if item.bytes is None or item.sha256 is None else f"{item.bytes} bytes"
    return f"`{item.name}` ({size})"


def _clients(profile: Profile) -> str:
    settings = {task: item.model_dump(exclude_defaults=True) for task, item in profile.clients.items()}
    keys = [key for key in ClientSettings.model_fields if any(key in said for said in settings.values())]
    rows = [(f"`{task}`", *(_client(said.get(key)) for key in keys)) for task, said in settings.items()]
    return markdown_table(("task", *keys), rows)


def _client(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"`{key}: {_option(item)}`" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _speeds(speeds: Iterable[Speed]) -> str:
    rows = [
        (
            f"{item.tokens_per_second:g}",
            item.hardware,
            item.layout,
            _number(item.context),
            item.date or "",
            item.source,
        )
        for item in speeds
    ]
    return markdown_table(("tokens per second", "hardware", "layout", "context", "date", "source"), rows)


def _best(speeds: Iterable[Speed]) -> str:
    best = max(speeds, key=lambda item: item.tokens_per_second, default=None)
    return f"{best.tokens_per_second:g} on {best.hardware.split(',')[0]}" if best else "not measured"


def _number(value: object) -> str:
    return str(value) if isinstance(value, int) else ""


def _option(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
