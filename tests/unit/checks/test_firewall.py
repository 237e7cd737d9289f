from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from llamarig.checks.box import Box
from llamarig.checks.firewall import check_firewall
from llamarig.checks.result import CheckResult, Status
from llamarig.hardware import firewall
from llamarig.runtime.specs import SpecStore


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "loaded_ssh_ports", lambda: [22])
    monkeypatch.setattr(firewall, "ssh_ports", lambda *_: [22])
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def check(root: Path, *, planned: str | None = "a", kept: str | None = "a") -> CheckResult | None:
    for name, text in ((firewall.PLANNED, planned), (firewall.KEPT, kept)):
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
    nothing = cast("Any", None)
    return check_firewall(Box(SpecStore(root), nothing, nothing, nothing, nothing, nothing))


def test_it_is_silent_where_there_is_no_firewall(tmp_path: Path) -> None:
    assert check(tmp_path, planned=None, kept=None) is None


def test_it_is_content_with_one_that_is_loaded_as_planned(tmp_path: Path) -> None:
    found = check(tmp_path)
    assert found is not None
    assert (found.status, found.message) == (Status.OK, "loaded, with SSH on port 22")


def test_rules_that_somebody_flushed_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "loaded_ssh_ports", lambda: None)
    found = check(tmp_path)
    assert found is not None
    assert found.status is Status.FAIL
    assert "systemctl restart llamarig-firewall.service" in found.remedy


def test_who_is_not_root_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "loaded_ssh_ports", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = check(tmp_path)
    assert found is not None
    assert (found.status, found.message) == (Status.OK, "only root can see whether it is loaded")


def test_a_port_of_ssh_that_it_shuts_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "ssh_ports", lambda *_: [22, 2222])
    found = check(tmp_path)
    assert found is not None
    assert (found.status, found.message) == (Status.FAIL, "it shuts a port of SSH: 2222")


def test_rules_that_were_never_kept_fail(tmp_path: Path) -> None:
    found = check(tmp_path, kept=None)
    assert found is not None
    assert found.status is Status.FAIL


def test_rules_that_were_undone_are_a_warning(tmp_path: Path) -> None:
    found = check(tmp_path, planned="b")
    assert found is not None
    assert found.status is Status.WARN
