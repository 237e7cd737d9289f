"""What Prometheus scrapes on each host, from the variables of all hosts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from llamarig.config.address import EXPORTER_PORT, joined
from llamarig.errors import Problem

EXPORTER_BIND: Final = "127.0.0.1"
NODE_LISTEN: Final = "127.0.0.1:9100"
# The variables of a host that decide where it is scraped.
READ: Final = (
    "ansible_host",
    "exporter_bind",
    "exporter_enabled",
    "exporter_port",
    "monitoring_address",
    "monitoring_node_enabled",
    "monitoring_node_listen",
)
_HIGHEST_PORT: Final = 65535
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A name whose last part is a number would be read as an IPv4 address.
_NAME: Final = re.compile(rf"(?!\S*(?:^|\.)\d+\Z)(?:{_LABEL}\.)*{_LABEL}")
_WITH_PORT: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]*:[^\[\]]*)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets as Prometheus reads them from files: an entry for each host, with the host's name as ``instance``."""

    exporter: list[dict[str, Any]] = field(default_factory=list)
    node: list[dict[str, Any]] = field(default_factory=list)


def targets(monitor: str, hosts: Mapping[str, Mapping[str, Any]]) -> tuple[Targets, list[Problem]]:
    """Return what Prometheus on ``monitor`` scrapes of hosts, by their variables, and what it could not reach.

    Each host's exporter is a target, unless ``exporter_enabled`` is false, and its node exporter where
    ``monitoring_node_enabled`` is true. A host is reached where it listens; where that is everywhere, at the address
    that Ansible uses. ``monitoring_address`` overrules both, and the exporter's port where it names one.
    """
    found, problems = Targets(), []
    for host, variables in sorted(hosts.items()):
        if problem := _told_problem(host, variables):
            problems.append(problem)
        told, leads_to = _told(variables)
        port = str(variables.get("exporter_port", EXPORTER_PORT))
        bind = str(variables.get("exporter_bind", EXPORTER_BIND))
        wanted = []
        if variables.get("exporter_enabled", True):
            wanted.append((found.exporter, ("exporter_bind", "exporter_port"), bind, port))
        if variables.get("monitoring_node_enabled"):
            bind, _, port = str(variables.get("monitoring_node_listen", NODE_LISTEN)).rpartition(":")
            wanted.append((found.node, ("monitoring_node_listen", "monitoring_node_listen"), bind.strip("[]"), port))
        for entries, keys, bind, port in wanted:
            reached = bool(told) or host == monitor
            if problem := _problem(monitor, host, keys, bind, port, reached=reached):
                problems.append(problem)
            else:
                address = told or _address(monitor, host, variables, bind)
                entries.append({"targets": [joined(address, leads_to or port)], "labels": {"instance": host}})
    return found, problems


def _told(variables: Mapping[str, Any]) -> tuple[str, str]:
    """Return the address and the port that ``monitoring_address`` names, each empty where it names none."""
    told = variables.get("monitoring_address")
    text = "" if told is None else str(told)
    parts = _WITH_PORT.fullmatch(text)
    return (parts["v6"] or parts["host"], parts["port"]) if parts else (text, "")


def _told_problem(host: str, variables: Mapping[str, Any]) -> Problem | None:
    key = "monitoring_address"
    address, port = _told(variables)
    if (address and not _can_be_asked(address)) or (port and not _is_port(port)):
        said = f"{str(variables[key])!r} is no name or address, nor one with a port"
        remedy = (
            "name where the host is reached, such as tunnel.example.com, tunnel.example.com:443 or [2001:db8::1]:443"
        )
        return Problem(host, key, said, remedy)
    if port and variables.get("monitoring_node_enabled"):
        said = f"port {port} of {address} leads to the exporter, and so not to the node exporter"
        return Problem(host, key, said, "leave the port out, or set monitoring_node_enabled to false")
    return None


def _can_be_asked(text: str) -> bool:
    """Whether it is a name, or an address; not one that stands for all of a host's."""
    try:
        return not ip_address(text).is_unspecified
    except ValueError:
        return _NAME.fullmatch(text) is not None


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) <= _HIGHEST_PORT


def _problem(monitor: str, host: str, keys: tuple[str, str], bind: str, port: str, *, reached: bool) -> Problem | None:
    """Return what is wrong with where something listens.

    ``keys`` are the variables that say its address and port; ``reached`` is whether loopback is where it should listen.
    """
    try:
        listens = ip_address(bind)
    except ValueError:
        return Problem(
            host, keys[0], f"{bind!r} is no address", "name an IPv4 or IPv6 address of the host, in host_vars"
        )
    if not _is_port(port):
        return Problem(host, keys[1], f"{port!r} is no port", f"name a port from 1 to {_HIGHEST_PORT}, in host_vars")
    if listens.is_loopback and not reached:
        remedy = (
            f"set {keys[0]} to an address of the host that {monitor} reaches, and open port {port} in firewall_allow;"
            " or set monitoring_address where something else leads there"
        )
        return Problem(host, keys[0], f"{bind} cannot be reached from {monitor}, where Prometheus runs", remedy)
    return None


def _address(monitor: str, host: str, variables: Mapping[str, Any], bind: str) -> str:
    listens = ip_address(bind)
    if not listens.is_unspecified:
        return bind
    if host == monitor:
        return "127.0.0.1" if listens.version == 4 else "::1"  # noqa: PLR2004  as everybody calls it
    return str(variables.get("ansible_host") or host)
