"""How large the engine's compute buffers are, for the planner's prediction to be compared with.

The engine answers on RPC devices (src/llamarig/lab/judge.py): llama-fit-params for published models in their true
shape, llama-server for the first blocks of some, which are small enough to be loaded. The figures go into
tests/unit/planning/compute_recorded.json, with the engine's version and the arguments of each; the unit tests compare
them with ``llamarig.planning.compute``. What is asked is drawn at random, but the same each time.

Needs docker, and a few GB in the directory for ghosts.

Examples:
  .venv/bin/python benchmarks/compute.py                 compare what is recorded
  .venv/bin/python benchmarks/compute.py --record        ask the engine again (minutes)
  .venv/bin/python benchmarks/compute.py --record --only gemma
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

sys.path.pop(0)  # this folder, in which there is a gguf of its own
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import ROOT

from llamarig.config.shape import Shape
from llamarig.lab.ghost_models import published_models
from llamarig.lab.ghosts import published_shape, usual_ghosts, write_ghost
from llamarig.lab.judge import Judge, RefusedError
from llamarig.lab.machine import LabError
from llamarig.planning.compute import compute_buffers
from llamarig.planning.layout import HOST, Layout, Settings, assign_units
from llamarig.planning.memory import block_count

RECORDED: Final = ROOT / "tests/unit/planning/compute_recorded.json"
MIB: Final = 1 << 20
DEVICES: Final = 4
ROUNDS: Final = 3
# Loaded by llama-server: models, and how many of their first blocks.
LOADED: Final = {
    "llama-3.2-3b": 4,
    "qwen3-30b-a3b": 3,
    "gpt-oss-20b": 4,
    "glm-4.7-flash": 3,
    "gemma-3-12b": 6,
    "qwen3.5-35b-a3b": 4,
    "granite-4.0-h-tiny": 6,
    "lfm2-1.2b": 4,
}


def drawn(rng: random.Random, model: str, shape: Shape, loaded: int | None = None) -> dict[str, Any]:
    """Draw a case: settings of a server and a layout."""
    blocks = block_count(shape)
    settings = Settings(
        context=rng.choice([4096, 8192]) if loaded else rng.choice([4096, 8192, 16384, 32768, 65536, 131072, 262144]),
        parallel=rng.choice([1, 1, 1, 2, 4, 8]),
        batch=4096,
        ubatch=rng.choice([256, 512, 1024]) if loaded else rng.choice([128, 256, 512, 512, 1024, 2048, 4096]),
    )
    packed, fused = rng.choice([(False, True)] * 3 + [(True, True)] * 2 + [(False, False)])
    cache = "q8_0" if packed else "f16"
    settings = replace(settings, type_k=cache, type_v=cache, flash_attention=fused)
    devices = rng.choice([0, 1, 1, 2, 2, 3, DEVICES])
    case: dict[str, Any] = {"model": model, "devices": devices, "settings": asdict(settings)}
    if devices:
        part = rng.choice(["", "", "layers", "bare", "bare"])
        if part == "layers" or (part and shape.metadata.get("expert_count")):
            case[part] = rng.randint(1, blocks)
        case["split"] = [rng.randint(1, 5) for _ in range(devices)]
    return case


def arguments(case: dict[str, Any]) -> list[str]:
    """Write a case as the engine's arguments."""
    settings = Settings(**case["settings"])
    words = ["-c", str(settings.context), "-np", str(settings.parallel), "--no-repack"]
    words += ["-b", str(settings.batch), "-ub", str(settings.ubatch)]
    words += ["-ctk", settings.type_k, "-ctv", settings.type_v]
    words += ["-fa", "on" if settings.flash_attention else "off"]
    if not case["devices"]:
        return [*words, "-dev", "none", "-ngl", "0"]
    words += ["-dev", ",".join(f"RPC{number}" for number in range(case["devices"]))]
    words += ["-ts", ",".join(map(str, case["split"])), "-ngl", str(case.get("layers", "all"))]
    return [*words, "-ncmoe", str(case["bare"])] if "bare" in case else words


def layout(case: dict[str, Any], shape: Shape) -> Layout:
    """Return where a case's tensors go."""
    blocks, devices = block_count(shape), case["devices"]
    units = assign_units(blocks, case.get("layers", blocks + 1), case["split"]) if devices else (HOST,) * (blocks + 1)
    experts = tuple(HOST if block < case["bare"] else units[block] for block in range(blocks)) if "bare" in case else ()
    return Layout(devices, units, experts, offloads=False)


def cases() -> Iterator[dict[str, Any]]:
    """Draw all cases."""
    mixes = dict(reversed(usual_ghosts()))
    for model in published_models():
        for number in range(ROUNDS):
            rng = random.Random(f"{model} {number}")  # noqa: S311  the same each time
            yield drawn(rng, model, published_shape(model, mixes[model])) | {"mix": mixes[model]}
    for model, blocks in LOADED.items():
        for number in range(2 * ROUNDS):
            rng = random.Random(f"{model} {number} loaded")  # noqa: S311  the same each time
            shape = published_shape(model, mixes[model], blocks)
            yield drawn(rng, model, shape, blocks) | {"mix": mixes[model], "blocks": blocks}


def asked(judge: Judge, directory: Path, case: dict[str, Any]) -> dict[str, float]:
    """Ask the engine for the compute buffers of a case, in MiB."""
    blocks = case.get("blocks")
    path = directory / f"{case['model']}.{case['mix']}{f'.{blocks}' if blocks else ''}.gguf"
    if not path.exists():
        write_ghost(path, published_shape(case["model"], case["mix"], blocks), case["model"])
    if blocks:
        return judge.serve(path, arguments(case)).compute
    return {device: float(parts.compute) for device, parts in judge.fit_params(path, arguments(case)).items()}


def record(only: str, directory: Path) -> None:
    """Ask the engine for every case, and write what it says."""
    written: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {"cases": []}
    kept = [case for case in written["cases"] if only not in case["model"]] if only else []
    with Judge([1 << 20] * DEVICES, directory, say=print) as judge:
        engine = judge.version()
        for case in cases():
            if only not in case["model"]:
                continue
            try:
                compute = asked(judge, directory, case)
            except (RefusedError, LabError) as error:
                print(f"{case['model']}: {error}", file=sys.stderr)
                judge.plug([1 << 20] * DEVICES)
                continue
            kept.append({**case, "arguments": arguments(case), "compute": compute})
            show(kept[-1])
    lines = ",\n".join(f"  {json.dumps(case)}" for case in kept)
    RECORDED.write_text(f'{{\n "engine": {json.dumps(engine)},\n "cases": [\n{lines}\n ]\n}}\n')


def compared(case: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Return what was predicted and what the engine said, of each device and of the host, in MiB."""
    shape = published_shape(case["model"], case["mix"], case.get("blocks"))
    found = compute_buffers(shape, layout(case, shape), Settings(**case["settings"]))
    loaded = "blocks" in case
    sizes, host = (found.devices, found.host) if loaded else (found.fitted, found.fitted_host)
    said = case["compute"]
    pairs = [(f"RPC{number}", size / MIB, said.get(f"RPC{number}", 0.0)) for number, size in enumerate(sizes)]
    return [*pairs, ("Host", host / MIB, said.get("Host", 0.0))]


def show(case: dict[str, Any]) -> None:
    """Print one case."""
    for device, predicted, said in compared(case):
        mark = " " if abs(predicted - said) <= max(32, 0.03 * said) else "!"
        print(
            f"{mark} {case['model']:28} {device:5} {predicted:10.1f} {said:10.1f}",
            " ".join(case["arguments"]),
            flush=True,
        )


def main() -> None:
    """Record, or compare what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="ask the engine again")
    parser.add_argument("--only", default="", help="only models with this in their name")
    parser.add_argument("--ghosts", type=Path, help="directory for ghosts; a temporary one by default")
    options = parser.parse_args()
    if options.record:
        with tempfile.TemporaryDirectory() as temporary:
            directory = options.ghosts or Path(temporary)
            directory.mkdir(parents=True, exist_ok=True)
            record(options.only, directory)
    errors = []
    for case in json.loads(RECORDED.read_text())["cases"]:
        if options.only in case["model"]:
            if not options.record:
                show(case)
            errors += [abs(predicted - said) for _, predicted, said in compared(case)]
    errors.sort()
    print(f"{len(errors)} buffers; off by MiB: median {statistics.median(errors):.1f},", end=" ")
    print(f"95 % {errors[int(0.95 * len(errors))]:.1f}, worst {errors[-1]:.1f}")


if __name__ == "__main__":
    main()
