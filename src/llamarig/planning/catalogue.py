"""The catalogue as one host needs it: profiles made whole from those they are based on, and shapes put in by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from llamarig.config.catalogue import Profile, read_shape
from llamarig.config.shape import ShapeError
from llamarig.errors import Problem

SHAPES_PREFIX: Final = "llm_shapes_"
# What a profile has of the one it is based on, unless it says it itself; options in server are laid over each other.
INHERITED: Final = ("title", "description", "mmproj", "licence", "capabilities", "clients", "retired")
# What is true of certain files only, and therefore comes with them or not at all.
WITH_FILES: Final = ("files", "shape", "repository", "revision")


def expand(
    host: str,
    profiles: Mapping[str, Profile],
    shapes: Mapping[str, Any],
    used: Iterable[str],
) -> tuple[dict[str, Profile], list[Problem]]:
    """Return all profiles, those that are used made whole; what is wrong with the others matters to nobody.

    A profile that cannot be made whole is returned as it is, and its problem beside it.
    """
    whole = dict(profiles)
    problems: list[Problem] = []
    for name in sorted({name for name in used if name in profiles}):
        profile = _on_its_base(host, name, profiles, problems)
        whole[name] = _with_shape(host, name, profile, shapes, problems)
    return whole, problems


def join_shapes(host: str, variables: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Join the parts of the catalogue that hold shapes; the same name in two of them is a problem."""
    shapes: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for variable in sorted(name for name in variables if name.startswith(SHAPES_PREFIX)):
        part = variables[variable] or {}
        if not isinstance(part, dict):
            problems.append(Problem(host, variable, "is no mapping of shapes", "write it as name: {architecture: ...}"))
            continue
        for name in part.keys() & shapes.keys():
            message = f"is defined twice, in {origin[name]} and {variable}"
            problems.append(Problem(host, f"shape {name}", message, "rename or remove one of them"))
        shapes |= part
        origin |= dict.fromkeys(part, variable)
    return shapes


def _on_its_base(host: str, name: str, profiles: Mapping[str, Profile], problems: list[Problem]) -> Profile:
    profile = profiles[name]
    if profile.based_on is None:
        return profile
    key = f"profile {name}.based_on"
    base = profiles.get(profile.based_on)
    if base is None:
        near = difflib.get_close_matches(profile.based_on, profiles, n=1)
        remedy = f"did you mean {near[0]}?" if near else "name a profile of group_vars/all/models/"
        problems.append(Problem(host, key, f"there is no profile {profile.based_on!r}", remedy))
        return profile
    if base.based_on is not None:
        message = "is itself" if profile.based_on == name else f"{profile.based_on!r} is based on {base.based_on!r}"
        remedy = "base it on a profile that names its files; there is one level only"
        problems.append(Problem(host, key, message, remedy))
        return profile
    said = profile.model_fields_set
    names = [*INHERITED, *(() if "files" in said else WITH_FILES)]
    update: dict[str, Any] = {field: getattr(base, field) for field in names if field not in said}
    return profile.having(**update, server={**base.server, **profile.server})


def _with_shape(host: str, name: str, profile: Profile, shapes: Mapping[str, Any], problems: list[Problem]) -> Profile:
    if isinstance(profile.shape, str):
        found = shapes.get(profile.shape)
        if found is None:
            near = difflib.get_close_matches(profile.shape, shapes, n=1)
            remedy = f"did you mean {near[0]}?" if near else "llamarig gguf FILE --shape writes it"
            message = f"there is no shape {profile.shape!r}"
            problems.append(Problem(host, f"profile {name}.shape", message, remedy))
            return profile
        try:
            read_shape(found)
        except ShapeError as error:
            remedy = "write it anew with llamarig gguf FILE --shape"
            problems.append(Problem(host, f"shape {profile.shape}", str(error), remedy))
            return profile
        profile = profile.having(shape=found)
    _check_size(host, name, profile, problems)
    return profile


def _check_size(host: str, name: str, profile: Profile, problems: list[Problem]) -> None:
    """Refuse a shape whose tensors are more than the files hold: it was read from other files."""
    shape = profile.model_shape
    sizes = [item.bytes for item in profile.files]
    if shape is None or shape.source != "header" or None in sizes:
        return
    held = sum(size or 0 for size in sizes)
    if shape.bytes > held:
        message = f"its tensors are {shape.bytes} bytes, and the profile's files {held}: it is of another model"
        remedy = "write it anew from these files with llamarig gguf FILE --shape"
        problems.append(Problem(host, f"profile {name}.shape", message, remedy))
