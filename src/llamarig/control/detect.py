"""From what a host says of itself to the hardware that its host_vars declare: facts and CSV in, data and YAML out.

Pure. The facts are those of ``llamarig.hardware.machine``, the CSV is nvidia-smi's answer to ``QUERY``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from llamarig.config.records import SLUG_MOST
from llamarig.errors import LlamarigError
from llamarig.hardware.gpus import DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, MISMATCH, TIMEOUT, UNKNOWN, explained

QUERY: Final = (
    "index",
    "uuid",
    "name",
    "pci.bus_id",
    "memory.total",
    "compute_cap",
    "pcie.link.gen.max",
    "pcie.link.width.max",
)
# nvidia-smi answers all the same: a card's infoROM, which holds nothing that is asked for here, is damaged.
_ANSWERED: Final = (0, 14)
# Exit codes that are not NVML's: there is no such program; timeout(1) ended it, or had to kill it; anything else.
_NO_PROGRAM: Final = 127
_OTHERS: Final = {124: TIMEOUT, 137: TIMEOUT, 255: UNKNOWN}
_SITE: Final = "run playbooks/site.yml for this host"
_REBOOT: Final = f"{_SITE}, then reboot it"
# Memory in MiB: what a new kernel may keep more for itself, to what is rounded, and when a declared value is old.
_SLACK: Final = 64
_STEP: Final = 256
_OLD: Final = 512
_PCI: Final = "# PCI "
_QUOTED: Final = ("compute_capability", "pci_address")
_LINK: Final = ("pcie_generation", "pcie_width")
_HEAD: Final = """\
---
# What this host has, written by llamarig detect. Edit it as you like: when it detects again, names of cards, lower
# values of cpu_threads, pcie_generation and pcie_width, and all keys that it did not detect stay. Comments do not.
"""
_LATER: Final = "their UUIDs are known once the driver is there: run playbooks/site.yml, then detect again"


@dataclass(frozen=True, slots=True)
class Detected:
    """What a host has.

    ``hardware`` is ``host_hardware``; ``by_pci`` names the cards that have no driver yet; ``notes`` are for the person
    who asked; ``problem`` is why the cards could not be read.
    """

    hardware: dict[str, Any]
    by_pci: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: LlamarigError | None = None


def detect(facts: Mapping[str, Any], answer: Mapping[str, Any] | None, old: Mapping[str, Any]) -> Detected:
    """Return what a host has, with what a person added to the declaration before.

    ``facts`` are the machine's; ``answer`` is nvidia-smi's ``rc``, ``stdout`` and ``stderr``, None where there is no
    driver to ask; ``old`` is ``host_hardware`` as declared now. Cards that cannot be read stay as they were declared.
    """
    known = {gpu["uuid"]: gpu for gpu in old.get("gpus") or [] if isinstance(gpu, dict) and "uuid" in gpu}
    hardware, notes = _machine(facts, old)
    on_bus = [f"{card['address']}: {card['name']}" for card in facts["cards"]]
    problem = None
    try:
        found = None if answer is None else _cards(facts, answer)
    except LlamarigError as error:
        found, problem = None, error
    if found is not None:
        gpus = _named([_merged(card, known.get(card["uuid"], {})) for card in found])
        return Detected(_with_gpus(hardware, gpus), [], [*notes, *_odd(facts, gpus, known)])
    if known:
        notes.append("the cards cannot be asked: host_hardware.gpus stays as it is")
        return Detected(_with_gpus(hardware, known.values()), [], notes, problem)
    if on_bus and problem is None:
        notes.append(f"{len(on_bus)} card{'s'[: len(on_bus) != 1]} by PCI; {_LATER}")
    return Detected(hardware, on_bus, notes, problem)


def slug(model: str) -> str:
    """Return what a card of a model is called: ``rtx-4090`` for NVIDIA GeForce RTX 4090."""
    words = re.findall(r"[a-z0-9]+", model.lower())
    return "-".join(word for word in words if word not in {"nvidia", "geforce"})[:SLUG_MOST].strip("-") or "gpu"


def hardware_text(content: Mapping[str, Any], by_pci: Iterable[str]) -> str:
    """Return the text of hardware.yml; cards without a driver are named in its comments."""
    return f"{_HEAD}{block(content, by_pci)}"


def block(content: Mapping[str, Any], by_pci: Iterable[str]) -> str:
    """Return the declaration alone, to be put into a file of other people."""
    lines = [f"{_PCI}{card}\n" for card in by_pci]
    later = f"# {_LATER[0].upper()}{_LATER[1:]}.\n" if lines else ""
    return f"{''.join(lines)}{later}{_yaml(content)}"


def pci_comments(text: str) -> list[str]:
    """Return the cards that the comments of a hardware.yml name."""
    return [line.removeprefix(_PCI) for line in text.splitlines() if line.startswith(_PCI)]


def services_text(hardware: Mapping[str, Any], by_pci: list[str]) -> str:
    """Return the text of a services.yml that serves nothing yet, with an example for this host."""
    names = [gpu["name"] for gpu in hardware.get("gpus", [])] or [slug(card.partition(": ")[2]) for card in by_pci]
    where = [f"#     strategy: A\n#     gpus: [{names[0]}]\n"] if names else ["#     strategy: cpu\n"]
    return (
        "---\n"
        "# What this host can serve; one of them is active. Every key is in docs/reference/inventory.md.\n"
        "# llm_services:\n"
        "#   - name: chat\n"
        "#     profile: tiny-dense\n"
        f"{where[0]}"
        "#     port: 8080\n"
        "llm_services: []\n"
    )


def _machine(facts: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the declaration without cards. What a person declared stays where the host has that much."""
    memory, threads, notes = facts["memory_mib"], facts["cpu_threads"], []
    declared = {key: value for key, value in old.items() if key != "gpus"}
    if not (_is_number(declared.get("memory_mib")) and memory - _OLD < declared["memory_mib"] <= memory):
        declared["memory_mib"] = max(1, memory - _SLACK) // _STEP * _STEP or memory
    if _is_number(declared.get("cpu_threads")) and declared["cpu_threads"] < threads:
        notes.append(f"cpu_threads stays {declared['cpu_threads']}; the host has {threads}")
    else:
        declared["cpu_threads"] = threads
    reserve = max(1024, -(-declared["memory_mib"] // (20 * _STEP)) * _STEP)
    declared.setdefault("reserve_mib", reserve)
    first = ("memory_mib", "cpu_threads", "reserve_mib")
    return {**{key: declared[key] for key in first}, **declared}, notes


def _is_number(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _with_gpus(hardware: dict[str, Any], gpus: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    cards = [dict(gpu) for gpu in gpus]
    return {**hardware, "gpus": cards} if cards else hardware


def _cards(facts: Mapping[str, Any], answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cards that nvidia-smi lists, in the order of the PCI bus.

    Raises:
        LlamarigError: it does not list them, or leaves out what must be known.

    """
    if answer["rc"] not in _ANSWERED:
        raise _explained(facts, answer)
    links = {card["address"]: card["link"] for card in facts["cards"]}
    rows = [[value.strip() for value in line.split(",")] for line in answer["stdout"].splitlines()]
    cards = [_card(dict(zip(QUERY, row, strict=True)), links) for row in rows if len(row) == len(QUERY)]
    if not cards:
        raise _explained(facts, answer)
    return sorted(cards, key=lambda card: str(card["pci_address"]))


def _card(said: Mapping[str, str], links: Mapping[str, Mapping[str, int | None]]) -> dict[str, Any]:
    """Return one card as it is declared. PCIe is what card and slot can do together, or else what the card can do."""
    address = said["pci.bus_id"].lower()[-len("0000:00:00.0") :]
    unreadable = [
        key
        for key, form in (("uuid", r"GPU-[0-9a-f-]{36}"), ("memory.total", r"\d+"), ("compute_cap", r"\d+\.\d+"))
        if not re.fullmatch(form, said[key])
    ]
    if unreadable:
        answers = ", ".join(f"{key} {said[key]!r}" for key in unreadable)
        msg = f"the card {address} ({said['name']}) does not say what it is: {answers}"
        raise LlamarigError(msg, "journalctl --dmesg --grep NVRM on the host may say why; then reboot the host")
    card: dict[str, Any] = {
        "name": "",
        "uuid": said["uuid"],
        "model": said["name"],
        "memory_mib": int(said["memory.total"]),
        "compute_capability": said["compute_cap"],
        "pci_address": address,
    }
    link = links.get(address, {})
    for key, field_name, fact in zip(_LINK, QUERY[-2:], ("generation_max", "width_max"), strict=True):
        most = int(said[field_name]) if said[field_name].isdigit() else link.get(fact)
        if most:
            card[key] = most
    return card


def _explained(facts: Mapping[str, Any], answer: Mapping[str, Any]) -> LlamarigError:
    """Say why nvidia-smi does not answer; it ends with NVML's codes."""
    driver, code = facts["driver"], _OTHERS.get(answer["rc"], answer["rc"])
    lines = [line for line in answer["stdout"].splitlines() if len(line.split(",")) != len(QUERY)]
    words = " ".join(" ".join([*lines, answer["stderr"]]).split())
    if answer["rc"] in _ANSWERED:
        return LlamarigError(f"nvidia-smi lists no card: {words or 'it says nothing'}", f"{_SITE}, then detect again")
    if code == _NO_PROGRAM:
        return LlamarigError("nvidia-smi is not there", "install the package nvidia-utils of the driver's branch")
    error = explained(code)
    meaning = f"the driver does not answer: {error.message}"
    if code == MISMATCH:
        meaning += f": user space {driver['userspace']}, module loaded {driver['loaded']}, on disk {driver['on_disk']}"
        return LlamarigError(meaning, error.remedy if driver["on_disk"] == driver["userspace"] else _REBOOT)
    if code == DRIVER_NOT_LOADED and driver["nouveau"]:
        return LlamarigError(f"{meaning}: nouveau drives the cards", _REBOOT)
    # Which card it is, or what is not known here: only nvidia-smi's own words say it.
    more = f": nvidia-smi says {words!r}" if words and code not in (DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND) else ""
    return LlamarigError(f"{meaning}{more}", error.remedy)


def _odd(facts: Mapping[str, Any], gpus: list[dict[str, Any]], known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say which cards the driver does not list: those on the PCI bus, and those that were declared."""
    addresses, uuids = ({gpu[key] for gpu in gpus} for key in ("pci_address", "uuid"))
    unlisted = [
        f"{card['address']}: {card['name']} is on the PCI bus, and the driver does not list it:"
        " journalctl --dmesg --grep NVRM on the host may say why"
        for card in facts["cards"]
        if card["address"] not in addresses
    ]
    gone = [
        f"{gpu.get('name')} ({uuid}) was declared and is not there" for uuid, gpu in known.items() if uuid not in uuids
    ]
    return [*unlisted, *gone]


def _merged(card: dict[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card with what a person declared for it: its name, keys that are not detected, a slower slot."""
    kept = {key: value for key, value in old.items() if key == "name" or key not in card}
    if old.get("pci_address") == card["pci_address"]:
        kept |= {key: old[key] for key in _LINK if key in card and _is_number(old.get(key)) and old[key] < card[key]}
    return {**card, **kept}


def _named(gpus: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the cards that have no name one that no other has."""
    taken = {gpu["name"] for gpu in gpus}
    for gpu in gpus:
        if not gpu["name"]:
            gpu["name"] = _free(slug(gpu["model"]), taken)
            taken.add(gpu["name"])
    return gpus


def _free(base: str, taken: set[str]) -> str:
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base[: SLUG_MOST - len(f'-{number}')].strip('-')}-{number}"
    return name


class _Quoted(str):
    """A value that YAML would take for a number, or might."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Items of a list are indented below its key; lists of numbers stand on one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002  lists are always indented
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  every value is written out
        return True


def _write_quoted(dumper: yaml.SafeDumper, value: _Quoted) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(value), style='"')


def _write_list(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.SequenceNode:
    numbers = all(isinstance(item, int) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=numbers)


_Dumper.add_representer(_Quoted, _write_quoted)
_Dumper.add_representer(list, _write_list)


def _yaml(content: Mapping[str, Any]) -> str:
    shown = {**content, "host_hardware": {**content["host_hardware"]}}
    gpus = shown["host_hardware"].get("gpus", [])
    if gpus:
        shown["host_hardware"]["gpus"] = [
            {key: _Quoted(value) if key in _QUOTED else value for key, value in gpu.items()} for gpu in gpus
        ]
    return yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
