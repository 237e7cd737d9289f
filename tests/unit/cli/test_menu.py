"""The menu, on a real terminal of 80 columns and 24 lines: a pseudo-terminal whose other end the test holds."""

from __future__ import annotations

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.errors import ExitCode
from tests.support import below, make_spec
from tests.unit.cli.conftest import SMALL, Shell, loading
from tests.unit.daemon.fakes import Fault

SECONDS = 30
ROOT = Path(__file__).resolve().parents[3]
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


# A terminal sends Ctrl-C to those whose own it is; to begin with it is nobody's. A shell that runs the tests in the
# background has them ignore it.
BEGIN = """
import fcntl, runpy, signal, sys, termios
signal.signal(signal.SIGINT, signal.default_int_handler)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("llamarig", run_name="__main__", alter_sys=True)
"""


class Screen:
    """The command in a process of its own; ``text`` is what it wrote."""

    def __init__(self, shell: Shell, *words: str, **environment: str) -> None:
        self.text = ""
        self._terminal, inside = pty.openpty()
        ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        keep = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8", "TERM": "xterm"}
        more = {"LLAMARIG_ROOT": str(shell.host.root), "PYTHONPATH": str(ROOT / "src"), **environment}
        command = [sys.executable, "-c", BEGIN, *words]
        self._process = subprocess.Popen(
            command, stdin=inside, stdout=inside, stderr=inside, env=keep | more, start_new_session=True
        )
        os.close(inside)

    def wait_for(self, text: str) -> None:
        """Read until something is on the screen."""
        before = self.text
        while text not in ANSI.sub("", self.text):
            if not self._read():
                pytest.fail(f"{text!r} does not come after {before!r}: {self.text!r}")

    def type(self, text: str) -> None:
        self.text = ""
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        """Read to its end, and return its exit code."""
        while self._read():
            continue
        return self._process.wait(SECONDS)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(SECONDS)
        os.close(self._terminal)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], SECONDS)
        if not ready:
            return False
        try:
            read = os.read(self._terminal, 4096)
        except OSError:  # its other end is closed
            return False
        self.text += read.decode()
        return bool(read)

    @property
    def lines(self) -> list[str]:
        return ANSI.sub("", self.text).replace("\r\n", "\n").split("\n")


@pytest.fixture
def screens(shell: Shell) -> Iterator[list[Screen]]:
    opened: list[Screen] = []
    shell.host.provision(make_spec("bench-alpha", memory=SMALL, bench=True, title="Alpha, for benchmarks"))
    yield opened
    for screen in opened:
        screen.close()


def opened(screens: list[Screen], shell: Shell, **environment: str) -> Screen:
    screens.append(Screen(shell, **environment))
    screens[-1].wait_for("choose: ")
    return screens[-1]


def test_it_lists_what_can_be_chosen_and_stars_what_serves(shell: Shell, screens: list[Screen]) -> None:
    shell("switch", "beta")
    screen = opened(screens, shell)
    head = next(line for line in screen.lines if line.startswith("llamarig: services"))
    assert head.endswith("beta serves")
    first = screen.lines.index(next(line for line in screen.lines if " 1  alpha" in line))
    shown = screen.lines[first:]
    words = [part.strip() for part in shown[0].split("  ") if part.strip()]
    assert words == ["1", "alpha", "Alpha 7B", "4K", "~120 tokens/s"]
    assert shown[1] == "      a small one"
    assert shown[2].startswith("*  2  beta")
    assert "  b benchmarks (1)   d dashboard   q quit" in shown
    assert not any("bench-alpha" in line for line in screen.lines)
    assert max(len(line) for line in screen.lines) <= 80
    assert len(screen.lines) <= 24
    screen.type("q\n")
    assert screen.end() == ExitCode.OK


def test_choosing_one_switches_to_it(shell: Shell, screens: list[Screen]) -> None:
    screen = opened(screens, shell)
    screen.type("3\n")
    screen.wait_for("gamma serves at http://127.0.0.1:8090")
    screen.wait_for("Enter leaves, d dashboard, r menu: ")
    screen.type("\n")
    assert screen.end() == ExitCode.OK
    assert shell.host.serving() == ["gamma"]


def test_after_a_switch_the_menu_comes_back_and_stars_the_new_one(shell: Shell, screens: list[Screen]) -> None:
    screen = opened(screens, shell)
    screen.type("beta\n")
    screen.wait_for("r menu: ")
    screen.type("what\n")
    screen.wait_for("r menu: ")
    screen.type("r\n")
    screen.wait_for("*  2  beta")
    screen.wait_for("choose: ")
    screen.type("q\n")
    assert screen.end() == ExitCode.OK


@pytest.mark.parametrize("leave", ["\n", "q\n", "\x04"])
def test_a_switch_that_fails_says_why_and_is_the_exit_code(shell: Shell, screens: list[Screen], leave: str) -> None:
    shell("switch", "alpha")
    shell.host.faults["beta"] = Fault.EXITS
    screen = opened(screens, shell)
    screen.type("2\n")
    screen.wait_for("Enter leaves, d dashboard, r menu: ")
    assert "alpha serves again" in screen.text
    screen.type(leave)
    assert screen.end() == ExitCode.FAILED
    assert shell.host.serving() == ["alpha"]


def test_a_service_can_be_chosen_by_name_and_the_active_one_is_left_alone(shell: Shell, screens: list[Screen]) -> None:
    shell("switch", "beta")
    screen = opened(screens, shell)
    screen.type("beta\n")
    screen.wait_for("beta serves already, at http://127.0.0.1:8080")
    screen.wait_for("choose: ")
    screen.type("q\n")
    assert screen.end() == ExitCode.OK


def test_what_is_no_choice_is_asked_again(shell: Shell, screens: list[Screen]) -> None:
    screen = opened(screens, shell)
    for wrong in ("9", "0", "-1", "x", ""):
        screen.type(f"{wrong}\n")
        screen.wait_for(f"there is no {wrong!r}; choose 1 to 3, b, d, q")
        screen.wait_for("choose: ")
    assert shell.daemon.asked == []


def test_benchmarks_have_a_page_of_their_own(shell: Shell, screens: list[Screen]) -> None:
    screen = opened(screens, shell)
    screen.type("b\n")
    screen.wait_for("services for benchmarks")
    screen.wait_for("   1  bench-alpha  Alpha, for benchmarks")
    screen.wait_for("  r back   q quit")
    screen.wait_for("choose: ")
    screen.type("r\n")
    screen.wait_for("b benchmarks (1)")
    screen.wait_for("choose: ")
    screen.type("b\n")
    screen.wait_for("choose: ")
    screen.type("1\n")
    screen.wait_for("r menu: ")
    screen.type("\n")
    assert screen.end() == ExitCode.OK
    assert shell.host.serving() == ["bench-alpha"]


@pytest.mark.parametrize("answer", ["n", "", "y"])
def test_it_asks_before_it_ends_what_is_answering(shell: Shell, screens: list[Screen], answer: str) -> None:
    shell("switch", "alpha")
    shell.host.door.in_flight[8080] = 1 << 20
    screen = opened(screens, shell)
    screen.type("2\n")
    screen.wait_for("alpha is answering 104")
    screen.wait_for("switch to beta all the same? [y/N] ")
    screen.type(f"{answer}\n")
    if answer == "y":
        screen.wait_for("r menu: ")
        screen.type("\n")
        assert screen.end() == ExitCode.OK
        assert shell.host.serving() == ["beta"]
    else:
        screen.wait_for("choose: ")
        assert shell.host.serving() == ["alpha"]


@pytest.mark.parametrize(("key", "code"), [("\x03", ExitCode.INTERRUPTED), ("\x04", ExitCode.OK)])
def test_ctrl_c_and_ctrl_d_leave_quietly(shell: Shell, screens: list[Screen], key: str, code: ExitCode) -> None:
    screen = opened(screens, shell)
    screen.type(key)
    assert screen.end() == code
    assert "Traceback" not in screen.text
    assert "rror" not in screen.text


def test_ctrl_c_while_a_switch_is_under_way_ends_the_wait_alone(shell: Shell, screens: list[Screen]) -> None:
    with loading(shell, "beta") as done:
        screen = opened(screens, shell)
        screen.type("2\n")
        screen.wait_for("switch to beta: load")
        screen.type("\x03")
        assert screen.end() == ExitCode.INTERRUPTED
        (job,) = shell.daemon.jobs.all()
        assert f"llamarig jobs --follow {job.id} waits again, llamarig cancel {job.id} ends it" in screen.text
        done()
    assert shell.daemon.jobs.wait(job.id, SECONDS).state.value == "succeeded"
    assert shell.host.serving() == ["beta"]


def test_it_works_without_colours(shell: Shell, screens: list[Screen]) -> None:
    shell("switch", "beta")
    assert "\x1b[" in opened(screens, shell).text
    assert "\x1b[" not in opened(screens, shell, NO_COLOR="1").text
    screens.append(Screen(shell, "list", NO_COLOR="1"))
    assert screens[-1].end() == ExitCode.OK
    assert "\x1b[" not in screens[-1].text


def test_many_services_have_one_line_each(shell: Shell, screens: list[Screen]) -> None:
    shell.host.provision(*(make_spec(f"service-{number}", memory=SMALL, title="x" * 90) for number in range(9)))
    screen = opened(screens, shell)
    assert not any("a small one" in line for line in screen.lines)
    assert sum("service-" in line for line in screen.lines) == 9
    assert max(len(line) for line in screen.lines) <= 80
    assert len(screen.lines) <= 24


def test_without_the_daemon_it_says_so_and_switches_nothing(shell: Shell, screens: list[Screen]) -> None:
    shell.daemon.kill()
    screen = opened(screens, shell)
    assert any(line.endswith("llamarigd does not run") for line in screen.lines)
    screen.type("1\n")
    assert screen.end() == ExitCode.DAEMON_GONE
    assert "remedy: systemctl status llamarigd" in screen.text


def test_a_host_without_services_has_an_empty_menu(shell: Shell, screens: list[Screen]) -> None:
    for path in below(shell.host.root, paths.SPECS).iterdir():
        path.unlink()
    screen = opened(screens, shell)
    assert "      none" in screen.lines
    screen.type("1\n")
    screen.wait_for("there is no '1'; choose d, q")


def test_without_a_terminal_it_is_the_help(shell: Shell) -> None:
    result = shell()
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout.startswith("Usage: llamarig [OPTIONS]")
    assert "switch" in result.stdout


def test_a_switch_on_a_terminal_has_one_line_that_lives(shell: Shell, screens: list[Screen]) -> None:
    screens.append(Screen(shell, "switch", "alpha"))
    assert screens[-1].end() == ExitCode.OK
    assert "\r\x1b[K" in screens[-1].text
    assert "alpha serves at http://127.0.0.1:8080" in screens[-1].text
