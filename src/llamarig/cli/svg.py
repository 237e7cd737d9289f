"""Pictures of plans as SVG, for documents: one file, no fonts of others, readable on light and dark pages."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from llamarig.cli.draw import UNPREDICTED
from llamarig.cli.picture import PARTS, Bar, Entry, Panel, gib, hosts_named

# Paul Tol's bright scheme (https://sronpersonalpages.nl/~pault/), which people with colour blindness can tell apart.
_COLOURS: Final[Mapping[str, str]] = {
    "weights": "#4477aa",
    "cache": "#66ccee",
    "compute": "#228833",
    "process": "#aa3377",
}
_WIDTH, _EDGE = 880, 24
_LABEL, _BAR, _NUMBER = 118, 372, 57
_BAR_HEIGHT, _LINE, _ROW = 13, 17, 20
# Characters of a line of small text: the width less the edges, with room for the wider ones of common system fonts.
_CHARACTERS: Final = 112
_STYLE: Final = """\
  .page { fill: #ffffff; stroke: #d0d7de; }
  text { fill: #1f2328; font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
  .host { font-size: 16px; font-weight: 600; }
  .service { font-size: 13px; font-weight: 600; }
  .small { font-size: 11px; }
  .soft { fill: #59636e; }
  .warning { fill: #8a5a00; }
  .missing { fill: #b42318; }
  .number { text-anchor: end; font-variant-numeric: tabular-nums; }
  .rest { fill: #f6f8fa; stroke: #8c959f; }
  .hatch { stroke: #6e7781; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #3d444d; }
    text { fill: #f0f6fc; }
    .soft { fill: #9198a1; }
    .warning { fill: #e3b341; }
    .missing { fill: #ff7b72; }
    .rest { fill: #151b23; stroke: #656c76; }
    .hatch { stroke: #9198a1; }
  }
"""
_HATCH: Final = (
    '<pattern id="kept" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch" x1="0" y1="0" x2="0" y2="5" stroke-width="2"/></pattern>'
)


def drawing(panels: Sequence[Panel]) -> str:
    """Draw panels under each other; return the whole file."""
    page = _Page()
    for number, panel in enumerate(panels):
        page.y += _ROW if number else 0
        page.panel(panel)
    height = page.y - _LINE + _EDGE // 2
    title = f"Plan of {hosts_named([host for panel in panels for host in panel.hosts])}"
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(_told(panels))}</desc>',
            f"<style>\n{_STYLE}</style>",
            f"<defs>{_HATCH}</defs>",
            f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>',
            *page.elements,
            "</svg>\n",
        ]
    )


def _told(panels: Sequence[Panel]) -> str:
    """Tell in words what the bars show, for those who do not see them."""
    return " ".join(
        f"{entry.name}, strategy {entry.strategy}: {entry.reason}. "
        + " ".join(f"{bar.label}: {_numbers(bar)}." for bar in entry.bars)
        for panel in panels
        for entry in panel.entries
    )


def _numbers(bar: Bar) -> str:
    parts = [f"{name} {gib(size)}" for name, size in bar.parts.items() if size]
    return f"{', '.join(parts)}, free {gib(bar.free)} of {gib(bar.total)} GiB"


class _Page:
    """Elements from the top to the bottom; ``y`` is where the next begins."""

    def __init__(self) -> None:
        self.elements: list[str] = []
        self.y = _EDGE + 4

    def panel(self, panel: Panel) -> None:
        """Add one panel."""
        self._text("host", hosts_named(panel.hosts), after=_LINE + 4)
        for line in panel.cards:
            self._text("soft", line)
        bars = [bar for entry in panel.entries for bar in entry.bars]
        if bars:
            self.y += 6
            self._head()
        largest = max((bar.total for bar in bars if bar.label != "host"), default=0)
        for entry in panel.entries:
            self._entry(entry, largest)
        self._list("Side by side", panel.together, "soft")
        self._list("Warnings", panel.warnings, "warning")
        missing = []
        for item in panel.incomplete:
            missing += [f"{item.what}: {', '.join(item.where)}", f"remedy: {item.remedy}"]
        self._list("Cannot be deployed yet", missing, "missing")

    def _entry(self, entry: Entry, largest: int) -> None:
        self.y += 8
        mark = f" ({entry.mark})" if entry.mark else ""
        name = f'<tspan class="service">{escape(entry.name)}</tspan>{escape(mark)}   {escape(entry.strategy)}   '
        first, *rest = textwrap.wrap(entry.reason, _CHARACTERS - len(f"{entry.name}{mark}{entry.strategy}") - 8) or [""]
        self._raw(f'{name}<tspan class="soft">{escape(first)}</tspan>')
        for line in rest:
            self._text("soft", line, x=_EDGE + 16)
        if not entry.bars:
            self._text("soft", UNPREDICTED, x=_EDGE + 16)
        for bar in entry.bars:
            self._bar(bar, bar.total if bar.label == "host" else largest)

    def _head(self) -> None:
        """Say what the colours are over the bars, and name the columns of numbers."""
        left = _EDGE + _LABEL
        for place, name in enumerate((*PARTS, "free")):
            self.elements.append(f'<rect {_fill(name)} x="{left}" y="{self.y - 9}" width="9" height="9"/>')
            self.elements.append(f'<text class="soft small" x="{left + 12}" y="{self.y}">{name}</text>')
            left += 23 + round(6.8 * len(name))
            right = _EDGE + _LABEL + _BAR + (place + 1) * _NUMBER
            self.elements.append(f'<text class="number soft small" x="{right}" y="{self.y}">{name}</text>')
        self._text("soft small", "GiB")

    def _bar(self, bar: Bar, scale: int) -> None:
        """Draw a bar, a card's as long as it is large beside the largest card."""
        left, top, length = _EDGE + _LABEL, self.y - _BAR_HEIGHT + 2, _BAR * bar.total / max(scale, 1)
        unit = length / max(bar.total, sum(bar.parts.values()), 1)
        shapes = [f'<rect class="rest" x="{left}" y="{top}" width="{length:.1f}" height="{_BAR_HEIGHT}"/>']
        x = float(left)
        for name, size in bar.parts.items():
            if size > 0:
                width = size * unit
                shapes.append(f'<rect {_fill(name)} x="{x:.1f}" y="{top}" width="{width:.1f}" height="{_BAR_HEIGHT}"/>')
                x += width
        self.elements.append(f"<g><title>{escape(bar.label)}: {escape(_numbers(bar))}</title>{''.join(shapes)}</g>")
        self.elements.append(f'<text x="{_EDGE + 16}" y="{self.y}">{escape(bar.label)}</text>')
        for place, name in enumerate((*PARTS, "free")):
            size = bar.free if name == "free" else bar.parts.get(name, 0)
            right = left + _BAR + (place + 1) * _NUMBER
            kind = "number missing" if size < 0 else "number"
            self.elements.append(f'<text class="{kind}" x="{right}" y="{self.y}">{gib(size)}</text>')
        self.y += _ROW

    def _list(self, title: str, lines: Sequence[str], kind: str) -> None:
        if lines:
            self.y += 8
            self._text("service", title)
        for line in lines:
            for part in textwrap.wrap(line, _CHARACTERS, break_on_hyphens=False):
                self._text(kind, part, x=_EDGE + 16)

    def _text(self, kind: str, text: str, x: int = _EDGE, after: int = _LINE) -> None:
        self.elements.append(f'<text class="{kind}" x="{x}" y="{self.y}">{escape(text)}</text>')
        self.y += after

    def _raw(self, inner: str) -> None:
        self.elements.append(f'<text xml:space="preserve" x="{_EDGE}" y="{self.y}">{inner}</text>')
        self.y += _ROW


def _fill(name: str) -> str:
    if name == "kept":
        return 'fill="url(#kept)"'
    return f'fill="{_COLOURS[name]}"' if name in _COLOURS else 'class="rest"'
