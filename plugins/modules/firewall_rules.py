#!/usr/bin/python
"""Load firewall rules on trial, and keep them only when a new connection asks for it."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llamarig_hardware import firewall

DOCUMENTATION = r"""
module: firewall_rules
short_description: Load firewall rules on trial, and keep them only when a new connection asks for it
description:
  - Loads the planned rules, after a timer of systemd was set that loads those before again. The action plugin then
    makes a new connection to the host; over that one the module is run again, keeps the rules and stops the timer.
  - If no new connection comes through, or the control node goes away, the timer brings the rules before back, or none
    if there were none.
  - Does nothing where the planned rules are loaded and load at every start.
options:
  state:
    description: Set by the action plugin. V(tried) loads on trial, V(kept) makes it last.
    type: str
    choices: [tried, kept]
    default: tried
  seconds:
    description: How long the rules are on trial.
    type: int
    required: true
attributes:
  check_mode: {support: full}
"""
EXAMPLES = r"""
- name: Load the rules
  firewall_rules:
    seconds: 60
"""
RETURN = r"""
changed: {description: Whether rules were loaded or kept., returned: always, type: bool}
"""
ROOT = Path("/")
PLANNED = str(ROOT / firewall.PLANNED)
KEPT = str(ROOT / firewall.KEPT)
NFT = "/usr/sbin/nft"
WAY_BACK = "llamarig-firewall-rollback"
UNIT = "llamarig-firewall.service"


def call(module: AnsibleModule, *command: str, what: str) -> None:
    code, out, err = module.run_command(list(command))
    if code != 0:
        module.fail_json(msg=f"{what}: {(err or out).strip()}")


def arm(module: AnsibleModule) -> None:
    """Set the timer that loads the rules before, or takes the table away where there are none that load."""
    module.run_command(["systemctl", "stop", f"{WAY_BACK}.timer"])
    module.run_command(["systemctl", "reset-failed", f"{WAY_BACK}.service"])
    timer = [f"--unit={WAY_BACK}", f"--on-active={module.params['seconds']}", "--timer-property=AccuracySec=1s"]
    way_back = f"{NFT} --file {KEPT} || {NFT} delete table inet llamarig"
    command = ["systemd-run", "--collect", "--quiet", *timer, "/bin/sh", "-c", way_back]
    call(module, *command, what="the rules were not loaded, the timer that would undo them could not be set")


def tried(module: AnsibleModule) -> None:
    if not firewall.is_pending(ROOT):
        module.exit_json(changed=False)
    if module.check_mode:
        module.exit_json(changed=True)
    arm(module)
    call(module, NFT, "--file", PLANNED, what=f"nft refuses {PLANNED}, nothing was loaded")
    module.exit_json(changed=True)


def kept(module: AnsibleModule) -> None:
    is_armed = module.run_command(["systemctl", "stop", f"{WAY_BACK}.timer"])[0] == 0
    if is_armed:
        keep()
    elif firewall.is_pending(ROOT):  # otherwise they were kept, and the answer was lost on its way
        seconds = module.params["seconds"]
        module.fail_json(
            msg=f"a new connection came too late: the rules were undone {seconds} s after they were loaded"
        )
    call(module, "systemctl", "reload-or-restart", UNIT, what=f"{UNIT} could not load {KEPT}")
    module.exit_json(changed=True)


def keep() -> None:
    """Make the rules on trial those that load at every start."""
    temporary = f"{KEPT}.new"
    with open(PLANNED, "rb") as source, open(temporary, "wb") as target:
        target.write(source.read())
        target.flush()
        os.fsync(target.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, KEPT)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["tried", "kept"], "default": "tried"},
            "seconds": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    {"tried": tried, "kept": kept}[module.params["state"]](module)


if __name__ == "__main__":
    main()
