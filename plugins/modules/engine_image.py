#!/usr/bin/python
"""Bring the engine's image to a host: build, judge and name it, hand it on, or take it from another."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: engine_image
short_description: Bring the engine's image to a host
description:
  - One call does one step, and never more than O(slice_seconds) of waiting; the action plugin repeats it while
    RV(unfinished) says that a job runs, and brings what RV(packages) and RV(inputs) ask for.
  - What takes long (a build, a pull, an archive, a push) is a job, one transient unit for the whole host. It outlives
    the connection, is joined by whoever wants the same, waited for by whoever wants another, and leaves nothing that
    hinders the next run. A job that failed is not started again in the same O(run).
  - An image gets its name last, after the engine in it has said what it is.
options:
  state:
    description:
      - V(room) only looks whether there is room; V(built) has the image made by O(script), judged and named.
      - V(archived) writes it as a zstd archive beside its checksum, V(pushed) pushes it as O(remote).
      - V(loaded) loads it from an archive that was sent here; V(absent) removes all engines and what was made for them.
    type: str
    choices: [room, built, archived, pushed, loaded, absent]
    required: true
  image:
    description: Name of the image; of V(absent) its repository.
    type: str
    required: true
  inventory_name:
    description: What this host is called where messages are read.
    type: str
    required: true
  room:
    description: MiB that must be free before anything begins, by place; V(docker) is where Docker keeps images.
    type: dict
    default: {}
  script:
    description: What makes the image under the name O(image) with C(-untested) behind it, as bash.
    type: str
    default: ""
  files:
    description: Small files beside the script, by name.
    type: dict
    default: {}
  inputs:
    description: Large files beside the script, as V(name), V(sha256), V(bytes); one of V(name) alone is asked for.
    type: list
    elements: dict
    default: []
  packages:
    description: Packages that the step needs; V(docker-buildx) is whichever of that plugin fits the host's Docker.
    type: list
    elements: str
    default: []
  says:
    description: Text that the version which the engine says must contain.
    type: str
    default: ""
  version_file:
    description: What C(/version.json) in the image must hold, as far as it is named here.
    type: dict
    default: {}
  fingerprint:
    description: The image that was handed on, as RV(engine) has it; anything else is refused.
    type: str
    default: ""
  archive:
    description: The archive that was handed on, with V(sha256) and V(bytes).
    type: dict
    default: {}
  remote:
    description: The image's name in the registry, with V(pushed).
    type: str
    default: ""
  served_host:
    description: The host that the image is brought for, where it is another.
    type: str
    default: ""
  run:
    description: Names the run of Ansible; a job that failed in it is not tried again in it.
    type: str
    default: ""
  slice_seconds:
    description: How long one call may wait for a job.
    type: int
    default: 20
attributes:
  check_mode: {support: full}
"""
EXAMPLES = r"""
- name: Load the engine's image
  engine_image:
    state: loaded
    image: llamarig/llama-cpp:v0.7.0-cuda-0123456789ab
    inventory_name: gpu02
    archive: {sha256: "0123...", bytes: 434110464}
"""
RETURN = r"""
engine: {description: The image's fingerprint and size in bytes., returned: once it is there, type: dict}
archive: {description: The archive's path, sha256 and size in bytes., returned: with V(archived), type: dict}
pushed: {description: The image in the registry by its digest., returned: with V(pushed), type: str}
unfinished: {description: The job that is waited for, its seconds and its last line., returned: always, type: dict}
packages: {description: Packages to install before the next call., returned: always, type: list}
inputs: {description: Large files to bring to RV(incoming) before the next call., returned: always, type: list}
incoming: {description: Where they go., returned: always, type: str}
"""

_UNIT = "llamarig-engine-build.service"
_CACHE = "/var/cache/llamarig"
_WORK = f"{_CACHE}/engine"
_IMAGES = f"{_CACHE}/images"
_LOGS = "/var/log/llamarig"
_LOCK = "/run/llamarig-engine.lock"
_SERVED = f"{_IMAGES}/served.json"
_SHOWN_LINES = 30
_GIVEN_UP_SECONDS = 86400
# What NVIDIA's compiler takes for one kernel of llama.cpp, and g++ for one file of it.
_JOB_MIB = 1024
_MIB = 2**20
# What decides what an image does, whatever store it lies in: an image's id is another in each kind of store.
_TELLING = ("Entrypoint", "Env", "Labels", "User")


class Engine:
    """The host's side of one step."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.dry = bool(module.check_mode)
        self.image: str = self.params["image"]
        self.untested = f"{self.image}-untested"
        self.key = _key(self.image)
        self.work = os.path.join(_WORK, self.key)
        self.archive = os.path.join(_IMAGES, f"{self.key}.tar.zst")
        self.changed = False
        self.host: str = self.params["inventory_name"]

    def run(self) -> dict[str, Any]:
        state = self.params["state"]
        if not shutil.which("docker"):
            return self._without_docker(state)
        if self.dry:
            return self._foreseen(state)
        step = {
            "room": self._room,
            "built": self._built,
            "archived": self._archived,
            "pushed": self._pushed,
            "loaded": self._loaded,
            "absent": self._absent,
        }[state]
        deadline = time.monotonic() + self.params["slice_seconds"]
        while True:
            with _locked():
                result = step()
            if not result["unfinished"] or time.monotonic() >= deadline:
                return result
            time.sleep(0.5)

    def _without_docker(self, state: str) -> dict[str, Any]:
        if state == "absent":
            self._absent_files()
            return self._result()
        if not self.dry:
            self._fail(f"{self.host} has no Docker", "run playbooks/site.yml on it first: it builds for others")
        self.changed = state != "room"
        return self._result()

    def _foreseen(self, state: str) -> dict[str, Any]:
        """Say what would be done; a host without the room for it is refused here as well."""
        if state == "absent":
            return self._absent()
        missing = not self._inspect(self.image)
        if missing:
            self._check_room()
        self.changed = missing and state in {"built", "loaded"}
        return self._result()

    # Each step: what is there already, what runs, what is missing, and then the work. Whether a job runs is asked
    # before what it makes is looked for: one that ends in between has then made it, and has not failed.

    def _room(self) -> dict[str, Any]:
        self._check_room()
        return self._result()

    def _check_room(self) -> None:
        """Compare what is free with what is needed, file system by file system."""
        wanted: dict[int, list[tuple[str, int]]] = {}
        for place, mib in self.params["room"].items():
            path = self._docker_root() if place == "docker" else place
            while not os.path.isdir(path):
                path = os.path.dirname(path)
            wanted.setdefault(os.stat(path).st_dev, []).append((path, int(mib)))
        for places in wanted.values():
            path, needed = places[0][0], sum(mib for _, mib in places)
            free = _free_mib(path)
            if free < needed:
                self._fail(
                    f"{self.host}: {path} has {free} MiB free, the engine's image needs {needed}:"
                    " nothing was fetched or built",
                    "free some (docker image ls, docker builder prune), add a disk,"
                    " or let a host with more room build (group image_builder)",
                )

    def _built(self) -> dict[str, Any]:
        unit = self._unit()
        if self._inspect(self.image):
            return self._tidied()
        if unit is not None:
            return self._waiting(unit, "build")
        if self._inspect(self.untested):
            self._judge()
            self._docker("tag", self.untested, self.image)
            self.changed = True
            # An archive of an earlier image of this name is another image's.
            for path in glob.glob(f"{glob.escape(os.path.join(_IMAGES, self.key))}.*"):
                os.unlink(path)
            return self._tidied()
        self._failed("build")
        if wanting := self._wanting():
            return wanting
        for name, text in {**self.params["files"], "build.sh": self.params["script"]}.items():
            _write(os.path.join(self.work, name), text)
        return self._start("build")

    def _archived(self) -> dict[str, Any]:
        unit = self._unit()
        whole = os.path.exists(self.archive) and os.path.exists(f"{self.archive}.sha256")
        if whole and not self._does(unit, "archive"):
            return self._tidied()
        if unit is not None:
            return self._waiting(unit, "archive")
        self._failed("archive")
        engine = self._engine()
        if wanting := self._wanting({_CACHE: engine["bytes"] // _MIB}):
            return wanting
        os.makedirs(_IMAGES, mode=0o755, exist_ok=True)
        name = os.path.basename(self.archive)
        script = f"""\
set -euo pipefail
cd {_IMAGES}
umask 022
rm -f {name} {name}.sha256
docker save {self.image} | zstd --quiet --force --threads=0 -o {name}.part
sha256sum {name}.part | sed 's/\\.part$//' >{name}.sha256.part
sync {name}.part {name}.sha256.part
mv {name}.part {name}
mv {name}.sha256.part {name}.sha256
"""
        _write(os.path.join(self.work, "archive.sh"), script)
        return self._start("archive")

    def _pushed(self) -> dict[str, Any]:
        remote: str = self.params["remote"]
        repository = remote.rpartition(":")[0]
        note = os.path.join(_IMAGES, f"{self.key}.pushed")
        # What an earlier run pushed may be there no more; what is there is not sent twice.
        unit = self._unit()
        pushed = self._seen("push") and _read(note).startswith(f"{repository}@sha256:")
        if pushed and not self._does(unit, "push"):
            return self._tidied()
        if unit is not None:
            return self._waiting(unit, "push")
        self._failed("push")
        self._engine()
        if wanting := self._wanting():
            return wanting
        os.makedirs(_IMAGES, mode=0o755, exist_ok=True)
        digests = "{{range .RepoDigests}}{{println .}}{{end}}"
        script = f"""\
set -euo pipefail
rm -f {note}
docker tag {self.image} {remote}
docker push {remote}
docker image inspect --format '{digests}' {remote} | grep -F {repository}@sha256: | head -n 1 >{note}.part
docker image rm {remote}
mv {note}.part {note}
"""
        _write(os.path.join(self.work, "push.sh"), script)
        return self._start("push")

    def _loaded(self) -> dict[str, Any]:
        """Check an archive that was sent here, load it, and see that it is the builder's image."""
        part, wanted = f"{self.archive}.part", self.params["archive"]
        if self._inspect(self.image):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            return self._result()
        if wanting := self._wanting({_CACHE: int(wanted["bytes"]) // _MIB}):
            return wanting
        os.makedirs(_IMAGES, mode=0o755, exist_ok=True)
        if not os.path.exists(part) or os.path.getsize(part) != int(wanted["bytes"]):
            name = {"name": os.path.basename(part), **wanted}
            return self._result(inputs=[name], incoming=_IMAGES)
        if (digest := _sha256(part)) != wanted["sha256"]:
            os.unlink(part)
            self._fail(
                f"{self.host}: the archive of {self.image} arrived with sha256 {digest}, it should be"
                f" {wanted['sha256']}: it was removed, and nothing was loaded",
                "run again: it is sent anew",
            )
        command = ["bash", "-o", "pipefail", "-c", f"zstd --quiet --decompress --stdout {part} | docker load"]
        code, out, err = self.module.run_command(command)
        if code != 0:
            self._fail(f"{self.host}: docker load of {part} failed: {(err or out).strip()[-1000:]}", "see docker info")
        self._compare(self.image)
        os.unlink(part)
        self.changed = True
        return self._result()

    def _absent(self) -> dict[str, Any]:
        """Remove every engine, and all that was made on the way; Docker's build cache is Docker's."""
        if self._unit() and not self.dry:
            self.module.run_command(["systemctl", "stop", _UNIT])
        listed = ["image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}}"]
        names = [name for name in self._docker(*listed).split() if name.rpartition(":")[0] == self.image]
        labelled = self._docker("image", "ls", "--quiet", "--filter", "label=llamarig.engine").split()
        self.changed = bool(names or labelled)
        if not self.dry:
            for name in names:
                self._docker("image", "rm", name)
            self._docker("image", "prune", "--all", "--force", "--filter", "label=llamarig.engine")
        self._absent_files()
        return self._result()

    def _absent_files(self) -> None:
        for path in [_WORK, _IMAGES, *glob.glob(f"{_LOGS}/engine-*.log")]:
            if not os.path.lexists(path):
                continue
            self.changed = True
            if self.dry:
                continue
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    # The job.

    def _unit(self) -> tuple[str, int] | None:
        """Return what the job does, as its description says, and for how many seconds; None while there is none."""
        command = ["systemctl", "show", "--timestamp=unix", "--property=ActiveState,Description,ActiveEnterTimestamp"]
        code, out, _ = self.module.run_command([*command, _UNIT])
        found = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        if code != 0 or found.get("ActiveState") not in {"active", "activating", "deactivating"}:
            return None
        since = float(found.get("ActiveEnterTimestamp", "").lstrip("@") or time.time())
        return found["Description"], max(0, int(time.time() - since))

    def _does(self, unit: tuple[str, int] | None, verb: str) -> bool:
        """Tell whether the job is this work on this image."""
        return unit is not None and unit[0] == self._description(verb)

    def _waiting(self, unit: tuple[str, int], verb: str) -> dict[str, Any]:
        """Join a job that does this, or wait for one that does something else."""
        description, seconds = unit
        if self._does(unit, verb):
            self._mark(verb)
        word = description.split()[1] if description.startswith("llamarig: ") else verb
        log = f"{_LOGS}/engine-{word}.log"
        line = next((line.strip() for line in reversed(_tail(log, 1)) if line.strip()), "")
        doing = description.removeprefix("llamarig: ")
        return self._result(unfinished={"doing": doing, "seconds": seconds, "line": line[:160], "log": log})

    def _start(self, verb: str) -> dict[str, Any]:
        os.makedirs(_LOGS, mode=0o755, exist_ok=True)
        log = f"{_LOGS}/engine-{verb}.log"
        self._mark(verb)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.work, f"{verb}.why"))
        command = ["systemd-run", "--quiet", "--collect", f"--unit={_UNIT}", "--service-type=exec"]
        command += [f"--description={self._description(verb)}", f"--working-directory={self.work}"]
        command += [f"--property=StandardOutput=truncate:{log}", "--property=StandardError=inherit"]
        # What it mounts goes with it; compilers do not take the machine from what serves.
        command += ["--property=PrivateMounts=yes", "--property=Nice=10"]
        command += ["--setenv=HOME=/root", f"--setenv=TMPDIR={self.work}", "--setenv=LC_ALL=C.UTF-8"]
        command += ["--setenv=DOCKER_BUILDKIT=1", f"--setenv=JOBS={self._jobs()}"]
        code, out, err = self.module.run_command([*command, "/bin/bash", os.path.join(self.work, f"{verb}.sh")])
        if code != 0:
            self._fail(f"{self.host}: the job could not be started: {(err or out).strip()}", "see systemctl status")
        unfinished = {"doing": f"{verb} {self.image}", "seconds": 0, "line": "", "log": log}
        return self._result(unfinished=unfinished)

    def _description(self, verb: str) -> str:
        return f"llamarig: {verb} {self.image}"

    def _mark(self, verb: str) -> None:
        """Note that this run of Ansible has seen the job."""
        _write(os.path.join(self.work, f"{verb}.run"), self.params["run"])

    def _seen(self, verb: str) -> bool:
        """Tell whether this run of Ansible has seen the job begin or run."""
        run: str = self.params["run"]
        return bool(run) and _read(os.path.join(self.work, f"{verb}.run")) == run

    def _failed(self, verb: str) -> None:
        """End here if the job ran in this run of Ansible, is over, and what it should have made is not there."""
        if not self._seen(verb):
            return
        if why := _read(os.path.join(self.work, f"{verb}.why")):
            self._fail(why, "")
        log = f"{_LOGS}/engine-{verb}.log"
        said = "\n".join(_tail(log, _SHOWN_LINES))
        what = f"{self.host}: {verb} of {self.image} failed. The end of {log} there:\n{said}"
        self._fail(what, f"see {log}; {self.work} has what was run, and the next run begins anew")

    def _jobs(self) -> int:
        with open("/proc/meminfo", encoding="ascii") as stream:
            available = next(int(line.split()[1]) // 1024 for line in stream if line.startswith("MemAvailable:"))
        return max(1, min(len(os.sched_getaffinity(0)), available // _JOB_MIB))

    def _wanting(self, room: dict[str, int] | None = None) -> dict[str, Any] | None:
        """Return what must be brought before the work can begin: room first, then packages, then files."""
        self.params["room"] = {**(room or {}), **self.params["room"]}
        self._check_room()
        packages = [name for name in map(self._package, self.params["packages"]) if name]
        if packages:
            return self._result(packages=packages)
        os.makedirs(self.work, mode=0o700, exist_ok=True)
        inputs = [entry for entry in self.params["inputs"] if not self._arrived(entry)]
        return self._result(inputs=inputs, incoming=self.work) if inputs else None

    def _package(self, name: str) -> str:
        """Return the package if it is missing, by the name that fits the host."""
        if name == "docker-buildx":
            if self.module.run_command(["docker", "buildx", "version"])[0] == 0:
                return ""
            name = "docker-buildx-plugin" if self._installed("docker-ce") else name
        return "" if self._installed(name) else name

    def _installed(self, name: str) -> bool:
        _, out, _ = self.module.run_command(["dpkg-query", "--show", "--showformat=${db:Status-Status}", name])
        return bool(out == "installed")

    def _arrived(self, entry: dict[str, Any]) -> bool:
        path = os.path.join(self.work, entry["name"])
        if "sha256" not in entry or not os.path.exists(path) or os.path.getsize(path) != int(entry["bytes"]):
            return False
        if (digest := _sha256(path)) == entry["sha256"]:
            return True
        os.unlink(path)
        self._fail(
            f"{self.host}: {entry['name']} arrived with sha256 {digest}, it should be {entry['sha256']}:"
            " it was removed, and nothing was built",
            "run again: it is sent anew",
        )
        return False

    # The image.

    def _judge(self) -> None:
        """Ask the engine what it is; one that is not what was asked for does not get its name."""
        if self.params["fingerprint"]:
            self._compare(self.untested)
        if self.params["says"]:
            run = ["timeout", "120", "docker", "run", "--rm", "--network", "none", "--read-only", self.untested]
            code, out, err = self.module.run_command([*run, "--version"])
            said = f"{out}{err}".strip()
            if code != 0 or self.params["says"] not in said:
                what = f"says {said[-500:]!r} (exit {code}), and not {self.params['says'].strip()!r}"
                self._reject(self.untested, f"{self.host}: llama-server in the image {what}")
        if self.params["version_file"]:
            self._judge_version_file(self.params["version_file"])

    def _judge_version_file(self, wanted: dict[str, Any]) -> None:
        show = ["timeout", "120", "docker", "run", "--rm", "--network", "none", "--entrypoint", "cat", self.untested]
        code, out, err = self.module.run_command([*show, "/version.json"])
        found = json.loads(out) if code == 0 else {}
        other = {key: found.get(key) for key in wanted if found.get(key) != wanted[key]}
        if other:
            said = f"has {other}, it should have { ({key: wanted[key] for key in other}) } {err.strip()[-300:]}"
            self._reject(self.untested, f"{self.host}: /version.json in the image {said}".strip())

    def _reject(self, name: str, what: str) -> None:
        self._docker("image", "rm", name)
        remedy = "what it is made of has moved on: correct the pin (group_vars/all), or name a mirror that has it"
        _write(os.path.join(self.work, "build.why"), f"{what}: the image was removed\n    remedy: {remedy}")
        self._fail(f"{what}: the image was removed", remedy)

    def _compare(self, name: str) -> None:
        found = _fingerprint(self._inspect(name))
        if found != self.params["fingerprint"]:
            what = f"{self.host}: the image is not the one that was handed on: it is {found[:12]}"
            self._reject(name, f"{what}, it should be {self.params['fingerprint'][:12]}")

    def _tidied(self) -> dict[str, Any]:
        """Remove what the work left, remember whom it was for, and drop archives that nobody has use for."""
        if self._unit() is None:
            shutil.rmtree(self.work, ignore_errors=True)
            self._sweep()
        if self.params["served_host"]:
            self._serve()
        return self._result()

    def _sweep(self) -> None:
        """Remove what builds left that were killed between two steps, or given up on long ago."""
        for path in glob.glob(f"{_WORK}/*"):
            if os.stat(path).st_mtime < time.time() - _GIVEN_UP_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
        names = set(self._docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split())
        for name in names:
            if name.endswith("-untested") and name.removesuffix("-untested") in names:
                self._docker("image", "rm", name)

    def _serve(self) -> None:
        """Remember the image of each host that this one builds for, and the one before; drop what is neither."""
        served = json.loads(_read(_SERVED) or "{}")
        before = {image for images in served.values() for image in images}
        mine = served.get(self.params["served_host"], [])
        if mine[:1] != [self.image]:
            served[self.params["served_host"]] = [self.image, *mine][:2]
            _write(_SERVED, json.dumps(served, indent=2) + "\n", mode=0o644)
        kept = {image for images in served.values() for image in images}
        for image in before - kept:
            if not _is_own(image):
                # One that a container runs cannot be removed, and stays.
                self.module.run_command(["docker", "image", "rm", image])
        names = {_key(image) for image in kept}
        for path in glob.glob(f"{_IMAGES}/*.tar.zst*") + glob.glob(f"{_IMAGES}/*.pushed"):
            if os.path.basename(path).split(".tar.zst")[0].removesuffix(".pushed") not in names:
                os.unlink(path)

    def _engine(self) -> dict[str, Any]:
        found = self._inspect(self.image)
        if not found:
            self._fail(f"{self.host} has no image {self.image} to hand on", "run again: it is built first")
        return {"fingerprint": _fingerprint(found), "bytes": int(found["Size"])}

    def _inspect(self, name: str) -> dict[str, Any]:
        """Return what Docker knows of an image; empty if there is none of that name."""
        code, out, err = self.module.run_command(["docker", "image", "inspect", name])
        if code != 0:
            if "no such image" not in err.lower():
                self._fail(f"{self.host}: Docker does not answer: {err.strip()[-500:]}", "see systemctl status docker")
            return {}
        found: dict[str, Any] = json.loads(out)[0]
        return found

    def _docker_root(self) -> str:
        """Return where Docker keeps images; containerd does so for Docker 29 and later."""
        info = json.loads(self._docker("info", "--format", "{{json .}}"))
        status = {str(key): str(value) for key, value in info.get("DriverStatus") or []}
        if not status.get("driver-type", "").startswith("io.containerd.snapshotter"):
            return str(info["DockerRootDir"])
        _, out, _ = self.module.run_command(["containerd", "config", "dump"])
        roots = [line.split("=", 1)[1].strip().strip("'\"") for line in out.splitlines() if line.startswith("root =")]
        return roots[0] if roots else "/var/lib/containerd"

    def _docker(self, *arguments: str) -> str:
        code, out, err = self.module.run_command(["docker", *arguments])
        if code != 0:
            self._fail(f"{self.host}: docker {' '.join(arguments[:3])} failed: {(err or out).strip()[-1000:]}", "")
        return str(out)

    def _result(self, **more: Any) -> dict[str, Any]:
        engine, archive, note = {}, {}, ""
        if self.params["state"] not in {"absent", "room"} and shutil.which("docker"):
            found = self._inspect(self.image)
            engine = {"fingerprint": _fingerprint(found), "bytes": int(found["Size"])} if found else {}
        if self.params["state"] == "archived" and not more and not self.dry:
            digest = _read(f"{self.archive}.sha256").split(" ")[0]
            archive = {"path": self.archive, "sha256": digest, "bytes": os.path.getsize(self.archive)}
        if self.params["state"] == "pushed" and not more:
            note = _read(os.path.join(_IMAGES, f"{self.key}.pushed")).strip()
        nothing: dict[str, Any] = {"unfinished": {}, "packages": [], "inputs": [], "incoming": ""}
        return {"changed": self.changed, "engine": engine, "archive": archive, "pushed": note, **nothing, **more}

    def _fail(self, what: str, remedy: str) -> None:
        self.module.fail_json(msg=f"{what}\n    remedy: {remedy}" if remedy else what)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Decide alone; the lock goes with the process that holds it."""
    with open(_LOCK, "w", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _is_own(image: str) -> bool:
    """Tell whether the host itself is planned with the image, or was before."""
    return any(
        image in _read(path) for path in ["/etc/llamarig/host.json", *glob.glob("/var/lib/llamarig/engine/*.json")]
    )


def _key(image: str) -> str:
    """Return what files of an image are named by, as llamarig.control.engine_shelf has it."""
    repository, _, tag = image.rpartition(":")
    return tag if repository == "llamarig/llama-cpp" else f"{repository}_{tag}".replace("/", "_").replace(":", "_")


def _fingerprint(found: dict[str, Any]) -> str:
    if not found:
        return ""
    config = found.get("Config") or {}
    # Versions of Docker differ in what they leave out when it is empty.
    telling = {key: config[key] for key in _TELLING if config.get(key)}
    text = json.dumps([found["RootFS"]["Layers"], telling], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _free_mib(path: str) -> int:
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize // _MIB


def _sha256(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str, mode: int = 0o600) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(temporary, mode)
    os.replace(temporary, path)


def _tail(path: str, count: int) -> list[str]:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.path.getsize(path) - 65536))
            lines = stream.read().decode(errors="replace").replace("\r", "\n").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if line.strip()][-count:]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "required": True,
                "choices": ["room", "built", "archived", "pushed", "loaded", "absent"],
            },
            "image": {"type": "str", "required": True},
            "inventory_name": {"type": "str", "required": True},
            "room": {"type": "dict", "default": {}},
            "script": {"type": "str", "default": ""},
            "files": {"type": "dict", "default": {}},
            "inputs": {"type": "list", "elements": "dict", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "says": {"type": "str", "default": ""},
            "version_file": {"type": "dict", "default": {}},
            "fingerprint": {"type": "str", "default": ""},
            "archive": {"type": "dict", "default": {}},
            "remote": {"type": "str", "default": ""},
            "served_host": {"type": "str", "default": ""},
            "run": {"type": "str", "default": ""},
            "slice_seconds": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    module.exit_json(**Engine(module).run())


if __name__ == "__main__":
    main()
