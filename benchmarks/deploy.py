"""How long scripts/deploy takes from nothing to a chat answer, how long with nothing left to do, and where it goes.

What is measured: the wall time of scripts/deploy without arguments, in a fresh clone of this checkout's HEAD in a
temporary directory: once from nothing, then again, N times, when all is there. Where the time goes is told twice: by
the stages that scripts/deploy says ("== ..." on its output), and by role of playbooks/site.yml, from the callback
benchmarks/callback/task_times.py, which notes how long every task took over all hosts; the validation of a role's
arguments counts as the role's. "ansible itself" is the rest of the playbook's stage: starting, reading the inventory,
ending.

Conditions: "from nothing" is a clone without .venv, lab, images or releases. Three things can be warm, and are said
with the figures: distribution packages that are installed already (scripts/deploy installs what is missing, and this
script never removes any), pip's cache (--cold-pip gives it an empty one), and whatever stands between this machine and
its package mirrors. The engine image is built in the lab host from the mirror's packages and is never warm. The lab
host is a container on this machine and shares its CPUs with Ansible. What is uncommitted is measured with
--working-tree only. The "again" run must change nothing, else its figure is void.

Afterwards the lab is removed by scripts/deploy --down and the clone with it, also after Ctrl-C.

Examples:
  .venv/bin/python benchmarks/deploy.py
  .venv/bin/python benchmarks/deploy.py --cold-pip --again 3 --json deploy.json
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import common
from benchmarks.common import ROOT, BenchmarkError, say

PACKAGES: Final = ("git", "openssh-client", "rsync", "docker.io", "mmdebstrap", "iptables")
_PLAYBOOK: Final = "running playbooks/site.yml"
_REST: Final = "ansible itself"


def clone(target: Path, *, working_tree: bool) -> None:
    """Make a fresh clone; with ``working_tree``, what git would commit now instead of HEAD."""
    commands = [["git", "clone", "--quiet", str(ROOT), str(target)]]
    if working_tree:
        commands.append(
            ["rsync", "--archive", "--files-from=-", "--from0", "--ignore-missing-args", f"{ROOT}/", f"{target}/"]
        )
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    for command in commands:
        done = subprocess.run(command, input=listed.stdout, capture_output=True, check=False)
        if done.returncode != 0:
            msg = f"the checkout could not be cloned: {done.stderr.decode(errors='replace').strip()}"
            raise BenchmarkError(msg)


@contextmanager
def removed(checkout: Path, env: dict[str, str]) -> Iterator[None]:
    """Remove the clone's lab at the end, whatever happens."""
    try:
        yield
    finally:
        common.put_away()
        if (checkout / ".lab").is_dir():
            say("removing the lab")
            down = ["scripts/deploy", "--down"]
            subprocess.run(down, cwd=checkout, env=env, check=False, stdout=subprocess.DEVNULL)


def deploy(checkout: Path, env: dict[str, str], times: Path) -> dict[str, Any]:
    """Run scripts/deploy once, and return its wall time by stage and by role."""
    times.unlink(missing_ok=True)
    start = time.perf_counter()
    marks: list[tuple[str, float]] = [("before the first stage", 0.0)]
    said: list[str] = []
    with subprocess.Popen(
        ["scripts/deploy"],
        cwd=checkout,
        env={**env, "LLAMARIG_TASK_TIMES": str(times)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            said.append(line)
            found = re.match(r"== (.*?)(?: on \S+)?$", line.rstrip())
            if found:
                marks.append((found.group(1), time.perf_counter() - start))
                say(f"{marks[-1][1]:7.1f} s  {found.group(1)}")
    wall = time.perf_counter() - start
    say(f"{wall:7.1f} s  done")
    text = "".join(said)
    if process.returncode != 0:
        msg = f"scripts/deploy ended with {process.returncode}:\n{text[-3000:]}"
        raise BenchmarkError(msg)
    stages: dict[str, float] = defaultdict(float)
    for (name, begin), (_, end) in zip(marks, [*marks[1:], ("end", wall)], strict=True):
        stages[name] += end - begin
    roles: dict[str, float] = defaultdict(float)
    tasks = [json.loads(line) for line in times.read_text(encoding="utf-8").splitlines()]
    for task in tasks:
        roles[task["task"].split(" : ")[0]] += task["seconds"]
    roles[_REST] = stages[_PLAYBOOK] - sum(roles.values())
    return {
        "wall_seconds": round(wall, 3),
        "changed": bool(re.search(r"changed=[1-9]", text)),
        "stages": {name: round(seconds, 3) for name, seconds in stages.items()},
        "roles": {name: round(seconds, 3) for name, seconds in roles.items()},
        "tasks": tasks,
    }


def warm(cold_pip: bool) -> dict[str, Any]:
    """Say which caches are warm."""
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    )
    installed = [line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")]
    cache = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False
    ).stdout.strip()
    filled = bool(cache) and Path(cache).is_dir() and any(Path(cache).iterdir())
    return {
        "packages_installed": installed,
        "packages_missing": [name for name in PACKAGES if name not in installed],
        "pip_cache": "empty" if cold_pip or not filled else "as this machine has it",
    }


def columns(first: dict[str, Any], again: list[dict[str, Any]], key: str, head: str) -> str:
    """Draw what a stage or a role took in the first run and, as median, in the later ones."""
    names = list(dict.fromkeys(name for run in [first, *again] for name in run[key]))
    rows = []
    for name in names:
        values = [run[key].get(name, 0.0) for run in again]
        rows.append([name, f"{first[key].get(name, 0.0):.2f}", f"{common.median(values):.2f}"])
    walls = [run["wall_seconds"] for run in again]
    if key == "stages":
        rows.append(["all", f"{first['wall_seconds']:.2f}", f"{common.median(walls):.2f}"])
    return common.table([head, "from nothing", "again"], rows)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--again", type=common.positive, default=1, metavar="N", help="runs with nothing to do (default: 1)"
    )
    parser.add_argument("--cold-pip", action="store_true", help="give pip an empty cache")
    parser.add_argument("--working-tree", action="store_true", help="measure what is not committed yet too")
    return parser.parse_args()


def main() -> None:
    """Clone, deploy, deploy again, remove."""
    chosen = arguments()
    facts = {**common.conditions(), **warm(chosen.cold_pip), "working_tree": chosen.working_tree}
    with common.workplace("deploy") as work:
        checkout = work / "llamarig"
        clone(checkout, working_tree=chosen.working_tree)
        env = common.environment(
            {"ANSIBLE_CALLBACK_PLUGINS": str(common.CALLBACKS), "ANSIBLE_CALLBACKS_ENABLED": "task_times"}
        )
        for variable in ("ANSIBLE_CONFIG", "PYTHONPATH", "VIRTUAL_ENV"):
            env.pop(variable, None)
        # Connections of its own: none is found open, and none is left behind.
        env["ANSIBLE_SSH_CONTROL_PATH_DIR"] = str(work / "cp")
        if chosen.cold_pip:
            env["PIP_CACHE_DIR"] = str(work / "pip")
        with removed(checkout, env):
            try:
                say("scripts/deploy, from nothing")
                first = deploy(checkout, env, work / "times.jsonl")
                again = []
                for number in range(chosen.again):
                    say(f"scripts/deploy again, {number + 1} of {chosen.again}")
                    again.append(deploy(checkout, env, work / "times.jsonl"))
                    if again[-1]["changed"]:
                        msg = "void: scripts/deploy changed something although it had run before"
                        raise BenchmarkError(msg)
            finally:
                common.disconnect(work / "cp")
    print(columns(first, again, "stages", "stage"))
    print()
    print(columns(first, again, "roles", "of site.yml"))
    missing = ", ".join(facts["packages_missing"]) or "none"
    print(
        f"\nSeconds; again: median of {chosen.again}. Packages to install: {missing}; pip's cache: {facts['pip_cache']}"
    )
    print(common.describe(facts))
    common.write_json(chosen.json, {"benchmark": "deploy", "conditions": facts, "from_nothing": first, "again": again})


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"deploy: {error}")
    except KeyboardInterrupt:
        sys.exit("deploy: interrupted, the lab is removed")
