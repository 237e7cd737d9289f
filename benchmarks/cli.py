"""How quickly the llamarig command answers on a host, beside a Python that does nothing.

What is measured: the wall time of one process on the host, from its start to its end, for

  python3 -c pass     the unit: what starting the host's own interpreter costs
  llamarig version    argument parsing and little else
  llamarig list       reads all specs and the state
  llamarig status     asks systemd and the engine too

How: one SSH session runs a small program on the host. It runs every command once unmeasured, then N times, interleaved
in turns, with output to a pipe, and sends the times back. Neither SSH nor the network is in them.

Conditions: a host that serves, the bytecode compiled (the release is compiled when it is deployed), files in the page
cache. A lab host shares its CPUs with everything else on this machine. Only the ratios to the unit say anything.

Examples:
  scripts/deploy && .venv/bin/python benchmarks/cli.py
  .venv/bin/python benchmarks/cli.py --directory /path/to/lab lab02 --rounds 100
  .venv/bin/python benchmarks/cli.py --ssh-config ~/.ssh/config gpu01
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import common
from benchmarks.common import BenchmarkError

COMMANDS: Final = {
    "python3 -c pass": ["/usr/bin/python3", "-c", "pass"],
    "llamarig version": ["llamarig", "version"],
    "llamarig list": ["llamarig", "list"],
    "llamarig status": ["llamarig", "status"],
}
# What runs on the host. A command that fails ends it: a failure can be quick.
PROGRAM: Final = """
import json, platform, subprocess, sys, time
commands, rounds = json.loads(sys.argv[1])
times = {name: [] for name in commands}
for number in range(rounds + 1):
    for name, command in commands.items():
        start = time.perf_counter()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(f"{name} ended with {done.returncode}: {(done.stderr or done.stdout).decode().strip()}")
        if number:
            times[name].append(round(seconds, 6))
print(json.dumps({"python": platform.python_version(), "seconds": times}))
"""


def summary(seconds: dict[str, list[float]]) -> str:
    """Draw the table in milliseconds; ratios are to the unit, min to min and median to median."""
    unit = seconds[next(iter(COMMANDS))]
    rows = []
    for name, values in seconds.items():
        ordered = sorted(values)
        p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
        middle = common.median(values)
        rows.append(
            [
                name,
                f"{1000 * ordered[0]:.1f}",
                f"{1000 * middle:.1f}",
                f"{1000 * p95:.1f}",
                f"{ordered[0] / min(unit):.1f}",
                f"{middle / common.median(unit):.1f}",
            ]
        )
    return common.table(["ms", "min", "median", "p95", "min ratio", "median ratio"], rows)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    return common.host_parser(__doc__, rounds=30).parse_args()


def main() -> None:
    """Measure one host."""
    chosen = arguments()
    facts = common.conditions()
    result = common.on_host(chosen, "/usr/bin/python3", PROGRAM, COMMANDS, chosen.rounds)
    print(summary(result["seconds"]))
    print(f"\n{chosen.rounds} rounds on {chosen.host}, Python {result['python']} there. This machine:")
    print(common.describe(facts))
    data = {"benchmark": "cli", "conditions": {**facts, "host_python": result["python"]}, "seconds": result["seconds"]}
    common.write_json(chosen.json, data)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"cli: {error}")
    except KeyboardInterrupt:
        sys.exit("cli: interrupted")
