"""How llamarig's own containers are run: confined as the services are, with the cards they are given and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from llamarig.config import paths

_TMPFS: Final = "/tmp:rw,noexec,nosuid,nodev,size=64m"  # noqa: S108  inside the container
_PIDS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of the engine: one of its programs, as a service would run it.

    Attributes:
        name: of the container.
        image: the engine.
        program: which of its programs.
        words: the program's arguments.
        models_dir: the host's directory of models, which it sees read-only; none where it needs none.
        gpus: UUIDs of the cards that it sees.
        memory_mib: the most that it may take of the host's memory.
        publish: an address and port of the host for its port 8080; without one it has no network.
        labels: what finds it again.
        environment: variables beside those that every service has.

    """

    name: str
    image: str
    program: str
    words: Sequence[str] = ()
    models_dir: str | None = None
    gpus: Sequence[str] = ()
    memory_mib: int
    publish: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def confined(name: str, gpus: Sequence[str], *, network: str = "none", log: str = "none") -> list[str]:
    """Return options of ``docker run`` that every container of llamarig's own has: no rights, no image fetched."""
    return [
        *("--name", name, "--pull", "never", "--network", network, "--log-driver", log),
        *("--user", f"{paths.ENGINE_UID}:{paths.ENGINE_UID}", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges"),
        *(word for uuid in gpus for word in ("--device", f"nvidia.com/gpu={uuid}")),
    ]


def engine_words(container: Container) -> list[str]:
    """Return what follows ``docker run`` for a program of the engine.

    One that publishes a port keeps its log, 10 MiB at most, for whoever asks why it ended.
    """
    ports = ["--publish", f"{container.publish}:8080"] if container.publish else []
    network, log = ("bridge", "json-file") if container.publish else ("none", "none")
    order = ["--env", "CUDA_DEVICE_ORDER=PCI_BUS_ID"] if container.gpus else []
    models = ["--volume", f"{container.models_dir}:{paths.CONTAINER_MODELS}:ro"] if container.models_dir else []
    return [
        *confined(container.name, container.gpus, network=network, log=log),
        *(["--log-opt", "max-size=10m"] if container.publish else []),
        *("--read-only", "--tmpfs", _TMPFS, "--pids-limit", str(_PIDS)),
        *("--memory", f"{container.memory_mib}m", "--memory-swap", f"{container.memory_mib}m"),
        *(word for key, value in container.labels.items() for word in ("--label", f"{key}={value}")),
        *models,
        *("--env", "HOME=/tmp", "--env", "LLAMA_CACHE=/tmp"),
        *(word for key, value in container.environment.items() for word in ("--env", f"{key}={value}")),
        *order,
        *ports,
        *("--entrypoint", container.program, container.image),
        *container.words,
    ]


def docker_said(text: str) -> str:
    """Return the reason in what Docker says when it refuses, without its hint at ``--help``."""
    lines = [line for line in text.strip().splitlines() if line.strip() and "docker run --help" not in line]
    return lines[-1].removeprefix("docker: ").removeprefix("Error response from daemon: ") if lines else "no reason"
