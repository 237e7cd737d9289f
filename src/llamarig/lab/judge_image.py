"""The image in which the engine judges: Debian's llama.cpp, its RPC server, and the shim that sizes a device."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Final

from llamarig.lab.machine import LabError, debian_mirror, ensure_docker, run
from llamarig.lab.models import Say

SHIM: Final = "/usr/lib/llamarig/device_memory.so"
_SUITE: Final = "sid"
_PACKAGES: Final = ("llama.cpp-tools", "llama.cpp-tools-extra", "libggml0-backend-rpc")
_COMPILER: Final = ("gcc", "libc6-dev")
_COMPILE: Final = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared")
_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def ensure_image(say: Say) -> str:
    """Make the image where it is not there yet, and return its name.

    Raises:
        LabError: docker or mmdebstrap is missing, or Debian's archive does not answer.

    """
    ensure_docker()
    source = shim_source()
    mirror = debian_mirror()
    digest = hashlib.sha256(f"{_SUITE}{_PACKAGES}{_COMPILE}{source}".encode()).hexdigest()[:12]
    image = f"llamarig-judge:{_SUITE}-{digest}"
    if run(["docker", "image", "ls", "--quiet", image]):
        return image
    if shutil.which("mmdebstrap") is None:
        msg = "mmdebstrap is not installed"
        raise LabError(msg, "apt-get install mmdebstrap debian-archive-keyring")
    say(f"making the judge's image ({_SUITE} from {mirror}), about 30 s, once")
    with tempfile.TemporaryDirectory(prefix="llamarig-judge-") as name:
        tar = Path(name) / "image.tar"
        _bootstrap(Path(name), tar, mirror, source)
        run(["docker", "import", "--change", "LABEL llamarig.judge-image=1", str(tar), image])
    return image


def shim_source() -> str:
    """Return the shim's source."""
    return files("llamarig").joinpath("data", "lab", "device_memory.c").read_text(encoding="utf-8")


def compile_shim(directory: Path, source: str) -> Path | None:
    """Compile the shim into a directory; None where this machine has no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    code = directory / "device_memory.c"
    code.write_text(source, encoding="utf-8")
    run([compiler, *_COMPILE, "-o", str(directory / "device_memory.so"), str(code)])
    return directory / "device_memory.so"


def _bootstrap(directory: Path, tar: Path, mirror: str, source: str) -> None:
    compiled = compile_shim(directory, source)
    place = str(Path(SHIM).parent)
    packages, hooks = list(_PACKAGES), [f'mkdir -p "$1{place}"']
    if compiled:
        hooks.append(f"copy-in {compiled} {place}")
    else:
        # No compiler here: it comes with the image, and stays in it.
        packages += _COMPILER
        (directory / "device_memory.c").write_text(source, encoding="utf-8")
        hooks.append(f"copy-in {directory / 'device_memory.c'} {place}")
        hooks.append(f'chroot "$1" gcc {" ".join(_COMPILE)} -o {SHIM} {place}/device_memory.c')
    hooks.append('chroot "$1" sh -c "ln -s /usr/libexec/*/llama/bin/ggml-rpc-server /usr/bin/"')
    hooks.append('rm -rf "$1"/etc/llama.cpp "$1"/var/cache/apt "$1"/var/lib/apt/lists')
    run(
        [
            "mmdebstrap",
            "--variant=minbase",
            '--aptopt=Acquire::Check-Valid-Until "false"',
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            f"--include={','.join(packages)}",
            *(f"--customize-hook={hook}" for hook in hooks),
            *([f"--keyring={_KEYRING}"] if _KEYRING.exists() else []),
            _SUITE,
            str(tar),
            mirror,
        ]
    )
