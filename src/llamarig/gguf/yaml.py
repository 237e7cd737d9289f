"""Shapes and profiles as YAML that people read and paste: hosts have no YAML library, and both are simple."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from llamarig.config.shape import ShapeError, format_ranges, parse_ranges
from llamarig.gguf.draft import Draft
from llamarig.gguf.error import printable

_LINE: Final = 120
_WIDTH: Final = 100  # of a shape: what a profile's own indentation leaves
_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*( [A-Za-z0-9][A-Za-z0-9_./-]*)*")
_ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9._~/?&=%+@:-]*[A-Za-z0-9_/]")
_DIGEST: Final = re.compile(r"[0-9a-f]{40,}")
_WORDS: Final = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # no texts, of YAML 1.1
_UNSAID: Final = {
    "sha256": "  # the server does not say it; this prints it: curl -fL URL | sha256sum",
    "bytes": "  # the server does not say it; this prints it: curl -fL URL | wc -c",
}
_BLOCKS: Final = re.compile(r"blk\.\{([0-9,-]+)\}\.(.+)")


def profile_lines(draft: Draft) -> Iterator[str]:
    """Write a file of the catalogue that holds this profile, line by line."""
    yield "---"
    yield from _comment(f"Read by llamarig gguf from {draft.read_from}", "")
    yield f"{draft.variable}:"
    yield f"  {draft.name}:"
    for remark in draft.remarks:
        yield from _comment(remark, "    ")
    for key, value in draft.record.items():
        if key == "shape":
            yield from (f"    {line}" for line in shape_lines(value))
        elif key == "files":
            yield "    files:"
            for item in value:
                yield from _item(item)
        elif isinstance(value, dict):
            yield f"    {key}:"
            for name, said in value.items():
                yield from _key(name, said, "      ")
        else:
            yield from _key(key, value, "    ")


def shape_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Write the record ``shape`` of a profile, as ``Shape.to_dict`` makes it, line by line."""
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
    plain = _ADDRESS.fullmatch(text) or (_PLAIN.fullmatch(text) and text.lower() not in _WORDS)
    # A digest may be all digits: to be read alike, each is quoted.
    return text if plain and not _DIGEST.fullmatch(text) else _quoted(text)


def _item(record: Mapping[str, Any]) -> Iterator[str]:
    """Write one of a list of records."""
    lines = [line for name, said in record.items() for line in _key(name, said, "        ")]
    yield f"      - {lines[0].lstrip()}"
    yield from lines[1:]


def _key(name: str, value: Any, indent: str, width: int = _LINE) -> Iterator[str]:
    """Write one key; a text that is too long for a line is folded."""
    if value is None:
        yield f"{indent}{name}: null{_UNSAID.get(name, '')}"
        return
    line = f"{indent}{scalar(name)}: {scalar(value)}"
    words = str(value)
    if len(line) <= width or not words.isprintable() or " ".join(words.split()) != words:
        yield line
        return
    yield f"{indent}{scalar(name)}: >-"
    yield from _wrapped(words, f"{indent}  ", width)


def _comment(text: str, indent: str) -> Iterator[str]:
    return _wrapped(printable(text), f"{indent}# ", _LINE)


def _wrapped(text: str, before: str, width: int) -> Iterator[str]:
    for line in textwrap.wrap(text, width - len(before), break_long_words=False, break_on_hyphens=False):
        yield before + line


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
        yield from _key(name, value, "    ", _WIDTH)
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
