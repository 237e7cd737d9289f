from __future__ import annotations

import re
from importlib.resources import files

import pytest

from llamarig.config.engine_options import RECORDED, parse_help, recorded_options
from llamarig.planning.flags import canonical, check_value
from llamarig.planning.layers import BUILT_IN

OPTIONS = recorded_options()
HELP = files("llamarig").joinpath("data", "llama-server-help", f"{RECORDED}.txt").read_text(encoding="utf-8")


def test_every_long_name_at_the_start_of_a_line_of_the_help_is_known() -> None:
    heads = [re.split(r"\s{2,}", line, maxsplit=1)[0] for line in HELP.splitlines() if re.match(r"--?[A-Za-z]", line)]
    first_names = [re.split(r"[ ,]", head)[0].lstrip("-") for head in heads]
    assert len(first_names) > 200
    assert [name for name in first_names if name not in OPTIONS] == []


@pytest.mark.parametrize(
    ("name", "long", "metavar"),
    [
        ("c", "--ctx-size", "N"),
        ("ctx-size", "--ctx-size", "N"),
        ("ngl", "--gpu-layers", "N"),
        ("n-gpu-layers", "--gpu-layers", "N"),
        ("ot", "--override-tensor", "<tensor name pattern>=<buffer type>,..."),
        ("fitt", "--fit-target", "MiB0,MiB1,MiB2,..."),
        ("fa", "--flash-attn", "[on|off|auto]"),
        ("sm", "--split-mode", "{none,layer,row,tensor}"),
        ("control-vector-layer-range", "--control-vector-layer-range", "START END"),
        ("spec-draft-hf", "--spec-draft-hf", "<user>/<model>[:quant]"),
        ("swa-full", "--swa-full", ""),
        ("cpu-moe", "--cpu-moe", ""),
        ("kvo", "--kv-offload", ""),
    ],
)
def test_names_and_values_are_read_from_the_help(name: str, long: str, metavar: str) -> None:
    assert OPTIONS[name].name == long
    assert OPTIONS[name].metavar == metavar


@pytest.mark.parametrize(
    ("name", "negation"), [("jinja", "--no-jinja"), ("kv-offload", "--no-kv-offload"), ("swa-full", None)]
)
def test_a_switch_knows_its_negation(name: str, negation: str | None) -> None:
    assert OPTIONS[name].is_switch
    assert OPTIONS[name].negation == negation


def test_a_switch_with_only_a_negative_name_is_not_the_negation_of_anything() -> None:
    assert OPTIONS["no-host"].name == "--no-host"
    assert OPTIONS["no-host"].negation is None


@pytest.mark.parametrize(("name", "words"), [("flash-attn", True), ("fit", True), ("ctx-size", False), ("numa", False)])
def test_on_and_off_are_values_only_where_the_help_says_so(name: str, words: bool) -> None:
    assert OPTIONS[name].has_words is words


@pytest.mark.parametrize(
    ("name", "removed"), [("draft-max", True), ("draft-min", True), ("spec-draft-n-max", False), ("top-k", False)]
)
def test_removed_options_are_known_as_removed(name: str, removed: bool) -> None:
    assert OPTIONS[name].removed is removed


def test_the_line_after_an_option_belongs_to_it_only_when_it_is_indented() -> None:
    options = parse_help("--alpha N                               a number\n--beta N  the argument has been removed.\n")
    assert (options["alpha"].removed, options["beta"].removed) == (False, True)


def test_headings_and_prose_are_no_options() -> None:
    assert parse_help("----- common params -----\n\nusage: llama-server\n  --indented N\n") == {}


@pytest.mark.parametrize(("key", "value"), BUILT_IN.items(), ids=BUILT_IN.keys())
def test_the_engine_has_every_built_in_setting_and_takes_its_value(key: str, value: bool | float | str) -> None:
    check_value(key, value, OPTIONS[canonical(key, OPTIONS).replace("_", "-")])
