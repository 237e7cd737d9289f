from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from llamarig.config.engine import Engine
from llamarig.config.host import HostIntent
from llamarig.config.records import Allowed, Hardware, Service
from llamarig.planning import firewall
from tests.support import ROOT

EVERYWHERE = "0.0.0.0"  # noqa: S104  nothing is bound


def service(**changes: Any) -> Service:
    return Service.model_validate({"name": "chat", "profile": "small", "strategy": "cpu", "port": 8080, **changes})


def intent(*services: Service, enabled: object = True) -> HostIntent:
    hardware, engine = Hardware(memory_mib=4096, cpu_threads=4), Engine(recipe="debian-package")
    given = {"host": "rig01", "hardware": hardware, "engine": engine, "services": list(services), "firewall": enabled}
    return HostIntent.model_validate(given)


def matches(*services: Service, allowed: tuple[Allowed, ...] = ()) -> list[str]:
    return [opening["match"] for opening in firewall.openings(services, allowed)]


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.0.0.53", "::1"])
def test_a_service_on_loopback_opens_nothing(bind: str) -> None:
    assert firewall.openings([service(bind=bind)], []) == []


@pytest.mark.parametrize(
    ("bind", "where"),
    [
        (EVERYWHERE, "meta nfproto ipv4"),
        ("::", "meta nfproto ipv6"),
        ("192.0.2.10", "ct original ip daddr 192.0.2.10"),
        ("2001:db8::10", "ct original ip6 daddr 2001:db8::10"),
        ("fe80::1%eth0", "ct original ip6 daddr fe80::1"),
    ],
)
def test_a_service_opens_its_own_address_only(bind: str, where: str) -> None:
    (opening,) = firewall.openings([service(bind=bind)], [])
    assert opening == {
        "protocol": "tcp",
        "port": 8080,
        "match": f"{where} meta l4proto tcp ct original proto-dst 8080",
        "comment": "service chat",
    }


def test_the_sources_of_a_service_are_those_of_its_addresss_kind() -> None:
    mixed = ["198.51.100.0/24", "2001:db8::/32"]
    assert matches(service(bind="192.0.2.10", sources=mixed)) == [
        "ct original ip daddr 192.0.2.10 ip saddr { 198.51.100.0/24 } meta l4proto tcp ct original proto-dst 8080"
    ]
    assert matches(service(bind="::", sources=mixed)) == [
        "meta nfproto ipv6 ip6 saddr { 2001:db8::/32 } meta l4proto tcp ct original proto-dst 8080"
    ]


def test_services_that_take_turns_on_a_port_are_one_opening() -> None:
    users = [service(name=name, bind="192.0.2.10", sources=["198.51.100.0/24"]) for name in ("chat", "code", "long")]
    (opening,) = firewall.openings(users, [])
    assert opening["comment"] == "service chat and 2 more"
    longest = [service(name=letter * 48, bind="192.0.2.10") for letter in "abcdefgh"]
    (opening,) = firewall.openings(longest, [])
    assert len(opening["comment"]) <= 128  # the most that nft takes


def test_a_declared_port_is_open_for_everybody_in_both_families() -> None:
    (opening,) = firewall.openings([], [Allowed(port=53, protocol="udp")])
    assert opening["match"] == "meta l4proto udp ct original proto-dst 53"
    assert opening["comment"] == "firewall_allow"


def test_sources_become_one_rule_for_each_family() -> None:
    declared = Allowed(port=9100, sources=["192.0.2.0/24", "2001:db8::7", "198.51.100.7"], comment="node exporter")
    openings = firewall.openings([], [declared])
    assert [opening["match"] for opening in openings] == [
        "ip saddr { 192.0.2.0/24, 198.51.100.7/32 } meta l4proto tcp ct original proto-dst 9100",
        "ip6 saddr { 2001:db8::7/128 } meta l4proto tcp ct original proto-dst 9100",
    ]
    assert {opening["comment"] for opening in openings} == {"node exporter"}


def test_a_network_within_another_is_not_named_twice() -> None:
    """nft refuses a set whose intervals overlap."""
    (match,) = matches(allowed=(Allowed(port=1, sources=["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3"]),))
    assert "{ 10.0.0.0/8 }" in match


def test_everybody_of_one_family() -> None:
    assert matches(allowed=(Allowed(port=1, sources=["0.0.0.0/0"]),)) == [
        "meta nfproto ipv4 meta l4proto tcp ct original proto-dst 1"
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": 0}, "greater than or equal to 1"),
        ({"port": 65536}, "less than or equal to 65535"),
        ({"port": 1, "protocol": "sctp"}, "'tcp' or 'udp'"),
        ({"port": 1, "sources": ["192.0.2.1/24"]}, "has host bits set"),
        ({"port": 1, "sources": ["office"]}, "is no network of addresses"),
        ({"port": 1, "comment": 'a"; accept'}, "should match pattern"),
        ({"port": 1, "from": []}, "Extra inputs"),
    ],
)
def test_what_cannot_be_a_rule_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Allowed.model_validate(given)


@pytest.mark.parametrize(
    ("changes", "enabled", "said"),
    [
        ({"bind": EVERYWHERE, "sources": ["192.0.2.0/24"]}, False, "the firewall is off"),
        ({"sources": ["192.0.2.0/24"]}, True, "published on 127.0.0.1 only"),
        ({"bind": "::", "sources": ["192.0.2.0/24"]}, True, "no network in it is IPv6"),
    ],
)
def test_sources_that_nothing_would_enforce_are_refused(changes: dict[str, Any], enabled: bool, said: str) -> None:
    (problem,) = firewall.problems(intent(service(**changes), enabled=enabled))
    assert said in problem.message
    assert (problem.host, problem.service, problem.key) == ("rig01", "chat", "sources")
    assert problem.remedy


def test_sources_that_are_enforced_are_no_problem() -> None:
    fine = [service(), service(bind=EVERYWHERE, sources=["192.0.2.0/24", "2001:db8::/32"])]
    assert firewall.problems(intent(*fine)) == []
    assert firewall.problems(intent(service(), service(bind=EVERYWHERE), enabled=False)) == []


@pytest.mark.parametrize(("said", "on"), [(True, True), (False, False), ("false", False), ("no", False), ("yes", True)])
def test_the_switch_is_read_as_ansible_does(said: object, on: bool) -> None:
    """Given by -e firewall_enabled=false it is a word."""
    assert intent(enabled=said).firewall is on


def test_the_plan_and_the_role_have_the_same_default() -> None:
    defaults = yaml.safe_load((ROOT / "roles/firewall/defaults/main.yml").read_text(encoding="utf-8"))
    fields = HostIntent.model_fields
    assert (defaults["firewall_enabled"], defaults["firewall_allow"]) == (
        fields["firewall"].default,
        fields["allowed"].default,
    )
