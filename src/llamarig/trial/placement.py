"""Where a model lies while it is tried: the same for both engines, in what is free beside the service that runs.

The old engine's llama-fit-params chooses the layout by what is free now; both engines get it as plain arguments. What
decides what a model computes is taken from the service's own arguments, so that what is tried is what serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from llamarig.config.spec import Spec
from llamarig.errors import LlamarigError
from llamarig.runtime.fit_params import Answer, Estimate, Judge, JudgeError, split_options, value_of
from llamarig.trial.subjects import Subject

# Room for the longest prompt and its answer (answers.py).
CONTEXT: Final = 1024
# Stays free on each card: a candidate may need somewhat more than the old engine, which the layout is made by.
MARGIN_MIB: Final = 512
# What a server takes of the host's memory beside weights, cache and buffers, and what stays free for others.
_PROCESS_MIB: Final = 512
_KEPT_MIB: Final = 512
# More layers than any model has: engines of every age take the number for all of them.
_ALL: Final = "999"
# Options of a service that decide what is computed and how, but not where.
TAKEN: Final = frozenset(
    {
        *("--batch-size", "--cache-type-k", "--cache-type-v", "--control-vector", "--control-vector-scaled"),
        *("--cpu-mask", "--cpu-range", "--cpu-strict", "--flash-attn", "--kv-offload", "--lora", "--lora-scaled"),
        *("--no-host", "--no-kv-offload", "--no-op-offload", "--no-repack", "--numa", "--offline", "--op-offload"),
        *("--override-kv", "--poll", "--prio", "--repack", "--rope-freq-base", "--rope-freq-scale", "--rope-scale"),
        *("--rope-scaling", "--swa-full", "--threads", "--threads-batch", "--ubatch-size", "--yarn-attn-factor"),
        *("--yarn-beta-fast", "--yarn-beta-slow", "--yarn-ext-factor", "--yarn-orig-ctx"),
    }
)
# As llama-fit-params prints them, and their long names.
_CHOSEN: Final = {"-ngl": "--gpu-layers", "-ts": "--tensor-split", "-ot": "--override-tensor"}
# Options of llama-bench for those of a server; a switch has the value that says it.
_BENCH: Final[Mapping[str, tuple[str, ...]]] = {
    **{name: (name,) for name in ("--batch-size", "--cache-type-k", "--cache-type-v", "--cpu-mask", "--cpu-strict")},
    **{name: (name,) for name in ("--device", "--flash-attn", "--model", "--numa", "--poll", "--prio", "--threads")},
    **{name: (name,) for name in ("--override-tensor", "--tensor-split", "--ubatch-size")},
    "--gpu-layers": ("--n-gpu-layers",),
    "--no-kv-offload": ("--no-kv-offload", "1"),
    "--no-op-offload": ("--no-op-offload", "1"),
    "--no-host": ("--no-host", "1"),
    "--no-repack": ("--repack", "0"),
}


class NoRoomError(LlamarigError):
    """The host has not the memory to try a model beside what serves; the message has the figures."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A layout for both engines.

    Attributes:
        gpus: the cards that the containers see.
        words: arguments of llama-server.
        layers: how many of the model's layers are on cards.
        memory_mib: the most that a container may take of the host's memory.
        text: where the model lies, for people.

    """

    gpus: tuple[str, ...]
    words: tuple[str, ...]
    layers: int
    memory_mib: int
    text: str

    def bench_words(self) -> list[str]:
        """Return the same as arguments of llama-bench, whose grammar is another."""
        found = []
        for option in split_options(self.words):
            name, *own = _BENCH.get(option[0], ("",))
            if name:
                found += [name, *(own or [_bench_value(*option)])]
        return found


def place(subject: Subject, against: str, judge: Judge, available_mib: int, *, shared: bool) -> Placement:
    """Choose a layout beside what runs.

    Args:
        subject: the model.
        against: the old engine's image, which is asked.
        judge: asks it.
        available_mib: of the host's memory.
        shared: whether a service that runs maps the same files, so that both have their weights in memory once.

    Raises:
        NoRoomError: the host's memory is too little.
        JudgeError: the engine could not be asked.

    """
    spec, why = replace(subject.spec, image=against), ""
    if spec.gpus:
        estimate, why = _fitted(spec, judge)
        if estimate is not None:
            return _placed(subject, spec, estimate, available_mib, shared=shared)
    spec = replace(spec, gpus=[])
    on_cpu = ["--device", "none", "--gpu-layers", "0"]
    estimate = judge.estimate(replace(spec, argv=[*_taken(spec), *on_cpu, *_fit(spec, "off")]))
    if estimate.parts is None:
        raise JudgeError(f"{spec.service}: the engine gives no estimate: {estimate.text}", "sudo llamarig plan --check")
    placed = _placed(subject, spec, replace(estimate, words=on_cpu), available_mib, shared=shared)
    return replace(placed, text=f"{placed.text}{f': {why}' if why else ''}")


def available_mib(root: Path = Path("/")) -> int:
    """Return what programs could take of the host's memory now, as the kernel says it."""
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 0


def shares_weights(spec: Spec, running: Sequence[Spec]) -> bool:
    """Tell whether a service that runs maps the files of a spec."""
    own = {item.path for item in spec.files}
    mapping = [other for other in running if value_of(other.argv, "--load-mode") == "mmap"]
    return any(own <= {item.path for item in other.files} for other in mapping)


def _taken(spec: Spec) -> list[str]:
    """Return what both engines and llama-fit-params are given whatever the layout; mapped files, not copied ones."""
    words = [word for option in split_options(spec.argv) if option[0] in TAKEN for word in option]
    if "--load-mode" in spec.argv:
        words += ["--load-mode", "mmap"]
    model = value_of(spec.argv, "--model") or ""
    return ["--model", model, *words, "--ctx-size", str(CONTEXT), "--parallel", "1"]


def _fit(spec: Spec, value: str) -> list[str]:
    """Say whether the engine chooses the layout; an engine whose services do not say it does not know the option."""
    return ["--fit", value] if "--fit" in spec.argv else []


def _fitted(spec: Spec, judge: Judge) -> tuple[Estimate | None, str]:
    """Ask for a layout on the cards; returns why there is none, where there is none."""
    target = ["--fit", "on", "--fit-target", str(MARGIN_MIB), "--fit-ctx", str(CONTEXT)]
    try:
        estimate = judge.estimate(replace(spec, argv=[*_taken(spec), *target]))
    except JudgeError as error:
        return None, error.message
    if estimate.answer is Answer.ESTIMATED and estimate.parts is not None and estimate.parts.devices:
        return estimate, ""
    return None, estimate.text or "the engine sees no card"


def _placed(subject: Subject, spec: Spec, estimate: Estimate, available: int, *, shared: bool) -> Placement:
    host = estimate.parts.host if estimate.parts else None
    weights, rest = (host.weights, host.cache + host.compute) if host else (subject.mib, 0.0)
    words = [*_taken(spec), *_chosen(estimate.words), *_fit(spec, "off")]
    room = available - _KEPT_MIB
    layers = _layers(subject, words)
    text = f"{layers} of {subject.layers} layers on the cards" if spec.gpus else "on the CPU"
    if spec.gpus and "=CPU" in (value_of(words, "--override-tensor") or ""):
        text += ", experts of some of them on the CPU"
    need = weights + rest + _PROCESS_MIB
    if need > room and shared and rest + _PROCESS_MIB <= room:
        # Weights that the CPU rearranges are a copy; as they are in the file, both servers have the same pages.
        need, text = rest + _PROCESS_MIB, f"{text}, weights shared with the service that runs"
        words += [] if "--no-repack" in words else ["--no-repack"]
    if need > room:
        msg = f"{subject.spec.service} needs {need:.0f} MiB of the host's memory to be tried beside what serves, and "
        remedy = "try it while nothing serves: sudo llamarig stop, and llamarig switch afterwards"
        raise NoRoomError(f"{msg}{max(room, 0):.0f} are free", remedy)
    return Placement(tuple(spec.gpus), tuple(words), layers, max(room, 0), text)


def _chosen(words: Sequence[str]) -> list[str]:
    """Return the part of an estimate's words that says where the model lies, with long names."""
    found = []
    names = {*_CHOSEN, *_CHOSEN.values(), "--device"}
    for option in split_options(words):
        if option[0] in names:
            name = _CHOSEN.get(option[0], option[0])
            found += [name, _ALL if name == "--gpu-layers" and option[1] in {"-1", "all"} else option[1]]
    return found


def _layers(subject: Subject, words: Sequence[str]) -> int:
    said = value_of(words, "--gpu-layers")
    return min(int(said), subject.layers) if said is not None and said.isdigit() else 0


def _bench_value(name: str, value: str) -> str:
    """Return a server's value in llama-bench's grammar, where commas separate what is measured one after the other."""
    if name == "--tensor-split":
        return value.replace(",", "/")
    if name == "--override-tensor":
        return value.replace(",", ";")
    return value
