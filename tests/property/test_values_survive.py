"""Any text that a user may write for a setting reaches llama-server as it was written."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llamarig.errors import ConfigError
from llamarig.planning.intent import plan_host
from tests.support import HOST, after, compose_command, rendered, rendered_file, variables

HOT = [
    *"$%\"'\\ \n\t{}#:-&*!|>@`,[]~?=<",
    *("$$", "${HOME}", "$(id)", "{{ x }}", "{% if %}", "{#", "%i", "%%", "\\n", "''", ": ", " #", "- ", "---", "\r\n"),
    *(
        "true",
        "no",
        "null",
        "1e5",
        "0x1f",
        "0o17",
        "089",
        "1_0",
        "1:30",
        "2001-01-01",
        ".inf",
        "\x1b",
        "\x7f",
        "\ufeff",
    ),
    *("ä", "\u2028", "\x85", "\U0001f999"),
]
texts = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    st.lists(st.sampled_from(HOT), max_size=8).map("".join),
)
fast = settings(max_examples=100)
few = settings(max_examples=40)


def compose_of(plan: dict[str, Any]) -> str:
    return rendered_file(plan, "/etc/llamarig/compose/chat/compose.yaml")


@fast
@given(alias=texts, keywords=st.dictionaries(texts, texts, max_size=2))
@example(alias="1e-05", keywords={})
@example(alias="0o17", keywords={})
@example(alias="089", keywords={})
@example(alias="{{ lookup('pipe', 'id') }}", keywords={"$HOME": "$$"})
@example(alias="a\u2028b\x85c", keywords={})
def test_text_arrives_in_the_engines_arguments_as_it_was_written(alias: str, keywords: dict[str, str]) -> None:
    template = json.dumps(keywords)
    plan = plan_host(HOST, variables(service={"server": {"alias": alias, "chat_template_kwargs": template}}))
    assert after(plan["specs"][0]["argv"], "--alias") == alias
    text = compose_of(plan)
    command = compose_command(text)
    assert after(command, "--alias") == alias
    assert after(command, "--chat-template-kwargs") == template
    assert command == plan["specs"][0]["argv"]
    assert yaml.safe_load(text)["services"]["server"]["command"] == [w.replace("$", "$$") for w in command]


@few
@given(value=st.floats(allow_nan=False, allow_infinity=False))
@example(value=1e-05)
@example(value=1e22)
def test_a_number_arrives_in_the_engines_arguments_with_its_value(value: float) -> None:
    plan = plan_host(HOST, variables(service={"server": {"temp": value}}))
    word = after(compose_command(compose_of(plan)), "--temp")
    assert isinstance(word, str)
    assert float(word) == value


@few
@given(alias=texts)
def test_the_spec_on_the_host_says_what_was_written(alias: str) -> None:
    plan = plan_host(HOST, variables(service={"server": {"alias": alias}}))
    spec = json.loads(rendered_file(plan, "/etc/llamarig/services.d/chat.json"))
    assert spec == plan["specs"][0]
    assert spec["origins"]["alias"] == {"value": alias, "layer": "service"}


@fast
@given(name=texts)
@example(name="q4%k")
@example(name="small\nExecStart=/bin/false")
@example(name="small \\")
def test_a_profile_name_is_refused_or_stands_in_the_unit_as_it_was_written(name: str) -> None:
    data = variables(service={"profile": name})
    data["llm_profiles_test"][name] = data["llm_profiles_test"]["small"]
    path = "/etc/systemd/system/llama-chat.service"
    plain = rendered_file(plan_host(HOST, variables()), path)
    try:
        plan = plan_host(HOST, data)
    except ConfigError:
        return
    unit = rendered_file(plan, path)
    (line,) = (line for line in re.split(r"[\n\r\0]", unit) if line.startswith("Description="))
    assert unit.replace(line, "") == re.sub(r"Description=.*", "", plain)
    assert "%" not in line.replace("%%", "")
    assert line.replace("%%", "%") == f"Description=llama.cpp service chat ({name})"


@few
@given(key=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=40))
def test_an_api_key_reaches_its_file_and_no_other(key: str) -> None:
    plan = plan_host(HOST, variables(service={"api_key": key}))
    files = rendered(plan)
    # A key can be a word that is in a file in any case, such as part of a field's name.
    others = rendered(plan_host(HOST, variables(service={"api_key": "another-key-of-another-service"})))
    assert files.pop("/etc/llamarig/keys/chat.key") == f"{key}\n"
    assert [path for path, content in files.items() if content.count(key) > others[path].count(key)] == []


def shuffled(value: Any) -> Any:
    """The same data, every mapping written the other way round."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@few
@given(alias=texts, extra=st.sampled_from([{}, {"seed": 1}, {"top_k": 3, "min_p": 0.5, "jinja": False}]))
def test_the_same_intent_gives_the_same_plan_whatever_the_order_of_its_keys(alias: str, extra: dict[str, Any]) -> None:
    data = variables(service={"server": {"alias": alias, **extra}})
    untouched = copy.deepcopy(data)
    first = plan_host(HOST, data)
    assert data == untouched
    assert json.dumps(plan_host(HOST, data)) == json.dumps(first)
    assert json.dumps(plan_host(HOST, shuffled(data))) == json.dumps(first)
