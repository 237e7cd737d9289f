"""Stand-ins of the driver's packages, as Ubuntu's archive and NVIDIA's repository name and tie them together.

linux-modules-nvidia-* carry the kernel's version, as the real ones do (on a box with driver 550.127.08:
``linux-modules-nvidia-550-server-6.8.0-51-generic 6.8.0-51.52+1``); what ties them to a driver is the pair of bounds on
nvidia-kernel-common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from llamarig.lab.silicon import binaries
from llamarig.lab.silicon.binaries import Driver
from llamarig.lab.silicon.debs import File, Package

OLD: Final = Driver("580.82.07", 13000)
NEW: Final = Driver("580.95.05", 13000)
OTHER_BRANCH: Final = Driver("570.172.08", 12080)
KERNEL_VERSION: Final = "6.8.0-85.85"
OLD_KERNEL: Final = "6.8.0-1-generic"
_FLAVOURS: Final = ("generic", "generic-hwe-24.04")
# What a kernel's postinst comes to on a box with update-notifier-common.
_ASK_FOR_REBOOT: Final = """\
if [ "$1" = configure ]; then
  echo '*** System restart required ***' >/run/reboot-required
  echo linux-image-{kernel} >>/run/reboot-required.pkgs
fi"""
_DEPMOD: Final = 'depmod "{kernel}" 2>/dev/null || true'


@dataclass(frozen=True, slots=True)
class Target:
    """What packages are made for: the architecture, its library directory, the running kernel."""

    architecture: str
    multiarch: str
    kernel: str

    @property
    def libraries(self) -> str:
        """Where libraries go, without the leading slash."""
        return f"usr/lib/{self.multiarch}"


def ubuntu_packages(target: Target, drivers: Sequence[Driver] = (OLD, NEW)) -> list[Package]:
    """Return what the archive of Ubuntu holds: kernels, these server drivers of branch 580, and one of another."""
    result = list(_kernels(target))
    for revision, driver in enumerate(drivers):
        result += _user_space(target, driver, "-server", f"{driver.version}-0ubuntu0.24.04.1")
        version = KERNEL_VERSION + (f"+{revision}" if revision else "")
        result += _modules(target, driver, "-server-open", version)
        result += _modules(target, driver, "-server", version)
    result += _user_space(target, OTHER_BRANCH, "-server", f"{OTHER_BRANCH.version}-0ubuntu0.24.04.1")
    result += _modules(target, OTHER_BRANCH, "-server-open", KERNEL_VERSION)
    return result


def nvidia_packages(target: Target) -> list[Package]:
    """Return what NVIDIA's repository holds: the same driver, with a module that is built on the box."""
    result = [_pinning()]
    for driver in (OLD, NEW):
        result += _user_space(target, driver, "", f"{driver.version}-0ubuntu1")
        result += _dkms(target, driver, f"{driver.version}-0ubuntu1")
    return result


def _kernels(target: Target) -> Iterator[Package]:
    for kernel in (target.kernel, OLD_KERNEL):
        script = _ASK_FOR_REBOOT.format(kernel=kernel)
        # The directory stays while a kernel does, so that depmod has somewhere to write.
        tree = {f"usr/lib/modules/{kernel}/modules.builtin": File(), f"usr/lib/modules/{kernel}/modules.order": File()}
        fields = {"Depends": "kmod", "Provides": "linux-image"}
        yield Package(f"linux-image-{kernel}", KERNEL_VERSION, fields, tree, {"postinst": script})
        yield Package(f"linux-headers-{kernel}", KERNEL_VERSION)
    for flavour in _FLAVOURS:
        for kind in ("image", "headers"):
            fields = {"Depends": f"linux-{kind}-{target.kernel}"}
            yield Package(f"linux-{kind}-{flavour}", KERNEL_VERSION, fields)
        parts = [f"linux-{kind}-{flavour} (= {KERNEL_VERSION})" for kind in ("image", "headers")]
        yield Package(f"linux-{flavour}", KERNEL_VERSION, {"Depends": ", ".join(parts)})


def _modules(target: Target, driver: Driver, variant: str, version: str) -> Iterator[Package]:
    """Yield prebuilt modules: one package for each kernel, and the metapackages that follow the flavour's kernel."""
    name = f"linux-modules-nvidia-{driver.branch}{variant}"
    common = f"nvidia-kernel-common-{driver.branch}-server"
    bounds = f"{common} (<= {driver.version}-1), {common} (>= {driver.version})"
    short = f"nvidia-{driver.branch}{variant.replace('-server', 'srv')}"
    for kernel in (target.kernel, OLD_KERNEL):
        path = f"usr/lib/modules/{kernel}/kernel/{short}/nvidia.ko"
        content = binaries.module(driver, kernel, open_source=variant.endswith("-open"))
        refresh = _DEPMOD.format(kernel=kernel)
        scripts = {"postinst": refresh, "postrm": refresh}
        fields = {"Depends": f"linux-image-{kernel}, {bounds}"}
        yield Package(f"{name}-{kernel}", version, fields, {path: File(content)}, scripts)
    for flavour in _FLAVOURS:
        fields = {"Depends": f"{name}-{target.kernel} (= {version}), {bounds}"}
        yield Package(f"{name}-{flavour}", version, fields)


def _user_space(target: Target, driver: Driver, suffix: str, version: str) -> Iterator[Package]:
    """Yield user space; packages of one kind and different branches exclude each other, as theirs do."""
    end = f"{driver.branch}{suffix}"

    def package(kind: str, depends: str, files: dict[str, File], scripts: dict[str, str] | None = None) -> Package:
        fields = {"Depends": depends, "Provides": kind, "Conflicts": kind, "Replaces": kind}
        return Package(f"{kind}-{end}", version, fields, files, scripts or {})

    libraries = target.libraries
    compute: dict[str, File] = {}
    for name, content in (("libnvidia-ml.so", binaries.nvml(driver)), ("libcuda.so", binaries.cuda(driver))):
        compute[f"{libraries}/{name}.{driver.version}"] = File(content)
        compute[f"{libraries}/{name}.1"] = File(target=f"{name}.{driver.version}")
    unit = File(binaries.data("nvidia-persistenced.service").encode())
    blacklist = File(binaries.data("nvidia-graphics-drivers.conf").encode())
    firmware = f"nvidia-firmware-{end}-{driver.version}"
    user = (
        "getent passwd nvidia-persistenced >/dev/null ||\n"
        "  useradd --system --user-group --home-dir / --shell /usr/sbin/nologin nvidia-persistenced\n"
        "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi"
    )
    stop = 'if [ "$1" = remove ] && [ -d /run/systemd/system ]; then systemctl stop nvidia-persistenced.service; fi'
    yield Package(firmware, version)
    yield package("libnvidia-compute", "", compute, {"postinst": "ldconfig"})
    yield package("libnvidia-cfg1", "", {})
    yield package("nvidia-utils", f"libnvidia-compute-{end}", {"usr/bin/nvidia-smi": File(binaries.smi(), 0o755)})
    yield package(
        "nvidia-compute-utils",
        f"libnvidia-compute-{end}, python3, passwd",
        {
            "usr/bin/nvidia-persistenced": File(binaries.script("persistenced"), 0o755),
            "usr/lib/systemd/system/nvidia-persistenced.service": unit,
        },
        {"postinst": user, "prerm": stop},
    )
    kernel_common = {"usr/lib/modprobe.d/nvidia-graphics-drivers.conf": blacklist}
    yield package("nvidia-kernel-common", f"{firmware} (= {version}), kmod", kernel_common)
    if suffix:
        yield _headless(driver, end, version)


def _headless(driver: Driver, end: str, version: str) -> Package:
    exact = [f"{kind}-{end} (= {version})" for kind in ("libnvidia-cfg1", "libnvidia-compute", "nvidia-compute-utils")]
    common = f"nvidia-kernel-common-{end}"
    depends = [*exact, f"{common} (<= {driver.version}-1)", f"{common} (>= {driver.version})"]
    return Package(f"nvidia-headless-no-dkms-{end}-open", version, {"Depends": ", ".join(depends)})


def _dkms(target: Target, driver: Driver, version: str) -> Iterator[Package]:
    branch = driver.branch
    place = f"usr/lib/modules/{target.kernel}/updates/dkms/nvidia.ko"
    source = f"usr/src/nvidia-{driver.version}/nvidia.ko"
    build = f"install -D -m 0644 /{source} /{place}\n{_DEPMOD.format(kernel=target.kernel)}"
    clean = f"rm -f /{place}\n{_DEPMOD.format(kernel=target.kernel)}"
    common = f"nvidia-kernel-common-{branch} (>= {driver.version})"
    yield Package(
        f"nvidia-dkms-{branch}-open",
        version,
        {"Depends": f"{common}, kmod", "Provides": "nvidia-dkms", "Conflicts": "nvidia-dkms"},
        {source: File(binaries.module(driver, target.kernel, open_source=True))},
        {"postinst": build, "prerm": clean},
    )
    kinds = ("nvidia-dkms-{}-open", "libnvidia-compute-{}", "nvidia-utils-{}", "nvidia-compute-utils-{}")
    depends = [f"{kind.format(branch)} (= {version})" for kind in kinds]
    yield Package(f"nvidia-driver-{branch}-open", version, {"Depends": ", ".join([*depends, common])})


def _pinning() -> Package:
    """Return the package that keeps to the branch; it is to be installed before the driver."""
    names = "nvidia-* libnvidia-* cuda-drivers*"
    pin = File(f"Package: {names}\nPin: version {NEW.branch}.*\nPin-Priority: 1000\n".encode())
    path = "etc/apt/preferences.d/nvidia-driver-pinning-580"
    return Package(f"nvidia-driver-pinning-{NEW.branch}", f"{NEW.branch}-1", files={path: pin})
