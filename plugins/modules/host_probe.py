#!/usr/bin/python
"""Look at a host before anything is changed on it, and say everything that is wrong at once."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llamarig_hardware import firewall
from ansible.module_utils.llamarig_hardware import machine as hardware

DOCUMENTATION = r"""
module: host_probe
short_description: Look at a host before anything is changed on it
description:
  - Compares what the inventory declares with what the host is, and fails with every difference at once.
  - Reads what the machine says of itself, the cards on its PCI bus and dpkg's own records; changes nothing.
options:
  supported:
    description: Supported systems as C(id version), for example V(ubuntu 24.04); none accepts every system.
    type: list
    elements: str
    default: []
  machines:
    description: Supported machine architectures, as C(uname -m) names them; none accepts every machine.
    type: list
    elements: str
    default: []
  memory_mib:
    description: Declared memory of the host, in MiB; the host must have at least this much. 0 declares nothing.
    type: int
    default: 0
  space:
    description: Free space that must be there, as V(path) (or its nearest existing parent) and V(mib).
    type: list
    elements: dict
    default: []
  images:
    description: Container images to look for; RV(images) says which are there.
    type: list
    elements: str
    default: []
  firewall:
    description:
      - The firewall that the host is to have, as V(enabled), V(openings), V(bridges), V(close_undeclared), V(ssh_port).
    type: dict
    default: {}
attributes:
  check_mode: {support: full}
"""
EXAMPLES = r"""
- name: Look at the host
  host_probe:
    supported: [ubuntu 24.04]
    machines: [x86_64]
    memory_mib: 65536
"""
RETURN = r"""
system: {description: The system as C(id_version), with dots as underscores., returned: success, type: str}
python: {description: The interpreter's major and minor version., returned: success, type: str}
machine: {description: The machine architecture., returned: success, type: str}
facts: {description: What C(llamarig.hardware.machine) reads., returned: success, type: dict}
packages: {description: Every installed package; roles call apt only where one of theirs is missing., type: list}
images: {description: The images asked for that are there., type: list}
services: {description: Services whose units llamarig wrote there., returned: success, type: list}
firewall: {description: Ports of SSH, and whether planned rules are yet to be loaded., returned: success, type: dict}
"""


def _os_release() -> tuple[str, str]:
    values = platform.freedesktop_os_release()
    return values.get("ID", "unknown"), values.get("VERSION_ID", "unknown")


def _free_mib(path: str) -> int:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize // 2**20


def _images(module: AnsibleModule) -> list[str]:
    docker = module.get_bin_path("docker")
    if docker is None:
        return []
    look = [docker, "image", "inspect", "--format", "ok"]
    return [image for image in module.params["images"] if module.run_command([*look, image])[0] == 0]


def _services() -> list[str]:
    """Return the services whose units are there; those that somebody else wrote are nobody's business here."""
    units = (unit for unit in Path("/etc/systemd/system").glob("llama-*.service") if unit.is_file())
    own = [unit for unit in units if "# Written by llamarig" in unit.read_text(encoding="utf-8", errors="replace")]
    return sorted(unit.stem.removeprefix("llama-") for unit in own)


def _problems(params: dict[str, Any], system: str, machine: str, memory: int | None) -> list[str]:
    problems = []
    if params["supported"] and system not in params["supported"]:
        problems.append(f"the system is {system}, supported are {', '.join(params['supported'])}: reinstall the host")
    if params["machines"] and machine not in params["machines"]:
        problems.append(f"the machine is {machine}, supported are {', '.join(params['machines'])}")
    if memory is not None and memory < params["memory_mib"]:
        problems.append(
            f"host_hardware.memory_mib declares {params['memory_mib']} MiB, the host has {memory}: correct host_vars"
        )
    for entry in params["space"]:
        free = _free_mib(entry["path"])
        if free < entry["mib"]:
            problems.append(f"{entry['path']} has {free} MiB free, {entry['mib']} are needed: free some, or add a disk")
    if not os.path.isdir("/run/systemd/system"):
        problems.append("the host is not run by systemd")
    return problems


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "supported": {"type": "list", "elements": "str", "default": []},
            "machines": {"type": "list", "elements": "str", "default": []},
            "memory_mib": {"type": "int", "default": 0},
            "space": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "mib": {"type": "int", "required": True}},
            },
            "images": {"type": "list", "elements": "str", "default": []},
            "firewall": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    name, version = _os_release()
    machine, facts = platform.machine(), hardware.read()
    shut = firewall.survey(Path("/"), os.getpid(), module.params["firewall"])
    problems = [*_problems(module.params, f"{name} {version}", machine, facts["memory_mib"]), *shut["problems"]]
    if problems:
        module.fail_json(msg="\n".join(["this host cannot be provisioned, nothing was changed:", *problems]))
    for warning in shut["warnings"]:
        module.warn(warning)
    module.exit_json(
        changed=False,
        system=f"{name}_{version.replace('.', '_')}",
        services=_services(),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        machine=machine,
        packages=sorted(facts["packages"]),
        images=_images(module),
        facts=facts,
        firewall={"ssh_ports": shut["ssh_ports"], "pending": shut["pending"]},
    )


if __name__ == "__main__":
    main()
