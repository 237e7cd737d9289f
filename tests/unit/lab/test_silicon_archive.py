"""The archives, read with the distribution's own apt: signatures, indices, and what depends on what."""

from __future__ import annotations

import hashlib
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from llamarig.lab.machine import LabError, run
from llamarig.lab.silicon import archive, binaries, debs
from llamarig.lab.silicon.drivers import Target

KERNEL = "6.8.0-85-generic"
# What the stand-ins need of a real system.
PRESENT = ("kmod", "python3", "passwd", "libc6")
SET = (
    "linux-modules-nvidia-{}-server-open-generic",
    "nvidia-headless-no-dkms-{}-server-open",
    "nvidia-utils-{}-server",
)


@dataclass
class Apt:
    """An apt of our own: its directory, the archives, what is installed."""

    root: Path
    archives: Path

    def source(self, directory: str, suite: str, component: str, key: str) -> None:
        """Add a source and fetch its index."""
        signed = self.archives / "keys" / f"{key}.asc"
        line = f"deb [signed-by={signed}] file:{self.archives}/{directory} {suite} {component}\n"
        (self.root / "sources.list").write_text(line, encoding="ascii")

    def update(self) -> subprocess.CompletedProcess[str]:
        return self.run("apt-get", "update")

    def installed(self, *packages: str) -> None:
        """Pretend that these are installed, as name=version."""
        paragraphs = []
        for package in [*(f"{name}=9" for name in PRESENT), *packages]:
            name, version = package.split("=", 1)
            control = self.run("apt-cache", "show", package).stdout if name not in PRESENT else ""
            fields = [
                line
                for line in control.splitlines()
                if line.split(":")[0] in {"Depends", "Provides", "Conflicts", "Replaces"}
            ]
            head = [f"Package: {name}", "Status: install ok installed", "Architecture: amd64", "Maintainer: nobody"]
            paragraphs.append("\n".join([*head, f"Version: {version}", *fields, "Description: there", ""]))
        (self.root / "status").write_text("\n".join(paragraphs), encoding="ascii")

    def would(self, verb: str, *arguments: str) -> dict[str, str]:
        """Return what apt-get would install and remove: version by name, empty for a removal."""
        done = self.run("apt-get", "--simulate", verb, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.findall(r"^(Inst|Remv) (\S+) (?:\[\S+\] ?)?(?:\((\S+))?", done.stdout, re.MULTILINE)
        return {name: version if what == "Inst" else "" for what, name, version in found}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        options = {
            "Dir::Etc::SourceList": self.root / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": self.root / "state",
            "Dir::State::status": self.root / "status",
            "Dir::Cache": self.root / "cache",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return subprocess.run([command[0], *words, *command[1:]], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive") / "archive"
    archive.write(root, Target("amd64", "x86_64-linux-gnu", KERNEL), debs.Keyring(root.parent / "secret"))
    return root


@pytest.fixture
def apt(tmp_path: Path, archives: Path) -> Apt:
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (tmp_path / directory).mkdir(parents=True)
    apt = Apt(tmp_path, archives)
    apt.installed()
    return apt


@pytest.fixture
def noble(apt: Apt) -> Apt:
    apt.source("ubuntu", "noble", "restricted", "ubuntu")
    assert apt.update().returncode == 0
    return apt


@pytest.mark.parametrize(
    ("directory", "suite", "component", "key"),
    [
        ("ubuntu", "noble", "restricted", "ubuntu"),
        ("ubuntu", "noble-before", "restricted", "ubuntu"),
        ("nvidia", "/", "", "nvidia"),
        ("toolkit", "/", "", "toolkit"),
    ],
)
def test_apt_accepts_the_signature(apt: Apt, directory: str, suite: str, component: str, key: str) -> None:
    apt.source(directory, suite, component, key)
    done = apt.update()
    assert (done.returncode, "W:" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(("directory", "key"), [("unsigned", "toolkit"), ("toolkit", "nvidia")])
def test_apt_refuses_a_strangers_signature(apt: Apt, directory: str, key: str) -> None:
    apt.source(directory, "/", "", key)
    done = apt.update()
    assert done.returncode == 100
    assert "is not signed" in done.stderr


def test_every_package_of_an_index_is_there(archives: Path) -> None:
    seen = 0
    for index in archives.rglob("Packages"):
        top = archives / index.relative_to(archives).parts[0]
        for paragraph in index.read_text(encoding="ascii").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in paragraph.splitlines())
            content = (top / fields["Filename"]).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (int(fields["Size"]), fields["SHA256"])
            seen += 1
    assert seen > 100


def test_three_packages_bring_the_whole_driver(noble: Apt) -> None:
    version = "580.95.05-0ubuntu0.24.04.1"
    user_space = {
        f"{name}-580-server": version
        for name in (
            "libnvidia-cfg1",
            "libnvidia-compute",
            "nvidia-utils",
            "nvidia-compute-utils",
            "nvidia-kernel-common",
        )
    }
    module = {f"linux-modules-nvidia-580-server-open-{end}": "6.8.0-85.85+1" for end in ("generic", KERNEL)}
    assert noble.would("install", *(name.format(580) for name in SET)) == {
        **user_space,
        **module,
        f"linux-image-{KERNEL}": "6.8.0-85.85",
        "nvidia-headless-no-dkms-580-server-open": version,
        "nvidia-firmware-580-server-580.95.05": version,
    }


def test_an_earlier_day_has_the_older_driver(apt: Apt) -> None:
    apt.source("ubuntu", "noble-before", "restricted", "ubuntu")
    apt.update()
    found = apt.would("install", *(name.format(580) for name in SET))
    assert found["libnvidia-compute-580-server"] == "580.82.07-0ubuntu0.24.04.1"
    assert found[f"linux-modules-nvidia-580-server-open-{KERNEL}"] == "6.8.0-85.85"


def test_user_space_does_not_move_without_the_module(apt: Apt) -> None:
    apt.source("ubuntu", "noble-before", "restricted", "ubuntu")
    apt.update()
    there = apt.would("install", *(name.format(580) for name in SET))
    apt.source("ubuntu", "noble", "restricted", "ubuntu")
    apt.update()
    apt.installed(*(f"{name}={version}" for name, version in there.items()))
    change = apt.would("install", "nvidia-headless-no-dkms-580-server-open")
    module = f"linux-modules-nvidia-580-server-open-{KERNEL}"
    assert change[module] == "6.8.0-85.85+1"
    status = apt.root / "status"
    text = status.read_text(encoding="ascii")
    for name in (module, "linux-modules-nvidia-580-server-open-generic"):
        text = text.replace(f"Package: {name}\nStatus: install", f"Package: {name}\nStatus: hold")
    status.write_text(text, encoding="ascii")
    refused = apt.run("apt-get", "--simulate", "install", "nvidia-headless-no-dkms-580-server-open")
    assert refused.returncode == 100
    assert "held" in refused.stdout + refused.stderr


def test_another_branch_gives_way(noble: Apt) -> None:
    old = [f"{name.format(570)}" for name in SET]
    there = noble.would("install", *old)
    noble.installed(*(f"{name}={version}" for name, version in there.items()))
    change = noble.would("install", *(name.format(580) for name in SET))
    removed = {name for name, version in change.items() if not version}
    assert {
        "libnvidia-compute-570-server",
        "nvidia-utils-570-server",
        f"linux-modules-nvidia-570-server-open-{KERNEL}",
    } <= removed


def test_nvidias_repository_brings_a_module_to_build(apt: Apt) -> None:
    apt.source("nvidia", "/", "", "nvidia")
    apt.update()
    found = apt.would("install", "nvidia-driver-580-open")
    assert {"nvidia-dkms-580-open", "libnvidia-compute-580", "nvidia-utils-580", "nvidia-compute-utils-580"} <= set(
        found
    )
    assert set(found.values()) == {"580.95.05-0ubuntu1"}
    assert apt.would("install", "nvidia-driver-pinning-580") == {"nvidia-driver-pinning-580": "580-1"}


def test_the_toolkits_packages_hold_together_since_1_18(apt: Apt) -> None:
    apt.source("toolkit", "/", "", "toolkit")
    apt.update()
    names = (
        "nvidia-container-toolkit",
        "nvidia-container-toolkit-base",
        "libnvidia-container-tools",
        "libnvidia-container1",
    )
    assert apt.would("install", names[0]) == dict.fromkeys(names, "1.20.0-1")
    assert apt.would("install", *(f"{name}=1.19.1-1" for name in names)) == dict.fromkeys(names, "1.19.1-1")
    mixed = apt.run("apt-get", "--simulate", "install", f"{names[0]}=1.19.1-1", f"{names[1]}=1.20.0-1")
    assert mixed.returncode == 100
    assert apt.would("install", f"{names[0]}=1.17.7-1", f"{names[1]}=1.20.0-1")[names[0]] == "1.17.7-1"


def test_archives_are_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("amd64", "x86_64-linux-gnu", KERNEL)
    monkeypatch.setattr(archive, "this_machine", lambda: target)
    monkeypatch.setattr("llamarig.lab.silicon.docker.build", lambda *_: None)
    monkeypatch.setattr(archive, "write", lambda root, *_: root.mkdir())
    said: list[str] = []
    (first,) = archive.build(tmp_path, "image", said.append)
    assert archive.build(tmp_path, "image", said.append) == [first]
    assert len(said) == 1
    target = Target("amd64", "x86_64-linux-gnu", "6.8.0-86-generic")
    (second,) = archive.build(tmp_path, "image", said.append)
    assert (second != first, first.exists(), second.exists()) == (True, False, True)


def test_a_constant_that_a_program_does_not_have_is_an_error() -> None:
    with pytest.raises(LabError, match=r"played/ctk\.py has no constant COLOUR"):
        binaries.script("ctk", COLOUR="green")


def test_files_in_etc_are_conffiles(tmp_path: Path) -> None:
    package = debs.Package(
        "thing", "1:2-3", files={"etc/thing.conf": debs.File(b"1"), "usr/bin/t": debs.File(b"2", 0o755)}
    )
    with debs.Keyring(tmp_path / "secret") as keyring:
        keyring.make("k")
        debs.write_archive(tmp_path, debs.Archive("a", "/", "", "o", "l", [package], "k"), "amd64", keyring)
    deb = tmp_path / "a" / "thing_2-3_amd64.deb"
    assert run(["dpkg-deb", "--info", str(deb), "conffiles"]) == "/etc/thing.conf"
    listing = run(["dpkg-deb", "--contents", str(deb)])
    assert re.search(r"^-rwxr-xr-x root/root .* \./usr/bin/t$", listing, re.MULTILINE)


def test_a_key_outlives_its_archive(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        with debs.Keyring(tmp_path / "secret") as keyring:
            made.append(keyring.make("k"))
            assert "BEGIN PGP SIGNATURE" in keyring.sign("k", "text")
    assert made[0] == made[1]
    (kept,) = (tmp_path / "secret").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_fingerprints_are_written_beside_the_lab(tmp_path: Path, archives: Path) -> None:
    archive.write_fingerprints([archives], tmp_path / "keys")
    written = {path.stem: path.read_text(encoding="ascii").strip() for path in (tmp_path / "keys").iterdir()}
    assert set(written) == {"ubuntu", "nvidia", "toolkit"}
    assert len(set(written.values())) == 3
    assert all(re.fullmatch(r"[0-9A-F]{40}", value) for value in written.values())
