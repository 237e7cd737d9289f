"""What a shell is taught, in a shell where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamarig.errors import ExitCode
from tests.unit.cli.conftest import Shell

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_own_words(shell: Shell, name: str) -> None:
    result = shell("completion", name)
    assert result.exit_code == ExitCode.OK
    assert f"_LLAMARIG_COMPLETE={name}_complete" in result.stdout
    assert shell.json("completion", name)["data"]["script"].rstrip() == result.stdout.rstrip()


def test_another_shell_is_a_usage_error(shell: Shell) -> None:
    assert shell("completion", "ksh").exit_code == ExitCode.USAGE


def completed(shell: Shell, words: str, tmp_path: Path) -> set[str]:
    """Type words in a bash, press Tab, and return what it offers."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    program = tmp_path / "bin/llamarig"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m llamarig "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = shell("completion", "bash").stdout
    count = len(words.split(" "))
    ask = f'COMP_WORDS=({words} "") COMP_CWORD={count - (not words.endswith(" "))}'
    run = f'{script}\n{ask}\n_llamarig_completion llamarig\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "LLAMARIG_ROOT": str(shell.host.root),
        "LANG": "C.UTF-8",
    }
    done = subprocess.run([bash, "--norc", "-c", run], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


def test_bash_completes_verbs_options_and_the_services_of_the_host(shell: Shell, tmp_path: Path) -> None:
    assert completed(shell, "llamarig sw", tmp_path) == {"switch"}
    assert completed(shell, "llamarig switch al", tmp_path) == {"alpha"}
    assert completed(shell, "llamarig logs --fo", tmp_path) == {"--follow"}
    assert completed(shell, "llamarig engine ro", tmp_path) == {"rollback"}
