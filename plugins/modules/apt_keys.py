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


def _gpg(module: AnsibleModule, home: str, *arguments: str) -> str:
    _, out, _ = module.run_command(["gpg", "--homedir", home, "--batch", "--quiet", "--no-tty", *arguments])
    return str(out)


def _primary_keys(listing: str) -> list[str]:
    """Return the fingerprints of the primary keys in a listing with colons."""
    rows = [line.split(":") for line in listing.splitlines()]
    after_primary = [rows[number + 1] for number, row in enumerate(rows[:-1]) if row[0] == "pub"]
    return [row[9] for row in after_primary if row[0] == "fpr"]


def _exported(module: AnsibleModule, key: dict[str, Any], content: bytes) -> str:
    """Return the declared key in ASCII as gpg writes it, and nothing else that came with it.

    What was fetched is never written as it came: apt takes every key of a file, also one that gpg passes over.
    """
    with tempfile.TemporaryDirectory(prefix="llamarig-gpg-") as home:
        fetched = os.path.join(home, "fetched")
        with open(fetched, "wb") as stream:
            stream.write(content)
        found = _primary_keys(_gpg(module, home, "--with-colons", "--show-keys", fetched))
        wanted = key["fingerprint"].upper()
        if found != [wanted]:
            module.fail_json(
                msg=f"{key['url']} is not the key that was declared: wanted {key['fingerprint']}, "
                f"found {', '.join(found) or 'no key'}\n"
                "    remedy: ask the archive's owner which fingerprint is right before you change key_fingerprint"
            )
        _gpg(module, home, "--import", fetched)
        return _gpg(module, home, "--armor", "--export", wanted)


def _fetch(module: AnsibleModule, key: dict[str, Any]) -> None:
    response, info = fetch_url(module, key["url"], timeout=30)
    if response is None or info["status"] not in (200, None):
        module.fail_json(
            msg=f"the key of an archive cannot be fetched from {key['url']}: {info['msg']}\n"
            "    remedy: see whether the host reaches it, or name a mirror in the archive's key_url"
        )
    text = _exported(module, key, response.read(_LARGEST_KEY))
    os.makedirs(os.path.dirname(key["path"]), mode=0o755, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(key["path"]), prefix=".key-")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, key["path"])
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _is_there(module: AnsibleModule, key: dict[str, Any]) -> bool:
    """Tell whether the declared key, and no other, is in the file already."""
    if not os.path.exists(key["path"]):
        return False
    with tempfile.TemporaryDirectory(prefix="llamarig-gpg-") as home:
        return _primary_keys(_gpg(module, home, "--with-colons", "--show-keys", key["path"])) == [
            key["fingerprint"].upper()
        ]


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
    wanted = [key for key in module.params["keys"] if not _is_there(module, key)]
    if not module.check_mode:
        for key in wanted:
            _fetch(module, key)
    module.exit_json(changed=bool(wanted), fetched=[key["path"] for key in wanted])


if __name__ == "__main__":
    main()
