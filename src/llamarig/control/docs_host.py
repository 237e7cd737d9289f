"""What llamarig leaves on a host, from the manifests that write it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from llamarig.config import paths
from llamarig.control import docs_intent
from llamarig.control.docs_table import DocsError, markdown_table

_TMPFILES: Final = "templates/host_base/tmpfiles.conf.j2"
_PLAN: Final = "role `llama_service`, from the plan"
_DAEMON: Final = f"{paths.DAEMON_USER}:{paths.DAEMON_USER}"
# Root's part of a reconciliation, a rollback or an upgrade.
_ROOT: Final = "`llamarig reconcile`, `engine rollback`"
# What each path is for. A path that a manifest writes and this does not know is an error of the generator.
_WHAT: Final = {
    f"{paths.LIBEXEC}/engine-begin": "What a unit does before its engine: which version it is, and room for it.",
    f"{paths.LIBEXEC}/engine-gate": "What a container runs: it waits until its engine may begin.",
    "/var/cache/llamarig": "Where the engine image is built; root's alone.",
    paths.ETC: "Everything that the agent reads.",
    paths.SPECS: "Specs.",
    paths.COMPOSE: "Compose projects.",
    paths.KEYS: "API keys of services; only root and the engine's account can read them.",
    paths.HOST_FILE: "What concerns the host as a whole: the default service, and how long services stay.",
    paths.DOOR_FILE: "The door: which ports it holds.",
    paths.DAEMON_FILE: "Where the management API listens.",
    paths.EXPORTER_FILE: "Where the exporter listens, and what it measures.",
    f"{paths.UNITS}/llamarig-exporter.service": "The exporter, which tells Prometheus what cards and host measure.",
    f"{paths.UNITS}/llamarigd.service": "The daemon, which decides what serves.",
    f"{paths.UNITS}/llamarig-door.service": "The door: HAProxy with a configuration and an account of its own.",
    f"{paths.UNITS}/run-llamarig-engines.mount": "The file system, of 1 MiB, in which engines make their sockets.",
    "/etc/polkit-1/rules.d/50-llamarig.rules": "What the daemon may ask systemd for: to start and stop services.",
    paths.HARDWARE_FILE: "The declared hardware: what the doctor compares with, and what `llamarig tune` sets.",
    f"{paths.SPECS}/<service>.json": "The spec of a service, complete. The agent reads nothing else of the service.",
    f"{paths.COMPOSE}/<service>": "The compose project of a service.",
    f"{paths.COMPOSE}/<service>/compose.yaml": "The compose file of a service.",
    f"{paths.KEYS}/<service>.key": "The API key of a service that has one; mounted into its container.",
    f"{paths.UNITS}/{paths.unit('<service>')}": "The unit that runs the compose project in the foreground.",
    f"{paths.UNITS}/{paths.slice_unit('<service>')}": "The cgroup parent of the service's container.",
    f"{paths.LIBEXEC}/engine-end": "How a unit removes what a run leaves, as soon as Docker is there.",
    f"{paths.LIBEXEC}/engine-stop": "How a unit ends an engine that does not end by itself.",
    "/etc/docker/daemon.json": "The whole configuration of the Docker daemon; nobody else writes it.",
    "/etc/systemd/system/containerd.service.d/llamarig.conf": "Where containerd keeps images.",
    "/etc/apt/sources.list.d/llamarig-<name>.sources": "An archive of packages beside the distribution's own.",
    "/etc/apt/keyrings/llamarig-<name>-<fingerprint>.asc": "The archive's key, which has the fingerprint.",
    "/etc/apt/preferences.d/llamarig.pref": "The pins: which versions apt takes.",
    "/etc/apt/apt.conf.d/52llamarig": "Packages that unattended-upgrades leaves alone.",
    "/etc/needrestart/conf.d/llamarig.conf": "Units that needrestart leaves alone.",
    "/etc/modprobe.d/llamarig-nouveau.conf": "Keeps nouveau away from the cards.",
    "/etc/systemd/system/nvidia-persistenced.service.d/llamarig.conf": "Keeps the driver's state without a display.",
    "/etc/systemd/system/llamarig-gpu-tuning.service": "Sets power limits and clock locks at every boot.",
    "/etc/sysusers.d/llamarig.conf": "The accounts of engines, door, daemon and exporter.",
    "/etc/tmpfiles.d/llamarig.conf": "The directories below that must be there after every start.",
    "/etc/llamarig/firewall.planned.nft": "The firewall as planned; loaded on trial.",
    f"{paths.UNITS}/llamarig-firewall.service": "Loads the rules that were kept, before the network is up.",
    f"{paths.UNITS}/nftables.service.d/llamarig.conf": "Loads them again after nftables.service flushed all rules.",
    paths.STATE: "What the host remembers.",
    paths.DAEMON_STATE: "What the daemon remembers.",
    paths.VERSIONS: "What services were started with: spec and compose file of each version, for the way back.",
    paths.RUN: "What is true until the next start of the host.",
    paths.LOCK: "Held by whoever changes what serves.",
    paths.RUNNING: "What each container was started with.",
    paths.ENGINES: "Where engines listen, each in a directory of its own.",
    paths.GATES: "Which version a service starts with, and whether its engine may begin.",
    paths.DOOR: "Which engine each port leads to, as links; none where a port is closed.",
    f"{paths.RUN}/api": "Where the daemon is asked.",
    f"{paths.UNITS}/prometheus.service.d/llamarig.conf": "How Prometheus runs, on the monitoring host.",
    f"{paths.UNITS}/prometheus-alertmanager.service.d/llamarig.conf": "How an Alertmanager beside it runs.",
    f"{paths.UNITS}/prometheus-node-exporter.service.d/llamarig.conf": "Where the node exporter listens.",
    "/etc/prometheus/llamarig/prometheus.yml": "What Prometheus scrapes, and whom it tells.",
    "/etc/prometheus/llamarig/alertmanager.yml": "Who is told of alerts.",
    "/etc/prometheus/llamarig/targets/exporter.json": "Where exporters are.",
    "/etc/prometheus/llamarig/targets/node.json": "Where node exporters are.",
    "/etc/grafana/provisioning/datasources/llamarig.yml": "Where Grafana finds Prometheus.",
    "/etc/grafana/provisioning/dashboards/llamarig.yml": "Where Grafana finds the dashboards.",
    "{{ models_dir }}": "Model files (`fleet_models_dir`); never removed by llamarig.",
}


@dataclass(frozen=True, slots=True)
class Written:
    """One path on a host: what it is, whose it is, and who writes it; ``template`` where one is printed into it."""

    path: str
    owner: str
    mode: str
    by: str
    what: str
    template: str = ""


def files_on_host(root: Path) -> str:
    """Return the table of paths, what they are and who writes them."""
    rows = [
        (f"`{item.path}`", item.what, f"{item.owner} {item.mode}".strip(), item.by)
        for item in sorted({item.path: item for item in _everything(root)}.values(), key=lambda item: item.path)
    ]
    return markdown_table(("path", "what", "owner and mode", "written by"), rows)


def templates(root: Path) -> str:
    """Return the table of templates, where each is printed to, and with which mode."""
    rows = {
        (f"`{item.template}`", f"`{item.path}`", item.owner, item.mode)
        for item in [*_from_plan(), *_from_roles(root), *_from_stack()]
        if item.template
    }
    used = {row[0].strip("`") for row in rows}
    present = {str(path.relative_to(root / "templates")) for path in root.glob("templates/*/*.j2")}
    if used != present:
        msg = f"templates that no manifest prints, or that are not there: {', '.join(sorted(used ^ present))}"
        raise DocsError(msg, "remove the template, or name it in a role's manifest")
    return markdown_table(("template", "destination", "owner", "mode"), sorted(rows))


def _everything(root: Path) -> Iterator[Written]:
    yield from _from_tmpfiles(root)
    yield from _from_plan()
    yield from _from_roles(root)
    yield from _from_stack()
    agent = _defaults(root, "agent")
    models = _defaults(root, "model_store")["model_store_dir"]
    release, fetch, user = "role `agent`", "role `model_store`", "root:root"
    for path, owner, mode, by, what in (
        (
            f"{agent['agent_root']}/releases/<sha12>/",
            user,
            "0755",
            release,
            "A release of the agent, with all it imports.",
        ),
        (f"{agent['agent_root']}/current", user, "link", release, "The release in use; moved after its smoke test."),
        (agent["agent_command"], user, "link", release, "The command, in everybody's path."),
        (
            f"{models}/<name>",
            "root:root",
            "0644",
            fetch,
            "A model file; in place only once its sha256 was right.",
        ),
        (f"{models}/.incoming/", user, "0700", fetch, "Files under way; a broken transfer goes on from here."),
        (
            f"{models}/.verified/",
            user,
            "0755",
            fetch,
            "Which files were read and found right, so that they are read once.",
        ),
        ("/etc/prometheus/llamarig/rules/llamarig-*.yml", user, "0644", "role `monitoring`", "Rules and alerts."),
        ("/etc/grafana/llamarig/<dashboard>.json", user, "0644", "role `monitoring`", "The dashboards."),
        (
            "/etc/llamarig/firewall.nft",
            user,
            "0644",
            "role `firewall`, after a new connection",
            "The firewall that is loaded at every start.",
        ),
        (
            f"{paths.DAEMON_STATE}/state.json",
            _DAEMON,
            "0644",
            "the daemon",
            "What should be serving, and a switch under way.",
        ),
        (
            f"{paths.DAEMON_STATE}/history.jsonl",
            _DAEMON,
            "0644",
            "the daemon",
            "Every switch and stop, how it ended and why; the last 2 MiB of it.",
        ),
        (f"{paths.DAEMON_STATE}/jobs.json", _DAEMON, "0644", "the daemon", "The last jobs."),
        (
            f"{paths.DAEMON_STATE}/memory/<service>.json",
            _DAEMON,
            "0644",
            "the daemon",
            "What a service allocated when it last came up.",
        ),
        (f"{paths.API_KEYS_FILE}", "root:llamarig", "0640", "`llamarig keys`", "Keys of the API, as hashes."),
        (f"{paths.STATE}/engine/current.json", user, "0644", _ROOT, "Files and engine that were last seen to serve."),
        (f"{paths.STATE}/engine/before.json", user, "0644", _ROOT, "The same of the engine before it."),
        (f"{paths.STATE}/engine/rollback.json", user, "0644", _ROOT, "A way back that is under way."),
        (f"{paths.STATE}/engine/speed.json", user, "0644", "`llamarig engine speed`", "How fast each engine served."),
        (f"{paths.STATE}/tuning.json", user, "0644", "`llamarig tune`", "What cards were set to since the start."),
        (
            f"{paths.STATE}/memory/<service>.json",
            user,
            "0644",
            "`reconcile`, `plan --check`",
            "What the engine said that a service takes.",
        ),
        (
            f"{paths.RUNNING}/<service>.json",
            user,
            "0644",
            "the unit, when it starts",
            "The spec its container runs with.",
        ),
        (
            f"{paths.RUNNING}/<service>.yaml",
            user,
            "0644",
            "the unit, when it starts",
            "The compose file its container was made of.",
        ),
        (
            f"{paths.VERSIONS}/<service>/<hash>/",
            user,
            "0755",
            "the unit, when it starts",
            "Spec and compose file of one version.",
        ),
        (
            f"{paths.ENGINES}/<service>/",
            f"llama-engine:{paths.DOOR_USER}",
            "2770",
            "the unit, when it starts",
            "The engine's socket, and a mark that its container waits at the gate.",
        ),
        (
            f"{paths.GATES}/<service>/",
            _DAEMON,
            "0755",
            "the daemon",
            "Which version it starts with; `open` where its engine may begin.",
        ),
        (
            f"{paths.DOOR}/<port>.sock",
            _DAEMON,
            "link",
            "the daemon",
            "Leads to the engine that serves on a port.",
        ),
        (
            paths.DOOR_STATS,
            f"{paths.DOOR_USER}:{paths.DOOR_USER}",
            "0660",
            "the door",
            "Where the daemon asks which requests are under way.",
        ),
    ):
        yield Written(path, owner, mode, by, what)


def _from_plan() -> list[Written]:
    """Return what the plan of the documentation's own example writes, with the service's name taken out."""
    plan = docs_intent.example()
    names = re.compile(rf"\b({'|'.join(spec['service'] for spec in plan['specs'])})\b")
    found = []
    for key, mode in (("directories", "0755"), ("files", "0644"), ("secrets", "0644")):
        for entry in plan["manifest"][key]:
            general = {**entry, "path": names.sub("<service>", entry["path"])}
            found.append(_written(general, mode, _PLAN, "llama_service"))
    return found


def _from_roles(root: Path) -> list[Written]:
    """Return what the roles name in their own manifests."""
    found = []
    for path in sorted(root.glob("roles/*/*/*.yml")):
        if path.parent.name in {"tasks", "vars"}:
            role = path.parent.parent.name
            entries = _entries(yaml.safe_load(path.read_text(encoding="utf-8")))
            found += [_written(entry, "0644", f"role `{role}`", role) for entry in entries]
    return found


def _from_stack() -> list[Written]:
    """Return what the decisions on the GPU stack add for each archive, whose names are the site's."""
    role = "apt_sources"
    archive = {"path": "/etc/apt/sources.list.d/llamarig-<name>.sources", "template": "archive.sources.j2"}
    key = {"path": "/etc/apt/keyrings/llamarig-<name>-<fingerprint>.asc"}
    return [_written(entry, "0644", f"role `{role}`", role) for entry in (archive, key)]


def _entries(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "path" in node and "template" in node:
            yield node
        for value in node.values():
            yield from _entries(value)
    elif isinstance(node, list):
        for value in node:
            yield from _entries(value)


def _from_tmpfiles(root: Path) -> Iterator[Written]:
    models = _defaults(root, "host_base")["host_base_models_dir"]
    for line in (root / _TMPFILES).read_text(encoding="utf-8").splitlines():
        found = re.match(r"[df] (/\S+|\{\{ \w+ \}\}) +(\d+) (\w+) +(\w+)", line)
        if found:
            path = found[1].replace("{{ models_dir }}", models)
            yield Written(path, f"{found[3]}:{found[4]}", found[2], "role `host_base`", _meaning(found[1]))


def _written(entry: dict[str, Any], mode: str, by: str, role: str) -> Written:
    path = entry["path"]
    template = f"{role}/{entry['template']}" if "template" in entry else ""
    owner = f"{entry.get('owner', 'root')}:{entry.get('group', 'root')}"
    return Written(path, owner, entry.get("mode", mode), by, _meaning(path), template)


def _meaning(path: str) -> str:
    if path not in _WHAT:
        msg = f"nobody says what {path} is"
        raise DocsError(msg, "say it in _WHAT of src/llamarig/control/docs_host.py")
    return _WHAT[path]


def _defaults(root: Path, role: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((root / f"roles/{role}/defaults/main.yml").read_text(encoding="utf-8"))
    return values
