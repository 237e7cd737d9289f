from __future__ import annotations

import json
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from llamarig.config import paths
from llamarig.config.spec import HostMemory, Spec
from llamarig.errors import ExitCode
from tests.support import below, make_spec
from tests.unit.cli.conftest import Shell
from tests.unit.cli.specs import LARGE, SMALL, laid

SVG = "{http://www.w3.org/2000/svg}"


def provision(shell: Shell, *specs: Spec) -> None:
    """Put these services in the place of those that the host runs."""
    for path in below(shell.host.root, paths.SPECS).iterdir():
        path.unlink()
    shell.host.provision(*specs)


def test_plan_of_one_service_says_why_what_leaves_and_the_command(shell: Shell) -> None:
    shell("switch", "alpha")
    text = shell("plan", "beta").stdout
    assert "beta on rig01: small, strategy cpu\nwhy          everything on the CPU\n" in text
    assert "what leaves  alpha\n" in text
    assert "llamarig explain beta says where each comes from" in text
    assert shlex.split(text.splitlines()[-1]) == ["llama-server", "--model", "/models/beta.gguf"]


def test_plan_of_the_active_service_leaves_everything_as_it_is(shell: Shell) -> None:
    shell("switch", "alpha")
    assert "what leaves  nothing\n" in shell("plan", "alpha").stdout


def test_plan_marks_what_is_active_and_what_is_the_default(shell: Shell) -> None:
    shell("switch", "beta")
    lines = shell("plan").stdout.splitlines()
    assert "alpha (default)  cpu  everything on the CPU" in lines
    assert "beta (active)  cpu  everything on the CPU" in lines


def test_plan_of_a_host_without_services_says_so_and_is_no_error(shell: Shell) -> None:
    provision(shell)
    result = shell("plan")
    assert (result.exit_code, result.stdout) == (ExitCode.OK, "Warnings:\n  this host runs no service\n")
    assert shell.json("plan")["data"]["specs"] == []


def test_plan_as_json_is_the_specs_and_what_leaves(shell: Shell) -> None:
    shell("switch", "alpha")
    data = shell.json("plan")["data"]
    assert [(item["service"], item["leaves"]) for item in data["specs"]] == [
        ("alpha", []),
        ("beta", ["alpha"]),
        ("gamma", []),
    ]
    together = [["alpha", "gamma"], ["beta", "gamma"]]
    assert (data["default_service"], data["together"], data["incomplete"]) == ("alpha", together, [])
    (one,) = shell.json("plan", "beta")["data"]["specs"]
    assert one == data["specs"][1]


def test_plan_touches_nothing(shell: Shell) -> None:
    before = shell.files()
    shell("plan", "beta")
    assert (shell.files(), shell.host.units.changes) == (before, [])


def test_every_card_and_the_host_has_a_bar(shell: Shell) -> None:
    provision(shell, laid("large", LARGE, SMALL))
    lines = shell("plan").stdout.splitlines()
    start = lines.index("large  auto: D  experts of 19 of 48 blocks on GPUs")
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ["rtx-4090", "rtx-5070-ti", "host"]
    assert lines[start + 1].split()[2:] == ["17.58", "2.00", "0.29", "0.75", "0.60", "2.77"]


def test_memory_is_in_the_json_as_the_spec_has_it(shell: Shell) -> None:
    provision(shell, laid("large", LARGE, SMALL))
    (found,) = (item for item in shell.json("plan")["data"]["specs"] if item["service"] == "large")
    assert found["memory"]["devices"][0]["weights"] == LARGE.weights
    assert found["memory"]["host"]["limit"] == 60_000


def test_what_was_considered_is_said_in_full(shell: Shell) -> None:
    provision(shell, laid("large", LARGE, considered=["A on rtx-4090: does not fit", "C: does not fit either"]))
    text = shell("plan", "large").stdout
    assert "considered   A on rtx-4090: does not fit\n             C: does not fit either\n" in text


def test_services_that_may_be_active_together_are_named(shell: Shell) -> None:
    provision(shell, laid("left", LARGE), laid("right", SMALL, port=8091), laid("both", LARGE, SMALL, port=8092))
    text = shell("plan").stdout
    assert "Side by side:\n  left + right\n" in text
    assert ["left", "right"] in shell.json("plan")["data"]["together"]
    assert "fits beside  right\n" in shell("plan", "left").stdout
    assert "fits beside  none of the other services\n" in shell("plan", "both").stdout


def test_very_many_sets_are_counted_not_listed(shell: Shell) -> None:
    half = HostMemory(limit=60_000, weights=30_000, cache=0, compute=0, other=0)
    provision(shell, *(laid(f"s{number}", host=half, port=9000 + number) for number in range(6)))
    text = shell("plan").stdout
    assert "15 pairs of services fit; llamarig plan <service> says what fits beside one." in " ".join(text.split())
    assert len(shell.json("plan")["data"]["together"]) == 15


def test_services_on_one_port_take_turns_and_are_never_side_by_side(shell: Shell) -> None:
    one, two, three = laid("one", SMALL), laid("two", LARGE), laid("three", port=8091)
    provision(shell, one, two, three)
    text = shell("plan").stdout
    assert "Side by side:\n  one + three\n  three + two\n  one and two take turns on port 8080.\n" in text
    assert shell.json("plan")["data"]["together"] == [["one", "three"], ["three", "two"]]
    assert "fits beside  three\n" in shell("plan", "one").stdout
    provision(shell, one, two)
    assert "No two of these services may be active together.\n" in shell("plan").stdout


@pytest.mark.parametrize("dead", [False, True], ids=["daemon", "files"])
def test_what_leaves_is_what_shares_the_port_or_takes_the_memory(shell: Shell, dead: bool) -> None:
    provision(shell, laid("left", LARGE), laid("right", SMALL, port=8091), laid("both", LARGE, SMALL, port=8092))
    shell.host.provision(laid("turn", SMALL, port=8080))
    shell("switch", "left")
    if dead:
        shell.daemon.kill()
    assert "what leaves  nothing\n" in shell("plan", "right").stdout
    assert "what leaves  left\n             it takes turns with left on port 8080\n" in shell("plan", "turn").stdout
    instead = shell("plan", "both").stdout
    assert "what leaves  left\n             side by side they do not fit: rtx-4090 has 23.39 GiB" in instead
    specs = {item["service"]: item for item in shell.json("plan")["data"]["specs"]}
    assert (specs["right"]["leaves"], specs["right"]["must_leave"]) == ([], [])
    assert (specs["both"]["leaves"], specs["both"]["must_leave"]) == (["left"], ["left"])
    assert (specs["turn"]["leaves"], specs["turn"]["same_port"]) == (["left"], ["left"])


def test_a_switch_that_would_be_refused_is_said_with_the_reason(shell: Shell) -> None:
    policy = {"default_service": "alpha", "services": {"alpha": {"pinned": True, "idle_seconds": None}}}
    below(shell.host.root, paths.HOST_FILE).write_text(json.dumps({"policy": policy}), encoding="utf-8")
    shell("switch", "alpha")
    assert "what leaves  a switch to it would be refused: beta has room only where" in shell("plan", "beta").stdout
    assert "alpha stops, which is pinned" in shell.json("plan", "beta")["data"]["specs"][0]["refused"]


def test_a_card_of_which_only_the_uuid_is_known_is_called_by_its_name(shell: Shell) -> None:
    limit = 1000
    engine = laid("engine", memory=None, gpus=["GPU-a"], strategy="fit", asked="fit", memory_mib=limit, port=8091)
    other = laid("other", memory=None, gpus=["GPU-a"], strategy="fit", asked="fit", memory_mib=limit, port=8092)
    provision(shell, laid("large", LARGE), engine, other)
    shell("switch", "engine")
    assert "other and engine share rtx-4090, and not all of them are predicted" in " ".join(
        shell("plan", "other").stdout.split()
    )


def test_what_is_not_predicted_or_not_exact_is_a_warning(shell: Shell) -> None:
    provision(shell, laid("strange", LARGE, unknown=("its cache",)), laid("vague", SMALL, shape="published"))
    text = shell("plan").stdout
    assert "Warnings:\n  strange: not predicted: its cache\n  vague: sizes are approximate: " in text
    assert len(shell.json("plan", "strange")["data"]["warnings"]) == 1
    assert "warning      sizes are approximate: " in shell("plan", "vague").stdout


def test_what_is_said_of_several_services_is_said_once(shell: Shell) -> None:
    provision(shell, laid("one", LARGE, shape="published"), laid("two", SMALL, shape="published"))
    assert shell("plan").stdout.count("sizes are approximate") == 1
    assert "  one, two: sizes are approximate" in shell("plan").stdout


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_the_text_fits_the_width(shell: Shell, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    provision(shell, laid("large", LARGE, SMALL), laid("engine", memory=None, strategy="fit"))
    lines = shell("plan").stdout.splitlines()
    assert max(len(line) for line in lines) <= int(columns)
    assert any("█" in line for line in lines)


def test_inventories_are_the_control_nodes(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llamarig.control.inventory", None)
    result = shell("plan", "-i", str(tmp_path))
    assert result.exit_code == ExitCode.FAILED
    assert "inventories are planned on the control node" in result.stderr


def test_a_picture_is_a_file_of_its_own_that_words_and_bars_are_in(shell: Shell, tmp_path: Path) -> None:
    provision(shell, laid("large", LARGE, SMALL, reason="more <than> one & two"))
    target = tmp_path / "plan.svg"
    assert shell("plan", "large", "--svg", str(target)).stdout.endswith(f"\nwrote {target}\n")
    assert shell.json("plan", "large", "--svg", str(target))["data"]["svg"] == str(target)
    text = target.read_text(encoding="utf-8")
    root = ET.fromstring(text)  # noqa: S314  its own file
    assert root.attrib["role"] == "img"
    assert root.findtext(f"{SVG}title") == "Plan of rig01"
    described = root.findtext(f"{SVG}desc") or ""
    assert "large, strategy auto: D: more <than> one & two." in described
    assert (
        "rtx-4090: weights 17.58, cache 2.00, compute 0.29, process 0.75, kept 0.60, free 2.77 of 23.99 GiB"
        in described
    )
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert len(root.findall(f"{SVG}g")) == 3


def test_a_bar_of_a_picture_is_as_long_as_its_parts(shell: Shell, tmp_path: Path) -> None:
    provision(shell, laid("large", LARGE, SMALL))
    shell("plan", "large", "--svg", str(tmp_path / "plan.svg"))
    root = ET.fromstring((tmp_path / "plan.svg").read_text(encoding="utf-8"))  # noqa: S314
    for group, total, memory in zip(
        root.findall(f"{SVG}g"), (372, 372 * 16_303 / 24_564), (LARGE, SMALL), strict=False
    ):
        whole, *parts = group.findall(f"{SVG}rect")
        assert float(whole.attrib["width"]) == pytest.approx(total, abs=0.1)
        weights = float(parts[0].attrib["width"])
        assert weights == pytest.approx(total * memory.weights / memory.memory, abs=0.1)
        ends = [float(part.attrib["x"]) + float(part.attrib["width"]) for part in parts]
        starts = [float(part.attrib["x"]) for part in parts[1:]]
        assert starts == pytest.approx(ends[:-1], abs=0.2)


def test_the_same_plan_is_the_same_picture(shell: Shell, tmp_path: Path) -> None:
    provision(shell, laid("large", LARGE, SMALL))
    pictures = []
    for name in ("a.svg", "b.svg"):
        shell("plan", "--svg", str(tmp_path / name))
        pictures.append((tmp_path / name).read_text(encoding="utf-8"))
    assert pictures[0] == pictures[1]


def test_an_api_key_is_said_and_not_shown(shell: Shell) -> None:
    provision(shell, make_spec("locked", api_key_file="/etc/llamarig/keys/locked.key", api_key_sha256="f" * 64))
    assert "address      127.0.0.1:8080, with API key\n" in shell("plan", "locked").stdout


def test_a_file_that_is_small_is_not_said_to_be_nothing(shell: Shell) -> None:
    assert "/beta.gguf (0.01 GiB)\n" in shell("plan", "beta").stdout
