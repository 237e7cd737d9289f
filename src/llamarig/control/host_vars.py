"""The files of one host in an inventory: which of them declares its hardware, and writing what was detected there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from llamarig.control.detect import Detected, block, detect, hardware_text, pci_comments, services_text
from llamarig.errors import LlamarigError

KEY: Final = "host_hardware"
_REACH: Final = "ssh to it must work from here, with the ansible_host and ansible_user of the inventory"
_READ: Final = "it needs python3, and a user who may use sudo; llamarig detect -K asks for sudo's password"
_SUFFIXES: Final = ("", ".yml", ".yaml", ".json")
_DECLARES: Final = re.compile(rf"^\s*[\"']?{KEY}[\"']?\s*:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Declaration:
    """Where a host's hardware is declared, or would be, and what the file says now.

    ``path`` is a hardware.yml in the host's folder, which llamarig may write; where ``refusal`` says something, it is a
    file of other people, which llamarig does not touch. ``new_folder`` is whether nothing is there for the host yet.
    """

    path: Path
    text: str = ""
    content: dict[str, Any] = field(default_factory=dict)
    refusal: LlamarigError | None = None
    new_folder: bool = False

    @property
    def hardware(self) -> dict[str, Any]:
        """What is declared now; empty where nothing is."""
        declared = self.content.get(KEY)
        return declared if isinstance(declared, dict) else {}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one host.

    ``detected`` is None where the host could not be read; ``files`` were written, or would be; ``text`` is the lines
    that differ, or what a person is to put into a file that llamarig does not touch.
    """

    host: str
    detected: Detected | None = None
    files: list[Path] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    problems: list[LlamarigError] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "hardware": self.detected.hardware if self.detected else None,
            "cards_by_pci": self.detected.by_pci if self.detected else [],
            "notes": self.detected.notes if self.detected else [],
            "files": [str(path) for path in self.files],
            "text": self.text,
            "problems": [{"message": problem.message, "remedy": problem.remedy} for problem in self.problems],
        }


def declaration(inventory: Path, host: str) -> Declaration:
    """Find what declares the hardware of a host, as Ansible would read it.

    Ansible reads the host's folder if there is one, else its file; in the folder, later files win over earlier.
    """
    base = (inventory if inventory.is_dir() else inventory.parent) / "host_vars"
    folder = base / host
    ours = folder / "hardware.yml"
    for single in (base / f"{host}{suffix}" for suffix in _SUFFIXES):
        if single.is_file():
            return _of_others(
                single,
                f"{single} holds the host's variables, and Ansible would not read it beside a folder of the host",
                f"put this in the place of its {KEY}; or make it {folder}/main.yml without {KEY}, then detect again",
            )
    others = [path for path in sorted(folder.rglob("*")) if path != ours and _is_read(path)]
    for path in others:
        if _DECLARES.search(path.read_text(encoding="utf-8", errors="replace")):
            remedy = f"put this in the place of its {KEY}; or move {KEY} to {ours}, then detect again"
            return _of_others(path, f"{path} declares {KEY} already", remedy)
    if not ours.is_file():
        return Declaration(ours, new_folder=not others)
    text, content = _read(ours)
    if content is None:
        return Declaration(
            ours,
            text,
            refusal=LlamarigError(f"{ours} is no plain YAML", f"mend it, or delete it: {KEY} is written anew"),
        )
    return Declaration(ours, text, content)


def record(inventory: Path, host: str, look: Mapping[str, Any], *, dry: bool) -> Outcome:
    """Write what playbooks/detect.yml read of a host into its host_vars; with ``dry``, only say what would be."""
    unread = next((why for part in ("machine", "cards") if (why := _unread(host, look[part]))), None)
    if unread is not None:
        return Outcome(host, problems=[unread])
    now = declaration(inventory, host)
    detected = detect(look["machine"]["facts"], look["cards"] if "rc" in look["cards"] else None, now.hardware)
    problems = [] if detected.problem is None else [detected.problem]
    content = {**now.content, KEY: detected.hardware}
    if content == now.content and pci_comments(now.text) == detected.by_pci:
        return Outcome(host, detected, problems=problems)
    if now.refusal is not None:
        shown = block({KEY: detected.hardware}, detected.by_pci).splitlines()
        return Outcome(host, detected, text=shown, problems=[*problems, now.refusal])
    files = {now.path: hardware_text(content, detected.by_pci)}
    shown = list(_difference(now, files[now.path]))
    if now.new_folder and not look["services_declared"]:
        files[now.path.with_name("services.yml")] = services_text(detected.hardware, detected.by_pci)
    if not dry:
        _write(files)
    return Outcome(host, detected, list(files), shown, problems)


def _unread(host: str, said: Mapping[str, Any]) -> LlamarigError | None:
    """Return why Ansible could not read a host, if so."""
    words = " ".join(str(said.get("msg") or said.get("module_stderr") or "it does not say why").split())
    words = words.removeprefix("Task failed: ")
    if said.get("unreachable"):
        return LlamarigError(f"{host} cannot be reached: {words}", _REACH)
    # A command with an exit code did run; what the code means is said elsewhere.
    return LlamarigError(f"{host} cannot be read: {words}", _READ) if said.get("failed") and "rc" not in said else None


def _difference(now: Declaration, text: str) -> Iterator[str]:
    before = str(now.path) if now.text else "/dev/null"
    return difflib.unified_diff(now.text.splitlines(), text.splitlines(), before, str(now.path), lineterm="")


def _write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _of_others(path: Path, message: str, remedy: str) -> Declaration:
    text, content = _read(path)
    return Declaration(path, text, content or {}, LlamarigError(f"{message}; nothing was written", remedy))


def _is_read(path: Path) -> bool:
    return path.is_file() and path.suffix in _SUFFIXES and not path.name.startswith(".")


def _read(path: Path) -> tuple[str, dict[str, Any] | None]:
    """Return a file's text and its content; None where that is no mapping, or has tags as values of a vault do."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return text, None
    return text, {} if content is None else content if isinstance(content, dict) else None
