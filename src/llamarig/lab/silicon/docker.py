"""Docker as docker.com packages it, made of the distribution's own Docker, so that it really runs.

Names and ties are docker.com's: docker-ce excludes docker.io, containerd.io excludes containerd and runc. The plugins
say nothing about docker-compose and docker-buildx although they own the same files: dpkg refuses them where those are.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from llamarig.lab.machine import LabError, run
from llamarig.lab.silicon import binaries
from llamarig.lab.silicon.debs import Archive, File, Keyring, Package, write_archive

Say = Callable[[str], None]
# How version strings end; and what the distribution's packages are called there.
_END: Final = {"trixie": "debian.13~trixie", "noble": "ubuntu.24.04~noble"}
_PARTS: Final = {
    "trixie": ("docker.io", "docker-cli", "containerd", "runc", "docker-buildx", "docker-compose"),
    "noble": ("docker.io", "containerd", "runc", "docker-buildx", "docker-compose-v2"),
}
_PLUGINS: Final = "usr/libexec/docker/cli-plugins"
_CONFIGURE: Final = """\
getent group docker >/dev/null || groupadd --system docker
if [ "$1" = configure ]; then
  for unit in {units}; do
    deb-systemd-helper unmask "$unit" >/dev/null || true
    deb-systemd-helper enable "$unit" >/dev/null || true
  done
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    deb-systemd-invoke "$([ -n "$2" ] && echo restart || echo start)" {units} || true
  fi
fi"""
_REMOVE: Final = """\
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then deb-systemd-invoke stop {units}; fi"""
_PURGE: Final = """\
if [ "$1" = purge ]; then deb-systemd-helper purge {units}; fi"""


def build(directory: Path, image: str, architecture: str, say: Say) -> Path | None:
    """Build the archive with what the lab's base system gets from its mirror; None where it gets nothing.

    Args:
        directory: where archives are kept.
        image: the lab's base system.
        architecture: of this machine.
        say: called with what is going on.

    """
    suite = image.split(":")[1].split("-", maxsplit=1)[0]
    place = directory / f"docker-{suite}-{binaries.digest('docker.py', 'debs.py', architecture)}"
    if place.is_dir():
        return place
    say("repackaging Docker as docker.com does, about 7 s, once")
    for stale in directory.glob(f"docker-{suite}-*"):
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix=".docker-", dir=directory) as new:
        root = Path(new)
        try:
            upstream = _download(root / "downloads", image, _PARTS[suite])
        except LabError as error:
            say(f"without docker.com's archive: {error.message.splitlines()[-1]}")
            return None
        packages = list(_packages(suite, upstream))
        _write(root / "archive", packages, suite, architecture, Keyring(directory / "secret"))
        (root / "archive").rename(place)
    return place


def _download(directory: Path, image: str, names: tuple[str, ...]) -> dict[str, Path]:
    """Fetch and unpack packages inside the base system; return the trees by name."""
    directory.mkdir()
    download = f"apt-get download {' '.join(names)}"
    fetch = f"cd /out && {{ {download} || {{ apt-get update && {download}; }}; }}"
    unpack = 'for deb in *.deb; do dpkg-deb --raw-extract "$deb" "/out/${deb%%_*}"; done; chmod -R a+rX /out'
    command = f"{fetch} && {unpack}"
    run(["docker", "run", "--rm", "--volume", f"{directory}:/out", image, "sh", "-c", command])
    return {name: directory / name for name in names}


def _write(root: Path, packages: list[Package], suite: str, architecture: str, keys: Keyring) -> None:
    (root / "keys").mkdir(parents=True)
    archive = Archive("docker", suite, "stable", "Docker", "Docker CE", packages, "docker")
    with keys as keyring:
        (root / "keys" / "docker.asc").write_text(keyring.make("docker"), encoding="ascii")
        write_archive(root, archive, architecture, keyring)


def _packages(suite: str, trees: dict[str, Path]) -> Iterator[Package]:
    end = _END[suite]
    engine, containerd = _upstream(trees["docker.io"]), _upstream(trees["containerd"])
    cli = trees.get("docker-cli", trees["docker.io"])
    compose = trees["docker-compose" if "docker-compose" in trees else "docker-compose-v2"]
    patch = int(engine.rsplit(".", 1)[1])
    for version in (f"{engine.rsplit('.', 1)[0]}.{patch - 1}", engine):
        full = f"5:{version}-1~{end}"
        yield _engine(trees["docker.io"], full)
        yield _cli(cli, full)
    yield _containerd(trees, f"{containerd}-1~{end}")
    for name, tree in (("buildx", trees["docker-buildx"]), ("compose", compose)):
        files = {f"{_PLUGINS}/docker-{name}": tree / f"{_PLUGINS}/docker-{name}"}
        yield _package(f"docker-{name}-plugin", f"{_upstream(tree)}-1~{end}", {"Enhances": "docker-ce-cli"}, files)


def _engine(tree: Path, version: str) -> Package:
    units = "docker.service docker.socket"
    service = (tree / "usr/lib/systemd/system/docker.service").read_text(encoding="utf-8")
    texts = {"usr/lib/systemd/system/docker.service": service.replace("/usr/sbin/dockerd", "/usr/bin/dockerd")}
    files = {
        "usr/bin/dockerd": tree / "usr/sbin/dockerd",
        "usr/bin/docker-proxy": tree / "usr/sbin/docker-proxy",
        "usr/lib/systemd/system/docker.socket": tree / "usr/lib/systemd/system/docker.socket",
    }
    fields = {
        "Depends": f"containerd.io, docker-ce-cli, iptables | nftables, {_depends(tree)}",
        "Conflicts": "docker.io, docker-engine",
        "Replaces": "docker-engine",
    }
    package = _package("docker-ce", version, fields, files, units, texts)
    return replace(package, files={**package.files, "usr/bin/docker-init": File(target="tini-static")})


def _cli(tree: Path, version: str) -> Package:
    fields = {
        "Depends": "libc6",
        "Recommends": "docker-buildx-plugin, docker-compose-plugin",
        "Conflicts": "docker.io, docker-engine",
        "Breaks": "docker.io, docker-engine",
    }
    return _package("docker-ce-cli", version, fields, {"usr/bin/docker": tree / "usr/bin/docker"})


def _containerd(trees: dict[str, Path], version: str) -> Package:
    tree = trees["containerd"]
    names = ("usr/bin/containerd", "usr/bin/containerd-shim-runc-v2", "usr/lib/systemd/system/containerd.service")
    files = {name: tree / name for name in names} | {"usr/bin/runc": trees["runc"] / "usr/sbin/runc"}
    both = "containerd, runc"
    fields = {"Depends": _depends(trees["runc"]), "Provides": both, "Conflicts": both, "Replaces": both}
    texts = {"etc/containerd/config.toml": 'disabled_plugins = ["cri"]\n'}
    return _package("containerd.io", version, fields, files, "containerd.service", texts)


def _package(
    name: str,
    version: str,
    fields: dict[str, str],
    files: dict[str, Path],
    units: str = "",
    texts: dict[str, str] | None = None,
) -> Package:
    content = {path: File(source.read_bytes(), source.stat().st_mode & 0o777) for path, source in files.items()}
    content |= {path: File(text.encode()) for path, text in (texts or {}).items()}
    parts = {"postinst": _CONFIGURE, "prerm": _REMOVE, "postrm": _PURGE} if units else {}
    scripts = {part: text.format(units=units) for part, text in parts.items()}
    return Package(name, version, fields, content, scripts)


def _field(tree: Path, name: str) -> str:
    found = re.search(rf"^{name}: (.*)$", (tree / "DEBIAN" / "control").read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1) if found else ""


def _upstream(tree: Path) -> str:
    """Return the upstream version: 26.1.5 of 26.1.5+dfsg1-9."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)+)", _field(tree, "Version"))
    if not found:
        msg = f"{tree.name} has the version {_field(tree, 'Version')!r}"
        raise LabError(msg)
    return found.group(1)


def _depends(tree: Path) -> str:
    """Return its dependencies, less those on the parts that are packaged otherwise here."""
    parts = _field(tree, "Depends").split(", ")
    return ", ".join(part for part in parts if not re.match(r"(containerd|runc|iptables)\b", part))
