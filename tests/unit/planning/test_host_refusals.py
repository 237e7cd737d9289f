"""Mistakes that are not one service's own: of the host, of the fleet, of several records together."""

from __future__ import annotations

import pytest

from llamarig.errors import ConfigError
from llamarig.planning.intent import plan_host
from tests.support import HOST, problems, variables, without


def test_a_profile_that_two_fragments_define_is_refused_by_both_names() -> None:
    (problem,) = problems(variables(llm_profiles_zzz=variables()["llm_profiles_test"]))
    assert problem.key == "profile small"
    assert problem.message == "is defined twice, in llm_profiles_test and llm_profiles_zzz"
    assert "rename or remove" in problem.remedy


def test_two_profiles_that_mean_different_files_by_one_name_are_refused() -> None:
    data = variables(llm_profiles_more={"other": {"files": [{"name": "small.gguf", "bytes": 7, "sha256": "b" * 64}]}})
    data["llm_services"].append(data["llm_services"][0] | {"name": "code", "profile": "other", "port": 8090})
    found = problems(data)
    assert any("small.gguf" in str(problem) for problem in found)


def test_a_default_service_that_is_not_declared_is_refused() -> None:
    (problem,) = problems(variables(llm_default_service="code"))
    assert problem.key == "llm_default_service"
    assert problem.message == "there is no service 'code'"
    assert problem.remedy == "use one of: chat"


def test_an_inventory_without_the_fleet_layer_is_refused_with_the_link_that_is_missing() -> None:
    (problem,) = problems(without(variables(), "fleet_layer_loaded"))
    assert problem.key == "group_vars"
    assert "the fleet layer is not loaded" in problem.message
    assert "ln -s ../../group_vars" in problem.remedy


@pytest.mark.parametrize(
    ("variable", "remedy"),
    [("llm_servces", "did you mean llm_services?"), ("llm_zzz", "begin with neither llm_ nor fleet_")],
)
def test_a_variable_that_looks_like_llamarigs_and_is_not_is_refused(variable: str, remedy: str) -> None:
    (problem,) = problems(variables(**{variable: []}))
    assert (problem.key, problem.message) == (variable, "is no variable that llamarig knows")
    assert remedy in problem.remedy


def test_a_host_with_broken_hardware_is_told_of_its_other_mistakes_too() -> None:
    data = variables(host_hardware={"memory_mib": "much"}, service={"port": 8081, "server": {"ctx_sise": 1}})
    assert [problem.key for problem in problems(data)] == [
        "host_hardware.memory_mib",
        "host_hardware.cpu_threads",
        "port",
        "server.ctx_sise",
    ]


def test_a_default_service_that_is_broken_itself_is_one_problem() -> None:
    (problem,) = problems(variables(llm_default_service="chat", service={"port": 80}))
    assert problem.key == "llm_services[0].port"


def test_a_host_that_declares_no_hardware_is_told_to_declare_it() -> None:
    (problem,) = problems(without(variables(), "host_hardware"))
    assert (problem.key, problem.message) == ("host_hardware", "is not declared")
    assert problem.remedy == f"declare host_hardware in host_vars/{HOST}"


@pytest.mark.parametrize("value", ["chat", {"name": "chat"}, 1])
def test_services_that_are_no_list_are_refused(value: object) -> None:
    (problem,) = problems(variables(llm_services=value))
    assert (problem.key, problem.message) == ("llm_services", "must be a list of services")


@pytest.mark.parametrize("value", [[{"small": {}}], "small", 1])
def test_a_catalogue_that_is_no_mapping_is_refused_by_its_name(value: object) -> None:
    found = problems(variables(llm_profiles_test=value))
    assert any("llm_profiles_test" in problem.key for problem in found)


def test_a_wrong_fleet_setting_is_reported_under_the_variable_that_holds_it() -> None:
    (problem,) = problems(variables(llm_server_defaults={"ctx_sise": 1}))
    assert problem.key == "llm_server_defaults.ctx_sise"
    (problem,) = problems(variables(fleet_models_dir="models"))
    assert "fleet_models_dir" in str(problem)


def test_problems_of_all_kinds_come_at_once() -> None:
    data = variables(llm_default_service="nobody", llm_server_defaults={"ctx_sise": 1})
    good = data["llm_services"][0]
    data["llm_services"] += [
        good | {"name": "code", "bind": "10.0.0.5", "idle_minutes": 5, "pinned": True},
        good | {"name": "draft", "port": 8081, "profile": "gone"},
        good | {"name": "Bad Name", "port": 8091},
        good | {"name": "hungry", "port": 8092, "memory_mib": 9999, "server": {"jinja": "on"}},
        good | {"name": "bare", "port": 8093, "profile": "bare"},
    ]
    data["llm_profiles_test"]["bare"] = {"files": [{"name": "bare.gguf"}]}
    with pytest.raises(ConfigError) as caught:
        plan_host(HOST, data)
    text = str(caught.value)
    for expected in (
        "service 'chat': llm_server_defaults.ctx_sise: llama-server has no option",
        "service 'code': bind: services 'chat' and 'code' share port 8080, with bind 127.0.0.1 and 10.0.0.5",
        "service 'code': idle_minutes: 5, but the service is pinned as well",
        "service 'code': bind: 10.0.0.5 is reachable from the network",
        "service 'draft': port: 8081 belongs to the management API",
        "service 'draft': profile: there is no profile 'gone'",
        "service 'Bad Name': llm_services[3].name: 'Bad Name' is not a valid name",
        "service 'hungry': memory_mib: 9999 MiB leaves less than the reserve",
        "service 'hungry': server.jinja: jinja is a switch",
        "service 'bare': profile bare, file bare.gguf: has no sha256 and bytes",
        "llm_default_service: there is no service 'nobody'",
    ):
        assert expected in text
    assert text.startswith(f"{len(caught.value.problems)} problems in the inventory, nothing was touched:")
    assert text.count("remedy: ") == len(caught.value.problems)
