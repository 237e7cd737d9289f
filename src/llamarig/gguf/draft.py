"""A profile of the catalogue as far as a model's files can tell it: the record that a person completes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from llamarig.config.shape import MetadataValue
from llamarig.gguf.address import Hub, HubFile, hub_file, is_remote, split_address
from llamarig.gguf.checksum import sha256
from llamarig.gguf.error import GgufError
from llamarig.gguf.model import ModelFile, Part

VARIABLE: Final = "llm_profiles_"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PART: Final = re.compile(r"-\d{5}-of-\d{5}$")
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_PROJECTORS: Final = ("mmproj", "clip")
_SAMPLING: Final = "general.sampling."

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where files are, and where the hosts that serve them will look.

    Attributes:
        hub: where ``hf:`` names lead.
        stores: models directories of this machine; a file in one of them is fetched from nowhere.

    """

    hub: Hub = field(default_factory=Hub)
    stores: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """What a model's files say of its profile.

    Attributes:
        name: of the profile.
        read_from: what was named.
        record: the profile; keys that the files say nothing of are left out.
        remarks: what a person should know who completes it.

    """

    name: str
    read_from: str
    record: dict[str, Any]
    remarks: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The variable of the inventory that it is written under."""
        return VARIABLE + re.sub(r"[^A-Za-z0-9]", "_", self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        return {"name": self.name, "variable": self.variable, "record": self.record, "remarks": list(self.remarks)}


def draft_profile(
    named: str,
    model: ModelFile,
    place: Place,
    *,
    name: str | None = None,
    projector: ModelFile | None = None,
    progress: Progress = lambda _: None,
) -> Draft:
    """Write the profile of a model, and of its vision projector where there is one.

    Files of this machine are read from beginning to end for their sha256; of others it is what the hub says.

    Args:
        named: what the user named.
        model: its files.
        place: where they are.
        name: of the profile; by default that of the file.
        projector: its files.
        progress: told how many bytes were read just now, as often as a MiB was.

    Raises:
        GgufError: the files are no model, no projector, or changed on the way.

    """
    _check_kinds(model, projector)
    _check_one_revision(model)
    record: dict[str, Any] = {"description": _description(model)}
    record["files"] = [_file(part, place, progress) for part in model.parts]
    if projector is not None:
        record["mmproj"] = _file(projector.parts[0], place, progress)
    at = _on_hub(model.parts[0], place)
    if at is not None and _REPOSITORY.fullmatch(f"{at.owner}/{at.repository}"):
        record["repository"] = f"{at.owner}/{at.repository}"
        record |= {"revision": model.parts[0].revision} if model.parts[0].revision else {}
    licence = _licence(model.general)
    record |= {"licence": licence} if licence else {}
    record["shape"] = model.shape.to_dict()
    return Draft(name or _name(model.parts[0], place), named, record, tuple(_remarks(model, record)))


def local_bytes(*models: ModelFile | None) -> int:
    """Return how many bytes will be read for checksums."""
    parts = [part for model in models if model is not None for part in model.parts]
    return sum(part.bytes or 0 for part in parts if not is_remote(part.name))


def _check_kinds(model: ModelFile, projector: ModelFile | None) -> None:
    kind = _kind(model)
    if kind in _PROJECTORS:
        why = f"{model.parts[0].name} is a vision projector, no model"
        raise GgufError(why, "name the model's file, and this one with --mmproj")
    if kind != "model":
        raise GgufError(f"{model.parts[0].name} is no model but {kind!r}", "name the file of the model itself")
    if projector is not None and _kind(projector) not in _PROJECTORS:
        why = f"{projector.parts[0].name} is no vision projector"
        raise GgufError(why, "name the file with mmproj in its name, which lies beside the model's")


def _kind(model: ModelFile) -> str:
    """Return what a file says it is; projectors that are older than general.type say it by their architecture."""
    said = model.general.get("general.type")
    return "clip" if model.shape.architecture == "clip" else str(said) if said else "model"


def _check_one_revision(model: ModelFile) -> None:
    revisions = {part.revision for part in model.parts}
    if len(revisions) > 1:
        why = f"{model.parts[0].name}: its parts are of different commits: the repository changed just now"
        raise GgufError(why, "run it again, or name a commit: hf:owner/repository/file.gguf@commit")


def _on_hub(part: Part, place: Place) -> HubFile | None:
    return hub_file(part.name, place.hub) if is_remote(part.name) else None


def _file(part: Part, place: Place, progress: Progress) -> dict[str, Any]:
    if not is_remote(part.name):
        return _local_file(part, place, progress)
    at = _on_hub(part, place)
    url = at.address(place.hub, part.revision) if at else split_address(part.name, part.name).geturl()
    path = f"{at.repository}/{at.path}" if at else _last(part.name)
    return {"name": _below_models(path), "bytes": part.bytes, "sha256": part.sha256, "url": url}


def _local_file(part: Part, place: Place, progress: Progress) -> dict[str, Any]:
    path = os.path.abspath(part.name)  # noqa: PTH100  links keep their names: a part is found by its own
    size = part.bytes or 0
    facts = {"bytes": size, "sha256": sha256(path, size, progress)}
    for store in place.stores:
        if path.startswith(f"{store.rstrip('/')}/"):
            return {"name": path.removeprefix(f"{store.rstrip('/')}/"), **facts}
    return {"name": _below_models(_last(part.name)), **facts, "path": path}


def _last(name: str) -> str:
    """Return the name of a file without where it is."""
    path = unquote(urlsplit(name).path) if is_remote(name) else name
    return path.rstrip("/").rpartition("/")[2]


def _below_models(path: str) -> str:
    """Turn a path into one that the catalogue takes."""
    steps = [re.sub(r"[^A-Za-z0-9._+-]+", "-", step).lstrip(".") for step in path.split("/")]
    return "/".join(step for step in steps if step) or "model.gguf"


def _name(part: Part, place: Place) -> str:
    """Name a profile after its file, as the catalogue names its own: ``qwen3-4b-q4_k_m``."""
    at = _on_hub(part, place)
    stem = _PART.sub("", re.sub(r"\.gguf$", "", _last(at.path if at else part.name), flags=re.IGNORECASE))
    return re.sub(r"[^a-z0-9._]+", "-", stem.lower()).strip("-._") or "model"


def _description(model: ModelFile) -> str:
    """Say name, size and quantisation, as far as the file does.

    A size that is in the name is not said twice. The type that most bytes have is said where it is not the one that the
    quantisation is named after: in files of GPT-OSS that call themselves F16, most weights are MXFP4.
    """
    name = _text(model.general.get("general.name"))
    size = _text(model.general.get("general.size_label"))
    said = model.quantisation or ""
    words = [name or model.shape.architecture, "" if size.lower() in name.lower() else size, said]
    words += [f"mostly {most}" for most in list(model.bytes_by_type)[:1] if most not in said.lower()]
    return ", ".join(word for word in words if word)


def _licence(general: Mapping[str, MetadataValue]) -> str:
    said, name = (_text(general.get(f"general.license{ending}")) for ending in ("", ".name"))
    return name if name and said in {"", "other"} else said


def _text(value: MetadataValue | None) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""


def _remarks(model: ModelFile, record: Mapping[str, Any]) -> list[str]:
    trained = model.shape.metadata.get("context_length")
    remarks = []
    if isinstance(trained, int):
        remarks.append(f"Trained with a context of {trained} tokens; server: {{ctx_size: N}} says how much is wanted.")
    sampling = {key.removeprefix(_SAMPLING): value for key, value in model.general.items() if key.startswith(_SAMPLING)}
    if sampling:
        said = ", ".join(f"{key} {value}" for key, value in sampling.items())
        remarks.append(f"The file itself recommends {said}: llama-server samples so where server says nothing else.")
    if "repository" in record and "revision" not in record:
        remarks.append("The hub names no commit: should the file at this address change, hosts refuse it.")
    if any("path" not in item and "url" not in item for item in record["files"]):
        remarks.append("The files are in the models directory here: other hosts need a url, or a path to push from.")
    return remarks
