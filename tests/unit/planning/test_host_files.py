from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from llamarig.config import paths
from llamarig.config.policy import Policy, Residency
from llamarig.planning.host_files import compose_project, manifest
from tests.support import ENGINE, KEY, make_spec, render

POLICY = Policy(default_service="chat")


def server(**changes: Any) -> dict[str, Any]:
    result = compose_project(make_spec(**changes))["services"]["server"]
    assert isinstance(result, dict)
    return result


def test_a_container_has_no_rights_it_does_not_need() -> None:
    project = server()
    assert project["user"] == f"{paths.ENGINE_UID}:{paths.ENGINE_UID}"
    assert project["read_only"] is True
    assert project["cap_drop"] == ["ALL"]
    assert project["security_opt"] == ["no-new-privileges:true"]
    assert [mount["target"] for mount in project["volumes"] if not mount["read_only"]] == [paths.CONTAINER_RUN]
    assert not any(mount["bind"]["create_host_path"] for mount in project["volumes"])


def test_systemd_restarts_and_compose_does_not() -> None:
    assert server()["restart"] == "no"


def test_the_memory_limit_is_the_specs_and_swap_does_not_widen_it() -> None:
    project = server(memory_mib=2000)
    assert (project["mem_limit"], project["memswap_limit"]) == ("2000m", "2000m")


def test_a_container_has_no_network_and_listens_in_a_directory_of_its_own() -> None:
    project = server(bind="10.0.0.5", port=8090)
    assert project["network_mode"] == "none"
    assert "ports" not in project
    sources = {mount["target"]: mount["source"] for mount in project["volumes"]}
    assert sources[paths.CONTAINER_RUN] == str(Path(paths.engine_socket("chat")).parent)
    assert Path(paths.CONTAINER_SOCKET).parent == Path(paths.CONTAINER_RUN)


def test_a_container_waits_at_the_gate_of_its_own_service() -> None:
    project = server()
    sources = {mount["target"]: mount["source"] for mount in project["volumes"]}
    assert project["entrypoint"] == ["/bin/sh", "/run/engine-gate"]
    assert sources["/run/engine-gate"] == "/usr/local/lib/llamarig/engine-gate"
    assert sources[paths.CONTAINER_GATE] == "/run/llamarig/gates/chat"


def test_the_key_file_is_mounted_where_the_engine_looks_for_it() -> None:
    targets = {m["target"]: m["source"] for m in server(api_key_file="/etc/llamarig/keys/chat.key")["volumes"]}
    assert targets["/models"] == "/srv/llamarig/models"
    assert targets[paths.CONTAINER_KEY] == "/etc/llamarig/keys/chat.key"
    assert paths.CONTAINER_KEY not in {m["target"] for m in server()["volumes"]}


def test_a_dollar_in_an_argument_is_doubled_for_compose() -> None:
    assert server(argv=["--alias", "$HOME ${X} $$"])["command"] == ["--alias", "$$HOME $${X} $$$$"]


def test_the_spec_hash_is_a_label_so_that_a_changed_spec_is_another_container() -> None:
    spec = make_spec()
    project = compose_project(spec)["services"]["server"]
    assert project["labels"] == {"llamarig.service": "chat", "llamarig.spec": spec.spec_sha256}


def test_the_manifest_names_four_files_a_service_and_sweeps_the_rest() -> None:
    result = manifest([make_spec("chat"), make_spec("code", port=8090)], {}, POLICY, ENGINE)
    written = {entry["path"] for entry in result["files"]}
    assert written == {
        "/etc/llamarig/host.json",
        *(f"/etc/llamarig/services.d/{name}.json" for name in ("chat", "code")),
        *(f"/etc/llamarig/compose/{name}/compose.yaml" for name in ("chat", "code")),
        *(f"/etc/systemd/system/llama-{name}.service" for name in ("chat", "code")),
        *(f"/etc/systemd/system/llama-{name}.slice" for name in ("chat", "code")),
    }
    swept = {entry["directory"] for entry in [*result["prune"], *result["prune_units"]]}
    assert {path.rsplit("/", 1)[0] for path in written if "/compose/" not in path} - {paths.ETC} <= swept
    assert result["secrets"] == []


def unit_of(**changes: Any) -> dict[str, Any]:
    result = manifest([make_spec(**changes)], {}, POLICY, ENGINE)
    unit = next(entry["vars"]["unit"] for entry in result["files"] if entry["template"] == "llama.service.j2")
    assert isinstance(unit, dict)
    return unit


def test_a_unit_is_given_longer_to_stop_than_its_engine_to_end() -> None:
    unit = unit_of()
    assert unit["stop_seconds"] > unit["grace_seconds"] + 3 + 5
    assert server()["stop_grace_period"] == f"{unit['grace_seconds']}s"


def test_how_long_requests_may_go_on_is_the_daemons_and_changes_no_file_but_the_spec() -> None:
    assert unit_of(drain_seconds=400) == unit_of()
    assert compose_project(make_spec(drain_seconds=400)) == compose_project(make_spec())


def test_where_clients_reach_a_service_is_the_doors_and_changes_no_file_but_the_spec() -> None:
    assert unit_of(port=9000, bind="::1") == unit_of()
    assert compose_project(make_spec(port=9000, bind="::1")) == compose_project(make_spec())


def test_a_unit_does_not_start_with_the_host_and_systemd_does_not_give_it_up() -> None:
    """The daemon decides both."""
    entry = {"template": "llama.service.j2", "vars": {"unit": unit_of()}}
    lines = render(entry).splitlines()
    assert "[Install]" not in lines
    assert "StartLimitIntervalSec=0" in lines
    assert "Restart=on-failure" in lines


def test_the_host_file_has_the_policy() -> None:
    policy = Policy(default_service="chat", services={"chat": Residency(pinned=True)}, minimum_seconds=60)
    host = manifest([make_spec()], {}, policy, ENGINE)["files"][0]["vars"]["host"]
    assert (host["default_service"], Policy.from_dict(host["policy"])) == ("chat", policy)


def test_the_manifest_is_plain_data() -> None:
    result = manifest([make_spec(api_key_file="/etc/llamarig/keys/chat.key")], {"chat": KEY}, POLICY, ENGINE)
    assert yaml.safe_load(yaml.safe_dump(result)) == result
