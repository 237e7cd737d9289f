"""What a unit runs around its engine, under a shell: root's programs and Docker are played, the rest is real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llamarig.config import paths
from llamarig.config.spec import Spec
from llamarig.planning.host_files import compose_text
from llamarig.runtime.engines import HostEngines
from llamarig.runtime.gate import FileGate
from tests.support import below, make_spec, render

# The roots that the scripts name, as they are below the test's own directory.
ROOTS = ("/etc/llamarig", "/run/", "/var/lib/llamarig", "/opt/llamarig", "/proc/")
PLAYED = {
    # Root's: an account that the test has not is left out, and noted.
    "setpriv": 'while [ "$1" != -- ]; do shift; done; shift; echo "as daemon: $*" >>"$LOG"; exec "$@"',
    "install": """\
words=''
while [ $# -gt 0 ]; do
  case $1 in
    -o | -g) echo "install $1 $2" >>"$LOG"; shift ;;
    *) words="$words $1" ;;
  esac
  shift
done
exec {install} $words""",
    "docker": """\
echo "docker $*" >>"$LOG"
case $1 in
  kill) [ -e "$HERE/container" ] ;;
  inspect) [ -e "$HERE/container" ] && echo true ;;
esac""",
    "systemctl": '[ "$1" != is-active ] || [ ! -e "$HERE/docker-is-down" ]',
    "systemd-run": 'echo "systemd-run $*" >>"$LOG"',
}
FORGED = "f" * 64
UNTIL = 30.0


def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + UNTIL
    while not ready():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


@dataclass(frozen=True)
class Host:
    """A host's directories below one of the test's, and the scripts with these roots."""

    root: Path

    def script(self, name: str) -> list[str]:
        text = render({"template": f"{name}.sh.j2"})
        for root in ROOTS:
            text = text.replace(root, f"{self.root}{root}")
        place = self.root / name
        place.write_text(text, encoding="utf-8")
        return ["sh", str(place)]

    @property
    def environment(self) -> dict[str, str]:
        played = self.root / "played"
        return {"PATH": f"{played}:{os.environ['PATH']}", "LOG": str(self.root / "log"), "HERE": str(self.root)}

    def run(self, name: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.script("engine-end")
        return subprocess.run(
            [*self.script(name), *words],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def log(self) -> list[str]:
        place = self.root / "log"
        return place.read_text(encoding="utf-8").splitlines() if place.exists() else []

    def plan(self, spec: Spec) -> None:
        """Write what the playbook leaves of a service, as Ansible's filter writes it."""
        self.write(
            f"{paths.SPECS}/{spec.service}.json", render({"template": "spec.json.j2", "vars": {"spec": spec.to_dict()}})
        )
        self.write(f"{paths.COMPOSE}/{spec.service}/compose.yaml", compose_text(spec))

    def write(self, path: str, text: str) -> None:
        below(self.root, path).parent.mkdir(parents=True, exist_ok=True)
        below(self.root, path).write_text(text, encoding="utf-8")

    def read(self, path: str) -> str:
        return below(self.root, path).read_text(encoding="utf-8")

    def runs(self, service: str) -> str | None:
        """Return the version that the unit goes on with."""
        place = below(self.root, f"{paths.RUNNING}/{service}.json")
        return Spec.from_dict(json.loads(place.read_text(encoding="utf-8"))).spec_sha256 if place.exists() else None


@pytest.fixture
def host(tmp_path: Path) -> Host:
    played = tmp_path / "played"
    played.mkdir()
    for name, text in PLAYED.items():
        real = text.replace("{install}", str(shutil.which("install")))
        (played / name).write_text(f"#!/bin/sh\n{real}\n", encoding="utf-8")
        (played / name).chmod(0o755)
    for directory in (paths.GATES, paths.ENGINES, paths.RUNNING):
        below(tmp_path, directory).mkdir(parents=True)
    command = below(tmp_path, f"{paths.CURRENT}/bin/llamarig")
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\necho "llamarig $*" >>"$LOG"\n', encoding="utf-8")
    command.chmod(0o755)
    return Host(tmp_path)


# engine-begin


def test_a_service_begins_with_its_planned_version_where_the_daemon_named_none(host: Host) -> None:
    spec = make_spec()
    host.plan(spec)
    done = host.run("engine-begin", "chat")
    assert done.returncode == 0, done.stderr
    assert host.runs("chat") == spec.spec_sha256
    assert host.read(f"{paths.RUNNING}/chat.yaml") == compose_text(spec)


def test_a_service_begins_with_the_version_that_the_daemon_chose_and_the_host_kept(host: Host) -> None:
    before, now = make_spec(argv=["--model", "/models/chat.gguf", "--jinja"]), make_spec()
    host.plan(before)
    assert host.run("engine-begin", "chat").returncode == 0
    host.plan(now)
    gate = FileGate(host.root)
    gate.choose("chat", before.spec_sha256)
    assert host.run("engine-begin", "chat").returncode == 0
    assert host.runs("chat") == before.spec_sha256
    assert host.read(f"{paths.RUNNING}/chat.yaml") == compose_text(before)
    assert f"llamarig engine put-models-back chat {before.spec_sha256}" in host.log
    gate.choose("chat", now.spec_sha256)
    assert host.run("engine-begin", "chat").returncode == 0
    assert host.runs("chat") == now.spec_sha256
    kept = below(host.root, f"{paths.VERSIONS}/chat")
    assert {path.name for path in kept.iterdir()} == {before.spec_sha256, now.spec_sha256}


@pytest.mark.parametrize("version", ["../../../etc", "f" * 63, "f" * 65, "F" * 64, f"{'f' * 63}/", "-n", "", "ä" * 32])
def test_what_is_no_version_is_refused_and_nothing_begins(host: Host, version: str) -> None:
    host.plan(make_spec())
    host.write(f"{paths.GATES}/chat/version", f"{version}\n" if version else " \n")
    done = host.run("engine-begin", "chat")
    assert done.returncode == 1
    assert "is no version; remedy: llamarig switch chat" in done.stderr
    assert host.runs("chat") is None
    assert not any(line.startswith("docker") for line in host.log)


def test_a_version_that_the_host_has_not_is_refused(host: Host) -> None:
    host.plan(make_spec())
    FileGate(host.root).choose("chat", FORGED)
    done = host.run("engine-begin", "chat")
    assert done.returncode == 1
    assert f"its files of version {FORGED} are not there, or not both; remedy: " in done.stderr
    assert host.runs("chat") is None


def test_a_playbook_that_broke_off_between_two_files_starts_neither(host: Host) -> None:
    host.plan(make_spec(image="llamarig/llama-cpp:before"))
    old = host.read(f"{paths.COMPOSE}/chat/compose.yaml")
    host.plan(make_spec())
    host.write(f"{paths.COMPOSE}/chat/compose.yaml", old)
    assert "not both" in host.run("engine-begin", "chat").stderr
    assert host.runs("chat") is None


def test_a_service_that_is_not_planned_does_not_begin(host: Host) -> None:
    done = host.run("engine-begin", "chat")
    assert (done.returncode, "is no version" in done.stderr) == (1, True)


def test_nothing_is_left_of_a_run_before(host: Host) -> None:
    host.plan(make_spec())
    engine = below(host.root, f"{paths.ENGINES}/chat")
    (engine / "server.sock").mkdir(parents=True)
    (engine / "waiting").touch()
    (engine / "link").symlink_to(host.root / "etc")
    assert host.run("engine-begin", "chat").returncode == 0
    assert list(engine.iterdir()) == []
    assert oct(engine.stat().st_mode)[-4:] == "2770"
    assert (host.root / "etc/llamarig").is_dir()
    assert "docker rm --force llama-chat" in host.log
    assert [line for line in host.log if line.startswith("install -")] == [
        "install -o llama-engine",
        "install -g llamarig-door",
    ]


def test_what_the_daemon_owns_is_read_as_the_daemon(host: Host) -> None:
    host.plan(make_spec())
    gate = below(host.root, f"{paths.GATES}/chat")
    gate.mkdir(mode=0o700)
    assert host.run("engine-begin", "chat").returncode == 0
    assert [line.split()[2] for line in host.log if line.startswith("as daemon")] == ["install", "head"]
    # The engine's account looks into it, whatever the daemon's umask is.
    assert gate.stat().st_mode & 0o777 == 0o755


def test_a_gate_that_is_a_link_is_refused(host: Host) -> None:
    host.plan(make_spec())
    elsewhere = host.root / "elsewhere"
    elsewhere.mkdir()
    below(host.root, f"{paths.GATES}/chat").symlink_to(elsewhere)
    done = host.run("engine-begin", "chat")
    assert (done.returncode, "its gate is a link" in done.stderr) == (1, True)


def test_a_trial_that_is_under_way_is_ended_first(host: Host) -> None:
    host.plan(make_spec())
    command = below(host.root, f"{paths.CURRENT}/bin/llamarig")
    host.write(f"{paths.CURRENT}/bin/llamarig", '#!/bin/sh\necho "llamarig $*" >>"$LOG"\nexit 9\n')
    command.chmod(0o755)
    host.write("/run/llamarig/trial", "")
    assert host.run("engine-begin", "chat").returncode == 0
    assert not any(line.startswith("llamarig") for line in host.log)
    host.write("/run/llamarig/trial", "123\n")
    done = host.run("engine-begin", "chat")
    assert "llamarig engine end-trial" in host.log
    assert (done.returncode, "the trial of an engine does not end" in done.stderr) == (0, True)


def test_a_disk_that_keeps_nothing_keeps_no_service_from_starting(host: Host) -> None:
    spec = make_spec()
    host.plan(spec)
    host.write(paths.VERSIONS, "a file where a directory should be")
    done = host.run("engine-begin", "chat")
    assert (done.returncode, "cannot be kept" in done.stderr) == (0, True)
    assert host.runs("chat") == spec.spec_sha256


# engine-gate


@dataclass
class Container:
    """A container's process at its gate."""

    process: subprocess.Popen[str]
    engines: HostEngines
    gate: FileGate

    def said(self) -> str:
        return self.process.communicate(timeout=UNTIL)[0]


@pytest.fixture
def container(host: Host) -> Iterator[Container]:
    """Start the script as the container of ``chat`` would: its directories are the service's own."""
    server = host.root / "played/llama-server"
    server.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\ntouch made\nstat -c %a made\n', encoding="utf-8")
    server.chmod(0o755)
    gate = FileGate(host.root)
    gate.shut("chat")
    below(host.root, f"{paths.GATES}/chat").mkdir()
    below(host.root, f"{paths.ENGINES}/chat").mkdir()
    text = render({"template": "engine-gate.sh.j2"})
    for inside, outside in ((paths.CONTAINER_RUN, paths.ENGINES), (paths.CONTAINER_GATE, paths.GATES)):
        assert f"{inside}/" in text
        text = text.replace(f"{inside}/", f"{host.root}{outside}/chat/")
    place = host.root / "engine-gate"
    place.write_text(text, encoding="utf-8")
    process = subprocess.Popen(
        [str(shutil.which("sh")), str(place), "--alias", "a $HOME", ""],
        env=host.environment,
        cwd=host.root,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield Container(process, HostEngines(host.root), gate)
    process.kill()
    process.communicate()


def test_an_engine_begins_when_its_gate_opens_with_the_words_it_was_given(container: Container) -> None:
    until(lambda: container.engines.waits("chat"))
    assert container.process.poll() is None
    container.gate.open("chat")
    words, _, mode = container.said().rpartition("\0")
    assert words.split("\0") == ["--alias", "a $HOME", ""]
    # What it makes, its socket too, is for its owner and its group: the door's.
    assert mode.strip() == "660"


def test_a_container_that_is_ended_at_its_gate_ends_well(container: Container) -> None:
    until(lambda: container.engines.waits("chat"))
    container.process.send_signal(signal.SIGTERM)
    assert container.said() == ""
    assert container.process.returncode == 0


# engine-stop

OBEDIENT = "signal.pause()"
# The deadlock: the first TERM is swallowed, the second ends it.
DEADLOCKED = "signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
LOOP = "print(flush=True)\nwhile True: signal.pause()"


@pytest.fixture
def engine(host: Host) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return what starts a process that is in a service's container as ``/proc`` says."""
    started = []

    def start(behaviour: str, group: str) -> subprocess.Popen[bytes]:
        code = f"import signal\n{behaviour if behaviour != OBEDIENT else ''}\n{LOOP}"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout as said:
            said.readline()
        # As containerd's shim does: what ended is not left a zombie.
        threading.Thread(target=process.wait, daemon=True).start()
        host.write(f"/proc/{process.pid}/cgroup", f"0::{group}\n")
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


SLICE = "/llama.slice/llama-chat.slice"
INSIDE = f"{SLICE}/docker-{'ab' * 32}.scope"


@pytest.mark.parametrize("group", [INSIDE, f"/llama-chat.slice/{'ab' * 32}"], ids=["systemd", "cgroupfs"])
@pytest.mark.parametrize(
    ("behaviour", "ends_with"),
    [(OBEDIENT, signal.SIGTERM), (DEADLOCKED, signal.SIGTERM)],
    ids=["obedient", "deadlocked"],
)
def test_an_engine_is_ended_by_term_and_by_a_second_where_the_first_deadlocked_it(
    host: Host, engine: Callable[..., subprocess.Popen[bytes]], behaviour: str, ends_with: int, group: str
) -> None:
    process = engine(behaviour, group)
    assert host.run("engine-stop", "chat", "1").returncode == 0
    assert process.wait(UNTIL) == -ends_with
    assert host.log == [], "Docker was asked"


def test_the_units_own_process_is_waited_for_so_that_it_is_not_cut_off(
    host: Host, engine: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process, compose = engine(OBEDIENT, INSIDE), engine(OBEDIENT, f"{SLICE}/llama-chat.service")

    def end() -> None:
        process.wait()
        compose.terminate()

    threading.Thread(target=end, daemon=True).start()
    assert host.run("engine-stop", "chat", "1", MAINPID=str(compose.pid)).returncode == 0
    assert compose.wait(UNTIL) == -signal.SIGTERM


def test_an_engine_that_is_deaf_is_killed(host: Host, engine: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = engine(DEAF, INSIDE)
    assert host.run("engine-stop", "chat", "0").returncode == 0
    assert process.wait(UNTIL) == -signal.SIGKILL


@pytest.mark.parametrize(
    "group",
    [
        f"{SLICE}/llama-chat.service",
        f"{SLICE}/llama-chat-2.slice/docker-{'ab' * 32}.scope",
        f"/system.slice/docker-{'ab' * 32}.scope",
        f"/llama-wechat.slice/{'ab' * 32}",
    ],
)
def test_processes_of_others_are_left_alone(
    host: Host, engine: Callable[..., subprocess.Popen[bytes]], group: str
) -> None:
    process = engine(OBEDIENT, group)
    (host.root / "container").touch()
    assert host.run("engine-stop", "chat", "0").returncode == 1
    assert process.poll() is None
    assert "docker kill --signal TERM llama-chat" in host.log


def test_what_a_power_cut_left_of_others_goes_and_what_runs_stays(host: Host) -> None:
    docker = 'echo "docker $*" >>"$LOG"; [ "$1" != ps ] || echo llama-code llama-draft'
    (host.root / "played" / "docker").write_text(f"#!/bin/sh\n{docker}\n", encoding="utf-8")
    systemctl = "case $* in *llama-code.service) echo active ;; *) echo inactive ;; esac"
    (host.root / "played" / "systemctl").write_text(f"#!/bin/sh\n{systemctl}\n", encoding="utf-8")
    host.plan(make_spec())
    assert host.run("engine-begin", "chat").returncode == 0
    assert "docker rm --force llama-draft" in host.log
    assert "docker rm --force llama-code" not in host.log


def test_a_run_leaves_nothing_behind(host: Host) -> None:
    host.plan(make_spec())
    assert host.run("engine-begin", "chat").returncode == 0
    assert host.run("engine-end", "chat").returncode == 0
    assert host.runs("chat") is None
    assert not below(host.root, f"{paths.RUNNING}/chat.yaml").exists()
    assert not below(host.root, f"{paths.ENGINES}/chat").exists()
    assert "docker rm --force llama-chat" in host.log


def test_a_docker_that_does_not_do_it_at_once_is_asked_again(host: Host) -> None:
    played = host.root / "played" / "docker"
    fails = 'echo "docker $*" >>"$LOG"; [ "$(grep -c "docker rm" "$LOG")" -gt 2 ]'
    played.write_text(f"#!/bin/sh\n{fails}\n", encoding="utf-8")
    (host.root / "played" / "sleep").write_text("#!/bin/sh\n", encoding="utf-8")
    (host.root / "played" / "sleep").chmod(0o755)
    assert host.run("engine-end", "chat").returncode == 0
    assert [line.split()[1] for line in host.log] == ["rm", "ps", "rm", "ps", "rm", "ps"]


def test_a_docker_that_is_down_is_not_waited_for_by_the_unit_whose_end_it_waits_for(host: Host) -> None:
    (host.root / "docker-is-down").touch()
    assert host.run("engine-end", "chat").returncode == 0
    assert host.log == [f"systemd-run --quiet --collect --no-block sh {host.root}/engine-end --later"]


def test_what_is_left_goes_as_soon_as_docker_is_back(host: Host) -> None:
    (host.root / "docker-is-down").touch()
    docker = 'echo "docker $*" >>"$LOG"; [ "$1" != ps ] || echo llama-draft'
    (host.root / "played" / "docker").write_text(f"#!/bin/sh\n{docker}\n", encoding="utf-8")
    systemctl = '[ "$1" = show ] && echo inactive || [ ! -e "$HERE/docker-is-down" ]'
    (host.root / "played" / "systemctl").write_text(f"#!/bin/sh\n{systemctl}\n", encoding="utf-8")
    (host.root / "played" / "sleep").write_text('#!/bin/sh\nrm "$HERE/docker-is-down"\n', encoding="utf-8")
    (host.root / "played" / "sleep").chmod(0o755)
    assert host.run("engine-end", "--later").returncode == 0
    assert host.log[-1] == "docker rm --force llama-draft"


def test_a_docker_that_somebody_stopped_is_not_started_by_the_question_what_is_left(host: Host) -> None:
    (host.root / "docker-is-down").touch()
    assert host.run("engine-end", "--strays").returncode == 0
    assert host.log == []


def test_a_container_that_is_not_there_is_ended_already(host: Host) -> None:
    assert host.run("engine-stop", "chat", "30").returncode == 0
    assert host.log == ["docker kill --signal TERM llama-chat"]
