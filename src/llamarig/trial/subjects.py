"""Which models a host's services run, and which of them an engine is tried with: the smallest of each architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.gguf.error import GgufError
from llamarig.gguf.model import read_model
from llamarig.gguf.source import FileSource
from llamarig.runtime.fit_params import value_of

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to try an engine with.

    Attributes:
        spec: of the service that runs it.
        architecture: as its file says it.
        mib: size of its files.
        layers: its blocks, and one more for the output, as the engine counts them.
        context: the longest that it was made for, 0 where its file does not say.

    """

    spec: Spec
    architecture: str
    mib: int
    layers: int
    context: int


def subjects(specs: Sequence[Spec], place: Callable[[str], Path]) -> tuple[list[Subject], list[str]]:
    """Return one model of each architecture, and what stands in the way of the others.

    Args:
        specs: of the services.
        place: where a path of a spec is on this machine.

    """
    found: dict[str, Subject] = {}
    troubles = []
    for spec in specs:
        try:
            subject = _read(spec, place)
        except GgufError as error:
            troubles.append(f"{spec.service}: {error.message}")
            continue
        other = found.get(subject.architecture)
        if other is None or subject.mib < other.mib:
            found[subject.architecture] = subject
    return list(found.values()), troubles


def _read(spec: Spec, place: Callable[[str], Path]) -> Subject:
    inside = (value_of(spec.argv, "--model") or "").removeprefix(f"{paths.CONTAINER_MODELS}/")
    model = read_model(str(place(f"{spec.models_dir}/{inside}")), FileSource)
    shape = model.shape
    blocks, context = shape.metadata.get("block_count"), shape.metadata.get("context_length")
    return Subject(
        spec,
        shape.architecture,
        (model.bytes or 0) // _MIB,
        blocks + 1 if isinstance(blocks, int) else 1,
        context if isinstance(context, int) else 0,
    )
