"""What the engine says of memory and places, read from its output.

Units are MiB as the engine prints them: whole and rounded down in breakdowns, with decimals in its log. Everything that
is not a device of its own (``CPU``, ``CPU_Mapped``, ``CPU_REPACK``, ``AMX``) is called ``Host``, as breakdowns call it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llamarig.lab.machine import LabError

HOST: Final = "Host"
_BREAKDOWN: Final = re.compile(r"^(\S+) (\d+) (\d+) (\d+)\s*$", re.MULTILINE)
_SIZE: Final = re.compile(r"^(\w+):\s+(\S+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")
_LAYER: Final = re.compile(r"^load_tensors: layer\s+(\d+) assigned to device (\S+), is_swa = \d")
_CACHE: Final = re.compile(r"^(?:llama_kv_cache:|llama_memory_recurrent,) layer\s+(\d+): dev = (\S+)")
_OVERRIDDEN: Final = re.compile(r"^tensor (\S+) \(.*\) buffer type overridden to (\S+)")
_SPLITS: Final = re.compile(r"^sched_reserve: graph: nodes = \d+, splits = (\d+)")
_ERROR: Final = re.compile(r"(?<= E )\S.*|\S+:\d+: GGML_ASSERT.*|what\(\): .*|^error.*")
_TABLES: Final = {"model": "model", "KV": "cache", "RS": "state", "output": "output"}


@dataclass(frozen=True, slots=True)
class Parts:
    """What one device holds, in whole MiB: weights, cache and state of the context, compute buffer."""

    model: int
    context: int
    compute: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.model + self.context + self.compute


@dataclass(frozen=True, slots=True)
class Served:
    """What llama-server logged of its buffers, in MiB by device, and of places by name of device.

    Attributes:
        model: weights.
        cache: keys and values (KV).
        state: recurrent state (RS).
        compute: scratch of the graph. Of several contexts (a draft's), the sum of what each reserved last.
        output: logits, on the host.
        layers: device of each layer; the one past the last block is the output. Empty unless ``-lv 5``.
        caches: device of each layer's cache or state. Empty unless ``-lv 5``.
        overridden: device of each tensor that a rule moved (``-ot``, ``--n-cpu-moe``). Empty unless ``-lv 5``.
        splits: parts that the first context's graph was cut into; 1 where one device computes everything.
        breakdown: what the engine summed up itself when it stopped: its first context only, without a draft's.

    """

    model: dict[str, float] = field(default_factory=dict)
    cache: dict[str, float] = field(default_factory=dict)
    state: dict[str, float] = field(default_factory=dict)
    compute: dict[str, float] = field(default_factory=dict)
    output: dict[str, float] = field(default_factory=dict)
    layers: dict[int, str] = field(default_factory=dict)
    caches: dict[int, str] = field(default_factory=dict)
    overridden: dict[str, str] = field(default_factory=dict)
    splits: int = 0
    breakdown: dict[str, Parts] = field(default_factory=dict)

    def place(self, tensor: str) -> str:
        """Return the device that holds a tensor's weights.

        Raises:
            LabError: the log does not say it: it was not written with ``-lv 5``, or the tensor has no one place.

        """
        if tensor in self.overridden:
            return self.overridden[tensor]
        if tensor == "token_embd.weight":
            return HOST  # the engine looks tokens up on the CPU, wherever the layers are
        block = re.match(r"blk\.(\d+)\.", tensor)
        last = max(self.layers, default=-1)
        layer = int(block[1]) if block else last if tensor.startswith("output") else -1
        if layer not in self.layers:
            msg = f"the log does not say where {tensor} is"
            raise LabError(msg, "serve with verbose=True, and ask for a tensor of a block or of the output")
        return self.layers[layer]

    def total(self, device: str) -> float:
        """Return all that a device holds."""
        tables = (self.model, self.cache, self.state, self.compute, self.output)
        return sum(table.get(device, 0.0) for table in tables)


def read_breakdown(text: str) -> dict[str, Parts]:
    """Read what ``llama-fit-params -fitp on`` prints: a line for each device, then the host.

    Raises:
        LabError: there is no such line.

    """
    found = _BREAKDOWN.findall(text)
    parts = {name: Parts(int(model), int(context), int(compute)) for name, model, context, compute in found}
    if HOST not in parts:
        msg = f"llama-fit-params printed no estimate: {text.strip()[-500:]!r}"
        raise LabError(msg)
    return parts


def read_arguments(text: str) -> list[str]:
    """Read the arguments that ``llama-fit-params`` proposes, as a program wants them: quotes are gone.

    Raises:
        LabError: it proposed none.

    """
    lines = [line for line in text.splitlines() if line.startswith("-")]
    if len(lines) != 1:
        msg = f"llama-fit-params proposed no arguments: {text.strip()[-500:]!r}"
        raise LabError(msg)
    return shlex.split(lines[0])


def read_log(lines: Iterable[str], devices: Mapping[str, str]) -> Served:
    """Read a log of ``llama-server --log-jsonl`` with ``-lv 4`` or ``-lv 5``.

    A load that only measures (``--fit``) comes before the one that counts, so each load starts anew.

    Args:
        lines: the log, one JSON object in each; other lines are passed over.
        devices: name of a device by the name of its buffers, which need not be the same (RPC).

    """
    reader = _Reader(devices)
    for event in _events(lines):
        if event.get("type") == "fit_memory_breakdown":
            reader.breakdown = _breakdown(event)
            continue
        message = str(event.get("msg", "")).strip()
        if message.startswith("llama_model_loader: loaded meta data"):
            reader = _Reader(devices)
        reader.read(message)
    return reader.result()


def read_errors(log: str) -> str:
    """Return what a log says went wrong: its errors, assertions, exceptions; its end where there are none."""
    said = []
    for line in log.splitlines():
        event = next(iter(_events([line])), None)
        if event is None:
            found = _ERROR.search(line)
            said += [found[0].strip()] if found else []
        elif event.get("level") == "error":
            said.append(str(event.get("msg", "")).strip())
    return " | ".join(dict.fromkeys(said))[-2000:] or log.strip()[-500:]


class _Reader:
    """One load: what its messages add up to."""

    def __init__(self, devices: Mapping[str, str]) -> None:
        self.devices = devices
        self.sizes: dict[str, dict[str, float]] = {table: defaultdict(float) for table in _TABLES.values()}
        self.layers: dict[int, str] = {}
        self.caches: dict[int, str] = {}
        self.overridden: dict[str, str] = {}
        self.breakdown: dict[str, Parts] = {}
        # Of each context: one that is reserved again replaces its own.
        self.compute: list[dict[str, float]] = []
        self.splits: list[int] = []

    def read(self, message: str) -> None:
        """Take in one message of the log."""
        if message.startswith("llama_context: constructing") or not self.compute:
            self.compute.append({})
            self.splits.append(0)
        if found := _SIZE.match(message):
            self._size(self._device(found[2]), found[3], float(found[4]))
        elif found := _LAYER.match(message):
            self.layers[int(found[1])] = self._device(found[2])
        elif found := _CACHE.match(message):
            self.caches[int(found[1])] = self._device(found[2])
        elif found := _OVERRIDDEN.match(message):
            self.overridden[found[1]] = self._device(found[2])
        elif found := _SPLITS.match(message):
            self.splits[-1] = int(found[1])

    def result(self) -> Served:
        """Return what was read, contexts added up."""
        compute: dict[str, float] = defaultdict(float)
        for reserved in self.compute:
            for device, size in reserved.items():
                compute[device] += size
        return Served(
            **{table: dict(sizes) for table, sizes in self.sizes.items()},
            compute=dict(compute),
            layers=self.layers,
            caches=self.caches,
            overridden=self.overridden,
            splits=next(filter(None, self.splits), 0),
            breakdown=self.breakdown,
        )

    def _size(self, device: str, kind: str, size: float) -> None:
        if kind == "compute":
            self.compute[-1][device] = size
        else:
            self.sizes[_TABLES[kind]][device] += size

    def _device(self, name: str) -> str:
        if name in self.devices:
            return self.devices[name]
        return name if name in self.devices.values() else HOST


def _events(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        if not line.startswith("{"):
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue  # an abort can cut a line short
        yield event


def _breakdown(event: dict[str, Any]) -> dict[str, Parts]:
    rows = event.get("data", {}).get("rows", [])
    return {row["name"]: Parts(row["model"], row["context"], row["compute"]) for row in rows}
