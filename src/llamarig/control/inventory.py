"""An inventory, as Ansible itself reads it; playbooks that say something about its hosts."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from llamarig.errors import ConfigError, LlamarigError, Problem
from llamarig.planning.plan import Plan

ROOT = Path(__file__).resolve().parents[3]


def plan_inventory(inventory: Path, limit: str | None = None) -> dict[str, Plan]:
    """Return the plan of every host of an inventory, by host name; no host is reached.

    Ansible's own classes read the inventory in this process, as playbooks/plan.yml has them read it in one for each
    host, so that variables mean here what they mean in a deployment. A plan may be one that cannot be deployed yet.

    Raises:
        ConfigError: with every problem of every host.
        LlamarigError: with Ansible's words if it could not read the inventory.

    """
    # Ansible looks for its settings when it is first imported, and takes those of the checkout for a deployment.
    os.environ.setdefault("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))
    try:
        from ansible.errors import AnsibleError  # noqa: PLC0415  after its settings are said
        from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415

        from llamarig.control.border import Border  # noqa: PLC0415

        loader = DataLoader()
        border = Border(ROOT, loader.load_from_file)
        plans: dict[str, Plan] = {}
        problems: list[Problem] = []
        with _uncollected():
            for host, variables, templar in _hosts(loader, inventory, limit):
                try:
                    plans[host], _ = border.plan(host, variables, templar, only_plan=True)
                except ConfigError as error:
                    problems += error.problems
    except (AnsibleError, SystemExit) as error:  # it leaves where the locale is not UTF-8
        raise _unread(inventory, "planned", str(error)) from error
    if problems:
        raise ConfigError(problems)
    if not plans:
        raise _unread(inventory, "planned", "")
    return dict(sorted(plans.items()))


def connections(inventory: Path, limit: str | None = None) -> dict[str, Any]:
    """Return how Ansible reaches every host of an inventory, by host name; no host is reached.

    A host whose variables cannot be made out has the reason, a LlamarigError, in its place.

    Raises:
        LlamarigError: with Ansible's words if it could not read the inventory.

    """
    os.environ.setdefault("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))
    try:
        from ansible.errors import AnsibleError  # noqa: PLC0415  after its settings are said
        from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415

        found: dict[str, Any] = {}
        for host, variables, templar in _hosts(DataLoader(), inventory, limit):
            try:
                found[host] = _connection(variables, templar)
            except AnsibleError as error:
                found[host] = LlamarigError(f"how to reach it cannot be made out: {error}")
            except LlamarigError as error:
                found[host] = error
    except (AnsibleError, SystemExit) as error:
        raise _unread(inventory, "read", str(error)) from error
    if not found:
        raise _unread(inventory, "read", "")
    return dict(sorted(found.items()))


def _connection(variables: dict[str, Any], templar: Any) -> Any:
    """Return Ansible's own connection to a host, with the options that its variables give it; it is not open."""
    from ansible import constants  # noqa: PLC0415
    from ansible.playbook.play_context import PlayContext  # noqa: PLC0415
    from ansible.plugins.loader import connection_loader  # noqa: PLC0415

    kind = templar.template(variables.get("ansible_connection", "ssh"))
    connection = connection_loader.get(kind, PlayContext())
    if connection is None:
        raise LlamarigError(f"Ansible knows no connection {kind!r}", "let ansible_connection be ssh")
    options = constants.config.get_plugin_vars("connection", kind.rpartition(".")[2])
    connection.set_options(var_options={k: templar.template(variables[k]) for k in options if k in variables})
    return connection


def _hosts(loader: Any, inventory: Path, limit: str | None) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield name, variables and templar of each host, as a play of playbooks/plan.yml would have them."""
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415
    from ansible.playbook.play import Play  # noqa: PLC0415
    from ansible.template import Templar  # noqa: PLC0415
    from ansible.vars.manager import VariableManager  # noqa: PLC0415

    loader.set_vault_secrets(_begun())
    loader.set_basedir(str(ROOT / "playbooks"))
    manager = InventoryManager(loader=loader, sources=[str(inventory.resolve())])
    manager.subset(limit)
    variables = VariableManager(loader=loader, inventory=manager)
    said = {"name": "plan", "hosts": "gpu_hosts", "gather_facts": False}
    play = Play.load(said, variable_manager=variables, loader=loader)
    for host in manager.get_hosts("gpu_hosts"):
        found = variables.get_vars(play=play, host=host)
        yield host.name, found, Templar(loader=loader, variables=found)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let garbage lie: nearly all of a fleet's objects stay, and looking through them took a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@cache
def _begun() -> Any:
    """Do what each of Ansible's programs does once at its start; return the secrets of its vaults."""
    from ansible import constants  # noqa: PLC0415
    from ansible.cli import CLI  # noqa: PLC0415
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.plugins.loader import init_plugin_loader  # noqa: PLC0415

    init_plugin_loader()
    return CLI.setup_vault_secrets(DataLoader(), vault_ids=constants.DEFAULT_VAULT_IDENTITY_LIST, auto_prompt=False)


def look_at_hosts(inventory: Path, limit: str | None = None, *, ask_sudo: bool = False) -> dict[str, Any]:
    """Return what playbooks/detect.yml wrote of every host, by host name, of those that could not be reached too.

    Raises:
        LlamarigError: with Ansible's words if it could not read the inventory.

    """
    looks, said = _run("detect", inventory, limit, *(["--ask-become-pass"] if ask_sudo else []))
    if not looks:
        raise _unread(inventory, "looked at", said)
    return dict(sorted(looks.items()))


def _run(name: str, inventory: Path, limit: str | None, *options: str) -> tuple[dict[str, Any], str]:
    """Run a playbook that writes a file for each host; return them by host name, and Ansible's words if it failed."""
    program = Path(sys.executable).with_name("ansible-playbook")
    with tempfile.TemporaryDirectory(prefix=f"llamarig-{name}-") as directory:
        command = [str(program), "-i", str(inventory.resolve()), f"playbooks/{name}.yml"]
        command += ["-e", f"{name}_output={directory}", *options, *(["--limit", limit] if limit else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        written = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in Path(directory).glob("*.json")}
    return written, "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[-1500:] or "it says nothing"


def _unread(inventory: Path, verb: str, said: str) -> LlamarigError:
    msg = f"{inventory} cannot be {verb}: {said or 'it names no host of the group gpu_hosts'}"
    remedy = "ansible-inventory --graph shows what Ansible makes of it"
    return LlamarigError(msg, "set ANSIBLE_VAULT_PASSWORD_FILE" if "vault secrets" in said else remedy)
