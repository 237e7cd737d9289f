from __future__ import annotations

import pytest

from llamarig.config.engine_options import recorded_options
from llamarig.config.owned import OWNED
from llamarig.config.records import ServerValue
from llamarig.planning import flags
from llamarig.planning.layers import Setting

OPTIONS = recorded_options()


def argv(**settings: ServerValue) -> list[str]:
    return flags.argv({key: Setting(value, "service") for key, value in settings.items()}, OPTIONS)


def refusal(key: str) -> tuple[str, str]:
    with pytest.raises(flags.BadOptionError) as caught:
        flags.canonical(key, OPTIONS)
    return str(caught.value), caught.value.remedy


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"jinja": True}, ["--jinja"]),
        ({"jinja": False}, ["--no-jinja"]),
        ({"swa_full": True}, ["--swa-full"]),
        ({"swa_full": False}, []),
        ({"no_host": True}, ["--no-host"]),
        ({"flash_attn": True}, ["--flash-attn", "on"]),
        ({"flash_attn": False}, ["--flash-attn", "off"]),
        ({"flash_attn": "auto"}, ["--flash-attn", "auto"]),
        ({"ctx_size": 4096}, ["--ctx-size", "4096"]),
        ({"cache_ram": 0}, ["--cache-ram", "0"]),
        ({"predict": -1}, ["--predict", "-1"]),
        ({"min_p": 0.05}, ["--min-p", "0.05"]),
        ({"min_p": 0.0}, ["--min-p", "0.0"]),
        ({"alias": ""}, ["--alias", ""]),
        ({"alias": "a b"}, ["--alias", "a b"]),
        ({"lora": ["a.gguf", "b.gguf"]}, ["--lora", "a.gguf", "--lora", "b.gguf"]),
        ({"seed": 7, "alias": "x"}, ["--seed", "7", "--alias", "x"]),
    ],
    ids=str,
)
def test_settings_become_words(settings: dict[str, ServerValue], words: list[str]) -> None:
    assert argv(**settings) == words


@pytest.mark.parametrize("value", ["on", 1, 0, 0.5, [], ["x"]], ids=repr)
def test_a_switch_takes_only_true_and_false(value: ServerValue) -> None:
    with pytest.raises(flags.BadOptionError, match="jinja is a switch and takes true or false") as caught:
        argv(jinja=value)
    assert caught.value.remedy == "say jinja: true or jinja: false"


@pytest.mark.parametrize("value", [True, False])
def test_an_option_with_a_value_does_not_take_a_boolean(value: bool) -> None:
    with pytest.raises(flags.BadOptionError, match=r"ctx_size takes a value \(N\)") as caught:
        argv(ctx_size=value)
    assert "ctx_size: null" in caught.value.remedy


@pytest.mark.parametrize("value", ["a\0b", ["fine", "not\0fine"]])
def test_a_nul_character_is_refused(value: ServerValue) -> None:
    with pytest.raises(flags.BadOptionError, match="alias holds a NUL character"):
        flags.check_value("alias", value, OPTIONS["alias"])


def test_null_needs_no_check_because_it_removes() -> None:
    flags.check_value("jinja", None, OPTIONS["jinja"])


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("ctx_size", "ctx_size"),
        ("ctx-size", "ctx_size"),
        ("c", "ctx_size"),
        ("ub", "ubatch_size"),
        ("n_predict", "predict"),
        ("kvo", "kv_offload"),
        ("webui", "ui"),
    ],
)
def test_every_name_of_an_option_leads_to_its_long_name(key: str, name: str) -> None:
    assert flags.canonical(key, OPTIONS) == name


def test_an_unknown_option_comes_with_near_ones() -> None:
    message, remedy = refusal("ctx_sise")
    assert message == "llama-server has no option --ctx-sise"
    assert remedy.startswith("did you mean ctx_size")


def test_an_unknown_option_without_near_ones_leads_to_the_help() -> None:
    assert refusal("qqqqqqqqqqqqqqq")[1] == "see llama-server --help"


@pytest.mark.parametrize("name", sorted(OWNED))
def test_an_owned_option_is_refused_under_all_its_names_with_the_reason(name: str) -> None:
    if name not in OPTIONS:
        pytest.fail(f"--{name} is owned, and this engine has no such option")
    for alias in OPTIONS[name].names:
        key = alias.lstrip("-").replace("-", "_")
        message, remedy = refusal(key)
        assert OWNED[name] in message
        assert key in remedy


@pytest.mark.parametrize(
    ("key", "instead"),
    [("mmap", "load_mode: mmap"), ("no_mmap", "load_mode: none"), ("mlock", "load_mode: mlock")],
)
def test_a_renamed_option_says_its_new_name(key: str, instead: str) -> None:
    message, remedy = refusal(key)
    assert message == f"{key} is no option of this engine any more"
    assert remedy == f"say {instead}"


@pytest.mark.parametrize("key", ["draft_max", "draft_min"])
def test_a_renamed_option_leads_to_one_that_the_engine_has(key: str) -> None:
    replacement = refusal(key)[1].removeprefix("say ")
    assert flags.canonical(replacement, OPTIONS) == replacement


@pytest.mark.parametrize("key", ["draft", "draft_n", "draft_n_min"])
def test_a_removed_option_is_refused(key: str) -> None:
    assert "has been removed from llama-server" in refusal(key)[0]


@pytest.mark.parametrize(
    ("key", "positive"),
    [
        ("no_jinja", "jinja"),
        ("no_kv_offload", "kv_offload"),
        ("nkvo", "kv_offload"),
        ("nr", "repack"),
        ("nocb", "cont_batching"),
        ("no_kvu", "kv_unified"),
        ("no_ag", "agent"),
        ("no_ui", "ui"),
        ("no_webui", "ui"),
        ("no_mmproj_auto", "mmproj_auto"),
    ],
)
def test_a_negation_as_a_name_is_refused_because_its_true_would_mean_false(key: str, positive: str) -> None:
    message, remedy = refusal(key)
    assert message == f"{key} says a negation as a name"
    assert remedy == f"say {positive}: false"
