from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from llamarig.errors import ConfigError
from llamarig.planning.intent import plan_host, require_service
from tests.support import HOST, KEY, after, argv_of, make_spec, problems, variables


def only_spec(data: dict[str, Any]) -> dict[str, Any]:
    (spec,) = plan_host(HOST, data)["specs"]
    assert isinstance(spec, dict)
    return spec


def test_a_service_is_complete_after_resolution() -> None:
    spec = only_spec(variables())
    assert spec["files"] == [{"path": "/srv/llamarig/models/small.gguf", "bytes": 1 << 20, "sha256": "a" * 64}]
    assert (spec["bind"], spec["port"], spec["memory_mib"]) == ("127.0.0.1", 8080, 4096 - 512)
    assert (spec["api_key_file"], spec["api_key_sha256"]) == (None, None)
    assert len(spec["spec_sha256"]) == 64


def test_the_engine_is_told_model_address_and_log_format() -> None:
    argv = argv_of(variables())
    assert after(argv, "--model") == "/models/small.gguf"
    assert after(argv, "--host") == "/run/llamarig/server.sock"
    assert "--port" not in argv
    assert "--log-jsonl" in argv


def test_the_cpu_strategy_offloads_nothing_and_uses_the_declared_threads() -> None:
    argv = argv_of(variables())
    assert (after(argv, "--device"), after(argv, "--gpu-layers"), after(argv, "--fit")) == ("none", "0", "off")
    assert (after(argv, "--threads"), after(argv, "--threads-batch")) == ("4", "4")


def test_the_layers_lie_in_their_order() -> None:
    data = variables(llm_server_defaults={"ctx_size": 2, "threads": 3, "cache_ram": 5})
    data["llm_profiles_test"]["small"]["server"] = {"ctx_size": 1, "threads": 1, "batch_size": 1024}
    data["llm_services"][0]["server"] = {"cache_ram": 6}
    origins = only_spec(data)["origins"]
    assert origins["ubatch_size"] == {"value": 512, "layer": "built-in"}
    assert (origins["batch_size"]["value"], origins["batch_size"]["layer"]) == (1024, "profile")
    assert origins["threads_batch"] == {"value": 4, "layer": "strategy"}
    assert (origins["ctx_size"]["value"], origins["ctx_size"]["layer"]) == (2, "fleet")
    assert (origins["threads"]["value"], origins["threads"]["layer"]) == (3, "fleet")
    assert (origins["cache_ram"]["value"], origins["cache_ram"]["layer"]) == (6, "service")


def test_what_a_layer_overrules_stands_under_its_value_the_strongest_first() -> None:
    data = variables(llm_server_defaults={"ctx_size": 2}, service={"server": {"ctx_size": 3, "top_k": 7}})
    data["llm_profiles_test"]["small"]["server"] = {"ctx_size": 1, "top_k": None}
    origins = only_spec(data)["origins"]
    assert origins["ctx_size"] == {
        "value": 3,
        "layer": "service",
        "over": [
            {"layer": "fleet", "value": 2},
            {"layer": "profile", "value": 1},
            {"layer": "built-in", "value": 8192},
        ],
    }
    assert origins["top_k"] == {"value": 7, "layer": "service", "over": [{"layer": "profile", "value": None}]}


def test_a_short_name_in_one_layer_overrides_the_long_one_in_another() -> None:
    argv = argv_of(variables(service={"server": {"c": 512}}))
    assert argv.count("--ctx-size") == 1
    assert after(argv, "--ctx-size") == "512"


def test_null_takes_a_built_in_setting_away() -> None:
    assert "--timeout" in argv_of(variables())
    assert "--timeout" not in argv_of(variables(service={"server": {"timeout": None}}))


def test_a_prompt_cache_that_nobody_limits_is_reckoned_with_at_the_engines_own_limit() -> None:
    (problem,) = problems(variables(service={"server": {"cache_ram": None}}))
    assert problem.key == "strategy cpu"
    assert f"{64 + 8192 + 1} of {4096 - 512} MiB" in problem.message


def test_the_alias_is_the_services_name_unless_it_is_said() -> None:
    assert after(argv_of(variables()), "--alias") == "chat"
    assert after(argv_of(variables(service={"server": {"alias": "other"}})), "--alias") == "other"


def test_the_first_service_is_the_default_unless_another_is_named() -> None:
    two = [*variables()["llm_services"], {"name": "code", "profile": "small", "strategy": "cpu", "port": 8090}]
    assert plan_host(HOST, variables(llm_services=two))["default_service"] == "chat"
    named = plan_host(HOST, variables(llm_services=two, llm_default_service="code"))
    assert named["default_service"] == "code"


def test_a_spec_says_what_people_call_the_model_and_whether_it_is_for_benchmarks() -> None:
    data = variables()
    assert (only_spec(data)["title"], only_spec(data)["bench"]) == ("small", False)
    data["llm_profiles_test"]["small"] |= {"title": "Small Chat", "bench": True}
    assert (only_spec(data)["title"], only_spec(data)["bench"]) == ("Small Chat", True)


BOTH = "RTX 4090 + RTX 5070 Ti, 64 GB DDR4"
CARDS = {"RTX 4090": "NVIDIA GeForce RTX 4090", "RTX 5070 Ti": "NVIDIA GeForce RTX 5070 Ti", "RTX 4090 D": "RTX 4090 D"}


@pytest.mark.parametrize(
    ("cards", "measured", "said"),
    [
        (["RTX 4090"], [(147, BOTH, "strategy A")], "~147 t/s"),
        (["RTX 4090", "RTX 5070 Ti"], [(74.7, BOTH, "strategy B")], "~74.7 t/s"),
        (
            ["RTX 4090"],
            [(300, "RTX 5090", "strategy A"), (22, BOTH, "strategy fit"), (20, BOTH, "strategy D")],
            "~22 t/s",
        ),
        (["RTX 4090 D"], [(147, BOTH, "strategy A")], ""),
        (["RTX 4090"], [], ""),
        ([], [(147, BOTH, "strategy A")], ""),
        ([], [(9, "Ryzen 9 9950X", "strategy cpu, 16 threads")], "~9 t/s"),
    ],
)
def test_a_spec_says_what_was_measured_on_cards_like_its_own(
    cards: list[str], measured: list[tuple[float, str, str]], said: str
) -> None:
    data = variables()
    data["host_hardware"]["gpus"] = [
        {
            "name": name.lower().replace(" ", "-"),
            "uuid": f"GPU-00000000-0000-4000-8000-{number:012}",
            "model": CARDS[name],
            "memory_mib": 24564,
            "compute_capability": "8.9",
        }
        for number, name in enumerate(cards)
    ]
    data["llm_services"][0]["strategy"] = "fit" if cards else "cpu"
    data["llm_profiles_test"]["small"]["speeds"] = [
        {"tokens_per_second": speed, "hardware": hardware, "layout": layout, "source": "a test"}
        for speed, hardware, layout in measured
    ]
    assert only_spec(data)["speed"] == said


def test_models_lie_in_the_usual_place_where_the_fleet_names_none() -> None:
    assert only_spec(variables(fleet_models_dir=None))["models_dir"] == "/srv/llamarig/models"
    assert only_spec(variables(fleet_models_dir="/data"))["files"][0]["path"] == "/data/small.gguf"


def test_a_host_without_services_is_planned_with_a_warning() -> None:
    plan = plan_host(HOST, variables(llm_services=[]))
    assert plan["specs"] == []
    assert plan["default_service"] is None
    assert plan["warnings"] == [f"{HOST} runs no service: llm_services is empty"]


def test_a_model_that_two_services_share_is_fetched_once() -> None:
    two = [*variables()["llm_services"], {"name": "code", "profile": "small", "strategy": "cpu", "port": 8090}]
    assert [s["name"] for s in plan_host(HOST, variables(llm_services=two))["sources"]] == ["small.gguf"]


def test_models_that_no_service_uses_are_not_fetched() -> None:
    data = variables()
    other = {"files": [{"name": "other.gguf", "bytes": 1, "sha256": "b" * 64}]}
    data["llm_profiles_more"] = {"other": other}
    assert [s["name"] for s in plan_host(HOST, data)["sources"]] == ["small.gguf"]


def test_an_unused_profile_may_be_incomplete() -> None:
    data = variables(llm_profiles_more={"draft": {"files": [{"name": "draft.gguf"}]}, "broken": {"filez": 1}})
    assert len(plan_host(HOST, data)["specs"]) == 1


def test_the_api_key_is_nowhere_but_in_the_secrets_of_the_manifest() -> None:
    plan = plan_host(HOST, variables(service={"api_key": KEY, "bind": "0.0.0.0"}))  # noqa: S104  what is tested
    secrets = plan["manifest"].pop("secrets")
    assert secrets == [
        {
            "path": "/etc/llamarig/keys/chat.key",
            "content": f"{KEY}\n",
            "owner": "root",
            "group": "llama-engine",
            "mode": "0640",
        }
    ]
    assert KEY not in json.dumps(plan)
    (spec,) = plan["specs"]
    assert spec["api_key_sha256"] == hashlib.sha256(KEY.encode()).hexdigest()
    assert after(spec["argv"], "--api-key-file") == "/run/secrets/api_key"


def test_another_api_key_is_another_spec() -> None:
    keys = (KEY, KEY + "x")
    hashes = {only_spec(variables(service={"api_key": key}))["spec_sha256"] for key in keys}
    assert len(hashes) == 2


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.8.8.8", "::1"])
def test_a_loopback_bind_needs_no_key(bind: str) -> None:
    assert only_spec(variables(service={"bind": bind}))["bind"] == bind


@pytest.mark.parametrize("name", ["x", None, ""])
def test_a_switch_to_a_service_that_the_host_does_not_run_is_refused(name: str | None) -> None:
    specs = [make_spec("chat").to_dict(), make_spec("code").to_dict()]
    with pytest.raises(ConfigError) as caught:
        require_service(HOST, specs, name)
    assert "one of: chat, code" in str(caught.value)
    require_service(HOST, specs, "code")


def test_two_names_of_one_option_in_one_layer_are_refused_because_either_could_be_meant() -> None:
    (problem,) = problems(variables(service={"server": {"c": 1024, "ctx_size": 2048}}))
    assert "ctx_size" in str(problem)
