"""How long a run takes that has nothing to change: playbooks/site.yml beside its peers.

What is measured: wall time and the control node's CPU time of one run over hosts that are as they should be, by

  site.yml   playbooks/site.yml, the whole of it
  plain      the same operations as builtin Ansible tasks (file, copy, apt, systemd_service, command, stat, find, uri),
             with this project's ansible.cfg: pipelining, 20 forks, connections kept open
  pyinfra    the same operations by pyinfra's own operations and facts (benchmarks/peers/deploy.py)
  pyinfra-nodelay
             the same with TCP_NODELAY on its connections (benchmarks/peers/nodelay.py): pyinfra without the waiting
             that is not its own

How: the script brings up lab hosts of its own, converges them with site.yml, then runs site.yml once more with a
callback that records what really reaches every host. The operations are made from that record and the plan of
llamarig.planning.intent.plan_host: every file with content, owner and mode, every directory, link, package set, unit,
image, model file, clean-up of strays, and the two requests of the service. A task that the script does not know ends
it: nothing is left out in silence. The peers then run twice, and from then on every run of every tool must report no
change at all, else the comparison is void and no figure is printed. Rounds are interleaved, and the order within a
round rotates. The lab is removed at the end, also after Ctrl-C (its models, which all labs of a checkout share, stay
in .lab).

Conditions: hosts are containers on the control node, so they share its CPUs, and the network costs nothing. Ansible's
SSH connections are open already (ControlPersist), for site.yml and plain alike; pyinfra keeps none and connects each
time. With --cold Ansible's are closed before every run too. Only ratios within one run of the script say anything.

What differs. site.yml does more: it plans every host and checks every role's arguments first, compares model files
with what was seen when their checksum was computed, compares the running spec with the one on disk, and its doctor
looks at disk space and restarts. The peers check size for a model file, and that the service is healthy and completes
sixteen tokens, by the doctor's own request. site.yml asks the package database once, in its probe, and calls apt where
something is missing; the peers use their own package operation. Plain tasks loop over entries of one kind, as a person
would write them.

Examples:
  .venv/bin/python benchmarks/converge.py
  .venv/bin/python benchmarks/converge.py --hosts 1 --rounds 10 --json converge.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import posixpath
import re
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import common
from benchmarks.common import ROOT, BenchmarkError, Run, say

HOST_VARS: Final = ROOT / "inventories" / "lab" / "host_vars" / "lab01.yml"
TOOLS: Final = ("site.yml", "plain", "pyinfra", "pyinfra-nodelay")
# What the doctor asks (llamarig.checks.doctor, llamarig.runtime.engine).
COMPLETION: Final = {
    "messages": [{"role": "user", "content": "Say hello in one short sentence."}],
    "max_tokens": 16,
    "temperature": 0,
    "logprobs": True,
    "top_logprobs": 1,
    "cache_prompt": False,
}
# Actions that touch nothing on a host.
_CONTROL_NODE_ONLY: Final = ("plan", "validate_argument_spec", "include_vars", "debug")
_RECAP: Final = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
Entry = dict[str, Any]


@dataclass
class Bench:
    """One benchmark: where its things are, and its hosts."""

    work: Path
    hosts: list[str]
    cold: bool = False
    operations: list[Entry] = field(default_factory=list)

    @property
    def lab(self) -> Path:
        return self.work / "lab"

    @property
    def inventory(self) -> Path:
        return self.work / "inventory"

    def prepare(self) -> None:
        """Write the inventory: every host is what the lab's lab01 is."""
        aliases = {host: (self.lab / "hosts" / host / "alias").read_text(encoding="ascii") for host in self.hosts}
        group = {
            "hosts": {host: {"ansible_host": alias} for host, alias in aliases.items()},
            "vars": {
                "ansible_ssh_common_args": f"-F {self.lab}/ssh_config",
                "llama_image_mirror": (self.lab / "mirror").read_text(encoding="ascii").strip(),
            },
        }
        (self.inventory / "host_vars").mkdir(parents=True)
        (self.inventory / "group_vars").symlink_to(ROOT / "group_vars")
        _write_yaml(self.inventory / "hosts.yml", {"gpu_hosts": group})
        for host in self.hosts:
            (self.inventory / "host_vars" / f"{host}.yml").symlink_to(HOST_VARS)

    def ansible(self, playbook: Path, hosts: list[str], *words: str, extra: dict[str, str] | None = None) -> Run:
        """Run a playbook on some of the hosts."""
        sockets = self.work / "cp"
        if self.cold:
            common.disconnect(sockets)
        env = common.environment({"ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets), **(extra or {})})
        program = Path(sys.executable).parent / "ansible-playbook"
        return common.measured(
            [program, "-i", self.inventory, "--limit", ",".join(hosts), *words, playbook], env=env, cwd=ROOT
        )

    def plan(self, host: str) -> Entry:
        """Return a host's plan, which is what llamarig.planning.intent.plan_host returned, as record() left it."""
        plan: Entry = json.loads((self.work / "plans" / f"{host}.json").read_text(encoding="utf-8"))
        return plan

    def site(self, hosts: list[str]) -> tuple[Run, int]:
        """Run site.yml; nothing may change."""
        run = self.ansible(ROOT / "playbooks" / "site.yml", hosts)
        return run, _unchanged("site.yml", run, hosts)

    def plain(self, hosts: list[str]) -> tuple[Run, int]:
        """Run the plain tasks; nothing may change."""
        run = self.ansible(self.work / "plain.yml", hosts)
        return run, _unchanged("plain", run, hosts)

    def pyinfra(self, hosts: list[str], *, may_change: bool = False, nodelay: bool = False) -> tuple[Run, int]:
        """Run the pyinfra deploy; nothing may change."""
        programs = ROOT / ".cache" / "bench-venv" / "bin"
        command: list[str | Path] = [programs / "pyinfra"]
        if nodelay:
            command = [programs / "python", ROOT / "benchmarks" / "peers" / "nodelay.py"]
        command += ["-y", "--json", *(word for host in hosts for word in ("--limit", host))]
        command += [self.work / "inventory.py", ROOT / "benchmarks" / "peers" / "deploy.py"]
        run = common.measured(command, env=common.environment(), cwd=self.work)
        return run, _pyinfra_unchanged(run, hosts, len(self.operations), may_change=may_change)

    def record(self) -> dict[str, list[Entry]]:
        """Run site.yml on converged hosts, and return what reached each of them."""
        path = self.work / "record.jsonl"
        extra = {
            "ANSIBLE_CALLBACK_PLUGINS": str(common.CALLBACKS),
            "ANSIBLE_CALLBACKS_ENABLED": "task_args",
            "LLAMARIG_TASK_ARGS": str(path),
        }
        plans = self.work / "plans"
        plans.mkdir()
        site = ROOT / "playbooks" / "site.yml"
        run = self.ansible(site, self.hosts, "-e", f"plan_output={plans}", extra=extra)
        _unchanged("site.yml", run, self.hosts)
        lines: dict[str, list[Entry]] = defaultdict(list)
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            lines[line["host"]].append(line)
        return lines

    def write_peers(self) -> None:
        """Write what the peers run: a playbook and, per host, a list for the pyinfra deploy."""
        try:
            lists = {host: list(operations(lines, self.plan(host))) for host, lines in self.record().items()}
        except KeyError as error:
            msg = f"site.yml's record or plan has no {error} where this script looks for it: teach it"
            raise BenchmarkError(msg) from error
        self.operations = lists[self.hosts[0]]
        names = [(entry["kind"], entry["name"]) for entry in self.operations]
        inventory = []
        for host, entries in lists.items():
            if [(entry["kind"], entry["name"]) for entry in entries] != names:
                msg = f"{host} has other operations than {self.hosts[0]}"
                raise BenchmarkError(msg)
            files = self.work / "files" / host
            for entry in [entry for entry in entries if entry["kind"] == "file"]:
                source = files / entry["path"].lstrip("/")
                source.parent.mkdir(parents=True, exist_ok=True)
                source.write_bytes(entry.pop("content").encode())
                entry["source"] = str(source)
            listed = self.work / f"{host}.json"
            listed.write_text(json.dumps(entries), encoding="utf-8")
            inventory.append((host, self._connection(host, listed)))
        known = []
        for host, data in inventory:
            public = self.lab / "hosts" / host / "ssh_host_ed25519_key.pub"
            known.append(f"{data['ssh_hostname']} {' '.join(public.read_text(encoding='ascii').split()[:2])}\n")
        (self.work / "known_hosts").write_text("".join(known), encoding="ascii")
        (self.work / "inventory.py").write_text(f"gpu_hosts = {inventory!r}\n", encoding="utf-8")
        _write_yaml(self.work / "plain.yml", [playbook(self.operations, self.work / "files")])

    def _connection(self, host: str, listed: Path) -> dict[str, str]:
        """Tell pyinfra how to reach a host; it has no HostKeyAlias, so it gets known hosts by address."""
        config = (self.lab / "ssh_config").read_text(encoding="ascii")
        found = re.search(rf"^Host {host} .*\n\s*HostName (\S+)", config, re.MULTILINE)
        user = re.search(r"^\s*User (\S+)", config, re.MULTILINE)
        if found is None or user is None:
            msg = f"the lab's ssh_config does not say how to reach {host}"
            raise BenchmarkError(msg)
        return {
            "ssh_hostname": found.group(1),
            "ssh_user": user.group(1),
            "ssh_key": str(self.lab / "id_ed25519"),
            "ssh_known_hosts_file": str(self.work / "known_hosts"),
            "ssh_strict_host_key_checking": "yes",
            "operations": str(listed),
        }


def operations(lines: list[Entry], plan: Entry) -> Iterator[Entry]:
    """Turn the record of one host and its plan into operations, in the order of site.yml."""
    results: dict[str, Entry] = {_action(line): line["result"] for line in lines if line["result"]}
    doctor: Entry = results["llamarig_cli"]["data"]["doctor"]
    readers: dict[str, Callable[[Entry], Iterator[Entry]]] = {
        "manifest": lambda line: _manifest(line["args"]),
        "host_probe": lambda line: _probe(line["args"]),
        "apt": lambda line: _packages(line["role"], results["host_probe"]["system"]),
        "model_files": lambda line: _models(line["args"]),
        "agent_release": lambda line: _release(line["args"]),
        "llamarig_cli": lambda line: _service(line["args"]["argv"], plan["specs"], doctor),
    }
    for line in lines:
        action = _action(line)
        if line["result"] is None and action != "apt":
            continue  # skipped on this host: nothing of it is kept here
        if line["args"] is None and action in _CONTROL_NODE_ONLY:
            continue
        if action not in readers:
            msg = f"site.yml does {line['task']!r} by {line['action']}, which this script does not know: teach it"
            raise BenchmarkError(msg)
        for entry in readers[action](line):
            yield {"role": line["role"], **entry}


def _action(line: Entry) -> str:
    return str(line["action"]).rsplit(".", maxsplit=1)[-1]


def _manifest(arguments: Entry) -> Iterator[Entry]:
    if arguments["secrets"]:
        msg = "site.yml keeps a secret file on these hosts, whose content no record holds"
        raise BenchmarkError(msg)
    for item in arguments["directories"]:
        yield {"kind": "directory", "name": item["path"], **item}
    for item in arguments["files"]:
        yield {"kind": "file", "name": item["path"], **item}
    for item in arguments["links"]:
        yield {"kind": "link", "name": item["path"], **item}
    for path in arguments["absent"]:
        yield {"kind": "absent", "name": path, "path": path}
    named = {item["path"] for key in ("directories", "files", "links") for item in arguments[key]}
    for item in arguments["prune"]:
        keep = {path for path in named | {posixpath.dirname(p) for p in named} if path.startswith(item["directory"])}
        yield {"kind": "prune", "name": f"{item['directory']}/{item['pattern']}", **item, "keep": sorted(keep)}
    for item in arguments["units"]:
        yield _unit(item["name"], enabled=item["enabled"], active=item["active"])


def _unit(name: str, *, enabled: bool, active: bool) -> Entry:
    return {"kind": "unit", "name": name, "unit": name, "enabled": enabled, "active": active}


def _probe(arguments: Entry) -> Iterator[Entry]:
    """What preflight compares, as one shell line, and one look for each image."""
    systems = " ".join(f"-e {shlex.quote(system)}" for system in arguments["supported"])
    machines = " ".join(f"-e {shlex.quote(machine)}" for machine in arguments["machines"])
    conditions = [
        f'. /etc/os-release && echo "$ID $VERSION_ID" | grep -qxF {systems}',
        f"uname -m | grep -qxF {machines}",
        f"""[ "$(awk '/^MemTotal:/ {{print int($2 / 1024)}}' /proc/meminfo)" -ge {arguments["memory_mib"]} ]""",
        *(
            f"""[ "$(df --output=avail -m {shlex.quote(item["path"])} | tail -n 1)" -ge {item["mib"]} ]"""
            for item in arguments["space"]
        ),
        "[ -d /run/systemd/system ]",
    ]
    yield {"kind": "shell", "name": "host", "command": " && ".join([*conditions, "echo ok"]), "wanted": "ok"}
    for image in arguments["images"]:
        command = f"docker image inspect --format ok {shlex.quote(image)}"
        yield {"kind": "shell", "name": image, "command": command, "wanted": "ok"}


def _packages(role: str, system: str) -> Iterator[Entry]:
    """The packages that a role keeps installed; its task is skipped where none is missing, so the record lacks them."""
    platform = yaml.safe_load((ROOT / "roles" / "preflight" / "vars" / f"{system}.yml").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((ROOT / "roles" / "host_base" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    packages = {
        "host_base": defaults["host_base_packages"],
        "docker_engine": platform["preflight_platform"]["docker_packages"],
    }
    if role not in packages:
        msg = f"role {role} installs packages, which this script does not know: teach it"
        raise BenchmarkError(msg)
    yield {"kind": "packages", "name": role, "packages": packages[role]}


def _models(arguments: Entry) -> Iterator[Entry]:
    for item in arguments["files"]:
        path = posixpath.join(arguments["directory"], item["name"])
        size = str(item["bytes"])
        command = f"stat --format %s {shlex.quote(path)}"
        yield {"kind": "model", "name": path, "path": path, "bytes": item["bytes"], "command": command, "wanted": size}


def _release(arguments: Entry) -> Iterator[Entry]:
    root, name = arguments["root"], arguments["release"]
    path = posixpath.join(root, "releases", name)
    yield {"kind": "directory", "name": "release", "path": path, "owner": "root", "group": "root", "mode": "0755"}
    current = posixpath.join(root, "current")
    yield {"kind": "link", "name": current, "path": current, "target": posixpath.join("releases", name)}
    program = posixpath.join(current, "bin", "llamarig")
    yield {"kind": "link", "name": arguments["command"], "path": arguments["command"], "target": program}


def _service(argv: list[str], specs: list[Entry], doctor: Entry) -> Iterator[Entry]:
    """The units of all services and the health of the active one; for the doctor, a completion."""
    if argv == ["reconcile"]:
        for spec in specs:
            active = spec["service"] == doctor["active"]
            yield _unit(f"llama-{spec['service']}.service", enabled=active, active=active)
        yield _request("health", f"{doctor['url']}/health", None)
        # The doctor's verdict comes with it, and with that a completion.
        yield _request("completion", f"{doctor['url']}/v1/chat/completions", COMPLETION)
    else:
        msg = f"site.yml runs llamarig {' '.join(argv)}, which this script does not know: teach it"
        raise BenchmarkError(msg)


def _request(name: str, url: str, body: Entry | None) -> Entry:
    """Make a request; hosts have no curl, so for pyinfra it is a line of Python, as it is for Ansible's uri."""
    data = f"json.dumps({body!r}).encode()" if body else "None"
    code = (
        "import json, urllib.request as u;"
        f"r = u.urlopen(u.Request({url!r}, {data}, {{'Content-Type': 'application/json'}}), timeout=60);"
        "r.read(); print(r.status)"
    )
    command = f"/usr/bin/python3 -c {shlex.quote(code)}"
    return {"kind": "request", "name": name, "url": url, "body": body, "command": command, "wanted": "200"}


def playbook(entries: list[Entry], files: Path) -> Entry:
    """Write the operations as a person would: one builtin task per role and kind, looping over its entries."""
    tasks = []
    for (role, kind), found in groupby(entries, key=lambda entry: (entry["role"], entry["kind"])):
        tasks += _TASKS[kind](f"{role}: {kind}", list(found), files)
    return {"name": "The same, plainly", "hosts": "gpu_hosts", "gather_facts": False, "become": True, "tasks": tasks}


def _loop(name: str, module: str, arguments: Entry, items: list[Entry], **keywords: Any) -> Entry:
    return {"name": name, f"ansible.builtin.{module}": arguments, "loop": items, **keywords}


def _same(*keys: str) -> Entry:
    return {key: f"{{{{ item.{key} }}}}" for key in keys}


def _pick(entries: list[Entry], *keys: str) -> list[Entry]:
    return [{key: entry[key] for key in keys} for entry in entries]


def _directory_task(name: str, entries: list[Entry], _: Path) -> list[Entry]:
    keys = ("path", "owner", "group", "mode")
    return [_loop(name, "file", {**_same(*keys), "state": "directory"}, _pick(entries, *keys))]


def _file_task(name: str, entries: list[Entry], files: Path) -> list[Entry]:
    arguments = {"src": f"{files}/{{{{ inventory_hostname }}}}{{{{ item.path }}}}", "dest": "{{ item.path }}"}
    items = _pick(entries, "path", "owner", "group", "mode")
    return [_loop(name, "copy", {**arguments, **_same("owner", "group", "mode")}, items)]


def _link_task(name: str, entries: list[Entry], _: Path) -> list[Entry]:
    arguments = {"src": "{{ item.target }}", "dest": "{{ item.path }}", "state": "link"}
    return [_loop(name, "file", arguments, _pick(entries, "path", "target"))]


def _absent_task(name: str, entries: list[Entry], _: Path) -> list[Entry]:
    return [_loop(name, "file", {**_same("path"), "state": "absent"}, _pick(entries, "path"))]


def _packages_task(name: str, entries: list[Entry], _: Path) -> list[Entry]:
    return [
        {"name": name, "ansible.builtin.apt": {"name": entry["packages"], "install_recommends": False}}
        for entry in entries
    ]


def _unit_task(name: str, entries: list[Entry], _: Path) -> list[Entry]:
    items = [
        {"name": entry["unit"], "enabled": entry["enabled"], "state": "started" if entry["active"] else "stopped"}
        for entry in entries
    ]
    return [_loop(name, "systemd_service", _same("name", "enabled", "state"), items)]


def _shell_task(name: str, entries: list[Entry], _: Path) -> list[Entry]:
    items = _pick(entries, "command")
    # Go templates of docker are no templates of Ansible's.
    quoted = [{"command": Unsafe(item["command"])} for item in items]
    return [_loop(name, "shell", {"cmd": "{{ item.command }}"}, quoted, changed_when=False)]


def _model_task(name: str, entries: list[Entry], _: Path) -> list[Entry]:
    keywords = {"register": "found", "failed_when": "found.stat.size | default(0) != item.bytes"}
    arguments = {**_same("path"), "get_checksum": False, "get_mime": False, "get_attributes": False}
    return [_loop(name, "stat", arguments, _pick(entries, "path", "bytes"), **keywords)]


def _prune_task(name: str, entries: list[Entry], _: Path) -> list[Entry]:
    items = [
        {
            "paths": entry["directory"],
            "patterns": entry["pattern"],
            "contains": f".*{re.escape(entry['contains'])}" if entry["contains"] else "",
        }
        for entry in entries
    ]
    arguments = {**_same("paths", "patterns"), "contains": "{{ item.contains | default(omit, true) }}"}
    arguments["file_type"] = "any"
    keep = sorted({path for entry in entries for path in entry["keep"]})
    strays = "{{ strays.results | map(attribute='files') | flatten | map(attribute='path') | difference(keep) }}"
    return [
        _loop(name, "find", arguments, items, register="strays"),
        {
            "name": f"{name}, remove",
            "ansible.builtin.file": {"path": "{{ item }}", "state": "absent"},
            "loop": strays,
            "vars": {"keep": keep},
        },
    ]


def _request_task(name: str, entries: list[Entry], _: Path) -> list[Entry]:
    tasks = []
    for entry in entries:
        arguments = {"url": entry["url"]}
        if entry["body"]:
            arguments |= {"method": "POST", "body_format": "json", "body": entry["body"]}
        tasks.append({"name": f"{name} {entry['name']}", "ansible.builtin.uri": arguments})
    return tasks


_TASKS: Final[dict[str, Callable[[str, list[Entry], Path], list[Entry]]]] = {
    "directory": _directory_task,
    "file": _file_task,
    "link": _link_task,
    "absent": _absent_task,
    "packages": _packages_task,
    "unit": _unit_task,
    "shell": _shell_task,
    "model": _model_task,
    "prune": _prune_task,
    "request": _request_task,
}


class Unsafe(str):
    """Text that Ansible must not take for a template."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """YAML as Ansible reads it."""


_Dumper.add_representer(Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text)))


def _write_yaml(path: Path, data: object) -> None:
    path.write_text(yaml.dump(data, Dumper=_Dumper, sort_keys=False), encoding="utf-8")


def _unchanged(tool: str, run: Run, hosts: list[str]) -> int:
    """Read Ansible's recap: all hosts, no change. Returns the results that were ok on one host."""
    recap = {name: [int(number) for number in numbers] for name, *numbers in _RECAP.findall(run.stdout)}
    if set(recap) != set(hosts) or any(changed or failed for _, changed, _, failed in recap.values()):
        changes = "\n".join(re.findall(r"^(?:TASK .*|changed: .*)$", run.stdout, re.MULTILINE))
        msg = f"the comparison is void: {tool} did not find all hosts as they should be\n{changes[-3000:]}"
        raise BenchmarkError(msg)
    return max(ok for ok, *_ in recap.values())


def _pyinfra_unchanged(run: Run, hosts: list[str], wanted: int, *, may_change: bool) -> int:
    """Read pyinfra's results: every operation on every host, no error, no change. Returns how many a host had."""
    done = json.loads(run.stdout)["results"]["operations"]
    seen = Counter(host for item in done for host in [*item["success"], *item["no_change"]])
    changes = [f"{item['name']}: {', '.join(item['success'])}" for item in done if item["success"] and not may_change]
    errors = [f"{item['name']}: {', '.join(item['error'])}" for item in done if item["error"]]
    if changes or errors or dict(seen) != dict.fromkeys(hosts, wanted):
        found = "\n".join([*changes, *errors, f"operations by host: {dict(seen)}, wanted {wanted}"])
        msg = f"the comparison is void: pyinfra did not find all hosts as they should be\n{found}"
        raise BenchmarkError(msg)
    return wanted


def bench_venv() -> None:
    """Put the hash-locked pyinfra into a virtual environment of its own; nothing to do is nothing done."""
    version = f"{sys.version_info.major}{sys.version_info.minor}"
    lock = ROOT / "requirements" / f"bench-py{version}.txt"
    if not lock.exists():
        locks = ", ".join(path.stem.removeprefix("bench-") for path in lock.parent.glob("bench-py*.txt"))
        msg = f"there is no {lock.name} (only {locks}): run this with such a Python, or with --tools site.yml plain"
        raise BenchmarkError(msg)
    place = ROOT / ".cache" / "bench-venv"
    stamp = f"{sys.version} {hashlib.sha256(lock.read_bytes()).hexdigest()}"
    if (place / "lock").is_file() and (place / "lock").read_text(encoding="utf-8") == stamp:
        return
    say("installing pyinfra into .cache/bench-venv")
    pip: list[str | Path] = [place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    common.measured([sys.executable, "-m", "venv", "--clear", place], env=common.environment())
    common.measured([*pip, "--require-hashes", "--no-deps", "--requirement", lock], env=common.environment())
    (place / "lock").write_text(stamp, encoding="utf-8")


def measure(bench: Bench, tools: list[str], counts: list[int], rounds: int) -> list[Entry]:
    """Run all tools on each number of hosts, interleaved, the order rotating."""
    runs: list[Entry] = []
    runners: dict[str, Callable[[list[str]], tuple[Run, int]]] = {
        "site.yml": bench.site,
        "plain": bench.plain,
        "pyinfra": bench.pyinfra,
    }
    runners["pyinfra-nodelay"] = partial(bench.pyinfra, nodelay=True)
    for number in range(rounds):
        for count in counts:
            order = [tools[(number + place) % len(tools)] for place in range(len(tools))]
            for tool in order:
                run, steps = runners[tool](bench.hosts[:count])
                runs.append(
                    {
                        "round": number + 1,
                        "hosts": count,
                        "tool": tool,
                        "operations_per_host": len(bench.operations),
                        "steps_per_host": steps,
                        "wall_seconds": round(run.wall, 4),
                        "control_cpu_seconds": round(run.cpu, 4),
                    }
                )
                say(f"round {number + 1}/{rounds}, {count} hosts, {tool}: no change, {run.wall:.2f} s")
    return runs


def summary(runs: list[Entry], tools: list[str], counts: list[int]) -> str:
    """Draw the table; the ratio is of medians, to site.yml on as many hosts."""
    head = ["hosts  tool", "operations", "steps", "wall min", "median", "ratio", "CPU min", "median"]
    rows = []
    for count in counts:
        unit = 0.0
        for tool in tools:
            chosen = [run for run in runs if run["hosts"] == count and run["tool"] == tool]
            wall = [run["wall_seconds"] for run in chosen]
            cpu = [run["control_cpu_seconds"] for run in chosen]
            unit = unit or common.median(wall)
            first = chosen[0]
            rows.append(
                [
                    f"{count:5}  {tool}",
                    str(count * first["operations_per_host"]),
                    str(count * first["steps_per_host"]),
                    f"{min(wall):.2f}",
                    f"{common.median(wall):.2f}",
                    f"{common.median(wall) / unit:.2f}",
                    f"{min(cpu):.2f}",
                    f"{common.median(cpu):.2f}",
                ]
            )
    return common.table(head, rows)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--hosts", type=common.positive, nargs="+", default=[1, 4], metavar="N", help="numbers of hosts (default: 1 4)"
    )
    parser.add_argument("--rounds", type=common.positive, default=3, metavar="N", help="rounds (default: 3)")
    parser.add_argument(
        "--tools", nargs="+", choices=TOOLS, default=list(TOOLS), help="which to run; site.yml is always the unit"
    )
    parser.add_argument("--cold", action="store_true", help="close Ansible's SSH connections before every run")
    return parser.parse_args()


def main() -> None:
    """Bring up the lab, measure, and remove it."""
    chosen = arguments()
    tools = [tool for tool in TOOLS if tool == "site.yml" or tool in chosen.tools]
    counts = sorted(set(chosen.hosts))
    facts = common.conditions()
    with_pyinfra = any(tool.startswith("pyinfra") for tool in tools)
    if with_pyinfra:
        bench_venv()
    hosts = [f"bench{number:02}" for number in range(1, max(counts) + 1)]
    with common.workplace("converge") as work:
        bench = Bench(work, hosts, cold=chosen.cold)
        with common.lab(bench.lab, hosts):
            bench.prepare()
            say(f"converging {len(hosts)} hosts with site.yml, once")
            bench.ansible(ROOT / "playbooks" / "site.yml", hosts)
            try:
                bench.write_peers()
                for attempt in (1, 2):
                    say(f"settling the peers, run {attempt} of 2")
                    if "plain" in tools:
                        run = bench.ansible(work / "plain.yml", hosts)
                        if attempt > 1:
                            _unchanged("plain", run, hosts)
                    if with_pyinfra:
                        bench.pyinfra(hosts, may_change=attempt == 1)
                bench.site(hosts)
                runs = measure(bench, tools, counts, chosen.rounds)
            finally:
                common.disconnect(work / "cp")
    kinds = dict(Counter(entry["kind"] for entry in bench.operations))
    print(summary(runs, tools, counts))
    listed = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    print(f"\noperations per host: {listed}")
    print("steps: what the tool counts itself; for Ansible, results that were ok. Seconds; ratio of median wall times.")
    print(common.describe(facts))
    data = {"benchmark": "converge", "conditions": {**facts, "cold": chosen.cold}, "operations": kinds, "runs": runs}
    common.write_json(chosen.json, data)


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"converge: {error}")
    except KeyboardInterrupt:
        sys.exit("converge: interrupted, the lab is removed")
