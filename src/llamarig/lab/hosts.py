"""Lab hosts: disposable systemd machines in containers, reached over SSH like real boxes.

Everything of a lab is in one directory (``.lab`` of the checkout): key, known hosts, ssh configuration, models.
Container names carry a hash of that directory, so that two checkouts on one machine do not meet.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Final

from llamarig.lab import machine
from llamarig.lab.machine import LabError, run
from llamarig.lab.silicon import archive
from llamarig.lab.silicon import host as silicon_host

USER: Final = "rig"
_PACKAGES: Final = (
    "systemd,systemd-sysv,dbus,libpam-systemd,python3,python3-apt,sudo,openssh-server,iproute2,"
    "ca-certificates,udev,iptables"
)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab: its directory, how it speaks, which hosts have which cards, where archives of packages are kept."""

    directory: Path
    say: Say
    silicon: Mapping[str, list[str]] = field(default_factory=dict)
    archives: Path = Path()

    @property
    def mark(self) -> str:
        """Short hash that tells this checkout's containers from others'."""
        return hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:6]

    @property
    def network(self) -> str:
        """Name of the docker network of this lab."""
        return f"llamarig-lab-{self.mark}"

    def container(self, host: str) -> str:
        """Return the name of a host's container."""
        return f"llamarig-{host}-{self.mark}"

    def up(self, hosts: list[str]) -> None:
        """Bring the hosts up; those that run already are left alone.

        Raises:
            LabError: the machine cannot do it, or a host did not come up in time.

        """
        self.directory.mkdir(parents=True, exist_ok=True)
        machine.ensure_docker()
        (self.directory / "mirror").write_text(machine.debian_mirror() + "\n", encoding="ascii")
        image = self._image()
        self._key()
        self._make_network()
        started = [host for host in hosts if self._start(host, image)]
        self._ssh_config()
        for host in started:
            self._wait(host)
            if host in self.silicon:
                silicon_host.settle(self.container(host))
            self.say(f"{host} is up at {self.addresses()[host]}")
        if not started:
            self.say(f"{', '.join(hosts)} already up")

    def down(self, hosts: list[str] | None = None) -> None:
        """Remove hosts with their volumes; with none named, the whole lab without a trace."""
        if shutil.which("docker") is None or not self.directory.exists():
            return
        machine.ensure_docker()
        names = [self.container(host) for host in hosts] if hosts is not None else self._all()
        present = [name for name in self._all() if name in names]
        if present:
            run(["docker", "rm", "--force", "--volumes", *present])
        if hosts is not None:
            self._ssh_config()
            return
        if self.network in run(["docker", "network", "ls", "--format", "{{.Name}}"]).split():
            run(["docker", "network", "rm", self.network])
        # Newest first: an image goes only after those that were made of it.
        for image in run(["docker", "image", "ls", "--quiet", "--filter", "label=llamarig.lab-base"]).split():
            # Labs of other checkouts share the base system; docker keeps it while one of their hosts is there.
            run(["docker", "image", "rm", image], check=False)
        shutil.rmtree(self.directory)

    def addresses(self) -> dict[str, str]:
        """Return the address of every running host of this lab."""
        names = self._all(running=True)
        if not names:
            return {}
        result = {}
        for info in json.loads(run(["docker", "inspect", *names])):
            network = info["NetworkSettings"]["Networks"].get(self.network) or {}
            result[info["Config"]["Hostname"]] = network.get("IPAddress", "")
        return dict(sorted(result.items()))

    def _make_network(self) -> None:
        """Make the lab's network where it is not there, on a subnet that docker found free.

        A host keeps its address over reboots only where it was given one, and docker gives them only on a subnet that
        was asked for: so the network is made twice.
        """
        if self.network in run(["docker", "network", "ls", "--format", "{{.Name}}"]).split():
            return
        create = ["docker", "network", "create", "--label", "llamarig.lab"]
        run([*create, self.network])
        subnet = self._subnet()
        run(["docker", "network", "rm", self.network])
        run([*create, "--subnet", subnet, self.network])

    def _subnet(self) -> str:
        inspect = ["docker", "network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", self.network]
        return run(inspect)

    def _free_address(self) -> str:
        """Return the first address that no host of this lab has, running or not; the network's own is the first."""
        names = self._all()
        taken = set()
        for info in json.loads(run(["docker", "inspect", *names])) if names else []:
            settings = info["NetworkSettings"]["Networks"].get(self.network) or {}
            taken.add((settings.get("IPAMConfig") or {}).get("IPv4Address"))
        addresses = map(str, islice(ipaddress.ip_network(self._subnet()).hosts(), 1, None))
        return next(address for address in addresses if address not in taken)

    def _all(self, *, running: bool = False) -> list[str]:
        everything = [] if running else ["--all"]
        label = f"label=llamarig.lab={self.mark}"
        return run(["docker", "ps", *everything, "--filter", label, "--format", "{{.Names}}"]).split()

    def _image(self) -> str:
        base = machine.base()
        setup = files("llamarig").joinpath("data", "lab", "setup.sh").read_text(encoding="utf-8")
        digest = hashlib.sha256(f"{base}{_PACKAGES}{setup}".encode()).hexdigest()[:12]
        image = f"llamarig-lab-host:{base.suite}-{digest}"
        if run(["docker", "image", "ls", "--quiet", image]):
            return image
        machine.need_mmdebstrap()
        self.say(f"making the lab's base system ({base.suite} from {base.mirror}), about 20 s, once")
        tar, script = self.directory / "base.tar", self.directory / "setup.sh"
        script.write_text(setup, encoding="utf-8")
        script.chmod(0o755)
        run(
            [
                "mmdebstrap",
                "--variant=apt",
                f"--components={base.components}",
                f"--include={_PACKAGES}",
                # The package lists stay: a fresh box has them, and check mode needs them.
                "--skip=cleanup/apt/lists",
                f"--customize-hook={script} $1",
                base.suite,
                str(tar),
                base.mirror,
            ]
        )
        run(["docker", "import", "--change", "LABEL llamarig.lab-base=1", str(tar), image])
        tar.unlink()
        return image

    def _key(self) -> None:
        key = self.directory / "id_ed25519"
        if not key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "llamarig lab", "-f", str(key)])

    def _start(self, host: str, image: str) -> bool:
        """Start a host; False where it runs already. A stopped one goes on with what it had."""
        name = self.container(host)
        if name in self._all(running=True):
            return False
        if name in self._all():
            self.say(f"starting {host} again")
            run(["docker", "start", name])
            return True
        cards = self.silicon.get(host)
        if cards:
            archives = archive.build(self.archives, image, self.say)
            archive.write_fingerprints(archives, self.directory / "keys")
            self.say(f"starting {host} with {', '.join(cards)}")
            self._create(host, name, silicon_host.image(image), silicon_host.create_options())
            silicon_host.equip(name, host, cards, archives)
        else:
            self.say(f"starting {host}")
            self._create(host, name, image, machine.hidden_bus())
        keys = self.directory / "hosts" / host
        keys.mkdir(parents=True, exist_ok=True)
        host_key = keys / "ssh_host_ed25519_key"
        if not host_key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host, "-f", str(host_key)])
        for source in (host_key, host_key.with_suffix(".pub")):
            run(["docker", "cp", str(source), f"{name}:/etc/ssh/{source.name}"])
        run(["docker", "cp", f"{self.directory}/id_ed25519.pub", f"{name}:/home/{USER}/.ssh/authorized_keys"])
        run(["docker", "start", name])
        return True

    def _create(self, host: str, name: str, image: str, options: list[str]) -> None:
        command = ["docker", "create", "--name", name, "--hostname", host, "--network", self.network]
        command += ["--network-alias", host, "--ip", self._free_address(), *options]
        command += ["--label", f"llamarig.lab={self.mark}", "--restart", "always", "--stop-signal", "SIGRTMIN+3"]
        for capability in machine.capabilities():
            command += ["--cap-add", capability]
        for option in ("seccomp", "apparmor", "systempaths"):
            command += ["--security-opt", f"{option}=unconfined"]
        command += ["--cgroupns", "private", "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"]  # noqa: S108
        command += [
            "--env",
            "container=docker",
            "--volume",
            "/var/lib/docker",
            "--volume",
            "/var/lib/containerd",
            image,
        ]
        command += ["/sbin/init"]
        if machine.legacy_cgroups():
            command += ["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1", "systemd.unified_cgroup_hierarchy=0"]
        run(command)

    def _ssh_config(self) -> None:
        """Write what ssh needs to know; addresses change when containers do, so it is written each time.

        Every container has an alias of its own beside the host's name: Ansible keeps connections open by name, and must
        not find the one of an earlier container, or of another checkout's lab.
        """
        known, blocks = [], []
        for host, address in self.addresses().items():
            alias = f"{host}.{run(['docker', 'inspect', '--format', '{{.Id}}', self.container(host)])[:8]}"
            (self.directory / "hosts" / host / "alias").write_text(alias, encoding="ascii")
            public = self.directory / "hosts" / host / "ssh_host_ed25519_key.pub"
            known.append(f"{host} {' '.join(public.read_text(encoding='ascii').split()[:2])}")
            blocks.append(f"Host {host} {alias}\n  HostName {address}\n  HostKeyAlias {host}\n")
        common = (
            f"Host *\n  User {USER}\n  IdentityFile {self.directory}/id_ed25519\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.directory}/known_hosts\n  StrictHostKeyChecking yes\n  ConnectTimeout 10\n"
        )
        (self.directory / "known_hosts").write_text("".join(f"{line}\n" for line in known), encoding="ascii")
        (self.directory / "ssh_config").write_text("\n".join([*blocks, common]), encoding="ascii")

    def _wait(self, host: str) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            state = run(["docker", "exec", self.container(host), "systemctl", "is-system-running"], check=False)
            if state in {"running", "degraded"}:
                if state == "degraded":
                    failed = run(
                        ["docker", "exec", self.container(host), "systemctl", "--failed", "--plain", "--no-legend"]
                    )
                    msg = f"{host} came up degraded:\n{failed}"
                    raise LabError(msg, "please report this with the lines above")
                return
            time.sleep(0.3)
        msg = f"{host} did not reach a running system in 90 s (last state: {state or 'none'})"
        raise LabError(msg, f"docker logs {self.container(host)}")
