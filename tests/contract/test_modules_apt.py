"""apt_packages with the distribution's own apt and dpkg, on a system in a directory."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llamarig.lab.silicon.debs import Archive, File, Keyring, Package, write_archive
from tests.contract.modules import run_module

ARCHITECTURE = subprocess.run(
    ["dpkg", "--print-architecture"],  # noqa: S607  found where the machine has it
    capture_output=True,
    text=True,
    check=True,
).stdout.strip()
CONF = "etc/tool.conf"
PACKAGES = (
    Package("tool", "1.0", files={CONF: File(b"first\n")}),
    Package("tool", "2.0", files={CONF: File(b"second\n")}),
    Package("tool-extra", "1.0", {"Depends": "tool"}),
    Package("rival", "1.0", {"Conflicts": "tool"}, files={"etc/rival.conf": File(b"rival\n")}),
    Package("needy", "1.0", {"Depends": "nowhere"}),
)


@dataclass(frozen=True)
class System:
    """A Debian in a directory: what apt and dpkg call ``/``."""

    root: Path
    archives: Path

    def run(self, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run the module there; a lock is not waited for unless the test says so."""
        path = f"{self.root}/bin:{os.environ['PATH']}"
        given = {"lock_timeout_seconds": 0, **arguments}
        return run_module("apt_packages", given, self.root, check=check, PATH=path, APT_CONFIG=f"{self.root}/apt.conf")

    def there(self, *, refresh: bool = False, **arguments: Any) -> None:
        """Bring the system to what a test begins with."""
        result = self.run(refresh=refresh, **arguments)
        assert not result.get("failed"), result

    def dpkg(self, *arguments: str) -> None:
        subprocess.run([f"{self.root}/bin/dpkg", *arguments], check=True, capture_output=True)

    def packages(self) -> dict[str, tuple[str, str]]:
        """Return what dpkg says of every package: its wish and state, and its version."""
        text = (self.root / "var/lib/dpkg/status").read_text(encoding="utf-8")
        rows = re.findall(r"^Package: (.*)\nStatus: (.*)\n(?:.*\n)*?Version: (.*)$", text, re.MULTILINE)
        return {name: (status, version) for name, status, version in rows}

    def source(self, key: str = "ours") -> None:
        line = f"deb [signed-by={self.archives}/{key}.asc] file:{self.archives}/archive /\n"
        (self.root / "etc/apt/sources.list").write_text(line, encoding="ascii")

    def ours(self, key: str, uri: str = "") -> None:
        """Name an archive as the role apt_sources does, and none beside it."""
        (self.root / "etc/apt/sources.list").write_text("")
        place = self.root / "etc/apt/sources.list.d/llamarig-a.sources"
        place.parent.mkdir(exist_ok=True)
        where = uri or f"file:{self.archives}/archive"
        place.write_text(f"Types: deb\nURIs: {where}\nSuites: /\nSigned-By: {self.archives}/{key}.asc\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold dpkg's lock, as another program that installs something does."""
        with (self.root / "var/lib/dpkg/lock-frontend").open("w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            yield


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archives")
    with Keyring(root / "secret") as keyring:
        for name in ("ours", "stranger"):
            (root / f"{name}.asc").write_text(keyring.make(name), encoding="ascii")
        write_archive(root, Archive("archive", "/", "", "o", "l", PACKAGES, "ours"), ARCHITECTURE, keyring)
    return root


@pytest.fixture
def system(tmp_path: Path, archives: Path) -> System:
    for name in ("info", "updates", "triggers", "alternatives", "parts"):
        (tmp_path / "var/lib/dpkg" / name).mkdir(parents=True)
    for name in ("status", "available"):
        (tmp_path / "var/lib/dpkg" / name).touch()
    for name in ("etc/apt/apt.conf.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "log", "bin"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("dpkg", "dpkg-query"):
        options = f"--force-not-root --log={tmp_path}/dpkg.log" if name == "dpkg" else ""
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec /usr/bin/{name} --root={tmp_path} {options} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "apt.conf").write_text(
        f'Dir "{tmp_path}";\nDir::State::status "{tmp_path}/var/lib/dpkg/status";\nDir::Log "{tmp_path}/log";\n'
        f'Dir::Bin::dpkg "{tmp_path}/bin/dpkg";\nAPT::Sandbox::User "";\nAPT::Architecture "{ARCHITECTURE}";\n'
    )
    system = System(tmp_path, archives)
    system.source()
    return system


INSTALLED, HELD = "install ok installed", "hold ok installed"


def test_packages_are_installed_and_held_and_then_nothing_is_left(system: System) -> None:
    wish: dict[str, Any] = {"install": ["tool"], "hold": ["tool"], "refresh": True}
    first = system.run(**wish)
    assert (first["changed"], first["installed"], first["removed"], first["held"]) == (True, ["tool"], [], ["tool"])
    assert system.packages() == {"tool": (HELD, "2.0")}
    second = system.run(**wish)
    assert (second["changed"], second["installed"], second["held"]) == (False, [], [])


def test_a_held_package_goes_to_the_version_that_is_asked_for_and_is_held_again(system: System) -> None:
    system.there(install=["tool"], hold=["tool"], refresh=True)
    result = system.run(install=["tool=1.*"], hold=["tool"])
    # dpkg forgets the hold of a package that changes.
    assert (result["installed"], result["held"]) == (["tool"], ["tool"])
    assert system.packages() == {"tool": (HELD, "1.0")}


def test_a_pattern_is_matched_in_full(system: System) -> None:
    system.there(install=["tool-extra"], hold=["tool", "rival"], refresh=True)
    assert system.packages() == {"tool": (HELD, "2.0"), "tool-extra": (INSTALLED, "1.0")}
    assert system.run(hold=["tool.*"])["held"] == ["tool-extra"]


def test_what_must_go_goes_with_its_configuration_in_the_same_step(system: System) -> None:
    system.there(install=["rival"], hold=["rival"], refresh=True)
    result = system.run(install=["tool"], remove=["rival"])
    assert (result["changed"], result["installed"], result["removed"]) == (True, ["tool"], ["rival"])
    assert system.packages() == {"tool": (INSTALLED, "2.0")}
    assert not (system.root / "etc/rival.conf").exists()


def test_what_nobody_named_is_not_removed(system: System) -> None:
    system.there(install=["rival"], refresh=True)
    result = system.run(install=["tool"])
    assert result["failed"]
    assert "installing tool would remove rival: nothing was changed" in result["msg"]
    assert "remedy: if nobody needs them: apt-get remove rival" in result["msg"]
    assert system.packages() == {"rival": (INSTALLED, "1.0")}


def test_what_depends_on_what_must_go_is_not_removed_either(system: System) -> None:
    system.there(install=["tool-extra"], refresh=True)
    result = system.run(install=["rival"], remove=["tool"])
    assert "installing rival would remove tool-extra" in result["msg"]
    assert set(system.packages()) == {"tool", "tool-extra"}


def test_of_what_cannot_be_installed_together_nothing_is(system: System) -> None:
    system.there(install=["rival"], refresh=True)
    result = system.run(install=["tool", "needy"], remove=["rival"])
    assert result["failed"]
    assert all(words in result["msg"] for words in ("apt cannot install tool, needy", "nowhere", "remedy: "))
    assert system.packages() == {"rival": (INSTALLED, "1.0")}


def test_a_package_that_no_archive_has_is_named_with_a_remedy(system: System) -> None:
    result = system.run(install=["nothing=1"], refresh=True)
    assert all(words in result["msg"] for words in ("E: ", "nothing=1", "remedy: ", "apt-cache policy nothing"))
    assert "policy nothing=1" not in result["msg"]


def test_configuration_that_somebody_changed_stays(system: System) -> None:
    system.there(install=["tool=1.0"], refresh=True)
    (system.root / CONF).write_text("mine\n")
    system.there(install=["tool"])
    assert system.packages() == {"tool": (INSTALLED, "2.0")}
    assert (system.root / CONF).read_text() == "mine\n"


@pytest.mark.parametrize("known", [False, True], ids=["an archive not known yet", "a known archive"])
def test_check_mode_says_what_would_come_and_changes_nothing(system: System, *, known: bool) -> None:
    system.there(install=["rival"], refresh=True)
    if not known:
        (system.root / "etc/apt/sources.list").write_text("")
    before = system.packages(), sorted((system.root / "var/lib/apt/lists").iterdir())
    result = system.run(check=True, install=["tool"], remove=["rival"], hold=["tool", "rival"], refresh=True)
    assert (result["changed"], result["installed"], result["removed"]) == (True, ["tool"], ["rival"])
    assert (system.packages(), sorted((system.root / "var/lib/apt/lists").iterdir())) == before


def test_check_mode_of_what_is_there_says_nothing(system: System) -> None:
    system.there(install=["tool"], hold=["tool"], refresh=True)
    assert system.run(check=True, install=["tool"], hold=["tool"], refresh=True)["changed"] is False


def test_an_archive_that_nobody_vouches_for_is_not_used(system: System) -> None:
    system.ours("stranger")
    result = system.run(install=["tool"], refresh=True)
    assert result["failed"]
    assert "the package index cannot be refreshed, nothing was installed" in result["msg"]
    assert all(words in result["msg"] for words in (f"{system.archives}/archive", "not signed", "remedy: ", "its key"))
    assert system.packages() == {}


def test_an_archive_that_does_not_answer_is_not_passed_over(system: System) -> None:
    system.there(install=["tool=1.0"], refresh=True)
    system.ours("ours", "http://127.0.0.1:1/archive")
    result = system.run(install=["tool"], refresh=True)
    assert all(
        words in result["msg"] for words in ("nothing was installed", "http://127.0.0.1:1/archive", "reaches it")
    )
    assert system.packages() == {"tool": (INSTALLED, "1.0")}


def test_an_archive_of_others_that_does_not_answer_is_said_and_passed_over(system: System) -> None:
    with (system.root / "etc/apt/sources.list").open("a") as sources:
        sources.write("deb http://127.0.0.1:1/archive /\n")
    result = system.run(install=["tool"], refresh=True)
    assert result["changed"]
    assert "not llamarig's" in str(result["warnings"])
    assert system.packages() == {"tool": (INSTALLED, "2.0")}


def test_a_dpkg_that_was_interrupted_is_completed_first(system: System) -> None:
    system.dpkg("--unpack", str(system.archives / f"archive/tool_1.0_{ARCHITECTURE}.deb"))
    assert system.packages() == {"tool": ("install ok unpacked", "1.0")}
    dry = system.run(check=True, hold=["tool"])
    assert (dry["changed"], system.packages()["tool"]) == (True, ("install ok unpacked", "1.0"))
    result = system.run(hold=["tool"])
    assert (result["changed"], result["held"]) == (True, ["tool"])
    assert system.packages() == {"tool": (HELD, "1.0")}
    assert system.run(hold=["tool"])["changed"] is False


def test_a_lock_that_is_not_given_back_is_said(system: System) -> None:
    system.there(install=["tool=1.0"], refresh=True)
    with system.locked():
        result = system.run(install=["tool"])
    assert result["failed"]
    assert "lock" in result["msg"]
    assert system.packages() == {"tool": (INSTALLED, "1.0")}


@pytest.mark.parametrize("interrupted", [False, True], ids=["at work", "at work for a run that broke off"])
def test_a_lock_is_waited_for(system: System, *, interrupted: bool) -> None:
    system.there(install=["rival"], refresh=True)
    if interrupted:
        system.there(install=["tool=1.0"], remove=["rival"])
        system.dpkg("--unpack", str(system.archives / f"archive/tool_1.0_{ARCHITECTURE}.deb"))
    taken = threading.Event()

    def other_program() -> None:
        with system.locked():
            taken.set()
            time.sleep(1)

    other = threading.Thread(target=other_program)
    other.start()
    taken.wait()
    result = system.run(install=["tool"], remove=[] if interrupted else ["rival"], lock_timeout_seconds=30)
    other.join()
    assert result["installed"] == ["tool"]
    assert system.packages() == {"tool": (INSTALLED, "2.0")}
