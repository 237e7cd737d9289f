"""The metrics of active engines, as llama-server gives them, each sample with its service.

An engine's word is taken for nothing but its own metrics: what is none of them by name, or no metric at all, is left
out. One that does not answer in time gives none, and whatever it said before is not told again.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from llamarig.config.spec import Spec
from llamarig.daemon.errand import Errand

# How long a scrape waits for engines, all of them together.
PATIENCE_SECONDS: Final = 2.0
# One engine has some fifteen of these.
MOST_SAMPLES: Final = 500
_NAME: Final = r"llamacpp:[a-zA-Z0-9_:]{1,100}"
_ABOUT: Final = re.compile(rf"# (HELP|TYPE) ({_NAME}) ((?:[^\\]|\\[\\n]){{0,500}})")
# Those that begin with two of them are Prometheus' own; __name__ would cost it the whole scrape.
_LABEL_NAME: Final = "(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,63}"
_LABEL: Final = rf'{_LABEL_NAME}="(?:[^"\\]|\\["\\n]){{0,200}}"'
_SAMPLE: Final = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL}){{0,9}}),?\}})? ([-+0-9.eE]{{1,40}}|NaN|[-+]?Inf)")
_NAMED: Final = re.compile(rf'({_LABEL_NAME})="(?:[^"\\]|\\.)*"')
_KINDS: Final = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})
_PARTS: Final = re.compile(r"_(?:bucket|sum|count)$")


@dataclass(slots=True)
class Family:
    """One metric: what it says, its kind, and its samples as lines without an end."""

    help: str = ""
    kind: str = "untyped"
    samples: list[str] = field(default_factory=list)


class EngineMetrics:
    """Asks engines; no engine is asked twice at a time, and one that hangs delays nobody for longer than the others.

    Args:
        ask: asks one for its metrics, raises whatever it does where there are none, and ends by itself.

    """

    def __init__(
        self,
        ask: Callable[[Spec], str],
        *,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._patience = patience
        self._clock = clock
        self._asked: dict[str, Errand[str]] = {}

    def read(self, specs: Iterable[Spec]) -> dict[str, str | None]:
        """Return what each engine says now, by service; None of one that says nothing. Used by one thread at a time."""
        end = self._clock() + self._patience
        # What came after the scrape that asked for it is not what is so now.
        asked = {name: errand for name, errand in self._asked.items() if not errand.is_over}
        wanted = {spec.service: asked.get(spec.service) or self._send(spec) for spec in specs}
        self._asked = {**asked, **wanted}
        for errand in wanted.values():
            errand.wait(end - self._clock())
        return {name: _said(errand) for name, errand in wanted.items()}

    def _send(self, spec: Spec) -> Errand[str]:
        return Errand(lambda: self._ask(spec), self._clock())


def of_engines(texts: Mapping[str, str]) -> str:
    """Return what engines said, by service, as one text: each metric once, with the samples of all."""
    families: dict[str, Family] = {}
    for service, text in texts.items():
        _take(families, service, text)
    return "".join(f"{line}\n" for name, family in families.items() for line in _lines(name, family))


def _said(errand: Errand[str]) -> str | None:
    try:
        return errand.result()
    except Exception:  # noqa: BLE001  whatever it is: there are no metrics of this engine now
        return None


def _take(families: dict[str, Family], service: str, text: str) -> None:
    """Take in what one engine said; what another said of a metric before stands."""
    own: dict[str, Family] = {}
    seen: set[str] = set()
    for line in text.split("\n"):
        if about := _ABOUT.fullmatch(line):
            what, name, said = about.groups()
            family = own.setdefault(name, Family())
            if what == "HELP":
                family.help = said
            elif said in _KINDS:
                family.kind = said
        elif (found := _SAMPLE.fullmatch(line)) and len(seen) < MOST_SAMPLES:
            name, labels, value = found[1], found[2] or "", found[3]
            names = ["service", *_NAMED.findall(labels)]
            sample = f'{name}{{service="{service}"' + (f",{labels}}}" if labels else "}")
            # One that is no number, or is there twice, would cost Prometheus all the others.
            if not _is_number(value) or sample in seen or len(set(names)) < len(names):
                continue
            seen.add(sample)
            whole = _PARTS.sub("", name)
            parted = own.get(whole, Family()).kind in {"histogram", "summary"}
            own.setdefault(whole if parted else name, Family()).samples.append(f"{sample} {value}")
    for name, family in own.items():
        if family.samples:
            families.setdefault(name, Family(family.help, family.kind)).samples.extend(family.samples)


def _lines(name: str, family: Family) -> Iterator[str]:
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    yield from family.samples


def _is_number(text: str) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    # Digits beyond what a float can hold are no number to Prometheus, and cost it the whole scrape.
    return not math.isinf(number) or text.endswith("Inf")
