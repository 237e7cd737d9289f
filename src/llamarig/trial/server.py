"""A llama-server of a trial: in a container of its own, on a free port of the loopback, gone when it is done with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from llamarig.config.spec import Spec
from llamarig.runtime.confinement import Container
from llamarig.runtime.engine import EngineError, LlamaServer
from llamarig.runtime.images import Docker, DockerError
from llamarig.runtime.logline import last_words

_ADDRESS = "127.0.0.1"
_POLL_SECONDS = 0.1


@contextmanager
def serving(
    docker: Docker,
    container: Container,
    spec: Spec,
    server: LlamaServer,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Spec]:
    """Run a server and wait until it is loaded; yields a spec that says where it is.

    Args:
        docker: runs it.
        container: the server, without an address.
        spec: of the service whose model it has; how long a load may take is said there.
        server: asks it.
        clock: the time in seconds.

    Raises:
        EngineError: it did not come up; the message has its last words.
        DockerError: no container starts.

    """
    docker.remove(container.name)
    try:
        docker.start(replace(container, publish=f"{_ADDRESS}:"))
        start = clock()
        where: Spec | None = None
        while where is None or server.health(where) != "ok":
            life = docker.life(container.name)
            if not life.running:
                raise EngineError(_why(docker, container.name, life.code, out_of_memory=life.out_of_memory))
            if clock() - start > spec.load_timeout_seconds:
                raise EngineError(f"it was not ready after {spec.load_timeout_seconds} s")
            # It may have ended since it was looked at, and then has no port any more.
            with suppress(DockerError):
                where = where or replace(spec, bind=_ADDRESS, port=docker.port(container.name), api_key_file=None)
            time.sleep(_POLL_SECONDS)
        yield where
    finally:
        docker.remove(container.name)


def _why(docker: Docker, name: str, code: int, *, out_of_memory: bool) -> str:
    if out_of_memory:
        return "it was ended because the host's memory ran out"
    words = [line for line in last_words(docker.log(name, 60)) if "error" in line.lower() or "ASSERT" in line]
    said = words[0] if words else (last_words(docker.log(name, 5)) or ["it says nothing"])[-1]
    return f"it ended with {code}: {said}"
