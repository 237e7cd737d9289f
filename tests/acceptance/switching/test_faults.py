"""The table of faults: whatever happens to a switch, the old or the new service answers within its bound.

After each fault: exactly one engine runs, of the service that the daemon says is active; beside its container there is
at most one more, which waits at its gate; a completion through the door is no garbage; the history says how the switch
ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from tests.acceptance.switching.rig import Rig, quoted

MODEL = "/srv/llamarig/models/lab/copy.gguf"
KILL_DAEMON = "systemctl kill --signal KILL llamarigd"
KILL_DOCKER = "pkill -KILL dockerd"
# One that ended three times within a minute systemd starts no more; here each time stands for itself.
OFTEN = "systemctl reset-failed docker.service"
KILL_CONTAINERD = "pkill -KILL -x containerd"
KILL_ENGINE = "pkill -KILL -u llama-engine llama-server"
KILL_DOOR = "pkill -KILL -u llamarig-door haproxy"
KILL_CONTAINER = "docker rm --force llama-moe"


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        what: happens, in words.
        command: what makes it so, run as root on the host as soon as the phase begins.
        phase: of a switch to ``service``.
        seconds: within which the host must be whole again.
        outcomes: how the history may say that the switch ended; one that is struck late comes to its end. None where
            the history cannot be written.
        reason: what the history must name where the switch failed.
        before, after: commands that make ready and clear up.
        waits: whether moe's container waits at its gate already, or is yet to be made.

    """

    what: str
    command: str
    phase: str
    seconds: float = 60
    service: str = "moe"
    outcomes: tuple[str, ...] = ("ok", "failed", "interrupted")
    reason: str = ""
    before: str = ""
    after: str = ""
    waits: bool = False


def at(what: str, command: str, *phases: str, seconds: float = 60, **more: Any) -> list[Fault]:
    return [Fault(what, command, phase, seconds, **more) for phase in phases]


def warm(what: str, command: str, *phases: str, **more: Any) -> list[Fault]:
    return at(f"{what} with the other one waiting", command, *phases, waits=True, **more)


# A file system of its own for the daemon's state, with its files in it and no room for more.
STATE = "/var/lib/llamarig/daemon"
FULL = "; ".join(
    [
        "mount -t tmpfs -o size=128k,mode=755,uid=$(id -u llamarig),gid=$(id -g llamarig) full /mnt",
        f"cp -a {STATE}/state.json /mnt/",
        f"mount --bind /mnt {STATE}",
        f"dd if=/dev/zero of={STATE}/filler bs=1k status=none",
        "systemctl restart llamarigd",
    ]
)
ROOM = f"umount {STATE}; umount /mnt; systemctl restart llamarigd"
# The job that runs, as the daemon numbers it.
JOB = "llamarig jobs | sed -n 's/^\\([0-9a-f]\\{8\\}\\).*running.*/\\1/p'"
UNIT = "/etc/systemd/system/llama-moe.service"
MASK = f"mv {UNIT} /var/tmp/ && ln -s /dev/null {UNIT} && systemctl daemon-reload"
UNMASK = f"mv -f /var/tmp/llama-moe.service {UNIT} && systemctl daemon-reload"
# While the old engine takes its time to end, the new one's container gets a limit that it cannot live with.
SHRINK = (
    "pkill -STOP -u llama-engine llama-server;"
    " until docker update --memory 6m --memory-swap 6m llama-moe; do sleep 0.1; done"
)
# The engine of dense, while the other is made ready: STOP and TERM alike must end it.
FREEZE_OLD = "pkill -STOP -u llama-engine llama-server"
# The daemon alone sees another clock: the machine's own is not a test's to set.
DROP_IN = "/run/systemd/system/llamarigd.service.d/clock.conf"
CLOCK = "/run/llamarig-test-clock"
FAKED = f"LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE={CLOCK} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
CLOCKED = "; ".join(
    [
        f"mkdir -p {DROP_IN.rpartition('/')[0]}; echo +0d > {CLOCK}",
        f"printf '[Service]\\nEnvironment={FAKED}\\n' $(find /usr/lib -name libfaketime.so.1) > {DROP_IN}",
        "systemctl daemon-reload",
        "systemctl restart llamarigd",
        # The fault would be none if the daemon did not see it.
        "grep -q faketime /proc/$(systemctl show -p MainPID --value llamarigd)/maps",
    ]
)
UNCLOCKED = f"rm -f {DROP_IN} {CLOCK}; systemctl daemon-reload; systemctl restart llamarigd"
# Somebody else has the port of the API, or takes that of the services while nobody holds it.
TAKE = "systemd-run --quiet --collect --unit=thief --property=SuccessExitStatus=143"
API_TAKEN = "; ".join(
    [
        "systemctl stop llamarigd",
        f"{TAKE} python3 -m http.server --bind 127.0.0.1 8081",
        "until curl -s 127.0.0.1:8081 >/dev/null; do sleep 0.1; done",
        "systemctl start llamarigd",
    ]
)
API_FREE = "systemctl stop thief; systemctl restart llamarigd"
DOOR_TAKEN = f"{KILL_DOOR}; {TAKE} --property=RuntimeMaxSec=5 python3 -m http.server --bind 127.0.0.1 8080; sleep 1"
ETC = "/etc/llamarig"
TEAR = f"truncate -s 9 {ETC}/services.d"
COPY = f"rm -rf /var/tmp/etc; cp -a {ETC} /var/tmp/etc"
BACK = f"cp -a /var/tmp/etc/. {ETC}/"
FAULTS = [
    *at("the daemon is killed", KILL_DAEMON, "prepare", "drain", "stop", "load", "completion", "commit"),
    *at("the engine is killed", KILL_ENGINE, "prepare", "drain", "load", "completion", "commit"),
    *at("Docker is killed", KILL_DOCKER, "prepare", "drain", "load", "completion", "commit", seconds=120, before=OFTEN),
    *at("containerd is killed", KILL_CONTAINERD, "prepare", "drain", "load", "completion", "commit", seconds=120),
    *at("the door is killed", KILL_DOOR, "prepare", "drain", "load", "commit"),
    *at("the new container is removed", KILL_CONTAINER, "prepare", "load", "completion"),
    *at("Docker is restarted", "systemctl restart docker", "prepare", "load", seconds=120, before=OFTEN),
    *at("the daemon is restarted", "systemctl restart llamarigd", "prepare", "load"),
    *at("D-Bus is restarted", "systemctl reload dbus", "prepare", "load"),
    *at("the journal is restarted", "systemctl restart systemd-journald", "load"),
    *at("systemd reads its units anew", "systemctl daemon-reload", "prepare", "load"),
    *at("the new unit is stopped by hand", "systemctl stop llama-moe.service", "prepare", "load"),
    *warm("the daemon is killed", KILL_DAEMON, "prepare", "stop", "start", "commit"),
    *warm("Docker is killed", KILL_DOCKER, "prepare", "drain", "stop", "load", seconds=120, before=OFTEN),
    *warm("containerd is killed", KILL_CONTAINERD, "prepare", "stop", "load", seconds=120),
    *warm("the container that waits is removed", KILL_CONTAINER, "prepare", "drain", "stop"),
    *warm("what waits is killed", "pkill -KILL -f engine-gate", "prepare", "drain", "stop"),
    *warm("the unit that waits is stopped by hand", "systemctl stop llama-moe.service", "prepare", "drain", "stop"),
    *at("the clock jumps a day ahead", f"echo +1d > {CLOCK}", "drain", "load", before=CLOCKED, after=UNCLOCKED),
    *at("the clock jumps a day back", f"echo -1d > {CLOCK}", "drain", "load", before=CLOCKED, after=UNCLOCKED),
    *at("the port of the API is somebody else's", "true", "load", before=API_TAKEN, after=API_FREE),
    *at(
        "the services' port is taken for a while", DOOR_TAKEN, "load", seconds=90, after="systemctl stop thief || true"
    ),
    *at("the host's file is torn", f": > {ETC}/host.json", "prepare", "load", before=COPY, after=BACK),
    *at("the new spec is torn", f"truncate -s 9 {ETC}/services.d/moe.json", "prepare", "load", before=COPY, after=BACK),
    *at(
        "the old spec is torn", f"truncate -s 9 {ETC}/services.d/dense.json", "prepare", "load", before=COPY, after=BACK
    ),
    *at("the old unit is stopped by hand", "systemctl stop --no-block llama-dense.service", "prepare", "drain"),
    Fault("the old engine hangs", FREEZE_OLD, "drain", 90),
    Fault(
        "the new engine hangs while it loads",
        "for i in $(seq 200); do pkill -STOP -u llama-engine llama-server && break; sleep 0.01; done",
        "start",
        120,
    ),
    Fault("the new unit is masked", "true", "commit", before=MASK, after=UNMASK, outcomes=("failed",), reason="masked"),
    Fault(
        "the engine refuses its options",
        "true",
        "commit",
        service="refused",
        outcomes=("failed",),
        reason="did not come up",
    ),
    Fault("the weights are zeroed", "true", "commit", service="damaged", outcomes=("failed",), reason="over and over"),
    Fault("the container has too little memory", SHRINK, "prepare", 90, outcomes=("failed",), reason="1536 MiB"),
    Fault(
        "the model is missing",
        "true",
        "commit",
        service="copy",
        before=f"mv {MODEL} {MODEL}.away",
        after=f"mv {MODEL}.away {MODEL}",
        outcomes=("refused",),
    ),
    Fault(
        "the model is cut short",
        "true",
        "commit",
        service="copy",
        before=f"cp -a {MODEL} {MODEL}.away; truncate -s 100000 {MODEL}",
        after=f"mv {MODEL}.away {MODEL}",
        outcomes=("refused",),
    ),
    Fault(
        "the model's header is torn",
        "true",
        "commit",
        service="copy",
        before=f"cp -a {MODEL} {MODEL}.away; dd if=/dev/urandom of={MODEL} bs=64 count=1 conv=notrunc status=none",
        after=f"mv {MODEL}.away {MODEL}",
        outcomes=("failed",),
    ),
    Fault("the disk of the state is full", "true", "commit", before=FULL, after=ROOM, outcomes=()),
]


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda fault: f"{fault.what}, {fault.service}, {fault.phase}".replace(" ", "-")
)
def test_the_old_or_the_new_service_answers(rig: Rig, fault: Fault) -> None:
    rig.calm(waits=fault.waits)
    assert rig.box.waiting() == (["moe"] if fault.waits else [])
    before = len(rig.events())
    try:
        if fault.before:
            rig.box.run(f"sudo sh -c {quoted(fault.before)}")
        said = rig.strike(fault.service, fault.phase, fault.command)
        assert said.startswith("job"), said
        rig.wait_until_whole(fault.seconds)
    finally:
        if fault.after:
            rig.box.run(f"sudo sh -c {quoted(fault.after)}")
    if fault.after:
        rig.wait_until_whole(fault.seconds)
    if not fault.outcomes:
        return
    told = [event for event in rig.events()[before:] if event["service"] == fault.service and event["kind"] == "switch"]
    assert told, "the history does not know of the switch"
    assert told[0]["outcome"] in fault.outcomes, told
    assert told[0]["outcome"] == "ok" or fault.reason in told[0]["reason"] != ""


@pytest.mark.parametrize("phase", ["prepare", "drain", "stop", "load", "completion", "commit"])
@pytest.mark.parametrize("grace", [0, 30], ids=["power-cut", "reboot"])
def test_a_reboot_in_any_phase_ends_with_a_service(rig: Rig, phase: str, grace: int) -> None:
    rig.calm(waits=False)
    rig.reboot("moe", phase, grace_seconds=grace)
    rig.wait_until_whole(120)
    last = [event for event in rig.events() if event["service"] in {"moe", "dense"}][-1]
    assert last["outcome"] in {"ok", "interrupted", "failed"}


@pytest.mark.parametrize("phase", ["prepare", "drain", "load", "completion"])
def test_a_switch_that_is_cancelled_goes_back(rig: Rig, phase: str) -> None:
    rig.calm(waits=False)
    cancel = f"llamarig cancel $({JOB})"
    rig.strike("moe", phase, cancel)
    rig.wait_until_whole(60)


def test_two_clients_race_and_one_of_them_wins(rig: Rig) -> None:
    rig.calm()
    ends = "sudo cat /tmp/moe /tmp/copy"
    with rig.box.request_under_way():
        for service in ("moe", "copy"):
            client = f"llamarig switch {service} --json > /dev/null; echo $? > /tmp/{service}"
            rig.box.run(f"sudo rm -f /tmp/{service}; sudo sh -c '{client}' > /dev/null 2>&1 &")
        rig.box.wait_until("one is refused", lambda: rig.box.attempt(ends).stdout.split() == ["5"], 9)
    rig.box.wait_until("the other has won", lambda: sorted(rig.box.run(ends).split()) == ["0", "5"])
    rig.box.llamarig("switch", "dense", "--queue")
    rig.wait_until_whole(60)


def test_a_queue_is_worked_off_in_order(rig: Rig) -> None:
    rig.calm()
    rig.box.run(
        "sudo llamarig switch moe --no-wait && sudo llamarig switch copy --queue --no-wait"
        " && sudo llamarig switch dense --queue"
    )
    assert rig.box.active() == "dense"
    rig.wait_until_whole(60)
