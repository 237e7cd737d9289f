"""The image in which the engine judges: Debian's llama.cpp, its RPC server, and the shim that sizes a device."""

from __future__ import annotations

import hashlib
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Final

from llamarig.lab.machine import (
    COMPILE,
    Base,
    compile_library,
    debian_mirror,
    ensure_docker,
    minimal_root,
    need_mmdebstrap,
    run,
)
from llamarig.lab.models import Say

SHIM: Final = "/usr/lib/llamarig/device_memory.so"
_SUITE: Final = "sid"
_PACKAGES: Final = ("llama.cpp-tools", "llama.cpp-tools-extra", "libggml0-backend-rpc")
_COMPILER: Final = ("gcc", "libc6-dev")


def ensure_image(say: Say) -> str:
    """Make the image where it is not there yet, and return its name.

    Raises:
        LabError: docker or mmdebstrap is missing, or Debian's archive does not answer.

    """
    ensure_docker()
    source = shim_source()
    mirror = debian_mirror()
    digest = hashlib.sha256(f"{_SUITE}{_PACKAGES}{COMPILE}{source}".encode()).hexdigest()[:12]
    image = f"llamarig-judge:{_SUITE}-{digest}"
    if run(["docker", "image", "ls", "--quiet", image]):
        return image
    need_mmdebstrap()
    say(f"making the judge's image ({_SUITE} from {mirror}), about 30 s, once")
    with tempfile.TemporaryDirectory(prefix="llamarig-judge-") as name:
        tar = Path(name) / "image.tar"
        _bootstrap(Path(name), tar, mirror, source)
        run(["docker", "import", "--change", "LABEL llamarig.judge-image=1", str(tar), image])
    return image


def shim_source() -> str:
    """Return the shim's source."""
    return files("llamarig").joinpath("data", "lab", "device_memory.c").read_text(encoding="utf-8")


def _bootstrap(directory: Path, tar: Path, mirror: str, source: str) -> None:
    compiled = compile_library(directory, "device_memory", source)
    place = str(Path(SHIM).parent)
    packages, hooks = list(_PACKAGES), [f'mkdir -p "$1{place}"']
    if compiled:
        hooks.append(f"copy-in {compiled} {place}")
    else:
        # No compiler here: it comes with the image, and stays in it.
        packages += _COMPILER
        (directory / "device_memory.c").write_text(source, encoding="utf-8")
        hooks.append(f"copy-in {directory / 'device_memory.c'} {place}")
        hooks.append(f'chroot "$1" gcc {" ".join(COMPILE)} -o {SHIM} {place}/device_memory.c')
    hooks.append('chroot "$1" sh -c "ln -s /usr/libexec/*/llama/bin/ggml-rpc-server /usr/bin/"')
    hooks.append('rm -rf "$1"/etc/llama.cpp "$1"/var/cache/apt "$1"/var/lib/apt/lists')
    minimal_root(tar, Base(_SUITE, mirror, "main"), packages, hooks)
