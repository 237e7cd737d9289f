#!/usr/bin/python
"""Run one verb of the agent's command line, and take its JSON as the result."""

from __future__ import annotations

import json
import os

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: llamarig_cli
short_description: Run one verb of the llamarig command on the host
description:
  - Runs C(llamarig <verb> --json) and returns the C(data) of its envelope; an C(error) of the envelope fails the task
    with the command's own words.
  - In check mode a verb that changes things runs with C(--check); on a host without an agent it reports a change.
  - What the engine could not say of a service's memory is a warning of the task.
options:
  argv:
    description: The verb and its arguments.
    type: list
    elements: str
    required: true
  changes:
    description: Whether the verb can change the host; it then takes C(--check).
    type: bool
    default: false
  unhealthy_fails:
    description: Whether a verdict of C(unhealthy) fails the task.
    type: bool
    default: true
attributes:
  check_mode: {support: full}
"""
EXAMPLES = r"""
- name: Ask the doctor
  llamarig_cli:
    argv: [doctor]
"""
RETURN = r"""
data: {description: The data of the command's envelope., returned: success, type: dict}
"""
COMMAND = "/opt/llamarig/current/bin/llamarig"
# What the doctor exits with where the host is healthy and something needs a look.
WARNINGS = 7


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "argv": {"type": "list", "elements": "str", "required": True},
            "changes": {"type": "bool", "default": False},
            "unhealthy_fails": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not os.path.exists(COMMAND):
        if module.check_mode:
            module.exit_json(changed=params["changes"], data={}, skipped_reason="the agent is not deployed yet")
        module.fail_json(msg=f"{COMMAND} is missing: run the agent role first")
    checking = ["--check"] if module.check_mode and params["changes"] else []
    code, out, err = module.run_command(
        [COMMAND, *params["argv"], *checking, "--json"], environ_update={"LLAMARIG_ORIGIN": "playbook"}
    )
    try:
        envelope = json.loads(out)
    except ValueError:
        module.fail_json(msg=f"llamarig {' '.join(params['argv'])} exited {code}: {(err or out).strip()[-2000:]}")
        return
    error, data = envelope.get("error"), envelope.get("data") or {}
    if error:
        lines = [error["message"], *error.get("log_lines", []), f"remedy: {error['remedy']}" if error["remedy"] else ""]
        module.fail_json(msg="\n".join(line for line in lines if line), data=data)
    judge = data.get("judge") or {}
    for text in judge.get("warnings", []):
        module.warn(text)
    if judge.get("would_ask"):
        module.warn(f"check mode: the engine was not asked whether it has room for {', '.join(judge['would_ask'])}")
    if code not in {0, WARNINGS} and params["unhealthy_fails"] and not module.check_mode:
        checks = data.get("doctor", data).get("checks", [])
        failed = [f"{c['name']}: {c['message']}\n    remedy: {c['remedy']}" for c in checks if c["status"] == "fail"]
        verb = " ".join(word for word in params["argv"][:2] if not word.startswith("-"))
        module.fail_json(msg="\n".join([f"llamarig {verb} is not content:", *failed]), data=data)
    module.exit_json(changed=bool(data.get("changed")), data=data)


if __name__ == "__main__":
    main()
