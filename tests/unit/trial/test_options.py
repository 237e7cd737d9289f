from __future__ import annotations

import pytest

from llamarig.config.engine_options import parse_help, recorded_options
from llamarig.trial.options import pairs, parse_words, parser_said, unknown_options
from tests.support import argv_of, make_spec, variables

OLD = recorded_options()
SPEC = make_spec("chat", argv=argv_of(variables()))


def helped(text: str) -> str:
    return "".join(f"{line}\n" for line in text.splitlines())


def test_an_engine_with_the_same_options_takes_every_spec() -> None:
    assert unknown_options(SPEC, OLD, OLD) == []


def test_an_option_that_is_gone_is_named_with_its_service_and_what_is_near() -> None:
    new = {name: option for name, option in OLD.items() if "--cache-ram" not in option.names}
    (found,) = unknown_options(SPEC, OLD, new)
    assert found.startswith("chat: --cache-ram is unknown to the candidate; near it is --cache-")


def test_an_option_that_the_help_calls_removed_is_named() -> None:
    text = helped("--cache-ram N   the argument has been removed. use something else")
    new = OLD | parse_help(text)
    assert unknown_options(SPEC, OLD, new) == ["chat: --cache-ram was removed from the candidate"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--jinja MODE                how templates are read", "--jinja takes a value now"),
        ("--cache-ram                 whether there is a cache", "--cache-ram takes no value any more"),
    ],
)
def test_an_option_that_has_a_value_and_had_none_is_named_and_the_other_way_round(line: str, said: str) -> None:
    assert unknown_options(SPEC, OLD, OLD | parse_help(helped(line))) == [f"chat: {said}"]


def test_a_value_that_looks_like_an_option_is_none() -> None:
    spec = make_spec(argv=["--model", "/models/a.gguf", "--alias", "--not-an-option", "--temp", "-1", "--jinja"])
    assert pairs(spec.argv, OLD)[1:] == [["--alias", "--not-an-option"], ["--temp", "-1"], ["--jinja"]]
    assert unknown_options(spec, OLD, OLD) == []


def test_the_candidate_reads_all_words_but_the_key_and_ends() -> None:
    argv = ["--model", "/models/a.gguf", "--api-key-file", "/run/secrets/api_key", "--jinja"]
    assert parse_words(make_spec(argv=argv), OLD) == ["--model", "/models/a.gguf", "--jinja", "--version"]


def test_of_what_the_parser_prints_the_error_is_told() -> None:
    text = 'error while handling argument "--cache-type-k": Unsupported cache type: bogus\n\nusage:\n-ctk TYPE\n'
    assert parser_said(text) == 'error while handling argument "--cache-type-k": Unsupported cache type: bogus'
    assert parser_said("\nsomething else\n") == "something else"
    assert parser_said("") == "it says nothing"
