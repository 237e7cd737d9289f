from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llamarig.config import paths
from llamarig.config.address import Address
from llamarig.errors import LlamarigError
from llamarig.exporter.settings import Settings, read_settings
from tests.support import ROOT, below, render


def written(root: Path, text: str) -> Path:
    path = below(root, paths.EXPORTER_FILE)
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return root


def test_without_a_file_it_listens_on_loopback(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings(address=Address("127.0.0.1", 9836))


def test_what_the_role_writes_is_read(tmp_path: Path) -> None:
    given: dict[str, Any] = {"bind": "192.0.2.10", "port": 9000, "hosts": ["rig01"], "pcie_throughput": True}
    text = render({"template": "exporter.json.j2", "vars": given}, "exporter")
    assert read_settings(written(tmp_path, text)) == Settings(
        address=Address("192.0.2.10", 9000, ("rig01",)), pcie_throughput=True
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "no JSON object"),
        ('{"port": "9836"}', "port is '9836'"),
        ('{"port": true}', "port is True"),
        ('{"port": 65536}', "port is 65536"),
        ('{"bind": "here"}', "'here' does not appear to be"),
        ('{"hosts": "all"}', "hosts is 'all'"),
        ('{"hosts": [1]}', "hosts is [1]"),
        ('{"period_seconds": 0}', "period_seconds is 0"),
        ('{"period_seconds": "5"}', "period_seconds is '5'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LlamarigError) as caught:
        read_settings(written(tmp_path, text))
    assert said in caught.value.message
    assert "site.yml" in caught.value.remedy


def test_the_defaults_are_the_roles(tmp_path: Path) -> None:
    usual = yaml.safe_load((ROOT / "roles/exporter/defaults/main.yml").read_text(encoding="utf-8"))
    given = {name: usual[f"exporter_{name}"] for name in ("bind", "port", "hosts", "pcie_throughput")}
    text = render({"template": "exporter.json.j2", "vars": given}, "exporter")
    assert read_settings(written(tmp_path, text)) == Settings()
