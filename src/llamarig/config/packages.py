"""Names of the packages that must move together: the driver's, and those that decide which kernel runs."""

from __future__ import annotations

from typing import Final

# Packages of a driver, whoever packed them; the container toolkit's are not. Regular expressions for whole names.
DRIVER_PACKAGES: Final = (
    r"(lib)?nvidia-(?!container|cuda|cudnn|docker).*"
    r"|linux-(modules|objects|signatures)-nvidia-.*"
    r"|xserver-xorg-video-nvidia-.*"
)
# Those of them that are held. Modules of one kernel follow their metapackage, and go with their kernel.
DRIVER_HELD: Final = (
    r"(lib)?nvidia-(?!container|cuda|cudnn|docker).*"
    r"|linux-(modules|objects)-nvidia-(?!.*-\d+\.\d+\.\d+-).*"
    r"|xserver-xorg-video-nvidia-.*"
)
# The metapackage of a kernel flavour; the group is the flavour.
KERNEL_FLAVOUR: Final = r"linux-image-((?:generic|lowlatency|virtual|nvidia|oem)[a-z0-9.-]*)"
