"""One collection: what the cards measure and what the host says, as samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from llamarig.errors import LlamarigError
from llamarig.exporter.space import Space
from llamarig.hardware.declared import Declared, DeclaredCard, paired, read_declared
from llamarig.hardware.gpus import DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND, MISMATCH, NvmlError
from llamarig.hardware.measured import Measured, MeasuredCard, Meter
from llamarig.runtime.cgroups import service_of
from llamarig.runtime.specs import SpecStore
from llamarig.web.exposition import Sample

_NO_DRIVER: Final = frozenset({DRIVER_NOT_LOADED, LIBRARY_NOT_FOUND})


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection found: samples, whether it came to its end, and NVML's codes for what failed."""

    samples: tuple[Sample, ...]
    succeeded: bool
    codes: tuple[int, ...] = ()
    trouble: str = ""


class Collection:
    """Collects, and remembers which cards there were: one that is gone is worth more than one that never was."""

    def __init__(self, meter: Meter, root: Path = Path("/")) -> None:
        self._meter = meter
        self._root = root
        self._known: set[str] = set()
        self._space = Space()

    def collect(self) -> Collected:
        """Return what there is to say.

        Raises:
            StaleLibraryError: the cards never answer in this process any more.

        """
        declared = self._declared()
        cards = declared.cards if declared else ()
        samples = list(self._host(declared))
        measured, code, trouble = Measured(), 0, ""
        try:
            measured = _each_once(self._meter.read())
        except NvmlError as error:
            code, trouble = error.code, f"{error.message}: {error.remedy}"
        if code == MISMATCH or not code:
            samples.append(Sample("llamarig_driver_mismatch", (), float(code == MISMATCH)))
        samples += self._of(measured, cards)
        missing_driver_is_well = code in _NO_DRIVER and not cards
        codes = [code] if code and not missing_driver_is_well else []
        codes += [fault.code for fault in measured.faults]
        codes += [number for card in measured.cards for number in card.codes]
        succeeded = not code or missing_driver_is_well
        return Collected(tuple(samples), succeeded, tuple(codes), "" if succeeded else trouble)

    def _declared(self) -> Declared | None:
        try:
            return read_declared(self._root)
        except LlamarigError:
            return None

    def _host(self, declared: Declared | None) -> Iterator[Sample]:
        if declared is not None:
            yield Sample("llamarig_gpus_declared", (), len(declared.cards))
        specs = SpecStore(self._root)
        # All have the same directory; the others are not read.
        spec = next(filter(None, map(specs.planned, specs.names())), None)
        if spec is None:
            return
        space = self._space.of(self._root / spec.models_dir.lstrip("/"))
        if space is None:
            return
        yield Sample("llamarig_models_size_bytes", (), space.f_blocks * space.f_frsize)
        yield Sample("llamarig_models_free_bytes", (), space.f_bavail * space.f_frsize)

    def _of(self, measured: Measured, declared: Sequence[DeclaredCard]) -> Iterator[Sample]:
        versions = measured.versions
        if versions.driver:
            labels = (versions.driver, versions.nvml, versions.cuda, versions.module)
            yield Sample("llamarig_driver_info", labels, 1)
        names = {card.uuid: wanted.name for wanted, card in paired(declared, measured.cards) if card}
        answering = {card.uuid for card in measured.cards}
        # A fault that still says who it is was seen as well.
        self._known |= answering | {fault.uuid for fault in measured.faults if fault.uuid}
        for uuid in sorted(self._known | {card.uuid for card in declared if card.uuid}):
            yield Sample("llamarig_gpu_up", (uuid,), float(uuid in answering))
        for card in measured.cards:
            yield from self._of_card(card, names.get(card.uuid, ""))

    def _of_card(self, card: MeasuredCard, name: str) -> Iterator[Sample]:
        labels = (card.uuid, str(card.index), name, card.name, card.pci_address, card.compute_capability)
        yield Sample("llamarig_gpu_info", labels, 1)
        yield Sample("llamarig_gpu_xid_watched", (card.uuid,), float(card.watched))
        for value in card.values:
            yield Sample(f"llamarig_gpu_{value.metric}", (card.uuid, *value.labels), value.number)
        processes: Counter[str] = Counter()
        memory: Counter[str] = Counter()
        if card.holders is not None:
            # So that nobody there differs from a driver that does not say who is there.
            processes[""] = 0
        for holder in card.holders or ():
            service = service_of(holder.pid, self._root) or ""
            processes[service] += 1
            if holder.used_bytes is not None:
                memory[service] += holder.used_bytes
        yield from _by_service("llamarig_gpu_service_processes", card.uuid, processes)
        yield from _by_service("llamarig_gpu_service_memory_bytes", card.uuid, memory)


def _each_once(measured: Measured) -> Measured:
    """Return it with each card once: of two with one UUID, the series of the second would be those of the first."""
    cards = {card.uuid: card for card in reversed(measured.cards)}
    return replace(measured, cards=tuple(card for card in measured.cards if cards[card.uuid] is card))


def _by_service(metric: str, uuid: str, counted: Counter[str]) -> Iterable[Sample]:
    return [Sample(metric, (uuid, service), number) for service, number in sorted(counted.items())]
