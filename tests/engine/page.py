"""The page that shows every case: ``python -m tests.engine.page`` asks the engine and writes it anew."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from llamarig.lab.judge import Judge
from tests.engine.cases import ESTIMATES, LOADED
from tests.engine.truth import Row, estimated, loaded

PATH: Final = Path(__file__).parents[2] / "docs" / "reference" / "engine-truth.md"
_MIB_OFF: Final = 4
_HEAD: Final = """\
# Predictions against the engine

What the planner predicts, and what the engine says, device by device. `tests/engine` asks both in every full test run
and compares the answers with this page; `.venv/bin/python -m tests.engine.page` writes it anew.

- The models are ghosts: files with the header and the tensor table of the published model, and holes for weights.
- The devices are llama.cpp's RPC devices of unequal memory (`RPC0`, `RPC1`, ...), so nothing here ran on a GPU. Memory
  is laid out by the same code for all backends; a CUDA context is counted apart (`planning/devices.py`).
- *Predicted* and *engine* are all that a device holds, in MiB. *Weights*, *cache* and *compute* say how many MiB more
  were predicted than the engine counted; the engine rounds down.
- The rule is 3 % or 64 MiB, whichever is larger, for each device; weights and caches within 2 MiB.

"""
_ESTIMATED: Final = """\
## Asked of llama-fit-params

Nothing is loaded. Its compute buffers are larger than a server's: it counts logits for every row of a micro-batch where
a server keeps one for each slot, and norms that are not pinned to their device. The prediction here is of its figure.

"""
_LOADED: Final = """\
## Loaded by llama-server

Models of few blocks, with the widths of the published ones: buffers as the server's own log gives them. The same test
compares the place of every tensor and every layer's cache with the plan.

"""


def text(engine: str, seen: Mapping[str, Sequence[Row]]) -> str:
    """Write the page."""
    rows = {name: list(rows) for name, rows in seen.items()}
    said = [row for name, found in rows.items() if not name.endswith(", loaded") for row in found]
    loads = [row for name, found in rows.items() if name.endswith(", loaded") for row in found]
    every = said + loads
    worst = max(every, key=lambda row: abs(row.off) / row.allowed)
    summary = (
        f"Engine: llama.cpp {engine}. {len(rows)} cases, {len(every)} devices. Furthest off, as a share of what is "
        f"allowed: {worst.case}, {worst.device}, {worst.off:+.0f} MiB of {worst.engine:.0f} MiB.\n\n"
    )
    lines = [_HEAD + summary + _ESTIMATED + "\n".join(_table(said)), "\n\n" + _LOADED + "\n".join(_table(loads)) + "\n"]
    return "".join(lines)


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| kind | case | strategy | device | predicted | engine | off | weights | cache | compute |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        share = f"{100 * row.off / row.engine:+.1f} %" if row.engine else "0"
        cells = [row.kind, row.case, row.strategy, row.device, f"{row.predicted:.0f}", f"{row.engine:.0f}", share]
        cells += [f"{row.weights_off:+.0f}", f"{row.cache_off:+.0f}", f"{row.compute_off:+.0f} of {row.compute:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def differences(written: str, seen: Mapping[str, Sequence[Row]]) -> list[str]:
    """Say which cases the page does not show, or with other figures than now."""
    shown: dict[tuple[str, str, int], tuple[float, float]] = {}
    for line in written.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if line.startswith("| ") and cells[4:5] and cells[4].isdigit():
            shown[cells[1], cells[3], len(shown)] = (float(cells[4]), float(cells[5]))
    found = [(row.case, row.device, row.predicted, row.engine) for rows in seen.values() for row in rows]
    if len(found) != len(shown):
        return [f"the page has {len(shown)} rows, and there are {len(found)}"]
    wrong = []
    for (case, device, _), (predicted, engine) in shown.items():
        near = [
            True
            for name, where, now, truth in found
            if (name, where) == (case, device) and abs(now - predicted) <= _MIB_OFF and abs(truth - engine) <= _MIB_OFF
        ]
        if not near:
            wrong.append(f"{case} {device}: the page says {predicted:.0f} and {engine:.0f}")
    return wrong


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Ask for every case, and write the page."""
    seen: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="llamarig-ghosts-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with Judge([], directory, say=_say) as judge:
            for case in (*ESTIMATES, *LOADED):
                judge.plug(case.devices)
                if case in ESTIMATES:
                    seen[case.name] = estimated(case, judge, directory)
                else:
                    seen[f"{case.name}, loaded"] = loaded(case, judge, directory)[0]
                _say(case.name)
            PATH.write_text(text(judge.version(), seen), encoding="utf-8")


if __name__ == "__main__":
    main()
