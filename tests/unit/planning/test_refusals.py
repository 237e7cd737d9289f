"""Every mistake that an inventory can hold: refused, with host, service, key and remedy in the text."""

from __future__ import annotations

from typing import Any

import pytest

from llamarig.planning.intent import plan_host
from tests.support import HOST, KEY, problems, variables, without

Data = dict[str, Any]
MISTAKES: dict[str, tuple[Data, str, str, str]] = {}


def mistake(name: str, data: Data, key: str, message: str, remedy: str) -> None:
    MISTAKES[name] = (data, key, message, remedy)


def service(**changes: Any) -> Data:
    return variables(service=changes)


def server(**settings: Any) -> Data:
    return service(server=settings)


def model(**changes: Any) -> Data:
    data = variables()
    data["llm_profiles_test"]["small"]["files"][0] |= changes
    return data


FILE = ("llm_profiles_test", "small", "files", 0)

mistake("unknown key", service(prot=1), "llm_services[0].prot", "no key that llamarig knows", "did you mean port?")
mistake(
    "unknown key far from any", service(zz=1), "llm_services[0].zz", "no key that llamarig knows", "known keys: name"
)
mistake("no port", without(variables(), "llm_services", 0, "port"), "llm_services[0].port", "is missing", "add port")
mistake("port as text", service(port="8080"), "llm_services[0].port", "valid integer, not '8080'", "correct port")
mistake("port too low", service(port=80), "llm_services[0].port", "1024, not 80", "correct port")
mistake("port too high", service(port=70000), "llm_services[0].port", "65535, not 70000", "correct port")
mistake("the daemon's port", service(port=8081), "port", "8081 belongs to the management API", "choose another port")
mistake("the exporter's port", service(port=9836), "port", "9836 belongs to the exporter", "choose another port")
mistake("unknown profile", service(profile="big"), "profile", "there is no profile 'big'", "use one of: small")
mistake("unknown strategy", service(strategy="Z"), "llm_services[0].strategy", "'cpu', not 'Z'", "correct strategy")
mistake("LAN without key", service(bind="0.0.0.0"), "bind", "the service has no api_key", "bind to 127.0.0.1")  # noqa: S104
mistake("LAN of IPv6", service(bind="::"), "bind", "reachable from the network", "set api_key (from a vault)")
mistake("bind by name", service(bind="box"), "llm_services[0]", "bind 'box' is not an IP address", "correct")
mistake("an address with a zone", service(bind="fe80::1%eth0", api_key=KEY), "bind", "with a zone", "or ::")
mistake("no idle time", service(idle_minutes=0), "llm_services[0].idle_minutes", "greater than 0", "correct idle")
mistake("pinned as text", service(pinned="yes"), "llm_services[0].pinned", "valid boolean, not 'yes'", "correct pinned")
mistake(
    "the default leaves by itself",
    service(idle_minutes=5),
    "idle_minutes",
    "is the one that returns",
    "idle_minutes out",
)
mistake(
    "short key",
    service(api_key="short"),
    "llm_services[0].api_key",
    "at least 16 printable characters",
    "correct api_key",
)
mistake(
    "key of two words",
    service(api_key=f"{KEY} x"),
    "llm_services[0].api_key",
    "at least 16 printable characters",
    "correct api_key",
)
mistake(
    "key of two lines",
    service(api_key=f"{KEY}\nx"),
    "llm_services[0].api_key",
    "at least 16 printable characters",
    "correct api_key",
)
mistake(
    "key ends its line",
    service(api_key=f"{KEY}\n"),
    "llm_services[0].api_key",
    "at least 16 printable characters",
    "correct api_key",
)
mistake("no drain", service(drain_seconds=0), "llm_services[0].drain_seconds", "greater than 0", "correct drain")
mistake(
    "too much memory", service(memory_mib=4000), "memory_mib", "4000 MiB leaves less than the reserve", "at most 3584"
)
mistake("unknown option", server(ctx_sise=1), "server.ctx_sise", "llama-server has no option --ctx-sise", "ctx_size")
mistake("owned option", server(port=1), "server.port", "is set by the service's port", "remove port from server")
mistake("removed option", server(draft_n=1), "server.draft_n", "has been removed", "llama-server --help")
mistake("renamed option", server(mlock=True), "server.mlock", "no option of this engine any more", "load_mode: mlock")
mistake("switch as text", server(jinja="on"), "server.jinja", "takes true or false, not 'on'", "say jinja: true")
mistake("value as switch", server(ctx_size=True), "server.ctx_size", "takes a value (N), not true", "ctx_size: null")
mistake("NUL in a value", server(alias="a\0b"), "server.alias", "holds a NUL character", "remove it")
mistake("ubatch over batch", server(ubatch_size=4096), "server.ubatch_size", "larger than batch_size 2048", "at 512")
for _name in ("a b", "Chat", "a--b", "-a", "a-", "ä", "a\n", "a\0", "a/b", "a" * 49, "", "a.b", "a_b", "a%i", "../a"):
    _text = "is not a valid name: lower-case letters and digits, single hyphens"
    mistake(f"unit name {_name!r}", service(name=_name), "llm_services[0].name", _text, "correct name")


@pytest.mark.parametrize(("data", "key", "message", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_a_service_is_refused(data: Data, key: str, message: str, remedy: str) -> None:
    (problem,) = problems(data)
    assert problem.host == HOST
    assert (problem.service or "") == data["llm_services"][0]["name"]
    assert problem.key == key
    assert message in problem.message
    assert remedy in problem.remedy
    assert all(part in str(problem) for part in (HOST, key, message, remedy))


@pytest.mark.parametrize(
    ("data", "key", "message", "remedy"),
    [
        (model(url="https://x.test/a", path="a"), "files.0", "has both url and path", "correct"),
        (model(sha256="a" * 63), "files.0.sha256", "match pattern", "correct sha256"),
        (model(sha256="A" * 64), "files.0.sha256", "match pattern", "correct sha256"),
        (model(sha256="a" * 64 + "\n"), "files.0.sha256", "match pattern", "correct sha256"),
        (model(bytes=0), "files.0.bytes", "greater than 0", "correct bytes"),
        (model(bytes="1 MB"), "files.0.bytes", "valid integer", "correct bytes"),
        (model(url="ftp://x.test/a"), "files.0.url", "match pattern", "correct url"),
        (model(url="https://x.test/a b"), "files.0.url", "match pattern", "correct url"),
        (model(name="../secret"), "files.0.name", "below the models directory", "correct name"),
        (model(name="/etc/passwd"), "files.0.name", "below the models directory", "correct name"),
        (model(name="a\nb"), "files.0.name", "below the models directory", "correct name"),
        (model(name="a b.gguf"), "files.0.name", "below the models directory", "correct name"),
        (model(shar256="a"), "files.0.shar256", "no key that llamarig knows", "known keys: description"),
        (without(variables(), *FILE, "name"), "files.0.name", "is missing", "add name"),
        (variables(llm_profiles_test={"small": {"files": []}}), "files", "at least 1 item", "correct files"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_in_a_used_profile_is_refused_once(data: Data, key: str, message: str, remedy: str) -> None:
    (problem,) = problems(data)
    assert problem.key == f"profile small.{key}"
    assert message in problem.message
    assert remedy in problem.remedy


@pytest.mark.parametrize("keys", [("sha256",), ("bytes",), ("sha256", "bytes")])
def test_a_model_without_checksum_or_size_is_refused(keys: tuple[str, ...]) -> None:
    data = variables()
    for key in keys:
        data = without(data, *FILE, key)
    (problem,) = problems(data)
    assert problem.service == "chat"
    assert problem.key == "profile small, file small.gguf"
    assert f"has no {' and '.join(keys)}" in problem.message
    assert "sha256sum" in problem.remedy


# What a server takes beside its model: 64 MiB for the process, and the built-in prompt cache of 1024 MiB.
BESIDE = 64 + 1024


def test_files_larger_than_the_memory_limit_are_refused() -> None:
    (problem,) = problems(model(bytes=(3584 - BESIDE + 1) << 20))
    assert (problem.service, problem.key) == ("chat", "strategy cpu")
    assert "needs more than 3585 of 3584 MiB" in problem.message
    assert "smaller quantisation" in problem.remedy


def test_files_as_large_as_the_memory_limit_allows_are_accepted() -> None:
    assert plan_host(HOST, model(bytes=(3584 - BESIDE) << 20))["specs"]


def test_the_containers_own_limit_is_what_counts() -> None:
    data = model(bytes=(2000 - BESIDE + 1) << 20)
    data["llm_services"][0]["memory_mib"] = 2000
    (problem,) = problems(data)
    assert "2001 of 2000 MiB" in problem.message


@pytest.mark.parametrize("keys", [("sha256",), ("bytes",), ("sha256", "bytes")])
def test_a_model_without_checksum_or_size_can_be_planned_and_is_named_as_incomplete(keys: tuple[str, ...]) -> None:
    data = variables()
    for key in keys:
        data = without(data, *FILE, key)
    plan = plan_host(HOST, data, only_plan=True)
    (text,) = plan["incomplete"]
    assert "profile small, file small.gguf" in text
    assert len(plan["specs"]) == 1


def test_two_services_of_one_name_are_refused() -> None:
    data = variables()
    data["llm_services"].append(data["llm_services"][0] | {"port": 8090})
    (problem,) = problems(data)
    assert (problem.service, problem.key, problem.message) == ("chat", "name", "two services have this name")


def test_a_wrong_profile_setting_is_reported_under_the_profile() -> None:
    data = variables()
    data["llm_profiles_test"]["small"]["server"] = {"ctx_sise": 1}
    (problem,) = problems(data)
    assert problem.key == "profile small, server.ctx_sise"


def test_an_option_given_a_mapping_is_one_problem() -> None:
    (problem,) = problems(server(chat_template_kwargs={"enable_thinking": False}))
    assert "chat_template_kwargs" in problem.key


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_carry_is_refused(value: float) -> None:
    (problem,) = problems(server(min_p=value))
    assert "min_p" in problem.key


@pytest.mark.parametrize("key", ["short", f"{KEY} {KEY}"])
def test_a_refused_api_key_is_not_printed(key: str) -> None:
    assert key not in "\n".join(map(str, problems(service(api_key=key))))
