"""How long a fleet takes to plan: in one process, and as llamarig plan -i does it.

What is measured, on a fleet that is made up (by default 200 hosts with 20 services each):

  json              the unit: json.dumps and json.loads of every host's variables, in this process
  plan              llamarig.planning.intent.read_plan for every host, in this process: validation, placement and the
                    prediction of every service; the inventory is in memory
  plan and files    plan_host: the same, and what the role llama_service writes on every host
  llamarig plan -i  with --command: the whole command on the same fleet, written down as an inventory, to a file

The fleet: boxes with one to four cards of five types; the catalogue of group_vars with its shapes; strategies A, B, C,
D, auto, fit and cpu in turn. No two services of a profile and strategy have the same context, so that no prediction of
one can be taken for another; with --alike all hosts of a kind are equal, as the boxes of a site are.

Conditions: the first round is as cold as a command's: what the planner remembers of shapes and layouts is forgotten
before every round. Only the ratios to the unit say anything on another machine.

Examples:
  .venv/bin/python benchmarks/planning.py
  .venv/bin/python benchmarks/planning.py --alike --command
  .venv/bin/python benchmarks/planning.py --hosts 20 --profile 30
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import common
from benchmarks.common import ROOT, BenchmarkError

from llamarig.config.catalogue import _remembered_shape
from llamarig.errors import ConfigError
from llamarig.planning.intent import plan_host, read_plan

CARDS: Final = {
    "rtx-4090": ("NVIDIA GeForce RTX 4090", 24564, "8.9"),
    "rtx-5070-ti": ("NVIDIA GeForce RTX 5070 Ti", 16303, "12.0"),
    "rtx-5080": ("NVIDIA GeForce RTX 5080", 16303, "12.0"),
    "rtx-5090": ("NVIDIA GeForce RTX 5090", 32607, "12.0"),
    "rtx-3090": ("NVIDIA GeForce RTX 3090", 24576, "8.6"),
}
BOXES: Final = (
    ("rtx-4090", "rtx-5070-ti"),
    ("rtx-5080",),
    ("rtx-5090", "rtx-5090"),
    ("rtx-3090", "rtx-3090", "rtx-3090", "rtx-3090"),
    ("rtx-5090",),
)
# Profile, strategy, and whether it is laid over the first card alone.
SERVICES: Final = (
    ("glm-flash-q4", "auto", False),
    ("glm-flash-q8", "auto", False),
    ("gpt-oss-120b", "auto", False),
    ("qwen3-coder-ud-q5", "auto", False),
    ("qwen35-35b-q6", "auto", False),
    ("qwen35-122b-q4", "auto", False),
    ("qwen35-27b-q6", "B", False),
    ("qwen35-122b-q4", "D", False),
    ("mistral4-119b-q3", "auto", False),
    ("glm-flash-exp", "fit", False),
    ("glm-flash-q8", "D", False),
    ("qwen35-35b-q4", "D", True),
    ("gpt-oss-120b", "D", False),
    ("qwen3-coder-ud-q6", "D", False),
    ("qwen35-27b-q6", "auto", False),
    ("glm-flash-q4", "cpu", False),
    ("qwen35-35b-q4", "auto", False),
    ("qwen3-coder-q6k", "auto", False),
    ("qwen3-next-ud-q5", "auto", False),
    ("qwen35-35b-cld-q8", "auto", False),
)


def fleet_layer() -> dict[str, Any]:
    """Return the variables of every host, as group_vars/all says them."""
    variables: dict[str, Any] = {}
    for path in sorted((ROOT / "group_vars" / "all").rglob("*.yml")):
        variables |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return variables


def box(number: int, services: int, *, alike: bool) -> dict[str, Any]:
    """Return the variables that a host has of its own."""
    names = BOXES[number % len(BOXES)]
    gpus = []
    for place, name in enumerate(names):
        model, memory, capability = CARDS[name]
        gpus.append(
            {
                "name": f"{name}-{place}",
                "uuid": f"GPU-{number:08x}-0000-4000-8000-{place:012x}",
                "model": model,
                "memory_mib": memory,
                "compute_capability": capability,
                "reserve_mib": 512 if place else 0,
            }
        )
    hardware = {"memory_mib": 262144, "cpu_threads": 32, "gpus": gpus}
    return {"host_hardware": hardware, "llm_services": list(_services(number, services, gpus, alike=alike))}


def _services(number: int, count: int, gpus: list[dict[str, Any]], *, alike: bool) -> Iterator[dict[str, Any]]:
    for place, (profile, strategy, alone) in enumerate(islice(cycle(SERVICES), count)):
        tokens = 8192 + 256 * (number // len(BOXES) * (not alike) + place)
        service = {"name": f"s{place}", "profile": profile, "strategy": strategy, "port": 9000 + place}
        yield service | {"server": {"ctx_size": tokens}} | ({"gpus": [gpus[0]["name"]]} if alone else {})


def fleet(hosts: int, services: int, *, alike: bool) -> dict[str, dict[str, Any]]:
    """Return the variables of every host of the fleet, by name."""
    layer = fleet_layer()
    return {f"gpu{number:03}": {**layer, **box(number, services, alike=alike)} for number in range(hosts)}


def planned(hosts: dict[str, dict[str, Any]], plan: Callable[..., object]) -> float:
    """Plan every host, cold; return the seconds.

    Raises:
        BenchmarkError: more than one service in a hundred is refused; refusals look for advice, which takes its time.

    """
    _remembered_shape.cache_clear()
    refused: list[str] = []
    start = time.perf_counter()
    for host, variables in hosts.items():
        try:
            plan(host, variables, only_plan=True)
        except ConfigError as error:
            refused += map(str, error.problems)
    seconds = time.perf_counter() - start
    services = sum(len(variables["llm_services"]) for variables in hosts.values())
    if len(refused) * 100 > services:
        msg = f"{len(refused)} of {services} services were refused, the first of them:\n{refused[0]}"
        raise BenchmarkError(msg)
    for text in refused:
        common.say(text)
    return seconds


def unit(hosts: dict[str, dict[str, Any]]) -> float:
    """Write and read every host's variables as JSON; return the seconds."""
    start = time.perf_counter()
    for variables in hosts.values():
        json.loads(json.dumps(variables))
    return time.perf_counter() - start


def commanded(inventory: Path) -> float:
    """Run llamarig plan -i to its end; return the seconds."""
    program = Path(sys.executable).with_name("llamarig")
    return common.measured([program, "plan", "-i", inventory], env=common.environment()).wall


def write(directory: Path, hosts: int, services: int, *, alike: bool) -> None:
    """Write the fleet as an inventory."""
    (directory / "group_vars").symlink_to(ROOT / "group_vars")
    (directory / "host_vars").mkdir()
    names = [f"gpu{number:03}" for number in range(hosts)]
    for number, name in enumerate(names):
        text = yaml.safe_dump(box(number, services, alike=alike), sort_keys=False)
        (directory / "host_vars" / f"{name}.yml").write_text(f"---\n{text}", encoding="utf-8")
    text = yaml.safe_dump({"gpu_hosts": {"hosts": dict.fromkeys(names)}})
    (directory / "hosts.yml").write_text(f"---\n{text}", encoding="utf-8")


def measure(chosen: argparse.Namespace) -> dict[str, list[float]]:
    """Measure everything in turns."""
    hosts = fleet(chosen.hosts, chosen.services, alike=chosen.alike)
    seconds: dict[str, list[float]] = {"json": [], "plan": [], "plan and files": []}
    with tempfile.TemporaryDirectory(prefix="llamarig-planning-") as name:
        if chosen.command:
            seconds["llamarig plan -i"] = []
            write(Path(name), chosen.hosts, chosen.services, alike=chosen.alike)
        for number in range(chosen.rounds):
            common.say(f"round {number + 1} of {chosen.rounds}")
            seconds["json"].append(unit(hosts))
            seconds["plan"].append(planned(hosts, read_plan))
            seconds["plan and files"].append(planned(hosts, plan_host))
            if chosen.command:
                seconds["llamarig plan -i"].append(commanded(Path(name)))
    return seconds


def profiled(chosen: argparse.Namespace) -> None:
    """Say where the time of one plan of the fleet goes."""
    hosts = fleet(chosen.hosts, chosen.services, alike=chosen.alike)
    profile = cProfile.Profile()
    profile.runcall(planned, hosts, read_plan)
    pstats.Stats(profile).sort_stats("tottime").print_stats(chosen.profile)


def summary(seconds: dict[str, list[float]]) -> str:
    """Draw the table; ratios are to the unit, median to median."""
    one = common.median(seconds["json"])
    rows = [
        [name, f"{min(values):.2f}", f"{common.median(values):.2f}", f"{common.median(values) / one:.1f}"]
        for name, values in seconds.items()
    ]
    return common.table(["s", "min", "median", "ratio"], rows)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = common.parser(__doc__)
    parser.add_argument("--hosts", type=common.positive, default=200, metavar="N", help="hosts (default: 200)")
    parser.add_argument("--services", type=common.positive, default=20, metavar="N", help="of each host (default: 20)")
    parser.add_argument("--rounds", type=common.positive, default=3, metavar="N", help="rounds (default: 3)")
    parser.add_argument("--alike", action="store_true", help="equal hosts have equal services")
    parser.add_argument("--command", action="store_true", help="measure the whole command too")
    parser.add_argument("--profile", type=common.positive, metavar="N", help="only show the N functions that take most")
    return parser.parse_args()


def main() -> None:
    """Measure one fleet."""
    chosen = arguments()
    if chosen.profile:
        profiled(chosen)
        return
    facts = common.conditions()
    seconds = measure(chosen)
    print(summary(seconds))
    kind = "alike" if chosen.alike else "each with contexts of its own"
    print(f"\n{chosen.hosts} hosts with {chosen.services} services, {kind}; {chosen.rounds} rounds. This machine:")
    print(common.describe(facts))
    data = {"benchmark": "planning", "conditions": {**facts, **vars(chosen), "json": None}, "seconds": seconds}
    common.write_json(chosen.json, data)


if __name__ == "__main__":
    try:
        main()
    except (BenchmarkError, subprocess.SubprocessError) as error:
        sys.exit(f"planning: {error}")
    except KeyboardInterrupt:
        sys.exit("planning: interrupted")
