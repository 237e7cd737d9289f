from __future__ import annotations

from typing import Any

import pytest

from llamarig.planning.targets import targets

MON = "mon01"


def one(host: str = "gpu01", **variables: Any) -> str:
    """Where the exporter of one host is scraped from ``mon01``."""
    found, problems = targets(MON, {host: variables})
    assert problems == []
    (entry,) = found.exporter
    assert entry["labels"] == {"instance": host}
    (address,) = entry["targets"]
    return str(address)


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"exporter_bind": "192.0.2.10"}, "192.0.2.10:9836"),
        ({"exporter_bind": "192.0.2.10", "exporter_port": 9999}, "192.0.2.10:9999"),
        ({"exporter_bind": "2001:db8::10"}, "[2001:db8::10]:9836"),
        ({"exporter_bind": "0.0.0.0"}, "gpu01:9836"),  # noqa: S104
        ({"exporter_bind": "::", "ansible_host": "gpu01.example.com"}, "gpu01.example.com:9836"),
        ({"exporter_bind": "::", "ansible_host": "2001:db8::7"}, "[2001:db8::7]:9836"),
        ({"monitoring_address": "tunnel.example.com"}, "tunnel.example.com:9836"),
        ({"monitoring_address": "192.0.2.7"}, "192.0.2.7:9836"),
        ({"monitoring_address": "2001:db8::7"}, "[2001:db8::7]:9836"),
        ({"monitoring_address": "tunnel.example.com:443"}, "tunnel.example.com:443"),
        ({"monitoring_address": "gpu_01:443", "exporter_port": 9999}, "gpu_01:443"),
        ({"monitoring_address": "127.0.0.1:19836"}, "127.0.0.1:19836"),
        ({"monitoring_address": "[2001:db8::7]:443"}, "[2001:db8::7]:443"),
        ({"monitoring_address": "tunnel:443", "monitoring_node_enabled": False}, "tunnel:443"),
        ({"monitoring_address": "", "exporter_bind": "192.0.2.10"}, "192.0.2.10:9836"),
    ],
)
def test_a_host_is_scraped_where_it_listens(variables: dict[str, Any], address: str) -> None:
    assert one(**variables) == address


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, "127.0.0.1:9836"),
        ({"exporter_bind": "0.0.0.0"}, "127.0.0.1:9836"),  # noqa: S104
        ({"exporter_bind": "::"}, "[::1]:9836"),
        ({"exporter_bind": "192.0.2.5"}, "192.0.2.5:9836"),
    ],
)
def test_the_monitoring_host_scrapes_itself(variables: dict[str, Any], address: str) -> None:
    assert one(MON, **variables) == address


def test_a_node_exporter_is_a_target_where_one_is_wanted() -> None:
    everywhere = {"exporter_bind": "192.0.2.10"}
    found, problems = targets(
        MON,
        {
            "b": {**everywhere, "monitoring_node_enabled": True, "monitoring_node_listen": "192.0.2.11:9101"},
            "a": {**everywhere, "monitoring_node_enabled": True, "monitoring_node_listen": "[2001:db8::10]:9100"},
            "c": everywhere,
        },
    )
    assert problems == []
    assert [(entry["labels"]["instance"], entry["targets"]) for entry in found.node] == [
        ("a", ["[2001:db8::10]:9100"]),
        ("b", ["192.0.2.11:9101"]),
    ]
    assert [entry["labels"]["instance"] for entry in found.exporter] == ["a", "b", "c"]


def test_a_host_without_an_exporter_is_none() -> None:
    found, problems = targets(MON, {"gpu01": {"exporter_enabled": False}})
    assert (found.exporter, found.node, problems) == ([], [], [])


def test_all_that_cannot_be_reached_is_said_at_once_with_what_helps() -> None:
    hosts: dict[str, dict[str, Any]] = {
        "gpu01": {},
        "gpu02": {"exporter_bind": "192.0.2.10", "monitoring_node_enabled": True},
        "gpu03": {"exporter_bind": "gpu03.example.com"},
        "gpu04": {"exporter_bind": "192.0.2.10", "exporter_port": 70000},
        "gpu05": {"exporter_bind": "192.0.2.10", "monitoring_node_enabled": True, "monitoring_node_listen": "9100"},
    }
    found, problems = targets(MON, hosts)
    assert [(problem.host, problem.key) for problem in problems] == [
        ("gpu01", "exporter_bind"),
        ("gpu02", "monitoring_node_listen"),
        ("gpu03", "exporter_bind"),
        ("gpu04", "exporter_port"),
        ("gpu05", "monitoring_node_listen"),
    ]
    assert [entry["labels"]["instance"] for entry in found.exporter] == ["gpu02", "gpu05"]
    assert "127.0.0.1 cannot be reached from mon01" in problems[0].message
    assert "firewall_allow" in problems[0].remedy


@pytest.mark.parametrize(
    "told",
    [
        *("https://tunnel.example.com", "tunnel.example.com/metrics", "tunnel example", "-tunnel", "tunnel..example"),
        *("tunnel:", "tunnel:https", "tunnel:0", "tunnel:65536", "tunnel:443:443", ":443"),
        *("[2001:db8::7]", "[tunnel]:443", "[192.0.2.7]:443", "2001:db8::7:99999", "[::g]:443"),
        *("192.0.2", "192.0.2.256", "0.0.0.0", "[::]:443", "tunnel\n", 9836, 10.5, ["tunnel"]),  # noqa: S104
    ],
)
def test_an_address_that_is_none_is_said(told: object) -> None:
    _, problems = targets(MON, {"gpu01": {"monitoring_address": told}})
    assert [(problem.host, problem.key) for problem in problems] == [("gpu01", "monitoring_address")]
    assert repr(str(told)) in problems[0].message
    assert "tunnel.example.com:443" in problems[0].remedy


def test_what_else_is_wrong_with_the_host_is_said_too() -> None:
    _, problems = targets(MON, {"gpu01": {"monitoring_address": "a b", "exporter_bind": "x", "exporter_port": 9836}})
    assert [problem.key for problem in problems] == ["monitoring_address", "exporter_bind"]


@pytest.mark.parametrize("exporter", [True, False])
def test_a_node_exporter_is_not_at_the_exporters_port(*, exporter: bool) -> None:
    variables = {
        "exporter_enabled": exporter,
        "monitoring_address": "[2001:db8::7]:443",
        "monitoring_node_enabled": True,
    }
    _, (problem,) = targets(MON, {"gpu01": variables})
    assert (problem.host, problem.key) == ("gpu01", "monitoring_address")
    assert "port 443 of 2001:db8::7" in problem.message
    assert "monitoring_node_enabled" in problem.remedy


def test_an_address_without_a_port_is_the_node_exporters_too() -> None:
    found, problems = targets(MON, {"gpu01": {"monitoring_address": "tunnel", "monitoring_node_enabled": True}})
    assert problems == []
    assert [entry["targets"] for entry in (*found.exporter, *found.node)] == [["tunnel:9836"], ["tunnel:9100"]]
