"""What the role monitoring writes: taken by Prometheus's own programs, and dashboards that Grafana can show."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamarig.config.address import EXPORTER_PORT
from llamarig.config.metrics import BY_NAME
from llamarig.control import docs
from llamarig.control.docs_metrics import ENGINE, FOREIGN
from llamarig.control.generated import outdated
from llamarig.control.grafana import Board, expressions
from llamarig.control.grafana_boards import BOARDS, PLACE, files
from llamarig.control.promql import RULES, measured, names, rules
from llamarig.planning.targets import EXPORTER_BIND, NODE_LISTEN, targets
from tests.contract.promtool import PROGRAMS, needs, said
from tests.contract.tree import ROOT, ansible, load, tasks_of
from tests.support import render

ROLE = ROOT / "roles/monitoring"
UNTIL = 30.0
EVERY = rules(ROOT)
JSON = {board.name: json.loads((ROOT / PLACE / f"{board.name}.json").read_text(encoding="utf-8")) for board in BOARDS}

each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)


def entries(name: str) -> dict[str, dict[str, Any]]:
    """The files that a tasks file of the role writes, by their paths."""
    found: dict[str, dict[str, Any]] = {}
    for task in tasks_of(load(ROLE / f"tasks/{name}.yml")):
        manifest = task.get("manifest") or {}
        found |= {item["path"]: item for key in ("files", "secrets") for item in manifest.get(key, [])}
    return found


def printed(name: str, **values: Any) -> str:
    return render({"template": f"{name}.j2", "vars": values}, "monitoring")


def configuration(place: Path, **changes: Any) -> Path:
    """Prometheus's configuration, with what it names below a directory."""
    values: dict[str, Any] = {
        "seconds": 15,
        "rule_files": [],
        "alertmanagers": [],
        "options": {},
        "others": [],
    }
    text = printed("prometheus.yml", **values | changes)
    (place / "rules").mkdir()
    (place / "targets").mkdir()
    for path in sorted((ROOT / RULES).glob("*.yml")):
        (place / "rules" / path.name).write_bytes(path.read_bytes())
    (place / "prometheus.yml").write_text(text.replace("/etc/prometheus/llamarig", str(place)), encoding="utf-8")
    return place / "prometheus.yml"


def write_targets(place: Path, **bound: str) -> None:
    """Where hosts, each with the address that its exporter listens on, are scraped."""
    hosts = {
        host: dict(zip(("exporter_bind", "exporter_port"), told.split(":"), strict=True))
        for host, told in bound.items()
    }
    found, problems = targets(
        "mon01", {host: {**told, "monitoring_address": told["exporter_bind"]} for host, told in hosts.items()}
    )
    assert problems == []
    for name, listed in (("exporter", found.exporter), ("node", found.node)):
        (place / "targets" / f"{name}.json").write_text(printed("targets.json", targets=listed), encoding="utf-8")


@needs("promtool")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"alertmanagers": ["127.0.0.1:9093", "alerts.example.com:9093"], "seconds": 30},
        {"options": {"scheme": "https", "basic_auth": {"username": "a", "password": "b: {{ c }} # 'd'"}}},
        {"others": [{"job_name": "switch", "static_configs": [{"targets": ["192.0.2.1:9100"]}]}]},
        {"rule_files": ["/etc/prometheus/site/*.yml"]},
    ],
    ids=["nothing", "alertmanagers", "options", "others", "rules"],
)
def test_promtool_takes_the_configuration(changes: dict[str, Any], tmp_path: Path) -> None:
    path = configuration(tmp_path, **changes)
    write_targets(tmp_path, gpu01="127.0.0.1:9836")
    status, text = said("promtool", "check", "config", path)
    assert status == 0, text
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in read["scrape_configs"]}
    assert jobs.keys() - {"switch"} == {"llamarig-exporter", "llamarig-services", "llamarig-node"}
    for name in ("llamarig-exporter", "llamarig-services", "llamarig-node"):
        assert jobs[name].items() >= changes.get("options", {}).items()


@needs("amtool")
def test_amtool_takes_an_alertmanagers_configuration(tmp_path: Path) -> None:
    settings = {"route": {"receiver": "desk"}, "receivers": [{"name": "desk"}]}
    path = tmp_path / "alertmanager.yml"
    path.write_text(printed("alertmanager.yml", settings=settings), encoding="utf-8")
    status, text = said("amtool", "check-config", path)
    assert status == 0, text


def test_what_prometheus_reads_was_judged() -> None:
    written = {**entries("configure"), **entries("alertmanager")}
    judged = {path: entry.get("validate", "").split(" %s")[0] for path, entry in written.items()}
    assert {path: by for path, by in judged.items() if path.endswith(".yml")} == {
        **{path: "promtool check rules" for path in judged if "/rules/" in path},
        "/etc/prometheus/llamarig/prometheus.yml": "promtool check config",
        "/etc/prometheus/llamarig/alertmanager.yml": "amtool check-config",
    }


def test_the_role_writes_every_rules_file_and_every_dashboard_and_no_other() -> None:
    for tasks, place in (("configure", RULES), ("grafana", PLACE)):
        sources = [
            re.findall(r"'ansible.builtin.file', '([^']+)'", entry["content"])
            for entry in entries(tasks).values()
            if "content" in entry
        ]
        found = {(ROLE / "files" / source).resolve() for (source,) in sources}
        assert found == {path for path in (ROOT / place).iterdir() if path.is_file()}
    for path, entry in {**entries("configure"), **entries("grafana")}.items():
        assert "content" not in entry or Path(path).name in entry["content"]


def test_what_the_role_no_longer_writes_goes() -> None:
    for name in ("configure", "grafana"):
        swept = [
            entry
            for task in tasks_of(load(ROLE / f"tasks/{name}.yml"))
            for entry in task.get("manifest", {}).get("prune", [])
        ]
        written = [Path(path) for path, entry in entries(name).items() if "content" in entry]
        assert written
        for path in written:
            assert any(
                path.parent == Path(entry["directory"]) and fnmatch(path.name, entry["pattern"]) for entry in swept
            ), path


@pytest.mark.parametrize(
    ("status", "summary"),
    [(0, "changed=1 .* failed=0"), (5, "changed=0 .* failed=0"), (1, "changed=0 .* failed=1")],
    ids=["restarted", "no such unit", "fails"],
)
def test_grafana_is_restarted_where_there_is_its_unit(status: int, summary: str, tmp_path: Path) -> None:
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\nexit {status}\n', encoding="utf-8")
    (tmp_path / "systemctl").chmod(0o755)
    tasks = load(ROLE / "handlers/main.yml")
    play = {"name": "Test", "hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = ansible("ansible-playbook", "-i", "localhost,", "--check", str(tmp_path / "play.yml"), PATH=path)
    assert re.search("changed=0 .* failed=0", done.stdout), done.stdout
    assert not (tmp_path / "asked").exists()
    done = ansible("ansible-playbook", "-i", "localhost,", str(tmp_path / "play.yml"), PATH=path)
    assert re.search(summary, done.stdout), done.stdout
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "try-restart grafana-server.service\n"


def test_a_changed_rule_is_read_anew() -> None:
    (unit,) = [unit for task in tasks_of(load(ROLE / "tasks/configure.yml")) for unit in task["manifest"]["units"]]
    wanted = {path for path in entries("configure") if "/rules/" in path} | {"/etc/prometheus/llamarig/prometheus.yml"}
    assert set(unit["reload_on"]) == wanted


@pytest.mark.parametrize("name", ["prometheus.conf", "alertmanager.conf", "node.conf"])
def test_nothing_listens_beyond_loopback_unless_it_is_told_to(name: str) -> None:
    defaults = load(ROLE / "defaults/main.yml")
    listens = [value for key, value in defaults.items() if key.endswith("_listen")]
    assert all(value.startswith("127.0.0.1:") for value in listens)
    text = printed(name, listen="127.0.0.1:1234", retention="90d", arguments=["--log.level=warn"])
    (command,) = re.findall(r"^ExecStart=(/(?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert "--web.listen-address=127.0.0.1:1234" in command
    assert text.index("ExecStart=\n") < text.index(command)


def test_what_the_targets_assume_is_what_hosts_have() -> None:
    assert load(ROLE / "defaults/main.yml")["monitoring_node_listen"] == NODE_LISTEN
    exporter = load(ROOT / "roles/exporter/defaults/main.yml")
    assert (exporter["exporter_bind"], exporter["exporter_port"]) == (EXPORTER_BIND, EXPORTER_PORT)


def test_the_inventory_decides_what_is_scraped(tmp_path: Path) -> None:
    """The real plugin, on a real inventory with two hosts, one of which nobody could reach."""
    (tmp_path / "hosts.yml").write_text(
        json.dumps(
            {
                "gpu_hosts": {
                    "hosts": {"gpu01": {"exporter_bind": "{{ lan }}", "lan": "192.0.2.10"}, "gpu02": {}, "gpu03": {}}
                },
                "monitoring": {"hosts": {"gpu02": {}}},
            }
        ),
        encoding="utf-8",
    )
    task = {
        "name": "Find out",
        "monitoring_targets": {"hosts": "{{ groups.gpu_hosts | difference(spared) }}"},
        "register": "found",
    }
    shown = {"name": "Show", "ansible.builtin.debug": {"msg": "{{ found.exporter | to_json }}"}}
    play = {"name": "Test", "hosts": "monitoring", "gather_facts": False, "connection": "local", "tasks": [task, shown]}
    (tmp_path / "play.yml").write_text(json.dumps([play]), encoding="utf-8")
    command = ["-i", str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml"), "-e"]
    done = ansible("ansible-playbook", *command, '{"spared": ["gpu03"]}')
    assert done.returncode == 0, done.stdout
    assert re.findall(r"[\w.]+:9836", done.stdout) == ["192.0.2.10:9836", "127.0.0.1:9836"]
    done = ansible("ansible-playbook", *command, '{"spared": []}')
    assert done.returncode != 0
    assert "gpu03: exporter_bind: 127.0.0.1 cannot be reached from gpu02" in done.stdout + done.stderr
    assert "1 problem with what is to be scraped" in done.stdout + done.stderr


class PlayedExporter(BaseHTTPRequestHandler):
    """An exporter of one card, one service and one engine."""

    def do_GET(self) -> None:
        found = {
            "/metrics": 'llamarig_daemon_up 1\nllamarig_collection_success 1\nllamarig_gpu_up{gpu="GPU-1"} 0\n',
            "/services": 'llamarig_stopped 0\nllamacpp:requests_deferred{service="chat"} 3\n',
        }
        body = found[self.path].encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def exporter() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), PlayedExporter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def asked(at: str, query: str) -> dict[tuple[str, ...], float]:
    """What Prometheus says to a query: values by instance, and by what else tells the series apart."""
    try:
        with urllib.request.urlopen(f"http://{at}/api/v1/query?query={query}", timeout=UNTIL) as answer:
            result = json.load(answer)["data"]["result"]
    except OSError:
        return {}
    labels = ("instance", "job", "gpu", "service", "alertname")
    return {tuple(item["metric"].get(name, "") for name in labels): float(item["value"][1]) for item in result}


@needs("prometheus")
def test_a_real_prometheus_scrapes_what_the_inventory_says(tmp_path: Path, exporter: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        at = f"127.0.0.1:{probe.getsockname()[1]}"
    path = configuration(tmp_path, seconds=1)
    write_targets(tmp_path, gpu01=exporter)
    # Asked for when the scrape is shorter than its limit of ten seconds.
    text = path.read_text(encoding="utf-8").replace("global:\n", "global:\n  scrape_timeout: 1s\n")
    path.write_text(text, encoding="utf-8")
    command = [f"--config.file={path}", f"--storage.tsdb.path={tmp_path / 'samples'}", f"--web.listen-address={at}"]
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen([str(PROGRAMS["prometheus"]), *command], stdout=log, stderr=log)
        try:
            wanted = {
                "up": {
                    ("gpu01", "llamarig-exporter", "", "", ""): 1.0,
                    ("gpu01", "llamarig-services", "", "", ""): 1.0,
                },
                "llamacpp:requests_deferred": {("gpu01", "llamarig-services", "", "chat", ""): 3.0},
                "ALERTS": {("gpu01", "llamarig-exporter", "GPU-1", "", "LlamarigCardLost"): 1.0},
            }
            end = time.monotonic() + UNTIL
            while not all(asked(at, query).items() >= found.items() for query, found in wanted.items()):
                assert time.monotonic() < end, (tmp_path / "log").read_text(encoding="utf-8")
                time.sleep(0.1)
        finally:
            process.terminate()
            process.wait(UNTIL)


def test_every_dashboard_is_up_to_date() -> None:
    assert outdated(files()) == [], "run: .venv/bin/python -m llamarig.control.docs"
    assert files().items() <= docs.files().items()
    assert {path.name for path in (ROOT / PLACE).iterdir()} == {path.name for path in files()}


@each_board
def test_panels_have_numbers_of_their_own_and_do_not_lie_on_each_other(board: Board) -> None:
    panels = JSON[board.name]["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
    assert all(before["y"] <= after["y"] for before, after in pairwise(places))


@each_board
def test_a_panel_asks_the_provisioned_source(board: Board) -> None:
    uid = yaml.safe_load(printed("datasource.yml", url="http://127.0.0.1:9090", seconds=15))["datasources"][0]["uid"]
    for panel in JSON[board.name]["panels"]:
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["targets"]
            assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} == {uid}
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    titles = [panel["title"] for panel in JSON[board.name]["panels"]]
    assert len(set(titles)) == len(titles)


def test_dashboards_are_told_apart() -> None:
    for key in ("uid", "title"):
        assert len({board[key] for board in JSON.values()}) == len(JSON)


@needs("promtool")
@each_board
def test_promtool_takes_every_expression(board: Board, tmp_path: Path) -> None:
    """As a recording rule each, with what Grafana puts in filled in."""
    filled = [expr.replace("$__rate_interval", "1m") for expr in expressions(board)]
    group = {"name": "g", "rules": [{"record": f"r{number}", "expr": expr} for number, expr in enumerate(filled)]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    status, text = said("promtool", "check", "rules", tmp_path / "rules.yml")
    assert status == 0, text


@each_board
def test_a_dashboard_shows_what_is_declared(board: Board) -> None:
    recorded = {rule.name for rule in EVERY if not rule.is_alert}
    known = {*BY_NAME, *ENGINE, *FOREIGN, *recorded}
    for expr in expressions(board):
        assert names(expr) <= known, expr
        assert measured(expr, EVERY) <= known - recorded, expr


@each_board
def test_a_dashboard_uses_the_variables_that_it_has(board: Board) -> None:
    used = set(re.findall(r"\$(\w+)", " ".join(expressions(board)))) - {"__rate_interval"}
    assert used == {choice.name for choice in board.choices}
