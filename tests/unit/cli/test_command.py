from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from llamarig.cli.engine import engine
from llamarig.cli.main import cli, main
from llamarig.cli.output import envelope, table
from llamarig.errors import ConfigError, ExitCode, Problem
from tests.unit.cli.conftest import Shell

VERBS = sorted(
    f"{name} {under}".strip()
    for name, command in cli.commands.items()
    for under in getattr(command, "commands", {"": None})
)
_IMPORTED = """
import json, sys
import llamarig.cli.main
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_verb_shows_its_help(shell: Shell, verb: str, flag: str) -> None:
    result = shell(*verb.split(), flag)
    assert result.exit_code == ExitCode.OK
    assert result.stdout.startswith(f"Usage: llamarig {verb}")
    assert ("--json" in result.stdout) is (verb != "dashboard")


def test_the_help_names_every_verb_that_people_type(shell: Shell) -> None:
    text = shell("--help").stdout
    listed = [line.split()[0] for line in text.split("Commands:")[1].splitlines() if line.startswith("  ")]
    assert {"list", "status", "plan", "switch", "stop", "logs", "doctor", "history", "version"} <= set(listed)
    assert {"jobs", "cancel", "keys", "completion", "dashboard"} <= set(listed)
    assert {"reconcile", "tune"}.isdisjoint(listed)


@pytest.mark.parametrize("words", [("swich",), ("switch",), ("plan", "a", "b"), ("logs", "-n", "x"), ("list", "--x")])
def test_a_command_typed_wrong_is_a_usage_error(shell: Shell, words: tuple[str, ...]) -> None:
    result = shell(*words)
    assert result.exit_code == ExitCode.USAGE
    assert "Usage: llamarig" in result.stderr


def test_a_service_typed_where_a_verb_belongs_is_answered_with_the_verb(shell: Shell) -> None:
    result = shell("beta")
    assert result.exit_code == ExitCode.USAGE
    assert "'beta' is a service; what switches to it is: llamarig switch beta" in result.stderr


def test_every_verb_that_people_type_has_an_example_and_a_line_that_is_not_cut(shell: Shell) -> None:
    assert "..." not in shell("--help").stdout.partition("Commands:")[2]
    hidden = {name for name, command in [*cli.commands.items(), *engine.commands.items()] if command.hidden}
    for verb in VERBS:
        if hidden.isdisjoint(verb.split()):
            assert f"llamarig {verb}" in shell(*verb.split(), "--help").stdout.partition("Examples:")[2], verb


def test_the_help_has_every_exit_code(shell: Shell) -> None:
    text = " ".join(shell("--help").stdout.split())
    assert [code for code in ExitCode if f" {int(code)} " not in text] == []


def test_starting_the_command_loads_nothing_that_a_verb_may_not_need() -> None:
    done = subprocess.run([sys.executable, "-c", _IMPORTED], capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(done.stdout)
    assert "llamarig.cli.main" in modules
    slow = {"pydantic", "rich", "subprocess", "asyncio", "http", "yaml", "ansible", "pynvml", "textual", "starlette"}
    assert slow.isdisjoint(name.split(".")[0] for name in modules)
    rooms = {name.split(".")[1] for name in modules if name.startswith("llamarig.")}
    assert rooms <= {"cli", "errors"}


def test_ctrl_c_ends_a_reading_verb_with_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llamarig.runtime.management.Management.get", interrupt)
    monkeypatch.setattr(sys, "argv", ["llamarig", "status"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == ExitCode.INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_an_envelope_of_a_config_error_carries_every_problem() -> None:
    problems = [Problem("rig01", "port", "is taken", "choose another", "chat"), Problem("rig01", "bind", "bad", "mend")]
    error = json.loads(envelope("plan", None, ConfigError(problems)))["error"]
    assert error["code"] == "config"
    assert error["problems"] == [
        "rig01, service 'chat': port: is taken\n    remedy: choose another",
        "rig01: bind: bad\n    remedy: mend",
    ]


def test_exit_codes_are_as_documented() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "NOT_ALLOWED": 4,
        "BUSY": 5,
        "UNHEALTHY": 6,
        "WARNINGS": 7,
        "DAEMON_GONE": 8,
        "INTERRUPTED": 130,
    }


def test_a_table_lines_up_its_columns_and_ends_without_spaces() -> None:
    lines = [click.unstyle(line) for line in table(("A", "BB"), [("long", "x"), ("s", "")])]
    assert lines == ["A     BB", "long  x", "s"]
