"""``plan`` and ``explain`` of an inventory, on the control node."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from llamarig.errors import ExitCode
from tests.inventories import box, write_inventory
from tests.unit.cli.conftest import Shell

CHAT = {"name": "chat", "profile": "own", "strategy": "cpu", "port": 8080, "memory_mib": 2048}
LONG = {"name": "long", "profile": "glm-flash-q8", "strategy": "auto", "port": 8090}
CODE = {"name": "code", "profile": "glm-flash-q4", "strategy": "A", "gpus": ["rtx-4090"], "port": 8091}
FILE = {"name": "own.gguf", "url": "https://models.example.com/own.gguf", "bytes": 1 << 20, "sha256": "a" * 64}
OWN = {"own": {"files": [FILE], "server": {"ctx_size": 4096}}}


@pytest.fixture
def site(tmp_path: Path) -> str:
    """Three hosts: two that are equal but for their cards' UUIDs, and one that has a service more."""
    hosts = {
        "gpu01": box(CHAT, LONG),
        "gpu02": box(CHAT, LONG, number=2),
        "gpu03": box(CHAT, LONG, CODE, number=3, llm_default_service="long"),
    }
    return str(write_inventory(tmp_path / "site", hosts, llm_profiles_site=OWN))


def host_of(data: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = data["hosts"][name]
    return found


def test_hosts_of_which_all_is_the_same_are_shown_once(shell: Shell, site: str) -> None:
    lines = shell("plan", "-i", site).stdout.splitlines()
    assert [line for line in lines if line.startswith("gpu0")] == ["gpu01, gpu02:", "gpu03:"]


def test_cards_are_named_with_what_they_are(shell: Shell, site: str) -> None:
    lines = shell("plan", "-i", site, "--limit", "gpu01").stdout.splitlines()
    assert lines[:4] == [
        "gpu01:",
        "  rtx-4090: NVIDIA GeForce RTX 4090, 23.99 GiB",
        "  rtx-5070-ti: NVIDIA GeForce RTX 5070 Ti, 15.92 GiB",
        "  host: 62.50 GiB of memory, 1.00 GiB reserved, 16 threads",
    ]


def test_the_default_service_is_marked(shell: Shell, site: str) -> None:
    text = shell("plan", "-i", site).stdout
    assert "chat (default)  cpu  " in text
    assert "long (default)  auto: " in text


def test_what_cannot_be_deployed_yet_is_said_and_is_no_failure(shell: Shell, site: str) -> None:
    result = shell("plan", "-i", site, "--limit", "gpu03")
    assert result.exit_code == ExitCode.OK
    assert result.stdout.rstrip().splitlines()[-6:-1] == [
        "Cannot be deployed yet:",
        "  has no sha256 and bytes; a model is never trusted without its checksum:",
        "    glm-flash-q8: GLM-4.7-Flash/GLM-4.7-Flash-Q8_0.gguf",
        "    glm-flash-q4: GLM-4.7-Flash/GLM-4.7-Flash-Q4_K_M.gguf",
        "    remedy: take both from the hub's file page, or from sha256sum and stat on a",
    ]
    assert "Cannot be deployed yet" not in shell("plan", "chat", "-i", site).stdout


def test_parts_of_one_model_are_missing_as_one(shell: Shell, tmp_path: Path) -> None:
    split = [{"name": f"big/big-0000{number}-of-00002.gguf"} for number in (1, 2)]
    services = box({**CHAT, "profile": "big"})
    site = write_inventory(tmp_path / "split", {"gpu01": services}, llm_profiles_site={"big": {"files": split}})
    data = shell.json("plan", "-i", str(site))["data"]
    (missing,) = host_of(data, "gpu01")["incomplete"]
    assert missing["where"] == ["big: big/big-*-of-00002.gguf"]


def test_what_fits_side_by_side_is_said(shell: Shell, site: str) -> None:
    text = shell("plan", "-i", site, "--limit", "gpu03").stdout
    assert "Side by side:\n  chat + long\n  chat + code\n" in text
    assert host_of(shell.json("plan", "-i", site)["data"], "gpu03")["together"] == [["chat", "long"], ["chat", "code"]]


def test_every_host_is_in_the_json_with_its_warnings(shell: Shell, site: str) -> None:
    data = shell.json("plan", "-i", site)["data"]
    assert list(data["hosts"]) == ["gpu01", "gpu02", "gpu03"]
    found = host_of(data, "gpu01")
    assert [spec["service"] for spec in found["specs"]] == ["chat", "long"]
    assert found["specs"][1]["memory"]["devices"][0]["name"] == "rtx-4090"
    assert "leaves" not in found["specs"][0]
    assert found["default_service"] == "chat"
    assert any("sizes are approximate" in warning for warning in found["warnings"])


def test_one_service_of_all_hosts_that_run_it(shell: Shell, site: str) -> None:
    text = shell("plan", "code", "-i", site).stdout
    assert text.startswith("code on gpu03: glm-flash-q4, strategy A\nwhy          everything on rtx-4090\n")
    assert "fits beside  chat\n" in text
    assert "what leaves" not in text
    assert list(shell.json("plan", "code", "-i", site)["data"]["hosts"]) == ["gpu03"]
    both = shell("plan", "long", "-i", site).stdout
    assert [line for line in both.splitlines() if line.startswith("long on ")] == [
        next(line for line in both.splitlines() if line.startswith("long on gpu01, gpu02: glm-flash-q8")),
        next(line for line in both.splitlines() if line.startswith("long on gpu03: glm-flash-q8")),
    ]


def test_a_service_that_no_host_runs_is_not_found(shell: Shell, site: str) -> None:
    result = shell("plan", "nothing", "-i", site)
    assert result.exit_code == ExitCode.NOT_FOUND
    assert "runs a service 'nothing'" in result.stderr


def test_a_wrong_inventory_says_all_that_is_wrong(shell: Shell, tmp_path: Path) -> None:
    hosts = {"gpu01": box({**CHAT, "profile": "nowhere"}), "gpu02": box({**CHAT, "prot": 1}, number=2)}
    site = write_inventory(tmp_path / "site", hosts, llm_profiles_site=OWN)
    result = shell("plan", "-i", str(site))
    assert result.exit_code == ExitCode.USAGE
    assert "there is no profile 'nowhere'" in result.stderr
    assert "did you mean port?" in result.stderr
    assert len(shell.json("plan", "-i", str(site))["error"]["problems"]) == 2


def test_a_picture_of_an_inventory_has_every_host(shell: Shell, site: str, tmp_path: Path) -> None:
    shell("plan", "-i", site, "--svg", str(tmp_path / "site.svg"))
    root = ET.fromstring((tmp_path / "site.svg").read_text(encoding="utf-8"))  # noqa: S314  its own file
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text and text.startswith("gpu0")] == ["gpu01, gpu02", "gpu03"]
    assert "Cannot be deployed yet" in texts


def test_explain_says_for_which_hosts_it_is_so(shell: Shell, site: str) -> None:
    lines = shell("explain", "chat", "ctx_size", "-i", site).stdout.splitlines()
    assert lines[:3] == ["ctx_size of chat on gpu01, gpu02, gpu03", "  profile   4096", "  built-in  8192"]
    assert list(shell.json("explain", "chat", "-i", site)["data"]["hosts"]) == ["gpu01", "gpu02", "gpu03"]


def test_explain_of_hosts_that_differ_says_each(shell: Shell, tmp_path: Path) -> None:
    hosts = {"gpu01": box(CHAT), "gpu02": box({**CHAT, "server": {"ctx_size": 1024}}, number=2)}
    site = str(write_inventory(tmp_path / "site", hosts, llm_profiles_site=OWN))
    lines = shell("explain", "chat", "c", "-i", site).stdout.splitlines()
    assert [line for line in lines if line.startswith("ctx_size")] == [
        "ctx_size of chat on gpu01",
        "ctx_size of chat on gpu02",
    ]
    assert list(shell.json("explain", "chat", "-i", site, "--host", "gpu02")["data"]["hosts"]) == ["gpu02"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("explain", "cod"), "did you mean code? choose one of: chat, code, long"),
        (("explain", "code", "--host", "gpu01"), "gpu01 runs no service 'code'"),
        (("explain", "chat", "--host", "gpu09"), "gpu09"),
    ],
    ids=str,
)
def test_explain_of_what_is_not_there_says_what_is(shell: Shell, site: str, words: tuple[str, ...], said: str) -> None:
    result = shell(*words, "-i", site)
    assert result.exit_code in {ExitCode.NOT_FOUND, ExitCode.FAILED}
    assert said in result.stderr
