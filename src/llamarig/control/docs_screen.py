"""A terminal's screen as a picture for documents: every word at its place, whatever fonts the reader has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

# What rich draws a cell and the edges of its terminal with; its pictures are what textual exports.
_RICH_CELL, _RICH_LINE, _RICH_BASE = 12.2, 24.4, 20.0
_CELL, _LINE, _SIZE = 8.4, 18, 14
_EDGE, _HEAD = 14, 34
_BAR_INSET: Final = 4
_GROUND: Final = "#14181f"
_SVG: Final = "{http://www.w3.org/2000/svg}"
# Blocks are drawn as what they stand for: a bar, more or less filled.
_BLOCKS: Final[Mapping[str, float]] = {"█": 1.0, "▓": 0.75, "▒": 0.5, "░": 0.3}
_HALF, _MIDDLE = _CELL / 2, _LINE / 2
_FRAMES: Final[Mapping[str, str]] = {
    "─": f"h{_CELL}",
    "│": f"m{_HALF} -{_MIDDLE} v{_LINE}",
    "╭": f"m{_HALF} {_MIDDLE} q0 -{_MIDDLE} {_HALF} -{_MIDDLE}",
    "╮": f"q{_HALF} 0 {_HALF} {_MIDDLE}",
    "╰": f"m{_HALF} -{_MIDDLE} q0 {_MIDDLE} {_HALF} {_MIDDLE}",
    "╯": f"q{_HALF} 0 {_HALF} -{_MIDDLE}",
}
_STYLE: Final = """\
  text { font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
  .bold { font-weight: 600; }
  .page { fill: #14181f; stroke: #3d444d; }
  .name { fill: #8a94a6; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; text-anchor: middle; }
  .dot { fill: #3d444d; }
  g rect { shape-rendering: crispEdges; }
  path { fill: none; stroke-width: 1.2; }
"""


def screen_picture(exported: str, name: str, description: str) -> str:
    """Turn what textual exports of a screen into a picture that needs no font of others and no second look.

    Args:
        exported: the SVG of ``App.export_screenshot``.
        name: the title of the window.
        description: what is to be seen, for those who do not see it.

    """
    root = ET.fromstring(exported)  # noqa: S314  textual's own
    looks = _looks("".join(style.text or "" for style in root.iter(f"{_SVG}style")))
    area = next(group for group in root.iter(f"{_SVG}g") if "clip-terminal" in group.get("clip-path", ""))
    texts = list(area.iter(f"{_SVG}text"))
    columns = round(float(next(root.iter(f"{_SVG}clipPath"))[0].get("width", "0")) / _RICH_CELL)
    lines = round(float(next(root.iter(f"{_SVG}clipPath"))[0].get("height", "0")) / _RICH_LINE)
    width, height = round(columns * _CELL + _EDGE * 2), lines * _LINE + _HEAD + _EDGE
    body = [shape for rect in area.iter(f"{_SVG}rect") for shape in _ground(rect)]
    for text in texts:
        look = looks.get(text.get("class", "").rpartition("-")[2], "")
        row = round((float(text.get("y", "0")) - _RICH_BASE) / _RICH_LINE)
        body += _drawn(text.text or "", round(float(text.get("x", "0")) / _RICH_CELL), row, look)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    dots = "".join(f'<circle class="dot" cx="{x}" cy="18" r="5"/>' for x in (20, 36, 52))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description">',
            f'<title id="title">{escape(name)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            f"<style>\n{_STYLE}</style>",
            f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            dots,
            f'<text class="name" x="{width / 2:g}" y="22">{escape(name)}</text>',
            f'<g transform="translate({_EDGE} {_HEAD})">',
            *body,
            "</g>",
            "</svg>\n",
        ]
    )


def _looks(style: str) -> dict[str, str]:
    """Read the attributes of each of rich's classes from its style sheet."""
    looks = {}
    for name, rules in re.findall(r"-(r\d+) \{ ([^}]*) \}", style):
        told = dict(part.split(":", 1) for part in rules.split(";") if ":" in part)
        weight = ' class="bold"' if "bold" in told.get("font-weight", "") else ""
        looks[name] = f'fill="{told.get("fill", "#d8dee9").strip()}"{weight}'
    return looks


def _ground(rect: ET.Element) -> Iterator[str]:
    """Draw a background that is another than the page's."""
    fill = rect.get("fill", _GROUND)
    if fill.lower() != _GROUND:
        x, row = float(rect.get("x", "0")) / _RICH_CELL * _CELL, round(float(rect.get("y", "0")) / _RICH_LINE)
        width = float(rect.get("width", "0")) / _RICH_CELL * _CELL
        yield f'<rect fill="{fill}" x="{x:g}" y="{row * _LINE}" width="{width:g}" height="{_LINE}"/>'


def _drawn(text: str, column: int, row: int, look: str) -> Iterator[str]:
    """Draw a piece of a line: bars and frames as shapes, each word at its own place."""
    for found in re.finditer(r"([█▓▒░])\1*|[─│╭╮╰╯]+|[^\s\u00a0█▓▒░─│╭╮╰╯]+", text):
        piece, x, y = found.group(), (column + found.start()) * _CELL, row * _LINE
        if piece[0] in _BLOCKS:
            share, height = _BLOCKS[piece[0]], _LINE - 2 * _BAR_INSET
            width = len(piece) * _CELL
            shape = f'x="{x:g}" y="{y + _BAR_INSET}" width="{width:g}" height="{height}"'
            yield f'<rect {look} fill-opacity="{share:g}" {shape}/>'
        elif piece[0] in _FRAMES:
            stroke = look.split(maxsplit=1)[0].replace("fill", "stroke")
            yield f'<path {stroke} d="{_frame(piece, x, y + _MIDDLE)}"/>'
        else:
            length = f'textLength="{len(piece) * _CELL:g}"' if len(piece) > 1 else ""
            yield f'<text {look} x="{x:g}" y="{y + _SIZE}" {length}>{escape(piece)}</text>'.replace(" >", ">")


def _frame(piece: str, x: float, y: float) -> str:
    """Draw characters of a frame as one path; a run of lines is one line."""
    parts = []
    for found in re.finditer(r"─+|.", piece):
        run = found.group()
        drawing = f"h{len(run) * _CELL:g}" if run[0] == "─" else _FRAMES[run]
        parts.append(f"M{x + found.start() * _CELL:g} {y:g} {drawing}")
    return " ".join(parts)
