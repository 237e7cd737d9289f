"""Large files to and from a host: rsync over the connection that Ansible has open."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ansible.utils.path import unfrackpath

from llamarig.errors import LlamarigError

SAY_EVERY_SECONDS: Final = 10
Say = Callable[[str], None]


class TransferError(LlamarigError):
    """A file did not arrive; what came of it stays, and the next run goes on there."""


def push(connection: Any, source: Path, target: str, say: Say) -> None:
    """Send a file to a path of the host.

    Raises:
        TransferError: it did not arrive.

    """
    _run([*_transport(connection), str(source), _remote(connection, target)], say)


def fetch(connection: Any, source: str, target: Path, say: Say) -> None:
    """Take a file of the host to a path here.

    Raises:
        TransferError: it did not arrive.

    """
    _run([*_transport(connection), _remote(connection, source), str(target)], say)


def _run(arguments: list[str], say: Say) -> None:
    if shutil.which("rsync") is None:
        msg = "rsync is not installed on this control node"
        raise TransferError(msg, "apt-get install rsync")
    command = ["rsync", "--partial", "--append-verify", "--inplace", "--chmod=F600"]
    command += ["--info=progress2", "--outbuf=L", *arguments]
    said, last = time.monotonic(), ""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            last = line.strip() or last
            if time.monotonic() - said >= SAY_EVERY_SECONDS:
                said = time.monotonic()
                say(last)
    if process.returncode != 0:
        msg = f"{arguments[-2]} could not be brought to {arguments[-1]}: {last[-500:]}"
        raise TransferError(msg, "run again: it goes on where this one stopped")


def _transport(connection: Any) -> list[str]:
    """Return rsync's options for reaching the host as Ansible does, with the rights that the task has there."""
    if connection.transport == "local":
        return []
    if connection.transport != "ssh":
        msg = f"large files go over ssh, and this host has connection {connection.transport}"
        raise TransferError(msg, "let ansible_connection be ssh")
    become = ["--rsync-path=sudo -n rsync"] if connection.become is not None else []
    return [*become, f"--rsh={shlex.join(ssh_command(connection))}"]


def _remote(connection: Any, path: str) -> str:
    if connection.transport == "local":
        return path
    user, address = connection.get_option("remote_user"), connection.get_option("host")
    return f"{user}@{address}:{path}" if user else f"{address}:{path}"


def ssh_command(connection: Any) -> list[str]:
    """Return the ssh command that reaches a host as Ansible does, over the connection that it has open if it has."""
    option = connection.get_option
    command = [str(option("ssh_executable"))]
    for key in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
        command += shlex.split(option(key) or "")
    if option("port"):
        command += ["-p", str(option("port"))]
    if option("private_key_file"):
        command += ["-i", option("private_key_file")]
    if connection.control_path:
        socket = connection.control_path % {"directory": unfrackpath(option("control_path_dir"))}
        command += ["-o", f"ControlPath={socket}"]
    return command
