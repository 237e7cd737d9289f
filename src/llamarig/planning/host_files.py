"""What a host's specs look like as files: the manifest that the llama_service role prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

from llamarig.config import paths
from llamarig.config.policy import Policy
from llamarig.config.spec import Spec

MARK: Final = "# Written by llamarig"
_GPU_UNITS: Final = "nvidia-persistenced.service nvidia-cdi-refresh.service"
# How long an engine may take to end by itself. Requests under way were waited for at the door, before it was asked to.
_GRACE_SECONDS: Final = 15
# What the second TERM, KILL and Docker take after it.
_AFTER_GRACE_SECONDS: Final = 20
_GATE: Final = "/run/engine-gate"
_TMPFS = "/tmp:rw,noexec,nosuid,nodev,size=64m"  # noqa: S108  inside the container


def compose_project(spec: Spec) -> dict[str, Any]:
    """Return the compose project of one service.

    ``$`` is doubled in every value that users may write, because compose interpolates it
    (https://docs.docker.com/reference/compose-file/interpolation/).
    """
    mounts = [
        _mount(f"{paths.LIBEXEC}/engine-gate", _GATE),
        _mount(f"{paths.GATES}/{spec.service}", paths.CONTAINER_GATE),
        # The engine makes its socket there, and nothing else of the host can be written.
        {**_mount(f"{paths.ENGINES}/{spec.service}", paths.CONTAINER_RUN), "read_only": False},
        _mount(spec.models_dir, paths.CONTAINER_MODELS),
    ]
    if spec.api_key_file:
        mounts.append(_mount(spec.api_key_file, paths.CONTAINER_KEY))
    environment = {"HOME": "/tmp", "LLAMA_CACHE": "/tmp"}  # noqa: S108
    if spec.gpus:
        # CUDA counts the cards that it sees as the bus does, not the fastest first.
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return {
        "name": paths.container(spec.service),
        "services": {
            "server": {
                "image": spec.image,
                "container_name": paths.container(spec.service),
                "entrypoint": ["/bin/sh", _GATE],
                "command": [word.replace("$", "$$") for word in spec.argv],
                "user": f"{paths.ENGINE_UID}:{paths.ENGINE_UID}",
                "read_only": True,
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges:true"],
                "restart": "no",
                "init": False,
                "stop_grace_period": f"{_GRACE_SECONDS}s",
                "mem_limit": f"{spec.memory_mib}m",
                "memswap_limit": f"{spec.memory_mib}m",
                "pids_limit": 1024,
                "cgroup_parent": paths.slice_unit(spec.service),
                # Clients reach it through the door, by its socket; it reaches nobody.
                "network_mode": "none",
                "volumes": mounts,
                "tmpfs": [_TMPFS],
                # No config.ini of anybody's home is read, and nothing is cached across starts.
                "environment": environment,
                "labels": {"llamarig.service": spec.service, "llamarig.spec": spec.spec_sha256},
                # The foreground compose writes the log to the journal; a second copy would fill the disk.
                "logging": {"driver": "none"},
                **({"deploy": _reservation(spec.gpus)} if spec.gpus else {}),
            }
        },
    }


def _reservation(gpus: list[str]) -> dict[str, Any]:
    """Give a container its cards by their CDI names; compose before 2.30 knows no shorter form.

    CDI writes the device nodes into the container's own specification, so a daemon-reload does not take them away
    (https://docs.docker.com/reference/compose-file/deploy/#devices).
    """
    names = [f"nvidia.com/gpu={uuid}" for uuid in gpus]
    return {
        "resources": {"reservations": {"devices": [{"driver": "cdi", "capabilities": ["gpu"], "device_ids": names}]}}
    }


class _Word(str):
    """A word that users may have written: always quoted, because YAML 1.1 and 1.2 disagree on what is a string."""

    __slots__ = ()


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # the same text, in C
    """Compose's dialect."""


def _quoted(dumper: Any, word: _Word) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(word), style='"')


_Dumper.add_representer(_Word, _quoted)


def compose_text(spec: Spec) -> str:
    """Return the compose project as YAML."""
    project = compose_project(spec)
    server = project["services"]["server"]
    server["command"] = [_Word(word) for word in server["command"]]
    server["labels"] = {key: _Word(value) for key, value in server["labels"].items()}
    return yaml.dump(project, Dumper=_Dumper, sort_keys=False, indent=2, width=1_000_000, allow_unicode=True)


def manifest(
    specs: list[Spec], api_keys: Mapping[str, str], policy: Policy, engine: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the manifest of all services of a host; entries with ``template`` are rendered by the role."""
    named = {key: engine[key] for key in ("image", "version", "ref", "commit", "backend")}
    host = {
        "schema_version": 1,
        "default_service": policy.default_service,
        "policy": policy.to_dict(),
        # A host without services runs no engine, though it may build them.
        "engine": {**named, "prebuilt": engine["prebuilt"]["image"] if engine["prebuilt"] else None} if specs else None,
    }
    files: list[dict[str, Any]] = [
        {
            "path": paths.HOST_FILE,
            "template": "host.json.j2",
            "vars": {"host": host},
        }
    ]
    secrets = []
    for spec in specs:
        unit = {
            "service": spec.service,
            "profile": spec.profile,
            "slice": paths.slice_unit(spec.service),
            "running": f"{paths.RUNNING}/{spec.service}",
            "engine_begin": f"{paths.LIBEXEC}/engine-begin",
            "engine_stop": f"{paths.LIBEXEC}/engine-stop",
            "engine_end": f"{paths.LIBEXEC}/engine-end",
            # The cards must be there before a container asks for them.
            "after": _GPU_UNITS if spec.gpus else "",
            "grace_seconds": _GRACE_SECONDS,
            "stop_seconds": _GRACE_SECONDS + _AFTER_GRACE_SECONDS,
        }
        files += [
            {
                "path": f"{paths.SPECS}/{spec.service}.json",
                "template": "spec.json.j2",
                "vars": {"spec": spec.to_dict()},
            },
            {
                "path": f"{paths.COMPOSE}/{spec.service}/compose.yaml",
                "template": "compose.yaml.j2",
                "vars": {"compose": compose_text(spec)},
            },
            {
                "path": f"{paths.UNITS}/{paths.unit(spec.service)}",
                "template": "llama.service.j2",
                "vars": {"unit": unit},
            },
            {"path": f"{paths.UNITS}/{unit['slice']}", "template": "llama.slice.j2", "vars": {"unit": unit}},
        ]
        if spec.api_key_file:
            secrets.append(
                {
                    "path": spec.api_key_file,
                    "content": api_keys[spec.service] + "\n",
                    "owner": "root",
                    "group": "llama-engine",
                    "mode": "0640",
                }
            )
    return {
        "directories": [
            {"path": paths.ETC},
            {"path": paths.SPECS},
            {"path": paths.COMPOSE},
            {"path": paths.KEYS, "group": "llama-engine", "mode": "0750"},
            *({"path": f"{paths.COMPOSE}/{spec.service}"} for spec in specs),
        ],
        "files": files,
        "secrets": secrets,
        "prune": [
            {"directory": paths.SPECS, "pattern": "*.json"},
            {"directory": paths.COMPOSE, "pattern": "*"},
        ],
        # Once the daemon has let the last requests of removed services come to their end.
        "prune_units": [
            {"directory": paths.UNITS, "pattern": "llama-*.service", "contains": MARK, "units": True},
            {"directory": paths.UNITS, "pattern": "llama-*.slice", "contains": MARK},
        ],
    }


def _mount(source: str, target: str) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": source,
        "target": target,
        "read_only": True,
        "bind": {"create_host_path": False},
    }
