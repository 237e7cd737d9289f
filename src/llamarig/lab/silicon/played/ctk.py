"""A played nvidia-ctk: its version, and a CDI specification of the played cards that Docker really reads.

Runs on the lab host with nothing but the standard library. Like the real one it asks NVML for the cards, names them by
index and by UUID, and mounts the libraries of the installed driver. It needs no hooks.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

VERSION: Final = "0.0.0"
LIBRARIES: Final = "/usr/lib"
_SPECIFICATIONS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
_NODES: Final = ("/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl")
# Faults and the loaded driver's version must be seen in containers too.
_PLAYED: Final = ("/run/lab-silicon", "/var/lib/lab-silicon")
_ERRORS: Final = {9: "Driver Not Loaded", 15: "GPU is lost", 18: "Driver/library version mismatch"}


class _ToolkitError(Exception):
    pass


def main(arguments: list[str]) -> int:
    """Do what is asked; return the exit status."""
    parser = argparse.ArgumentParser(prog="nvidia-ctk", allow_abbrev=False)
    parser.add_argument("--version", "-v", action="store_true")
    parser.add_argument("--quiet", "-q", action="store_true")
    parser.add_argument("--debug", "-d", action="store_true")
    cdi = parser.add_subparsers(dest="command").add_parser("cdi").add_subparsers(dest="verb", required=True)
    cdi.add_parser("list")
    generate = cdi.add_parser("generate")
    generate.add_argument("--output", default=os.environ.get("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", ""))
    generate.add_argument("--device-name-strategy", action="append", choices=["index", "uuid", "type-index"])
    options = parser.parse_args(arguments)
    if options.version:
        print(f"NVIDIA Container Toolkit CLI version {VERSION}\ncommit: lab")
        return 0
    if options.command is None:
        parser.print_help()
        return 0
    try:
        if options.verb == "list":
            _list()
        else:
            _generate(options.output, options.device_name_strategy or ["index", "uuid"])
    except _ToolkitError as error:
        print(f"ERRO[0000] {error}", file=sys.stderr)
        return 1
    return 0


def _list() -> None:
    names: list[str] = []
    for directory in _SPECIFICATIONS:
        for file in sorted([*directory.glob("*.yaml"), *directory.glob("*.json")]):
            text = file.read_text(encoding="utf-8")
            kind = re.search(r'^\W*kind\W+([^\s",]+)', text, re.MULTILINE)
            found = re.findall(r'^\s*(?:- )?"?name"?: *"?([^\s",]+)', text, re.MULTILINE)
            names += [f"{kind.group(1)}={name}" for name in found if kind]
    print(f"INFO[0000] Found {len(names)} CDI devices", file=sys.stderr)
    for name in names:
        print(name)


def _generate(output: str, strategies: list[str]) -> None:
    text = "".join(f"{line}\n" for line in specification(_cards(), _mounts(), strategies))
    if not output:
        print(text, end="")
        return
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
    print("INFO[0000] Generated CDI spec with version 0.5.0", file=sys.stderr)


def specification(cards: list[tuple[int, str]], mounts: list[tuple[str, str]], strategies: list[str]) -> Iterator[str]:
    """Yield the specification, for cards (minor number, UUID) and mounts (on the host, in the container)."""
    yield from ("---", "cdiVersion: 0.5.0", "kind: nvidia.com/gpu", "devices:")
    for index, (minor, uuid) in enumerate(cards):
        for name in [str(index)] * ("index" in strategies) + [uuid] * ("uuid" in strategies):
            yield from _device(name, [minor])
    yield from _device("all", [minor for minor, _ in cards])
    yield from ("containerEdits:", "  env:", "    - NVIDIA_VISIBLE_DEVICES=void", "  deviceNodes:")
    yield from (f"    - path: {node}" for node in _NODES)
    yield "  mounts:"
    for host, container in mounts:
        yield from (f"    - hostPath: {host}", f"      containerPath: {container}")
        yield "      options: [ro, nosuid, nodev, bind]"


def _device(name: str, minors: list[int]) -> Iterator[str]:
    yield from (f"  - name: {json.dumps(name)}", "    containerEdits:", "      deviceNodes:")
    yield from (f"        - path: /dev/nvidia{minor}" for minor in minors)


def _cards() -> list[tuple[int, str]]:
    """Return minor number and UUID of every card, as NVML tells them."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        msg = f"failed to generate CDI spec: failed to initialize NVML: Library Not Found: {error}"
        raise _ToolkitError(msg) from error
    _check(nvml.nvmlInit_v2(), "failed to initialize NVML")
    count, result = ctypes.c_uint(), []
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    for index in range(count.value):
        device, minor, uuid = ctypes.c_void_p(), ctypes.c_uint(), ctypes.create_string_buffer(96)
        _check(nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)), "failed to get device handle")
        _check(nvml.nvmlDeviceGetMinorNumber(device, ctypes.byref(minor)), "failed to get device minor")
        _check(nvml.nvmlDeviceGetUUID(device, uuid, len(uuid)), "failed to get device UUID")
        result.append((minor.value, uuid.value.decode("ascii")))
    return result


def _check(code: int, what: str) -> None:
    if code:
        msg = f"failed to generate CDI spec: {what}: {_ERRORS.get(code, f'NVML error {code}')}"
        raise _ToolkitError(msg)


def _mounts() -> list[tuple[str, str]]:
    mounts = [("/usr/bin/nvidia-smi", "/usr/bin/nvidia-smi")] if Path("/usr/bin/nvidia-smi").exists() else []
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        link = Path(LIBRARIES) / name
        if link.exists():
            # The real one mounts the versioned file and lets a hook make the link.
            mounts += [(str(link.resolve()), str(link.resolve())), (str(link.resolve()), str(link))]
    return mounts + [(path, path) for path in _PLAYED]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
