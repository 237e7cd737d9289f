"""One decision on a host's GPU stack: what it looks at, and what apt has to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llamarig.errors import Problem


@dataclass(frozen=True, slots=True)
class Packages:
    """What apt has to do for a role.

    ``spare`` may be removed where the installation is impossible beside it; ``hold`` are patterns of package names,
    matched in full.
    """

    install: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    spare: list[str] = field(default_factory=list)
    hold: list[str] = field(default_factory=list)
    due: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One decision: the host, its facts, and where problems and warnings go."""

    host: str
    facts: Mapping[str, Any]
    problems: list[Problem]
    warnings: list[str]
    maintain: bool = False

    @property
    def packages(self) -> Mapping[str, str]:
        """Installed packages, with their versions."""
        installed: Mapping[str, str] = self.facts["packages"]
        return installed

    def refuse(self, key: str, message: str, remedy: str) -> None:
        """Note a problem; the decision goes on, so that all of them are said at once."""
        self.problems.append(Problem(self.host, key, message, remedy))


def installed(case: Case, patterns: list[str]) -> list[str]:
    """Return the installed packages whose names match one of these patterns in full."""
    return [name for name in sorted(case.packages) if any(re.fullmatch(item, name) for item in patterns)]


def held(
    case: Case,
    *,
    hold: list[str],
    install: list[str] | None = None,
    remove: list[str] | None = None,
    spare: list[str] | None = None,
) -> Packages:
    """Complete what apt has to do: something is due also where a package is there and not held."""
    now = set(case.facts["held"])
    loose = [name for name in installed(case, hold) if name not in now]
    due = bool(install or remove or loose or case.facts["interrupted"])
    beside = (spare or []) if install else []
    return Packages(list(dict.fromkeys(install or [])), remove or [], beside, hold, due=due)


def upstream(version: str) -> str:
    """Return the upstream part of a Debian version: without epoch and revision."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return found.group(1) if found else ""


def numbers(version: str) -> tuple[int, ...]:
    """Return the upstream part of a version as numbers, to compare by; nothing is lower than anything."""
    return tuple(int(part) for part in upstream(version).split(".") if part)
