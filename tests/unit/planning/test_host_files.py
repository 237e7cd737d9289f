from __future__ import annotations

from typing import Any

import yaml

from llamarig.config import paths
from llamarig.planning.host_files import compose_project, manifest
from tests.support import ENGINE, KEY, make_spec


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
    assert all(mount["read_only"] for mount in project["volumes"])


def test_systemd_restarts_and_compose_does_not() -> None:
    assert server()["restart"] == "no"


def test_the_memory_limit_is_the_specs_and_swap_does_not_widen_it() -> None:
    project = server(memory_mib=2000)
    assert (project["mem_limit"], project["memswap_limit"]) == ("2000m", "2000m")


def test_the_port_is_published_on_the_specs_address_only() -> None:
    assert server(bind="10.0.0.5", port=8090)["ports"] == ["10.0.0.5:8090:8080"]
    assert server(bind="::1", port=8090)["ports"] == ["[::1]:8090:8080"]


def test_the_key_file_is_mounted_where_the_engine_looks_for_it() -> None:
    targets = {m["target"]: m["source"] for m in server(api_key_file="/etc/llamarig/keys/chat.key")["volumes"]}
    assert targets == {"/models": "/srv/llamarig/models", paths.CONTAINER_KEY: "/etc/llamarig/keys/chat.key"}
    assert paths.CONTAINER_KEY not in {m["target"] for m in server()["volumes"]}


def test_a_dollar_in_an_argument_is_doubled_for_compose() -> None:
    assert server(argv=["--alias", "$HOME ${X} $$"])["command"] == ["--alias", "$$HOME $${X} $$$$"]


def test_the_spec_hash_is_a_label_so_that_a_changed_spec_is_another_container() -> None:
    spec = make_spec()
    project = compose_project(spec)["services"]["server"]
    assert project["labels"] == {"llamarig.service": "chat", "llamarig.spec": spec.spec_sha256}


def test_the_manifest_names_four_files_a_service_and_sweeps_the_rest() -> None:
    result = manifest([make_spec("chat"), make_spec("code", port=8090)], {}, "chat", ENGINE)
    written = {entry["path"] for entry in result["files"]}
    assert written == {
        "/etc/llamarig/host.json",
        *(f"/etc/llamarig/services.d/{name}.json" for name in ("chat", "code")),
        *(f"/etc/llamarig/compose/{name}/compose.yaml" for name in ("chat", "code")),
        *(f"/etc/systemd/system/llama-{name}.service" for name in ("chat", "code")),
        *(f"/etc/systemd/system/llama-{name}.slice" for name in ("chat", "code")),
    }
    swept = {entry["directory"] for entry in result["prune"]}
    assert {path.rsplit("/", 1)[0] for path in written if "/compose/" not in path} - {paths.ETC} <= swept
    assert result["secrets"] == []


def test_a_unit_is_given_longer_to_stop_than_its_engine_to_drain() -> None:
    result = manifest([make_spec(drain_seconds=40)], {}, "chat", ENGINE)
    unit = next(e["vars"]["unit"] for e in result["files"] if e["template"] == "llama.service.j2")
    assert unit["drain_seconds"] == 40
    assert unit["stop_seconds"] > 40


def test_the_manifest_is_plain_data() -> None:
    result = manifest([make_spec(api_key_file="/etc/llamarig/keys/chat.key")], {"chat": KEY}, "chat", ENGINE)
    assert yaml.safe_load(yaml.safe_dump(result)) == result
