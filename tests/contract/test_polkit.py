"""What polkit lets the daemon ask of systemd. The rule's own patterns are tried here; polkit itself is in the lab."""

from __future__ import annotations

import json
import re

import pytest

from llamarig.config import paths
from tests.contract.tree import ROOT

RULE = (ROOT / "templates/agent/polkit.rules.j2").read_text(encoding="utf-8")


def pattern() -> re.Pattern[str]:
    found = re.search(r"var unit = /(.+)/\.test\(action\.lookup\(\"unit\"\)\)", RULE)
    assert found
    return re.compile(found[1].replace("$", r"\Z"))


@pytest.mark.parametrize("service", ["chat", "code-2", "a", "a-b-c", "4090"])
def test_the_units_of_services_are_the_daemons(service: str) -> None:
    assert pattern().match(paths.unit(service))


@pytest.mark.parametrize(
    "unit",
    [
        *("ssh.service", "docker.service", "llamarigd.service", "llamarig-door.service", "llama.service"),
        *("llama-.service", "llama-chat.slice", "llama-chat.service.d", "llama-Chat.service", "xllama-chat.service"),
        *("llama-chat@1.service", "llama-chat.timer", "llama-../ssh.service", "undefined", "llama-a\n.service"),
        *("llama-a--b.service", "llama-chat.service\n"),
    ],
)
def test_no_other_unit_is(unit: str) -> None:
    assert not pattern().match(unit)


def test_it_may_start_stop_and_restart_and_nothing_else() -> None:
    found = re.search(r"(\[.*\])\.indexOf\(action\.lookup\(\"verb\"\)\)", RULE)
    assert found
    assert json.loads(found[1]) == ["start", "stop", "restart"]


def test_it_is_about_the_daemon_alone() -> None:
    assert f'subject.user !== "{paths.DAEMON_USER}"' in RULE
    assert 'action.id !== "org.freedesktop.systemd1.manage-units"' in RULE
