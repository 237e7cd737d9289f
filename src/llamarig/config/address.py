"""Where a program of this host listens for the network, and under which names it may be asked there."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

# Of the management API and of the exporter, if nobody says otherwise.
MANAGEMENT_PORT: Final = 8081
EXPORTER_PORT: Final = 9836
_PORTS: Final = range(1 << 16)


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on.

    Attributes:
        bind, port: the address; a port of 0 is any that is free.
        hosts: names, beside localhost and the address itself.

    """

    bind: str
    port: int
    hosts: Collection[str] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether only this host reaches it."""
        return ipaddress.ip_address(self.bind).is_loopback

    @property
    def near(self) -> str:
        """The address at which this host itself reaches it."""
        address = ipaddress.ip_address(self.bind)
        if not address.is_unspecified:
            return self.bind
        return "::1" if isinstance(address, ipaddress.IPv6Address) else "127.0.0.1"

    def __str__(self) -> str:
        return joined(self.bind, self.port)


def joined(host: str, port: int | str) -> str:
    """Return a name or an address with a port; of IPv6 the address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_address(data: Any, usual: Address) -> Address:
    """Return the address of a configuration with ``bind``, ``port`` and ``hosts``; what it does not say is usual.

    Raises:
        ValueError: it says none.

    """
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  one kind of error for a file that cannot be used
    bind, port, hosts = data.get("bind", usual.bind), data.get("port", usual.port), data.get("hosts", [])
    if not isinstance(bind, str):
        raise ValueError(f"bind is {bind!r}, which is no address")  # noqa: TRY004  as above
    if isinstance(port, bool) or not isinstance(port, int) or port not in _PORTS:
        raise ValueError(f"port is {port!r}, which is none")
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise ValueError(f"hosts is {hosts!r}, which is no list of names")
    return Address(str(ipaddress.ip_address(bind)), port, tuple(hosts))
