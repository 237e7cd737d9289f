"""Published models: ``data/lab/ghosts.yml`` holds them, and says what its keys mean and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from llamarig.config.shape import MetadataValue
from llamarig.lab.ghost_mixes import Mix, dynamic
from llamarig.lab.ghost_parts import Header
from llamarig.lab.machine import LabError

_UNITS: Final = {"GB": 10**9, "GiB": 2**30}


@dataclass(frozen=True, slots=True)
class Published:
    """A model as its maker published it.

    Attributes:
        name: as the catalogue and people say it.
        header: what decides its tensors.
        parameters: how many its file is said to have, in billions.
        mixes: types of quantisations of its own, beside those that any model can have.
        sizes: bytes that published files of a quantisation have, where somebody said so.

    """

    name: str
    header: Header
    parameters: float
    mixes: Mapping[str, Mix]
    sizes: Mapping[str, int]


@cache
def published_models() -> Mapping[str, Published]:
    """Return every published model by its name."""
    text = files("llamarig").joinpath("data", "lab", "ghosts.yml").read_text(encoding="utf-8")
    return {name: _published(name, entry) for name, entry in yaml.safe_load(text).items()}


def _published(name: str, entry: dict[str, Any]) -> Published:
    blocks = entry["metadata"]["block_count"]
    header = Header(
        entry["architecture"],
        {
            key: per_block(value, blocks) if isinstance(value, dict) else value
            for key, value in entry["metadata"].items()
        },
        entry["vocabulary"],
        tied=entry.get("tied", False),
        rope_factors=entry.get("rope_factors", 0),
    )
    mixes = {mix: _mix(types) for mix, types in entry.get("mixes", {}).items()}
    sizes = {mix: read_size(size) for mix, size in entry.get("sizes", {}).items()}
    return Published(name, header, entry["parameters"], mixes, sizes)


def per_block(value: dict[Any, Any], blocks: int) -> MetadataValue:
    """Return the list that a short notation stands for, with one entry for each block.

    Raises:
        LabError: it does not say something for every block.

    """
    if "period" in value:
        period = value["period"]
        return [period[block % len(period)] for block in range(blocks)]
    layout = value.get("layout")
    if layout is not None:
        if len(layout) != blocks:
            msg = f"a layout of {len(layout)} letters is none of {blocks} blocks: {layout}"
            raise LabError(msg)
        return [value.get(letter, value["rest"]) for letter in layout]
    named = {block: own for own, places in value.items() if own != "rest" for block in places}
    return [named.get(block, value["rest"]) for block in range(blocks)]


def read_size(text: str) -> int:
    """Read ``30 GiB`` as bytes.

    Raises:
        LabError: it is no such size.

    """
    number, _, unit = text.partition(" ")
    try:
        return round(float(number) * _UNITS[unit])
    except (KeyError, ValueError):
        msg = f"{text!r} is no size"
        raise LabError(msg, "write it as 30 GiB or 18 GB") from None


def _mix(types: dict[str, str]) -> Mix:
    if "forward" in types:
        return Mix(types["forward"], rules={"attn_|ssm_": "q8_0"})
    return dynamic(**types)
