"""The engine of one host: what its image is built for and from, and its name, a hash of all of that. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from llamarig.config.engine import Engine
from llamarig.config.records import Gpu, Hardware
from llamarig.errors import Problem

_COMMIT_SHOWN: Final = 9
_RELEASE: Final = re.compile(r"v\d+\.\d+\.\d+")
_ARCHITECTURE: Final = re.compile(r"(?P<number>\d{2,3})(?P<suffix>[af]?)(?P<kind>-real|-virtual)?")
# From here on, llama.cpp builds for one architecture alone: plain 120 becomes 120a (ggml/src/ggml-cuda/CMakeLists.txt).
_SPECIFIC: Final = 120


def backend_for(engine: Engine, gpus: Iterable[Gpu]) -> str:
    """Return what the image of a host with these cards is built for; empty where nobody here can know."""
    if engine.recipe == "debian-package":
        return "cpu"
    if engine.recipe == "prebuilt":
        return ""
    return engine.backend if engine.backend != "auto" else "cuda" if list(gpus) else "cpu"


def architectures_for(engine: Engine, gpus: Iterable[Gpu]) -> list[str]:
    """Return the CUDA architectures of the image of a host with these cards, none where it has no CUDA."""
    cards = list(gpus)
    if backend_for(engine, cards) != "cuda":
        return []
    if isinstance(engine.architectures, list):
        return list(engine.architectures)
    capabilities = sorted({_number(card.compute_capability) for card in cards})
    return [f"{number}{'a' if number >= _SPECIFIC else ''}-real" for number in capabilities]


def planned(engine: Engine, gpus: Iterable[Gpu], files_sha256: str) -> dict[str, Any]:
    """Return the engine of a host as its plan has it: ``image`` names everything that goes into it.

    ``files_sha256`` is the checksum of Dockerfile and entrypoint. Same inputs, same image.
    """
    cards = list(gpus)
    backend, architectures = backend_for(engine, cards), architectures_for(engine, cards)
    version = engine.version or ""
    source, package, prebuilt = (
        record.model_dump(mode="json") if record is not None and engine.recipe == recipe else None
        for recipe, record in (
            ("source", engine.source),
            ("debian-package", engine.package),
            ("prebuilt", engine.prebuilt),
        )
    )
    arguments = _arguments(engine, backend, architectures) if source else {}
    inputs = {
        "recipe": engine.recipe,
        "arguments": arguments,
        # What is built is said by the arguments; where it comes from changes nothing.
        "files": files_sha256 if source else "",
        "package": package,
        "prebuilt": prebuilt["image"] if prebuilt else None,
    }
    # What follows a plus tells recorded helps of one version apart; the engine does not say it.
    said = version.partition("+")[0]
    ref = source["ref"] if source else said
    commit = source["commit"] if source else None
    kind = {"source": backend, "debian-package": "debian", "prebuilt": "prebuilt"}[engine.recipe]
    return {
        "recipe": engine.recipe,
        "image": f"{engine.repository}:{re.sub(r'[^A-Za-z0-9_.-]', '-', ref)}-{kind}-{_sha256(inputs)[:12]}",
        "version": version,
        "ref": ref,
        "commit": commit,
        "backend": backend,
        "architectures": architectures,
        "says": commit[:_COMMIT_SHOWN] if commit else f" {said} ",
        "arguments": arguments,
        "source": source,
        "package": package,
        "prebuilt": prebuilt,
    }


def unlocked(host: str, engine: Engine) -> Iterator[Problem]:
    """Yield what keeps the engine from being built, though its plan can be looked at."""
    source = engine.source
    if engine.recipe == "source" and source is not None and source.commit is None:
        yield Problem(
            host,
            "llama_image_source.commit",
            f"nobody has looked up which commit of llama.cpp {source.ref} is",
            "ansible-playbook playbooks/lock.yml looks it up, once, and writes group_vars/all/engine.yml",
        )


def problems(host: str, engine: Engine, hardware: Hardware) -> Iterator[Problem]:
    """Yield what is wrong with the engine of a host."""
    record = {"source": "source", "debian-package": "package", "prebuilt": "prebuilt"}[engine.recipe]
    if getattr(engine, record) is None:
        yield Problem(
            host,
            f"llama_image_{record}",
            f"is not declared, and llama_image_recipe is {engine.recipe}",
            "declare it in group_vars/all; see docs/reference/inventory.md",
        )
    backend = backend_for(engine, hardware.gpus)
    if engine.recipe == "source" and getattr(engine.bases, backend) is None:
        yield Problem(
            host,
            f"llama_image_bases.{backend}",
            "is not declared: a build starts from images",
            "declare build and runtime, as group_vars/all/versions.yml does",
        )
    architectures = architectures_for(engine, hardware.gpus)
    if backend == "cuda" and not architectures:
        yield Problem(
            host,
            "llama_image_architectures",
            "are those of the declared cards, and the host declares none",
            "declare the cards (llamarig detect), or list architectures",
        )
    for card in hardware.gpus if architectures else []:
        if not any(runs_on(item, card.compute_capability) for item in architectures):
            needed = architectures_for(engine.model_copy(update={"architectures": "declared"}), [card])[0]
            yield Problem(
                host,
                f"host_hardware.gpus.{card.name}",
                f"has compute capability {card.compute_capability}, and the engine is built for "
                f"{', '.join(architectures)}: no kernel of it would run there",
                f"add {needed} to llama_image_architectures, or say `declared`",
            )


def runs_on(architecture: str, compute_capability: str) -> bool:
    """Tell whether code for a CUDA architecture, as CMake names it, runs on a card.

    Machine code runs on cards of the same major number from its minor number on, PTX on all that came later; code for
    one architecture alone (120a) only there
    (https://docs.nvidia.com/cuda/cuda-c-programming-guide/#binary-compatibility).
    """
    found = _ARCHITECTURE.fullmatch(architecture)
    if found is None:
        return False
    wanted, card = int(found["number"]), _number(compute_capability)
    if wanted == card:
        return True
    if found["suffix"] or wanted >= _SPECIFIC:
        return False
    has_code, has_ptx = found["kind"] != "-virtual", found["kind"] != "-real"
    return card > wanted and (has_ptx or (has_code and card // 10 == wanted // 10))


def _arguments(engine: Engine, backend: str, architectures: list[str]) -> dict[str, str]:
    """Return the build arguments of the Dockerfile that decide what comes out."""
    source, bases = engine.source, getattr(engine.bases, backend)
    if source is None or bases is None:
        return {}
    locked = source.archive.sha256 if source.archive else source.commit or ""
    return {
        "BACKEND": backend,
        "BUILD_IMAGE": _pinned(bases.build, engine.digests),
        "RUNTIME_IMAGE": _pinned(bases.runtime, engine.digests),
        "ARCHITECTURES": ";".join(architectures),
        "FA_ALL_QUANTS": "ON" if engine.fa_all_quants else "OFF",
        "REF": source.ref,
        "COMMIT": source.commit or "",
        "VERSION": source.version,
        "BUILD_NUMBER": str(source.build or 0),
        "IS_RELEASE": "ON" if _RELEASE.fullmatch(source.ref) else "OFF",
        "SOURCE_DATE_EPOCH": str(source.committed or 0),
        "SOURCE_HASH": locked,
        "APT_SNAPSHOT": engine.apt_snapshot,
    }


def _pinned(image: str, digests: Mapping[str, str]) -> str:
    digest = digests.get(image)
    return f"{image}@{digest}" if digest and "@" not in image else image


def _number(compute_capability: str) -> int:
    major, minor = compute_capability.split(".")
    return int(major) * 10 + int(minor)


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
