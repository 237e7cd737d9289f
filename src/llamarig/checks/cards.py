"""Checks of the cards, as NVML sees them. Left out where no card is declared.

Where NVML as a whole says nothing, check gpus tells why, and the others are left out.
"""

from __future__ import annotations

from typing import Final

from llamarig.checks.box import Box
from llamarig.checks.result import CheckResult, fail, ok, warn
from llamarig.hardware.declared import DeclaredCard, paired
from llamarig.hardware.gpus import Card, CardFault, NvmlError, Reading
from llamarig.hardware.tuning import changes_needed, kept_now, refusals, this_start
from llamarig.runtime.cgroups import service_of

_SAME_MEMORY: Final = 0.01
_DECLARE: Final = "correct host_hardware.gpus in host_vars and run playbooks/site.yml"


def check_gpus(box: Box) -> CheckResult | None:
    """The cards are those that the inventory declares, and none is lost."""
    declared = box.declared.cards
    if not declared:
        on_bus = ", ".join(f"{card['name']} at {card['address']}" for card in box.facts["cards"])
        remedy = "llamarig detect on the control node writes what to declare"
        return warn("gpus", f"no GPU is declared, and the host has {on_bus}", remedy) if on_bus else None
    if isinstance(box.looked, NvmlError):
        return fail("gpus", box.looked.message, box.looked.remedy)
    pairs = paired(declared, box.looked.cards)
    differing = [text for wanted, card in pairs if card is not None for text in _differences(wanted, card)]
    missing = [wanted for wanted, card in pairs if card is None]
    if missing or box.looked.faults:
        return _absent(box, missing, box.looked, differing)
    if differing:
        return fail("gpus", "; ".join(differing), _DECLARE)
    known = {card.uuid for _, card in pairs if card is not None}
    strange = [f"{card.name} ({card.uuid})" for card in box.looked.cards if card.uuid not in known]
    if strange:
        return warn("gpus", f"not declared: {', '.join(strange)}", _DECLARE)
    return ok("gpus", f"{len(declared)} as declared: {', '.join(card.name for card in declared)}")


def _differences(wanted: DeclaredCard, card: Card) -> list[str]:
    found = []
    if wanted.model != card.name:
        found.append(f"{wanted} is a {card.name}, declared is {wanted.model}")
    if abs(card.memory_mib - wanted.memory_mib) > wanted.memory_mib * _SAME_MEMORY:
        found.append(f"{wanted} has {card.memory_mib} MiB, declared are {wanted.memory_mib} MiB")
    if card.compute_capability not in {None, wanted.compute_capability}:
        found.append(
            f"{wanted} has compute capability {card.compute_capability}, declared is {wanted.compute_capability}"
        )
    return found


def _absent(box: Box, missing: list[DeclaredCard], reading: Reading, also: list[str]) -> CheckResult:
    """Say which cards cannot be used; a fault of NVML or a card without a driver says why."""
    texts, remedies, gone = [], [], list(missing)
    for fault in reading.faults:
        who = _who(fault, gone)
        if isinstance(who, DeclaredCard):
            gone.remove(who)
        texts.append(f"{who}: {fault.error.message}")
        remedies.append(fault.error.remedy)
    if gone:
        texts.append(f"{', '.join(map(str, gone))}: not there")
        undriven = [f"{card['name']} at {card['address']}" for card in box.facts["cards"] if card["driver"] != "nvidia"]
        if undriven:
            texts.append(f"the driver leaves {', '.join(undriven)} alone")
            remedies.append("journalctl --dmesg --grep NVRM says why")
        else:
            remedies.append("look whether it is seated and powered; if it left the host, remove it from host_vars")
    return fail("gpus", "; ".join([*texts, *also]), "; ".join(dict.fromkeys(remedies)))


def _who(fault: CardFault, missing: list[DeclaredCard]) -> DeclaredCard | str:
    """Return the declared card that a fault is about, as far as the fault, or there being one only, tells."""
    for wanted in missing:
        if fault.uuid is not None and fault.uuid == wanted.uuid:
            return wanted
    if fault.uuid is None and len(missing) == 1:
        return missing[0]
    return f"card {fault.uuid or fault.index}"


def check_pcie(box: Box) -> CheckResult | None:
    """Every card has the lanes and the speed of its slot."""
    if not box.cards:
        return None
    own_widths = {card["address"]: card["link"]["width_max"] for card in box.facts["cards"]}
    texts = []
    for wanted, card in box.cards:
        width = wanted.pcie_width or own_widths.get(card.pci_address) or card.link_width_max
        if width and card.link_width and card.link_width < width:
            texts.append(f"{wanted.name} runs on {card.link_width} of {width} lanes")
        # A card that idles lowers its generation: what counts is what it could.
        generation, most = wanted.pcie_generation, card.link_generation_max
        if generation and most and most < generation:
            texts.append(f"{wanted.name} can do PCIe generation {most}, declared is {generation}")
    if texts:
        return warn(
            "pcie",
            "; ".join(texts),
            "reseat the card or its riser; where the slot has no more, declare pcie_width and pcie_generation",
        )
    return ok("pcie", ", ".join(f"{wanted.name} x{card.link_width or '?'}" for wanted, card in box.cards))


def check_persistence(box: Box) -> CheckResult | None:
    """The driver keeps the cards initialized while nothing runs on them."""
    if not box.cards:
        return None
    off = [wanted.name for wanted, card in box.cards if card.persistence is False]
    if off:
        return warn("persistence", f"off: {', '.join(off)}", "sudo llamarig tune; systemctl status nvidia-persistenced")
    unknown = [wanted.name for wanted, card in box.cards if card.persistence is None]
    return ok("persistence", f"not known to {', '.join(unknown)}" if unknown else "on")


def check_tuning(box: Box) -> CheckResult | None:
    """Power limits and clock locks are as declared."""
    if box.reading is None:
        return None
    if problems := refusals(box.declared, box.reading, "this host"):
        first = problems[0]
        return fail("tuning", f"{first.key}: {first.message}", f"{first.remedy} in host_vars, run playbooks/site.yml")
    kept = kept_now(box.state, this_start(box.root), box.reading)
    needed = [item for item in changes_needed(box.declared, box.reading, kept) if item.setting.key != "persistence"]
    if needed:
        return fail("tuning", f"not as declared; missing: {'; '.join(map(str, needed))}", "sudo llamarig tune")
    tuned = [wanted.name for wanted, _ in box.cards if wanted.power_limit_watts or wanted.lock_clocks_mhz]
    return ok("tuning", f"as declared: {', '.join(tuned)}" if tuned else "none is declared")


def check_gpu_in_use(box: Box) -> CheckResult | None:
    """Each active service has its model on every card that it was given."""
    name = "gpu-in-use"
    if box.reading is None:
        return None
    active = [spec for spec in box.active() if spec.gpus]
    if not active:
        return None
    cards, names = {card.uuid: card for card in box.reading.cards}, {card.uuid: own.name for own, card in box.cards}
    told = []
    for spec in active:
        service = spec.service
        if not box.units.state(service).is_running:
            return fail(name, f"{service} was not looked for: its unit does not run", f"llamarig logs {service}")
        gone = [uuid for uuid in spec.gpus if uuid not in cards]
        if gone:
            return fail(name, f"{service} was given {', '.join(gone)}, not there", "see check gpus")
        held = {names.get(uuid, uuid): _held(box, cards[uuid], service) for uuid in spec.gpus}
        empty = [card for card, text in held.items() if text is None]
        if empty:
            return fail(
                name,
                f"{service} holds no memory of {', '.join(empty)}: the model is silently on the CPU",
                f"see check compute, then sudo llamarig switch {service}",
            )
        mine = ", ".join(f"{card} {text}" for card, text in held.items())
        told.append(f"{service}: {mine}" if len(active) > 1 else mine)
    return ok(name, "; ".join(told))


def _held(box: Box, card: Card, service: str) -> str | None:
    """Say how much of a card a service holds, None where it holds nothing."""
    if card.processes is None:
        return "does not say what runs on it"
    used = [item.used_mib for item in card.processes if service_of(item.pid, box.root) == service]
    if None in used:
        return "in use"
    total = sum(mib or 0 for mib in used)
    return f"{total} MiB" if total else None
