"""Clients stream while the host switches to and fro: none that was accepted is cut, the others are told to wait."""

from __future__ import annotations

import json
import subprocess

from tests.acceptance.switching.rig import PLACE, Rig

SWITCHES = 20
REQUESTS = 500


def test_five_hundred_streams_over_twenty_switches(rig: Rig) -> None:
    rig.calm()
    command = f"python3 {PLACE}/stream.py 8 {REQUESTS} 64"
    ssh = rig.box.ssh(command)
    with subprocess.Popen(ssh, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as clients:
        for number in range(SWITCHES):
            outcome = rig.box.llamarig("switch", ("moe", "dense")[number % 2])
            assert outcome["exit"] == 0, outcome
            assert not any("cut" in text for text in outcome["data"].get("said", ()))
        rig.box.run("touch /tmp/llamarig-enough")
        out, _ = clients.communicate(timeout=120)
    rig.box.run("rm -f /tmp/llamarig-enough")
    said = [json.loads(line) for line in out.splitlines()]
    accepted = [one for one in said if one["status"] == 200]
    refused = [one for one in said if one["status"] != 200]
    assert len(accepted) >= REQUESTS, len(accepted)
    assert [one for one in accepted if not one["whole"] or one["tokens"] < 64] == []
    assert refused, "no switch was ever in a client's way: this proves nothing"
    assert {(one["status"], one["retry_after"]) for one in refused} == {(503, "5")}
    rig.wait_until_whole(30)
