#!/usr/bin/python
"""Fetch the keys of package archives, each only if it has the fingerprint that was declared."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url

DOCUMENTATION = r"""
module: apt_keys
short_description: Fetch the keys of package archives, by fingerprint
description:
  - A key that is there with its fingerprint is not fetched again, so that a second run needs no network.
  - A key with another fingerprint is never written.
options:
  keys:
    description: Keys, with V(path) on the host, V(url), and V(fingerprint) of 40 hexadecimal digits.
    type: list
    elements: dict
    required: true
attributes:
  check_mode: {support: full}
"""
EXAMPLES = r"""
- name: Fetch a key
  apt_keys:
    keys:
      - path: /etc/apt/keyrings/example.asc
        url: https://example.com/key.asc
        fingerprint: 0123456789ABCDEF0123456789ABCDEF01234567
"""
RETURN = r"""
fetched: {description: Paths of the keys that were fetched., returned: always, type: list}
"""

_LARGEST_KEY = 2**20


def _fingerprints(module: AnsibleModule, path: str) -> list[str]:
    """Return the fingerprints of the primary keys in a file; empty where it is none."""
    with tempfile.TemporaryDirectory(prefix="llamarig-gpg-") as home:
        command = ["gpg", "--homedir", home, "--batch", "--with-colons", "--show-keys", path]
        _, out, _ = module.run_command(command)
    rows = [line.split(":") for line in out.splitlines()]
    after_primary = [rows[number + 1] for number, row in enumerate(rows[:-1]) if row[0] == "pub"]
    return [row[9] for row in after_primary if row[0] == "fpr"]


def _fetch(module: AnsibleModule, key: dict[str, Any]) -> None:
    response, info = fetch_url(module, key["url"], timeout=30)
    if response is None or info["status"] not in (200, None):
        module.fail_json(
            msg=f"the key of an archive cannot be fetched from {key['url']}: {info['msg']}\n"
            "    remedy: see whether the host reaches it, or name a mirror in the archive's key_url"
        )
    os.makedirs(os.path.dirname(key["path"]), mode=0o755, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(key["path"]), prefix=".key-")
    try:
        content = response.read(_LARGEST_KEY)
        if not content.lstrip().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----"):
            module.fail_json(
                msg=f"{key['url']} is no key in ASCII, which is how apt reads a file named .asc\n"
                "    remedy: name the armoured key; gpg --enarmor makes one of a binary key"
            )
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        found = _fingerprints(module, temporary)
        if found != [key["fingerprint"].upper()]:
            module.fail_json(
                msg=f"{key['url']} is not the key that was declared: wanted {key['fingerprint']}, "
                f"found {', '.join(found) or 'no key'}\n"
                "    remedy: ask the archive's owner which fingerprint is right before you change key_fingerprint"
            )
        os.chmod(temporary, 0o644)
        os.replace(temporary, key["path"])
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "keys": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": False,
                "options": {
                    "path": {"type": "path", "required": True},
                    "url": {"type": "str", "required": True},
                    "fingerprint": {"type": "str", "required": True},
                },
            }
        },
        supports_check_mode=True,
    )
    wanted = [
        key
        for key in module.params["keys"]
        if not os.path.exists(key["path"]) or _fingerprints(module, key["path"]) != [key["fingerprint"].upper()]
    ]
    if not module.check_mode:
        for key in wanted:
            _fetch(module, key)
    module.exit_json(changed=bool(wanted), fetched=[key["path"] for key in wanted])


if __name__ == "__main__":
    main()
