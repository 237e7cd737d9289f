"""The engine as judge: a service is judged before it starts, measured when it serves, refused where it cannot fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.acceptance.box import ROOT, Box, changes, playbook

RECORDS = "/var/lib/llamarig/memory"
MEASURED = "/var/lib/llamarig/daemon/memory"
SERVICES = {"dense", "moe", "damaged", "refused", "odd"}
# A cache of 2 GiB and a mask of twice that, on a host of 2: no plan of a model without a shape can see it.
HUGE = 4 << 20


@pytest.fixture(autouse=True)
def dense(alpha: Box) -> None:
    if alpha.active() != "dense":
        assert alpha.llamarig("switch", "dense")["exit"] == 0


def record(box: Box, service: str, directory: str = RECORDS) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box.run(f"sudo cat {directory}/{service}.json"))
    return found


def started(box: Box, service: str = "dense") -> str:
    return box.run(f"sudo docker inspect --format '{{{{.State.StartedAt}}}}' llama-{service} 2>/dev/null || true")


def unshaped() -> dict[str, Any]:
    """The tiny dense model as a file that lies on the host already, whose header nobody can read while planning."""
    catalogue = yaml.safe_load((ROOT / "group_vars/all/models/lab.yml").read_text(encoding="utf-8"))
    files = catalogue["llm_profiles_lab"]["tiny-dense"]["files"]
    there = [{key: value for key, value in item.items() if key != "path"} for item in files]
    return {"tiny-unshaped": {"description": "no shape", "files": there, "server": {"cache_ram": 0}}}


def site(services: list[dict[str, Any]]) -> tuple[int, str]:
    values = {"llm_services": services, "llm_default_service": "dense", "llm_profiles_memory": unshaped()}
    done = playbook("site.yml", "--limit", "alpha", "-e", json.dumps(values))
    return done.returncode, done.stdout


def service(name: str, port: int, context: int) -> dict[str, Any]:
    server = {"ctx_size": context}
    return {"name": name, "profile": "tiny-unshaped", "strategy": "cpu", "port": port, "server": server}


def test_every_service_was_judged_by_its_own_engine_before_it_served(alpha: Box) -> None:
    assert {path.removesuffix(".json") for path in alpha.run(f"ls {RECORDS}").split()} == SERVICES
    for name in SERVICES - {"refused"}:
        judged = record(alpha, name)["known"]
        assert judged["answer"] == "estimated"
        assert judged["corrected"]["devices"] == []
        assert judged["corrected"]["host"]["compute"] > 0


def test_what_the_engine_would_refuse_at_its_start_is_remembered_and_fails_no_run(alpha: Box) -> None:
    judged = record(alpha, "refused")["known"]
    assert judged["answer"] == "refused"
    assert "Invalid type for KV override: bogus" in judged["text"]


def test_what_serves_was_measured_and_is_what_the_engine_said(alpha: Box) -> None:
    judged, read = record(alpha, "dense"), record(alpha, "dense", MEASURED)
    version = alpha.llamarig("status")["data"]["active"][0]["version"]
    assert judged["spec_sha256"] == read["spec_sha256"] == version
    said, measured = judged["known"]["corrected"]["host"], read["known"]["parts"]["host"]
    for part in ("weights", "cache", "compute"):
        assert abs(said[part] - measured[part]) < 64
    assert measured["cache"] > 0


def test_the_doctor_holds_one_against_the_other(alpha: Box) -> None:
    (check,) = [check for check in alpha.llamarig("doctor")["data"]["checks"] if check["name"] == "memory-plan"]
    assert check["status"] == "ok"
    assert "dense host" in check["message"]


def test_plan_check_asks_anew_and_says_it_in_a_table(alpha: Box) -> None:
    answer = alpha.llamarig("plan", "dense", "--check")
    assert answer["exit"] == 0
    (told,) = answer["data"]["services"]
    assert told["asked"] is True
    (host,) = told["devices"]
    assert (host["where"], host["verdict"]) == ("host", "ok")
    assert host["engine"] is not None
    assert host["measured"] is not None
    table = alpha.run("sudo llamarig plan dense --check")
    assert "PREDICTED" in table
    assert "dense" in table


def test_of_all_services_it_says_which_the_engine_refuses(alpha: Box) -> None:
    done = alpha.attempt("sudo llamarig plan --check")
    assert done.returncode == 6
    assert "Invalid type for KV override: bogus" in done.stdout
    assert "asking the engine about moe" in done.stderr


def test_only_root_may_ask(alpha: Box) -> None:
    done = alpha.attempt("llamarig plan --check")
    assert done.returncode == 4
    assert "remedy: sudo llamarig plan --check" in done.stderr


def test_nobody_is_left_over_and_the_service_did_not_notice(alpha: Box) -> None:
    before = started(alpha)
    alpha.llamarig("plan", "--check")
    alpha.wait_until("nothing but dense is there", lambda: alpha.only("dense"), 30)
    assert started(alpha) == before


def test_a_run_with_nothing_to_change_asks_nobody(alpha: Box) -> None:
    before = alpha.run(f"stat -c '%n %Y' {RECORDS}/*.json")
    done = playbook("site.yml", "--limit", "alpha")
    assert done.returncode == 0, done.stdout
    assert changes(done.stdout) == {"alpha": 0}
    assert alpha.run(f"stat -c '%n %Y' {RECORDS}/*.json") == before


def test_a_service_that_cannot_fit_is_refused_by_the_engine_and_what_runs_goes_on(alpha: Box) -> None:
    before = started(alpha)
    dense = {"name": "dense", "profile": "tiny-dense", "strategy": "cpu", "port": 8080}
    code, output = site([dense, service("huge", 8099, HUGE)])
    assert code != 0
    assert "alpha, service 'huge': host: the engine needs" in output
    assert "ctx_size" in output
    assert started(alpha) == before
    outcome = alpha.llamarig("switch", "huge")
    assert outcome["exit"] == 1
    assert "nothing was touched" in outcome["error"]["message"]
    assert started(alpha) == before


def test_the_active_service_goes_on_where_its_new_layout_cannot_fit_also_after_a_crash(alpha: Box) -> None:
    assert playbook("site.yml", "--limit", "alpha").returncode == 0
    before, version = started(alpha), alpha.llamarig("status")["data"]["active"][0]["version"]
    code, output = site([service("dense", 8080, HUGE)])
    assert code != 0
    assert "what serves goes on: dense" in output
    assert started(alpha) == before
    alpha.run("sudo docker kill --signal KILL llama-dense")
    alpha.wait_until("dense is back", lambda: alpha.serves() and started(alpha) not in {"", before}, 60)
    assert alpha.llamarig("status")["data"]["active"][0]["version"] == version
    assert len(set(alpha.answers(8080))) > 1


def test_the_inventory_as_it_was_makes_all_well_again(alpha: Box) -> None:
    done = playbook("site.yml", "--limit", "alpha")
    assert done.returncode == 0, done.stdout
    assert {path.removesuffix(".json") for path in alpha.run(f"ls {RECORDS}").split()} == SERVICES
    assert alpha.is_healthy()
