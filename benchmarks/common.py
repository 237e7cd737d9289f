"""What the scripts beside it share: a lab of their own, measured processes, tables, the conditions of a run."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

ROOT: Final = Path(__file__).resolve().parents[1]
CALLBACKS: Final = ROOT / "benchmarks" / "callback"


class BenchmarkError(Exception):
    """The measurement cannot be made, or it is void; the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process: what it took, and what it said."""

    wall: float
    cpu: float
    stdout: str
    stderr: str


def say(text: str) -> None:
    """Say how far it is; results alone go to standard output."""
    print(text, file=sys.stderr, flush=True)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this environment without what would change how Ansible or pip behave, plus ``extra``."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYINFRA_"))}
    return {**kept, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", **(extra or {})}


def measured(command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path = ROOT) -> Run:
    """Run a program to its end; CPU is that of the process and all its descendants that it waited for.

    Raises:
        BenchmarkError: it failed; the message ends with its last words.

    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if done.returncode != 0:
        last = (done.stdout + done.stderr).strip()[-3000:]
        msg = f"{Path(command[0]).name} ended with {done.returncode}:\n{last}"
        raise BenchmarkError(msg)
    return Run(wall, cpu, done.stdout, done.stderr)


@contextlib.contextmanager
def workplace(name: str) -> Iterator[Path]:
    """Give a directory that is gone afterwards; Ctrl-C and TERM end the script the orderly way."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, stop)
    directory = Path(tempfile.mkdtemp(prefix=f"llamarig-{name}-"))
    try:
        yield directory
    finally:
        put_away()
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def lab(directory: Path, hosts: Sequence[str]) -> Iterator[None]:
    """Bring up lab hosts in a directory of their own, and remove them without a trace."""
    command = [sys.executable, "-m", "llamarig.lab"]
    if os.geteuid() != 0:
        command = ["sudo", "env", f"SUDO_UID={os.getuid()}", *command]
    try:
        done = subprocess.run([*command, "up", *hosts, "--directory", str(directory)], check=False, stdout=sys.stderr)
        if done.returncode != 0:
            msg = "the lab did not come up; see above"
            raise BenchmarkError(msg)
        yield
    finally:
        put_away()
        say("removing the lab")
        down = [*command, "down", "--directory", str(directory)]
        subprocess.run(down, check=False, stdout=subprocess.DEVNULL)


def put_away() -> None:
    """End what still runs of this script's; from here on things are put away, which is not to be interrupted.

    What is started from here on inherits that, so that an impatient second Ctrl-C leaves no container behind.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for process in _descendants(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)


def _descendants(process: int) -> list[int]:
    try:
        children = [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()]
    except OSError:
        return []
    return children + [found for child in children for found in _descendants(child)]


def disconnect(sockets: Path) -> None:
    """Close the SSH connections that Ansible left open in this directory."""
    for socket in sockets.glob("*"):
        command = ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "bench"]
        subprocess.run(command, capture_output=True, check=False)


def conditions() -> dict[str, Any]:
    """Describe the machine and the checkout: figures mean nothing without them."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "ansible_core": importlib.metadata.version("ansible-core"),
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "kernel": platform.release(),
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def describe(facts: Mapping[str, Any]) -> str:
    """Say the conditions in one line under a table."""
    changes = " with uncommitted changes" if facts["uncommitted_changes"] else ""
    return (
        f"{facts['cpus']} CPUs ({facts['cpu']}), load {facts['load_before']:.1f} before the start, {facts['system']},"
        f" Python {facts['python']}, ansible-core {facts['ansible_core']}, commit {facts['commit'] or '-'}{changes}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def positive(text: str) -> int:
    """Read a number of at least one from the command line."""
    number = int(text)
    if number < 1:
        msg = "must be at least 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Make the command line that all scripts have: the docstring as help, and --json."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--json", type=Path, metavar="FILE", help="write the raw figures and the conditions there")
    return result


def host_parser(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """Make the command line of a script that measures on one host, over SSH."""
    result = parser(doc)
    result.add_argument("host", nargs="?", default="lab01", help="a host that serves (default: lab01)")
    result.add_argument(
        "--directory", type=Path, default=ROOT / ".lab", help="the lab that the host is in (default: .lab)"
    )
    result.add_argument("--ssh-config", type=Path, metavar="FILE", help="for a host that is in no lab")
    result.add_argument("--rounds", type=positive, default=rounds, metavar="N", help=f"rounds (default: {rounds})")
    return result


def on_host(chosen: argparse.Namespace, python: str, program: str, *arguments: Any) -> dict[str, Any]:
    """Run a program on the host that was chosen, over one session, and return the JSON that it prints.

    Args:
        chosen: what :func:`host_parser` read.
        python: how Python is called there.
        program: it reads its arguments as JSON from ``sys.argv[1]``.
        arguments: what it reads there.

    Raises:
        BenchmarkError: there is no such lab, or the program failed.

    """
    config = (chosen.ssh_config or chosen.directory / "ssh_config").expanduser()
    if not config.is_file():
        msg = f"there is no lab in {config.parent}: bring one up by scripts/deploy, or name --ssh-config"
        raise BenchmarkError(msg)
    payload = json.dumps(json.dumps(arguments))  # a string in Python's own notation
    command = ["ssh", "-F", str(config), "-o", "BatchMode=yes", chosen.host, f"{python} -"]
    text = program.replace("sys.argv[1]", payload, 1)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        msg = f"{chosen.host} could not be measured: {done.stderr.strip()[-2000:]}"
        raise BenchmarkError(msg)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def write_json(path: Path | None, data: Mapping[str, Any]) -> None:
    """Write the raw figures where somebody wants them."""
    if path is not None:
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
