"""Switching by tag and by command; every failure leaves the old service serving."""

from __future__ import annotations

import json

from tests.acceptance.box import Box, changes, playbook

PHASES = ["validate", "prepare", "drain", "stop", "free", "start", "load", "completion", "placement", "commit"]


def test_switch_by_tag(alpha: Box) -> None:
    done = playbook("site.yml", "--tags", "switch", "-e", "service=moe", "--limit", "alpha")
    assert done.returncode == 0, done.stdout
    assert "moe serves at http://127.0.0.1:8080" in done.stdout
    assert alpha.active() == "moe"
    assert len(set(alpha.answers(8080))) > 1
    alpha.wait_until("nothing but moe is there", lambda: alpha.only("moe"), 30)


def test_site_without_the_tag_leaves_the_choice_alone(alpha: Box) -> None:
    done = playbook("site.yml", "--limit", "alpha")
    assert changes(done.stdout) == {"alpha": 0}
    assert alpha.active() == "moe"


def test_switch_by_command(alpha: Box) -> None:
    outcome = alpha.llamarig("switch", "dense")
    assert outcome["exit"] == 0
    assert (outcome["data"]["active"], outcome["data"]["left"]) == (["dense"], ["moe"])
    assert list(outcome["data"]["phases"]) == PHASES
    assert len(set(alpha.answers(8080))) > 1


def test_switching_to_the_active_service_changes_nothing(alpha: Box) -> None:
    assert alpha.llamarig("switch", "dense")["data"]["changed"] is False


def test_an_unknown_service_is_said_with_the_known_ones(alpha: Box) -> None:
    outcome = alpha.llamarig("switch", "nonsense")
    assert outcome["exit"] == 3
    assert "dense" in outcome["error"]["remedy"]


def test_an_unknown_service_by_tag_touches_no_host(alpha: Box) -> None:
    done = playbook("site.yml", "--tags", "switch", "-e", "service=nonsense")
    assert done.returncode != 0
    assert "'nonsense'" in done.stdout
    assert "dense, moe" in done.stdout
    assert alpha.active() == "dense"


def test_a_service_that_the_engine_refuses_brings_back_the_old_one(alpha: Box) -> None:
    outcome = alpha.llamarig("switch", "refused")
    assert outcome["exit"] == 1
    assert outcome["error"]["serving"] == "dense"
    assert "dense serves again" in outcome["error"]["message"]
    assert any("bogus" in line for line in outcome["error"]["log_lines"])
    assert alpha.is_healthy()


def test_damaged_weights_that_load_are_found_and_the_old_service_is_back(alpha: Box) -> None:
    outcome = alpha.llamarig("switch", "damaged")
    assert outcome["exit"] == 1
    assert "one token over and over" in outcome["error"]["message"]
    assert alpha.active() == "dense"
    assert len(set(alpha.answers(8080))) > 1


def test_a_failed_switch_by_tag_fails_the_play_and_says_why(alpha: Box) -> None:
    done = playbook("site.yml", "--tags", "switch", "-e", "service=damaged", "--limit", "alpha")
    assert done.returncode != 0
    assert "dense serves again" in done.stdout
    assert alpha.is_healthy()


def test_a_missing_model_is_refused_while_the_old_service_goes_on(alpha: Box) -> None:
    path = "/srv/llamarig/models/lab/tiny-moe.gguf"
    alpha.run(f"sudo mv {path} {path}.away")
    before = alpha.run("systemctl show -p ActiveEnterTimestampMonotonic llama-dense.service")
    outcome = alpha.llamarig("switch", "moe")
    alpha.run(f"sudo mv {path}.away {path}")
    assert outcome["exit"] == 1
    assert "nothing was touched" in outcome["error"]["message"]
    assert alpha.run("systemctl show -p ActiveEnterTimestampMonotonic llama-dense.service") == before


def test_every_character_arrives_in_the_engines_arguments(alpha: Box) -> None:
    assert alpha.llamarig("switch", "odd")["exit"] == 0
    pid = alpha.run("sudo docker inspect --format '{{.State.Pid}}' llama-odd")
    raw = alpha.run(f"sudo python3 -c \"print(ascii(open('/proc/{pid}/cmdline','rb').read().decode()))\"")
    arguments = raw.encode().decode("unicode_escape")[1:-1].split("\0")
    spec = json.loads(alpha.run("cat /etc/llamarig/services.d/odd.json"))
    assert arguments[1:-1] == spec["argv"]
    alias = arguments[arguments.index("--alias") + 1]
    assert alias == "a $HOME ${x} $$ %n %% \"q\" 'p' \\ \\n `id` ; | & * {{ é"
    assert arguments[arguments.index("--chat-template-kwargs") + 1] == '{"note": "two\\nlines, $5 and 100%"}'


def test_the_history_tells_all_of_it(alpha: Box) -> None:
    events = alpha.llamarig("history", "-n", "100")["data"]["events"]
    outcomes = {(event["service"], event["outcome"]) for event in events}
    assert {("moe", "ok"), ("refused", "failed"), ("damaged", "failed"), ("moe", "refused"), ("odd", "ok")} <= outcomes
