"""Have an engine image built where it is built, and handed to the host that lacks it; the module does each step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible import constants as C  # noqa: N812  its name everywhere in Ansible
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from llamarig.control import rsync
from llamarig.control.engine_job import ARCHIVE, Job, job_for, pull_job, remote_name, room_for
from llamarig.control.engine_shelf import Handed, Shelf, key
from llamarig.control.engine_source import ensure_archive
from llamarig.errors import LlamarigError

ROOT = Path(__file__).resolve().parents[2]
FILES = ("Dockerfile", "entrypoint.sh")
display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible is not typed
    """``step: room``, then ``step: build`` (delegated to the builder), then ``step: take``, each where it is due."""

    # Nothing is asked of a builder that need not be up, not even for a directory.
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._variables = task_vars or {}
        arguments = dict(self._task.args)
        self._wanted = self._variables["inventory_hostname"]
        self._host = str(self._task.delegate_to or self._wanted)
        self._shelf = Shelf(ROOT)
        if arguments["step"] == "remove":
            return self._module({"state": "absent", "image": arguments["repository"]})
        self._engine: dict[str, Any] = arguments["engine"]
        self._image: str = self._engine["image"]
        # Of an image that somebody else built nobody here knows: it may be the larger one.
        self._backend: str = self._engine["backend"] or "cuda"
        if self._host not in self._variables["hostvars"]:
            remedy = "correct llama_image_builder, or the group image_builder"
            return {"failed": True, "msg": f"there is no host {self._host} that could build\n    remedy: {remedy}"}
        if self._host != self._wanted:
            self._reach()
        try:
            steps = {"room": self._room, "build": self._build, "take": self._take}
            return steps[arguments["step"]](arguments)
        except LlamarigError as error:
            remedy = f"\n    remedy: {error.remedy}" if error.remedy else ""
            return {"failed": True, "msg": f"{self._host}: {error.message}{remedy}"}

    def _reach(self) -> None:
        """Let the connection be the builder's own.

        Ansible templates the variables of a host that a task is delegated to with the ``inventory_hostname`` of the
        host that it is for: ``ansible_host: "{{ inventory_hostname }}.example.com"`` would lead back to that one.
        """
        own = self._variables["hostvars"][self._host]
        plugins = [("connection", self._connection), ("become", self._connection.become)]
        for kind, plugin in plugins:
            name = getattr(plugin, "_load_name", None)
            for option, definition in C.config.get_configuration_definitions(kind, name).items() if name else ():
                for entry in definition.get("vars", []):
                    if entry["name"] in own:
                        plugin.set_option(option, own[entry["name"]])

    def _room(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Refuse a host without room before anybody builds for it."""
        room = room_for(arguments["room"], "taken", self._backend)
        return self._module({"state": "room", "image": self._image, "room": room})

    def _build(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Have the image on this host; for another host, have it on the shelf or in the registry as well."""
        elsewhere = self._host != self._wanted
        registry = str(arguments["registry"])
        if elsewhere and (handed := self._ready(registry)):
            return {"changed": False, "handed": handed}
        files = {name: (ROOT / "templates" / "llama_image" / name).read_text(encoding="utf-8") for name in FILES}
        job = job_for(self._engine, files, arguments["mirror"], arguments["keyring_packages"])
        served = {"served_host": self._wanted} if elsewhere else {}
        result = self._made(job, arguments["room"], served)
        if result.get("failed") or not elsewhere or self._task.check_mode:
            return {**result, "handed": {}}
        with self._shelf.alone(f"{key(self._image)}.handover"):
            if not (handed := self._ready(registry)):
                if registry:
                    over = self._drive({"state": "pushed", "remote": remote_name(registry, self._image)})
                else:
                    over = self._drive({"state": "archived", "packages": ["zstd"]})
                if over.get("failed"):
                    return over
                handed = self._fetched(over)
        return {**result, "handed": handed}

    def _ready(self, registry: str) -> dict[str, Any]:
        """Return what the control node has of the image already; its builder need not be asked, or up."""
        handed = self._shelf.ready(self._image, registry)
        return _plain(handed) if handed else {}

    def _fetched(self, over: dict[str, Any]) -> dict[str, Any]:
        """Take over what the builder handed over."""
        archive, fingerprint = over["archive"], over["engine"]["fingerprint"]
        if not archive:
            handed = Handed(self._image, fingerprint, pushed=over["pushed"])
            self._shelf.note(handed)
            return _plain(handed)
        handed = Handed(self._image, fingerprint, sha256=archive["sha256"], bytes=archive["bytes"])
        part = self._shelf.part(self._image)
        # What is longer is of another archive, and would never become this one.
        if part.exists() and part.stat().st_size > handed.bytes:
            part.unlink()
        self._shelf.make_room(handed)
        self._say(f"fetching {self._image}, {handed.bytes // 2**20} MiB")
        rsync.fetch(self._connection, archive["path"], part, self._say)
        self._shelf.receive(handed)
        return _plain(handed)

    def _take(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Have the image here that was handed over."""
        handed = arguments["handed"]
        if self._task.check_mode:
            return self._module({"state": "loaded", "image": self._image})
        if handed["pushed"]:
            job = pull_job(self._image, handed["pushed"])
            result = self._made(job, arguments["room"], {"fingerprint": handed["fingerprint"]})
            if result.get("failed"):
                # The registry may have lost it: the next run asks the builder again.
                self._shelf.forget(self._image)
            return result
        archive = {key: handed[key] for key in ("sha256", "bytes")}
        room = room_for(arguments["room"], "taken", self._backend)
        wish = {"archive": archive, "fingerprint": handed["fingerprint"], "packages": ["zstd"], "room": room}
        return self._drive({"state": "loaded", **wish})

    def _made(self, job: Job, room: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        """Have the image made by a job."""
        wish = {
            "state": "built",
            "script": job.script,
            "files": job.files,
            "packages": job.packages,
            "says": job.says,
            "version_file": job.version_file,
            "room": room_for(room, job.room, self._backend),
            **more,
        }
        if job.source:
            wish["inputs"] = [{"name": ARCHIVE}]
        return self._drive(wish)

    def _drive(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Call the module until nothing is left to wait for or to bring."""
        wish = {"image": self._image, "run": f"{os.uname().nodename}-{os.getppid()}", **wish}
        changed = False
        # One of the hosts that wait for the same job says how far it is.
        with self._shelf.first(f"{self._host}.progress") as speaks:
            while True:
                result = self._module(wish)
                changed = result["changed"] = changed or bool(result.get("changed"))
                if result.get("failed") or not (result["packages"] or result["inputs"] or result["unfinished"]):
                    return result
                if result["packages"]:
                    result = self._packages(result["packages"])
                elif result["inputs"]:
                    wish = self._bring(wish)
                elif speaks:
                    self._tell(result["unfinished"])
                if result.get("failed"):
                    return result

    def _bring(self, wish: dict[str, Any]) -> dict[str, Any]:
        """Send what the module asks for; another host may be at it for the same builder."""
        if wish["state"] == "built":
            with self._shelf.alone("source"):
                archive = ensure_archive(ROOT, self._engine["source"], self._say)
            source = archive.path
            wish = {**wish, "inputs": [{"name": ARCHIVE, "sha256": archive.sha256, "bytes": archive.bytes}]}
        else:
            source = self._shelf.archive(self._image)
        with self._shelf.alone(f"{self._host}.sending"):
            result = self._module(wish)
            for entry in result.get("inputs", []):
                self._say(f"sending {source.name}, {int(entry['bytes']) // 2**20} MiB")
                rsync.push(self._connection, source, f"{result['incoming']}/{entry['name']}", self._say)
        return wish

    def _tell(self, job: dict[str, Any]) -> None:
        minutes, seconds = divmod(job["seconds"], 60)
        self._say(f"{job['doing']}, {minutes}:{seconds:02} min, log in {job['log']}: {job['line']}")

    def _say(self, text: str) -> None:
        display.display(f"  {self._host}: {text}")

    def _packages(self, packages: list[str]) -> dict[str, Any]:
        # Docker's own stay as Docker is: playbooks/maintain.yml moves them together.
        arguments = {"install": packages, "refresh": True, "hold": ["docker-buildx(-plugin)?"]}
        result: dict[str, Any] = self._execute_module(
            module_name="apt_packages", module_args=arguments, task_vars=self._variables
        )
        return result

    def _module(self, arguments: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="engine_image",
            module_args={"inventory_name": self._host, **arguments},
            task_vars=self._variables,
        )
        return result


def _plain(handed: Handed) -> dict[str, Any]:
    return {
        "fingerprint": handed.fingerprint,
        "pushed": handed.pushed,
        "sha256": handed.sha256,
        "bytes": handed.bytes,
    }
