"""An upgrade as the control node sees it: which lock it would leave, which host goes first, and when the lock moves.

The candidate is a lock file beside the fleet's, which playbooks lay over the inventory; the fleet's own moves last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from llamarig.config.engine import Prebuilt
from llamarig.control import engine_steps
from llamarig.control.engine_help import record_help
from llamarig.control.engine_lock import SOURCE
from llamarig.control.engine_steps import lock_engine
from llamarig.control.git import Say
from llamarig.errors import LlamarigError

PREBUILT: Final = "llama_image_prebuilt"
BEFORE: Final = "engine_before"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for: a ref of the source, or an image with the version that it has."""

    ref: str = ""
    image: str = ""
    version: str = ""


def candidate(root: Path, path: Path, lock: Mapping[str, Any], recipe: str, asked: Asked, say: Say) -> dict[str, Any]:
    """Return the lock that an upgrade would leave; ``path`` is that of the fleet's lock, for messages.

    Raises:
        LlamarigError: nothing or the wrong thing was asked for, or it cannot be looked up.

    """
    before = {key: value for key, value in lock.items() if key != BEFORE}
    if recipe == "source":
        if not asked.ref or asked.image:
            raise LlamarigError(
                "llama_image_recipe is source, and no ref was named", "-e llama_cpp_ref=<tag or commit>"
            )
        locked, _ = lock_engine(root, path, lock, engine_steps.Asked(ref=asked.ref), say)
        changed = {SOURCE: locked[SOURCE]}
    elif recipe == "prebuilt":
        if not asked.image or asked.ref:
            remedy = "-e llama_cpp_image=<name@sha256:…> -e llama_cpp_version=<X.Y.Z>"
            raise LlamarigError("llama_image_recipe is prebuilt, and no image was named", remedy)
        changed = {PREBUILT: _prebuilt(asked)}
    else:
        msg = f"llama_image_recipe is {recipe}, whose engine is pinned by hand"
        raise LlamarigError(
            msg, "change llama_image_package in group_vars/all/versions.yml, and run playbooks/site.yml"
        )
    return {**before, **changed, BEFORE: {key: before.get(key) for key in changed}}


def with_help(root: Path, lock: Mapping[str, Any], recipe: str, text: str) -> tuple[dict[str, Any], bool]:
    """Record what the candidate says of its options; return its lock with the name that its help is kept under."""
    key = SOURCE if recipe == "source" else PREBUILT
    version, changed = record_help(root, lock[key]["version"], text)
    return {**lock, key: {**lock[key], "version": version}}, changed


def adopted(lock: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether the fleet's lock is the wanted one already; where it came from does not matter to that."""
    return {k: v for k, v in lock.items() if k != BEFORE} == {k: v for k, v in wanted.items() if k != BEFORE}


def canary(plans: Mapping[str, Mapping[str, Any]], asked: str = "") -> str:
    """Return the host that tries the candidate: the first that runs a service.

    Raises:
        LlamarigError: the host that was asked for is not among them, or none runs a service.

    """
    serving = [host for host, plan in plans.items() if plan["specs"]]
    if asked and asked not in serving:
        msg = f"upgrade_canary is {asked}, which is not in this run or runs no service"
        raise LlamarigError(msg, f"one of: {', '.join(serving) or 'none runs a service'}")
    if not serving:
        raise LlamarigError("no host of this run runs a service to try an engine with", "declare llm_services")
    return asked or serving[0]


@dataclass(frozen=True, slots=True)
class Back:
    """Which hosts go back, the lock afterwards, and a sentence on why."""

    hosts: list[str]
    lock: dict[str, Any]
    why: str


def back(lock: Mapping[str, Any], engines: Mapping[str, Mapping[str, Any] | None]) -> Back:
    """Decide what going back means, from what the hosts' own files say is planned there.

    Where every host has the lock's engine, the last upgrade came to its end, and all go back with the lock. Otherwise
    it did not, and those that were switched go back to the engine that the lock still names.

    Raises:
        LlamarigError: the lock knows no engine of before.

    """
    strangers = [host for host, engine in engines.items() if engine is not None and not _is_of(lock, engine)]
    if strangers:
        why = f"the last upgrade did not come to its end: {', '.join(strangers)} had been switched"
        return Back(strangers, dict(lock), why)
    before = lock.get(BEFORE)
    if not before:
        remedy = "there was no upgrade since the lock was written; git log group_vars/all/engine.yml shows others"
        raise LlamarigError("the lock knows no engine of before", remedy)
    kept = {key: value for key, value in lock.items() if key != BEFORE}
    target = {**kept, **before, BEFORE: {key: kept.get(key) for key in before}}
    return Back([host for host, engine in engines.items() if engine is not None], target, "every host goes back")


def _is_of(lock: Mapping[str, Any], engine: Mapping[str, Any]) -> bool:
    """Tell whether the engine that a host's file names is one that the lock names."""
    source, prebuilt = lock.get(SOURCE) or {}, lock.get(PREBUILT) or {}
    if engine.get("commit"):
        return bool(engine["commit"] == source.get("commit"))
    return engine.get("prebuilt") is None or engine["prebuilt"] == prebuilt.get("image")


def _prebuilt(asked: Asked) -> dict[str, Any]:
    try:
        record = Prebuilt(image=asked.image, version=asked.version)
    except ValidationError as error:
        said = "; ".join(f"llama_cpp_{item['loc'][0]}: {item['msg']}" for item in error.errors(include_url=False))
        raise LlamarigError(said, "-e llama_cpp_image=<name@sha256:…> -e llama_cpp_version=<X.Y.Z>") from None
    return record.model_dump(mode="json")


def limited(play: Sequence[str], fleet: Sequence[str]) -> list[str]:
    """Return the hosts of the fleet that a run leaves out."""
    return [host for host in fleet if host not in play]
