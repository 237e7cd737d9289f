from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamarig.cli import explain
from llamarig.cli.explain import Argument, owned
from llamarig.config.owned import OWNED
from llamarig.config.spec import Spec
from llamarig.errors import ExitCode
from llamarig.planning.intent import plan_host
from tests.support import HOST, make_spec, variables
from tests.unit.cli.conftest import Shell

ORIGINS: dict[str, dict[str, Any]] = {
    "ctx_size": {
        "value": 65_536,
        "layer": "service",
        "over": [{"layer": "profile", "value": 32_768}, {"layer": "built-in", "value": 8192}],
    },
    "jinja": {"value": True, "layer": "built-in"},
    "mmap": {"value": False, "layer": "fleet"},
    "flash_attn": {"value": False, "layer": "profile", "over": [{"layer": "built-in", "value": "auto"}]},
    "n_predict": {"value": -1, "layer": "profile"},
    "temp": {"value": 0, "layer": "service"},
}
ARGV = [
    "--model",
    "/models/x.gguf",
    "--log-jsonl",
    "--split-mode",
    "none",
    "--ctx-size",
    "65536",
    "--jinja",
    "--no-mmap",
]
ARGV += ["--flash-attn", "off", "--n-predict", "-1", "--temp", "0", "--api-key-file", "/run/key"]


@pytest.fixture(autouse=True)
def chat(shell: Shell) -> Spec:
    """The host runs a service that every layer said something about."""
    spec = make_spec("chat", port=8100, origins=ORIGINS, argv=ARGV, strategy="A", asked="auto")
    shell.host.provision(spec)
    return spec


def planned(**service: Any) -> Spec:
    return Spec.from_dict(plan_host(HOST, variables(service=service))["specs"][0])


def test_every_setting_is_listed_with_its_layer_and_what_weaker_ones_had_said(shell: Shell) -> None:
    text = shell("explain", "chat").stdout
    rows = [line.split() for line in text.splitlines()]
    assert text.startswith("chat on rig01: small, strategy auto: A (everything on the CPU)\n")
    assert ["SETTING", "VALUE", "LAYER", "OVER"] in rows
    assert ["ctx_size", "65536", "service", "profile", "32768,", "built-in", "8192"] in rows
    assert ["jinja", "true", "built-in"] in rows
    assert ["temp", "0", "service"] in rows


def test_what_the_planner_writes_is_listed_with_the_reason(shell: Shell) -> None:
    text = shell("explain", "chat").stdout
    lines = [line.split() for line in text.split("server cannot set them:\n")[1].splitlines()]
    assert [line[0] for line in lines] == ["--model", "--log-jsonl", "--split-mode", "--api-key-file"]
    assert " ".join(lines[2]) == "--split-mode none is decided by the strategy"


def test_explain_as_json(shell: Shell) -> None:
    data = shell.json("explain", "chat")["data"]
    assert (data["service"], data["strategy"], data["asked"]) == ("chat", "A", "auto")
    assert data["settings"][0] == {"setting": "ctx_size", **ORIGINS["ctx_size"]}
    assert data["settings"][1] == {"setting": "jinja", "value": True, "layer": "built-in", "over": []}
    assert data["owned"][2] == {"option": "split-mode", "value": "none", "why": OWNED["split-mode"]}


@pytest.mark.parametrize("name", ["ctx_size", "c", "-c", "--ctx-size", "ctx-size"])
def test_one_setting_goes_by_all_its_names(shell: Shell, name: str) -> None:
    lines = shell("explain", "chat", "--", name).stdout.splitlines()
    assert lines[:4] == ["ctx_size of chat on rig01", "  service   65536", "  profile   32768", "  built-in  8192"]
    assert lines[4] == "  llama-server: -c, --ctx-size N"


def test_one_setting_as_json(shell: Shell) -> None:
    data = shell.json("explain", "chat", "c")["data"]
    assert (data["setting"], data["value"], data["layer"]) == ("ctx_size", 65_536, "service")
    assert [item["layer"] for item in data["over"]] == ["profile", "built-in"]
    assert data["owned"] is None


def test_a_setting_that_is_zero_is_told_from_none(shell: Shell) -> None:
    assert "  service   0\n" in shell("explain", "chat", "temperature").stdout
    assert shell.json("explain", "chat", "temperature")["data"]["value"] == 0


def test_an_option_that_the_planner_writes_is_told_with_the_reason(shell: Shell) -> None:
    text = " ".join(shell("explain", "chat", "sm").stdout.split())
    assert text.startswith("--split-mode of chat on rig01 is none; it cannot be set in server: is decided by the strat")
    data = shell.json("explain", "chat", "sm")["data"]
    assert (data["layer"], data["owned"]["value"]) == (None, "none")


def test_an_option_that_the_planner_owns_and_does_not_write_is_told_too(shell: Shell) -> None:
    assert "--rpc of chat on rig01 is not on its command line" in shell("explain", "chat", "rpc").stdout
    assert shell.json("explain", "chat", "rpc")["data"]["owned"] == {
        "option": "rpc",
        "value": None,
        "why": OWNED["rpc"],
    }


def test_an_option_that_nobody_set_is_llama_servers_own(shell: Shell) -> None:
    text = shell("explain", "chat", "top_k").stdout
    assert text.startswith("top_k of chat on rig01: no layer says it, llama-server's own default holds\n")


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        (("chta",), "this host runs no service 'chta'", "did you mean chat? choose one of: alpha, beta, chat"),
        (("nothing",), "this host runs no service 'nothing'", "choose one of: alpha, beta, chat"),
        (("chat", "ctx_siez"), "chat has no setting 'ctx_siez'", "did you mean ctx_size"),
        (("chat", "zzzzzz"), "chat has no setting 'zzzzzz'", "llamarig explain chat lists its settings"),
    ],
    ids=" ".join,
)
def test_an_unknown_name_is_not_found_and_the_nearest_is_named(
    shell: Shell, words: tuple[str, ...], said: str, remedy: str
) -> None:
    result = shell("explain", *words)
    assert result.exit_code == ExitCode.NOT_FOUND
    assert said in result.stderr
    assert f"remedy: {remedy}" in result.stderr
    assert shell.json("explain", *words)["error"]["code"] == "notfound"


def test_a_host_without_the_recorded_help_knows_the_settings_it_has(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise FileNotFoundError

    monkeypatch.setattr(explain, "recorded_options", absent)
    assert shell("explain", "chat", "ctx-size").stdout.splitlines()[-1] == "  built-in  8192"
    assert shell("explain", "chat", "c").exit_code == ExitCode.NOT_FOUND


def test_a_host_of_an_inventory_needs_the_inventory(shell: Shell) -> None:
    result = shell("explain", "chat", "--host", "gpu01")
    assert result.exit_code == ExitCode.FAILED
    assert "-i inventories/<site>" in result.stderr


def test_inventories_are_the_control_nodes(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llamarig.control.inventory", None)
    assert "inventories are planned on the control node" in shell("explain", "chat", "-i", str(tmp_path)).stderr


def test_long_values_are_shortened_in_the_table_and_whole_by_themselves(shell: Shell) -> None:
    grammar = "root ::= " + "x" * 100
    shell.host.provision(make_spec("chat", origins={"grammar": {"value": grammar, "layer": "service"}}))
    assert grammar not in shell("explain", "chat").stdout
    assert json.dumps(grammar) in shell("explain", "chat", "grammar").stdout


def test_owned_arguments_are_those_that_no_setting_brought() -> None:
    assert owned(make_spec(origins=ORIGINS, argv=ARGV)) == [
        Argument("model", "/models/x.gguf", OWNED["model"]),
        Argument("log-jsonl", None, OWNED["log-jsonl"]),
        Argument("split-mode", "none", OWNED["split-mode"]),
        Argument("api-key-file", "/run/key", OWNED["api-key-file"]),
    ]


@pytest.mark.parametrize(
    "server",
    [
        {},
        {"temp": 0, "n_predict": -1, "flash_attn": True, "jinja": False, "warmup": False},
        {"alias": "--model", "chat_template": "--port"},
        {"override_kv": ["a=int:1", "b=int:2"]},
    ],
    ids=str,
)
def test_settings_are_told_from_owned_arguments_in_what_the_planner_writes(server: dict[str, Any]) -> None:
    spec = planned(server=server)
    found = owned(spec)
    assert [item.option for item in found] == ["model", "host", "log-jsonl", "device", "gpu-layers", "fit"]
    assert all(item.why == OWNED[item.option] for item in found)
    assert found[0].value == "/models/small.gguf"
