"""Write the shapes that the catalogue names, from what is published: ``python -m llamarig.lab.catalogue_shapes``.

A shape is named ``<published model>.<quantisation>``, as ghosts are. One that was read from a header is left as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from llamarig.errors import LlamarigError
from llamarig.lab.ghosts import published_shape

ROOT: Final = Path(__file__).resolve().parents[3]
PROFILES: Final = "llm_profiles_"
SHAPES: Final = "llm_shapes_"
_WIDTH: Final = 118
_ENDLESS: Final = 1 << 20
_HEAD: Final = """\
---
# Written by .venv/bin/python -m llamarig.lab.catalogue_shapes, for the profiles in ../{name}. Put what
# llamarig gguf FILE --shape reads from the file itself in the place of what is published; it is not overwritten.
# Nobody publishes which tensor of a UD quantisation has which type: here they add up to the published size.
# Names of tensors list their blocks, and cannot be wrapped.
# yamllint disable rule:line-length
"""


def files(models: Path) -> dict[Path, str]:
    """Return every file of shapes that the catalogue in this directory needs, with its text as it should be.

    Raises:
        LlamarigError: a shape that is neither published nor there already.

    """
    texts = {}
    for source in sorted(models.glob("*.yml")):
        path = models / "shapes" / source.name
        present = _shapes(path)
        for variable, profiles in _load(source).items():
            wanted = sorted({item["shape"] for item in profiles.values() if isinstance(item.get("shape"), str)})
            if wanted and variable.startswith(PROFILES):
                family = variable.removeprefix(PROFILES)
                bodies = [_entry(name, _kept(present, name) or published(name)) for name in wanted]
                texts[path] = _HEAD.format(name=source.name) + f"{SHAPES}{family}:\n" + "".join(bodies)
    return texts


def published(name: str) -> dict[str, Any]:
    """Return a published shape by its name in the catalogue, ``<model>.<quantisation>``.

    Raises:
        LlamarigError: nothing is published under this name.

    """
    model, _, mix = name.rpartition(".")
    return published_shape(model, mix).to_dict()


def main() -> None:
    """Write the files, or with ``--check`` name those that are not as they should be."""
    parser = argparse.ArgumentParser(prog="python -m llamarig.lab.catalogue_shapes", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is out of date")
    arguments = parser.parse_args()
    try:
        texts = files(ROOT / "group_vars/all/models")
    except LlamarigError as error:
        sys.exit(f"{error.message}\n    remedy: {error.remedy}")
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not arguments.check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
        print(f"{path.relative_to(ROOT)} {'is out of date' if arguments.check else 'written'}")
    if stale and arguments.check:
        sys.exit(1)


def _shapes(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in (_load(path) if path.is_file() else {}).values():
        found |= part
    return found


def _kept(present: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    shape: dict[str, Any] | None = present.get(name)
    return shape if shape is not None and shape.get("source", "header") == "header" else None


def _load(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _entry(name: str, shape: Mapping[str, Any]) -> str:
    tensors = "".join(f"      {tensor}: {what}\n" for tensor, what in shape["tensors"].items())
    return (
        f"  {name}:\n    source: {shape.get('source', 'header')}\n    architecture: {shape['architecture']}\n"
        f"    vocabulary: {shape['vocabulary']}\n    metadata:\n{_flow(shape['metadata'])}\n    tensors:\n{tensors}"
    )


def _flow(metadata: Mapping[str, Any]) -> str:
    """Write a mapping in braces, as many entries to a line as there is room for."""
    pairs = [yaml.safe_dump({key: value}, default_flow_style=True, width=_ENDLESS) for key, value in metadata.items()]
    lines = ["      {"]
    for pair in pairs:
        entry = pair.strip()[1:-1] + ", "
        if len(lines[-1]) + len(entry) > _WIDTH and lines[-1].strip() != "{":
            lines.append("       ")
        lines[-1] += entry
    return "\n".join(line.rstrip() for line in lines).rstrip(",") + "}"


if __name__ == "__main__":
    main()
