"""A shape as YAML that people read and paste: hosts have no YAML library, and a shape is simple."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from llamarig.config.shape import Shape, ShapeError, format_ranges, parse_ranges

_WIDTH: Final = 100  # what a profile's own indentation leaves of a line of 120
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*( [A-Za-z0-9][A-Za-z0-9_./-]*)*")
_WORDS: Final = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # no texts, of YAML 1.1
_BLOCKS: Final = re.compile(r"blk\.\{([0-9,-]+)\}\.(.+)")


def shape_lines(shape: Shape) -> Iterator[str]:
    """Write the record ``shape`` of a profile, line by line."""
    record = shape.to_dict()
    yield "shape:"
    for key in ("source", "architecture", "vocabulary"):
        yield f"  {key}: {scalar(record[key])}"
    for key in ("metadata", "tensors"):
        yield f"  {key}:{'' if record[key] else ' {}'}"
        for name, value in record[key].items():
            if isinstance(value, list):
                yield from _list(name, value)
            else:
                yield from _entry(name, value)


def scalar(value: Any) -> str:
    """Write one value so that YAML reads it as what it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        mantissa, _, exponent = repr(value).partition("e")
        # YAML 1.1 takes 1e-06 for a text.
        return f"{mantissa}{'' if '.' in mantissa else '.0'}e{exponent}" if exponent else mantissa
    if isinstance(value, int):
        return str(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 1 << 8 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def _entry(name: str, value: Any) -> Iterator[str]:
    """Write one key; one that names blocks and is too long for a line becomes several, which mean the same."""
    line = f"    {scalar(name)}: {scalar(value)}"
    found = _BLOCKS.fullmatch(name)
    try:
        blocks = parse_ranges(found[1]) if found else []
    except ShapeError:  # a name that only looks so
        blocks = []
    if len(line) <= _WIDTH or found is None or len(blocks) <= 1:
        yield line
        return
    half = len(blocks) // 2
    for part in (blocks[:half], blocks[half:]):
        yield from _entry(f"blk.{{{format_ranges(part)}}}.{found[2]}", value)


def _list(name: str, values: list[Any]) -> Iterator[str]:
    """Write a list in as many lines as it takes."""
    line = f"    {scalar(name)}: ["
    for number, value in enumerate(values):
        word = scalar(value) + (", " if number < len(values) - 1 else "")
        if len(line) + len(word) > _WIDTH:
            yield line.rstrip()
            line = "      "
        line += word
    yield f"{line}]"
