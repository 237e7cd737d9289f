"""The judge: the real engine on devices of any memory, asked what it would place where, and what it did place.

A device is a ggml-rpc-server whose machine seems to have so much memory; nothing needs a GPU. All of them, and every
program that asks, run in one container without a network, so a question costs what the engine takes to answer: 0.3 to
4 s for an estimate of the largest file, as weights are not read.

    with Judge([24576, 16384], Path("/srv/ghosts")) as judge:
        judge.fit_params("glm-4.7-flash.q8_0.gguf", ["-c", "32768", "-ngl", "99", "--no-repack"])
        # {"RPC0": Parts(model=18210, context=1008, compute=128), "RPC1": ..., "Host": ...}

An RPC server has one client at a time, so a judge answers one question after the other; several judges can work side
by side. Pass ``--no-repack`` where weights stay on the CPU: without it estimates of the host leave out what the CPU
rearranges, and MLA aborts on machines with AMX.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from llamarig.lab.judge_image import SHIM, ensure_image
from llamarig.lab.judge_log import Parts, Served, read_arguments, read_breakdown, read_errors, read_log
from llamarig.lab.machine import LabError, run
from llamarig.lab.models import Say

__all__ = ["Judge", "Parts", "RefusedError", "Served"]

# Below the range from which the kernel takes ports for clients (32768 and up): one of theirs would be in the way.
_FIRST_PORT: Final = 20060
_SERVER_PORT: Final = 20050
_PID: Final = "/tmp/server.pid"  # noqa: S108  in a container of our own
_LIFETIME_SECONDS: Final = 7200  # the container ends by itself where its judge could not end it
_KILLED: Final = 137


class RefusedError(LabError):
    """The engine did not answer: it refused the model or the arguments, crashed, or took too long.

    Attributes:
        code: its exit status; 134 is an assertion of the engine's own, 137 that it took too long.
        log: all that it said.

    """

    def __init__(self, what: str, code: int, log: str) -> None:
        super().__init__(f"{what} ended with {code}: {read_errors(log)}")
        self.code = code
        self.log = log


@dataclass(frozen=True, slots=True)
class _Done:
    code: int
    output: str
    errors: str


class Judge:
    """The engine with devices of unequal memory.

    Args:
        devices: memory of each device in MiB; the first is ``RPC0``.
        models: directory with the model files, which the container sees read-only.
        image: an image with llama-fit-params, llama-server, ggml-rpc-server and the shim; made where none is given.
        enforced: a buffer beyond a device's memory is refused, and what buffers take is no longer free. Otherwise a
            device only says how much memory it has.
        say: hears what takes long.

    Raises:
        LabError: docker does not run here, or a device did not come up.

    """

    def __init__(
        self,
        devices: Sequence[int],
        models: Path,
        *,
        image: str | None = None,
        enforced: bool = False,
        say: Say = lambda _: None,
    ) -> None:
        self._models = models.resolve()
        self._enforced = enforced
        self.container = f"llamarig-judge-{os.getpid()}-{id(self):x}"
        image = image or ensure_image(say)
        self._end = weakref.finalize(self, _remove, self.container)
        self._ports: list[int] = []
        self._next_port = _FIRST_PORT
        try:
            self._start(image)
            self.plug(devices)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything that was started; a second time it does nothing."""
        self._end()

    @property
    def devices(self) -> list[str]:
        """Names of the devices, as ``-dev`` and estimates have them."""
        return [f"RPC{number}" for number in range(len(self._ports))]

    @property
    def buffers(self) -> dict[str, str]:
        """Name of each device's buffers, as ``-ot`` wants them; with RPC it is not the device's own."""
        return {device: f"RPC0[127.0.0.1:{port}]" for device, port in zip(self.devices, self._ports, strict=True)}

    def version(self) -> str:
        """Return the engine's version as it says it, for instance ``0.7.0 (build 11669, commit Debian)``."""
        done = self._run(["llama-server", "--version"], 30)
        lines = [line for line in (done.output + done.errors).splitlines() if line.startswith("version:")]
        return lines[0].removeprefix("version:").strip() if lines else ""

    def plug(self, devices: Sequence[int]) -> None:
        """Replace the devices by others, each with so many MiB.

        Raises:
            LabError: one did not come up.

        """
        for port in self._ports:
            self._shell(f'kill -KILL "$(cat /tmp/device-{port}.pid)"')
        self._ports = []
        for memory in devices:
            port = self._next_port
            self._next_port += 1
            self._start_device(port, memory)
            self._ports.append(port)
        for port in self._ports:
            self._wait_for_port(port)

    def fit_params(self, model: str | Path, arguments: Sequence[str] = (), *, timeout: float = 120) -> dict[str, Parts]:
        """Ask what each device would hold with exactly these arguments (``llama-fit-params -fitp on``).

        On the device with the output it counts logits for a whole micro-batch, which llama-server does not reserve.

        Args:
            model: a file in the directory of models, by its name or its path.
            arguments: of llama-server; the devices and the model are added.
            timeout: seconds until it is given up.

        Returns:
            By name of device, and ``Host``.

        Raises:
            RefusedError: it gave no answer.

        """
        return read_breakdown(self._fit(model, [*arguments, "-fitp", "on"], timeout))

    def fitted(self, model: str | Path, arguments: Sequence[str] = (), *, timeout: float = 300) -> list[str]:
        """Ask which arguments would make a model fit the devices, given these (``llama-fit-params``).

        Raises:
            RefusedError: it found none, or the arguments leave it nothing to choose.

        """
        return read_arguments(self._fit(model, arguments, timeout))

    def serve(
        self, model: str | Path, arguments: Sequence[str] = (), *, verbose: bool = False, timeout: float = 300
    ) -> Served:
        """Load a model with llama-server, stop it, and return what it logged of its buffers.

        Weights are really copied to the devices, which live in this machine's memory: for files of a few GB, such as a
        ghost of a few blocks. There is no warm-up and no automatic fitting unless the arguments ask for them.

        Args:
            model: a file in the directory of models, by its name or its path.
            arguments: of llama-server; the devices, the model and the log's options are added.
            verbose: also log the place of each layer and of each overridden tensor.
            timeout: seconds until it is given up.

        Raises:
            RefusedError: it did not come up.

        """
        chosen = list(arguments)
        if not {"-fit", "--fit"} & set(chosen):
            chosen += ["-fit", "off"]
        if "--warmup" not in chosen:
            chosen += ["--no-warmup"]
        command = ["llama-server", *self._reach(), "-m", self._inside(model), *chosen]
        command += ["--host", "127.0.0.1", "--port", str(_SERVER_PORT), "--log-jsonl", "-lv", "5" if verbose else "4"]
        names = {buffer: device for device, buffer in self.buffers.items()}
        log = self._served(command, timeout)
        self._wait_for_release()
        return read_log(log.splitlines(), names)

    def _fit(self, model: str | Path, arguments: Sequence[str], timeout: float) -> str:
        command = ["llama-fit-params", *self._reach(), "-m", self._inside(model), *arguments]
        done = self._run(command, timeout)
        if done.code != 0:
            what = f"llama-fit-params {' '.join(arguments)} on {Path(model).name}"
            raise RefusedError(what, done.code, done.errors + done.output)
        self._wait_for_release()
        return done.output

    def _reach(self) -> list[str]:
        """Return what makes the devices known, before anything that names one."""
        return ["--rpc", ",".join(f"127.0.0.1:{port}" for port in self._ports)] if self._ports else []

    def _inside(self, model: str | Path) -> str:
        path = Path(model)
        if path.is_absolute():
            if not path.resolve().is_relative_to(self._models):
                msg = f"{path} is not below {self._models}"
                raise LabError(msg, "give the judge the directory that holds the models")
            path = path.resolve().relative_to(self._models)
        return f"/models/{path}"

    def _start(self, image: str) -> None:
        command = ["docker", "run", "--detach", "--rm", "--name", self.container, "--label", "llamarig.judge"]
        command += ["--network", "none", "--read-only", "--tmpfs", "/tmp"]  # noqa: S108
        # The owner of the models' directory is who reads them: a test's own is closed to everybody else.
        command += ["--user", f"{os.geteuid()}:{os.getegid()}"]
        command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--env", "HOME=/tmp"]
        command += ["--volume", f"{self._models}:/models:ro", "--entrypoint", "sleep", image, str(_LIFETIME_SECONDS)]
        run(command)

    def _start_device(self, port: int, memory: int) -> None:
        command = f"echo $$ > /tmp/device-{port}.pid; exec ggml-rpc-server -H 127.0.0.1 -p {port} -t 1"
        environment = {
            "LD_PRELOAD": SHIM,
            "LAB_DEVICE_MEMORY_MIB": str(memory),
            "LAB_DEVICE_MEMORY_ENFORCED": str(int(self._enforced)),
        }
        options = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        log = f"> /tmp/device-{port}.log 2>&1"
        run(["docker", "exec", "--detach", *options, self.container, "sh", "-c", f"{command} {log}"])

    def _wait_for_port(self, port: int) -> None:
        """Wait until a server listens; the kernel's table tells it without a connection, which would count as one."""
        listens = f":{port:04X} 00000000:0000 0A"
        if self._shell(f"for i in $(seq 200); do grep -q '{listens}' /proc/net/tcp && exit; sleep 0.05; done; exit 1"):
            log = run(["docker", "exec", self.container, "cat", f"/tmp/device-{port}.log"], check=False)  # noqa: S108
            msg = f"the device on port {port} did not come up: {log[-500:]}"
            raise LabError(msg)

    def _wait_for_release(self) -> None:
        """Wait until no server holds a connection of a client that has gone."""
        ports = "|".join(f"{port:04X}" for port in self._ports)
        if not ports:
            return
        held = f"^ *[0-9]+: 0100007F:({ports}) [0-9A-F]+:[0-9A-F]+ (01|08) "
        if self._shell(f"for i in $(seq 400); do grep -qE '{held}' /proc/net/tcp || exit 0; sleep 0.05; done; exit 1"):
            msg = "a device did not let go of its client within 20 s"
            raise LabError(msg)

    def _served(self, command: list[str], timeout: float) -> str:
        """Start a server, wait until it listens, stop it, and return its log."""
        inner = ["sh", "-c", f'echo $$ > {_PID}; exec "$@" 2>&1', "sh", *command]
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
            process = subprocess.Popen(
                ["docker", "exec", self.container, *inner], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
            try:
                came_up = self._wait_for_server(process, log.fileno(), time.monotonic() + timeout)
            finally:
                self._stop(process)
            log.seek(0)
            text = log.read()
        if not came_up:
            code = process.returncode
            raise RefusedError(f"llama-server {' '.join(command[3:])}", code, text)
        return text

    @staticmethod
    def _wait_for_server(process: subprocess.Popen[bytes], log: int, deadline: float) -> bool:
        position, rest = 0, b""
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            while chunk := os.pread(log, 1 << 20, position):
                position += len(chunk)
                rest = rest[-200:] + chunk
                if b"llama_server: listening on" in rest:
                    return True
            if ended:
                return False
            time.sleep(0.05)
        return False

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop the server: gently, so that it sums up its memory; then not."""
        for signal, patience in (("TERM", 10), ("KILL", 10)):
            if process.poll() is None:
                self._shell(f'kill -{signal} "$(cat {_PID})"')
                try:
                    process.wait(patience)
                except subprocess.TimeoutExpired:
                    continue
        if process.poll() is None:
            process.kill()
            process.wait()

    def _shell(self, command: str) -> int:
        """Run a shell command in the container and return its exit status."""
        done = subprocess.run(
            ["docker", "exec", self.container, "sh", "-c", command], capture_output=True, check=False, timeout=60
        )
        return done.returncode

    def _run(self, command: Sequence[str], timeout: float) -> _Done:
        """Run a program in the container, which kills it there when its time is over."""
        inner = ["docker", "exec", self.container, "timeout", "--signal=KILL", str(timeout), *command]
        done = subprocess.run(
            inner, capture_output=True, text=True, errors="replace", check=False, timeout=timeout + 30
        )
        return _Done(done.returncode, done.stdout, done.stderr)


def _remove(container: str) -> None:
    subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True, check=False)
