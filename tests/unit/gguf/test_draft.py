"""What a model's files say of its profile."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from llamarig.config.catalogue import Profile
from llamarig.config.records import ProfileName
from llamarig.gguf.address import Hub, hub_file
from llamarig.gguf.draft import NAME, Draft, Place, draft_profile, local_bytes
from llamarig.gguf.error import GgufError
from llamarig.gguf.model import ModelFile, read_model
from llamarig.gguf.source import FileSource
from llamarig.gguf.yaml import profile_lines
from tests.unit.gguf.files import METADATA, TENSORS, file, split

COMMIT, SHA256 = "0a" * 20, "0b" * 32
HUB = Place(Hub("https://hub.example.com"))
PROJECTOR = {"general.architecture": "clip", "general.type": "mmproj", "general.name": "Eyes"}


def made(folder: Path, name: str = "Small-Q4_K_M.gguf", **changes: Any) -> ModelFile:
    """A model in a file; a key of ``changes`` has __ for a dot, and None takes it away."""
    said = {**METADATA, **{key.replace("__", "."): value for key, value in changes.items()}}
    path = folder / name
    path.write_bytes(file({key: value for key, value in said.items() if value is not None}, TENSORS))
    return read_model(str(path), FileSource)


def elsewhere(model: ModelFile, *names: str, **said: Any) -> ModelFile:
    """The same model as if its parts had been read from these addresses."""
    known: dict[str, Any] = {"revision": None, "sha256": None, **said}
    parts = tuple(replace(part, name=name, **known) for part, name in zip(model.parts, names, strict=True))
    return replace(model, parts=parts)


def drafted(model: ModelFile, place: Place = HUB, **given: Any) -> Draft:
    """The draft of a model, which is a profile that the catalogue takes, and whose YAML says what it says."""
    draft = draft_profile("what was named", model, place, **given)
    Profile.model_validate(draft.record)
    text = "\n".join(profile_lines(draft))
    assert yaml.safe_load(text) == {draft.variable: {draft.name: draft.record}}
    assert max(map(len, (line for line in text.splitlines() if " " in line.strip("# ")))) <= 120
    return draft


def test_a_file_of_this_machine_is_read_for_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = (tmp_path / made(tmp_path).parts[0].name).read_bytes()
    model = read_model("Small-Q4_K_M.gguf", FileSource)
    read: list[int] = []
    draft = drafted(model, progress=read.append)
    assert draft.record["files"] == [
        {
            "name": "Small-Q4_K_M.gguf",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "path": str(tmp_path / "Small-Q4_K_M.gguf"),
        }
    ]
    assert sum(read) == len(content) == local_bytes(model)
    assert not {"repository", "revision"} & draft.record.keys()


def test_every_part_of_a_split_model_is_in_the_record_the_first_part_first(tmp_path: Path) -> None:
    paths = split(tmp_path)
    model = read_model(str(paths[1]), FileSource)
    draft = drafted(model)
    assert [item["path"] for item in draft.record["files"]] == [str(path) for path in paths]
    assert [item["sha256"] for item in draft.record["files"]] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    ]
    assert draft.name == "model"


def test_a_file_in_the_models_directory_of_a_host_is_fetched_from_nowhere(tmp_path: Path) -> None:
    (tmp_path / "qwen").mkdir()
    model = made(tmp_path / "qwen", "m.gguf")
    draft = drafted(model, Place(stores=("/elsewhere", f"{tmp_path}/")))
    (item,) = draft.record["files"]
    assert item["name"] == "qwen/m.gguf"
    assert not {"url", "path"} & item.keys()
    assert any("other hosts need a url" in remark for remark in draft.remarks)


def test_a_file_of_the_hub_is_named_after_its_repository_and_pinned_to_its_commit(tmp_path: Path) -> None:
    model = elsewhere(made(tmp_path), "hf:owner/Small-GGUF/UD/Small-Q4.gguf@v1", revision=COMMIT, sha256=SHA256)
    draft = drafted(model)
    (item,) = draft.record["files"]
    assert item["name"] == "Small-GGUF/UD/Small-Q4.gguf"
    assert item["url"] == f"https://hub.example.com/owner/Small-GGUF/resolve/{COMMIT}/UD/Small-Q4.gguf"
    assert item["sha256"] == SHA256
    assert (draft.record["repository"], draft.record["revision"]) == ("owner/Small-GGUF", COMMIT)
    assert (draft.name, draft.variable) == ("small-q4", "llm_profiles_small_q4")
    assert local_bytes(model) == 0


@pytest.mark.parametrize(
    "name",
    [
        "https://hub.example.com/owner/repo/resolve/main/dir/m.gguf?download=true",
        "https://hub.example.com:443/owner/repo/blob/main/dir/m.gguf#L1",
        "https://HUB.example.com/owner/repo/blob/refs%2Fpr%2F3/dir/m.gguf",
        "https://hub.example.com/owner/repo/blob/refs/pr/3/dir/m.gguf",
    ],
)
def test_the_address_that_a_browser_shows_names_the_file_too(tmp_path: Path, name: str) -> None:
    draft = drafted(elsewhere(made(tmp_path), name, revision=COMMIT, sha256=SHA256))
    (item,) = draft.record["files"]
    assert item["name"] == "repo/dir/m.gguf"
    assert item["url"] == f"https://hub.example.com/owner/repo/resolve/{COMMIT}/dir/m.gguf"


@pytest.mark.parametrize(
    "name",
    [
        "https://example.com/owner/repo/resolve/main/m.gguf",
        "http://hub.example.com/owner/repo/resolve/main/m.gguf",
        "https://hub.example.com/datasets/owner/repo/resolve/main/m.gguf",
        "https://hub.example.com/owner/repo/resolve/main/%2e%2e/m.gguf",
        "https://hub.example.com/owner/repo/resolve/main/",
    ],
)
def test_other_addresses_are_no_files_of_the_hub(name: str) -> None:
    assert hub_file(name, HUB.hub) is None


def test_a_hub_may_live_below_a_path() -> None:
    hub = Hub("https://example.com/mirror/")
    found = hub_file("https://example.com/mirror/owner/repo/blob/main/m.gguf", hub)
    assert found is not None
    assert found.address(hub) == "https://example.com/mirror/owner/repo/resolve/main/m.gguf"
    assert hub_file("https://example.com/owner/repo/blob/main/m.gguf", hub) is None
    assert hub_file("https://example.com/mirrored/owner/repo/blob/main/m.gguf", hub) is None


def test_what_a_server_does_not_say_is_null_with_how_to_get_it(tmp_path: Path) -> None:
    model = elsewhere(made(tmp_path), "https://example.com/models/m.gguf?x=1#here", bytes=None)
    draft = drafted(model)
    assert draft.record["files"] == [
        {"name": "m.gguf", "bytes": None, "sha256": None, "url": "https://example.com/models/m.gguf?x=1"}
    ]
    lines = [line.strip() for line in profile_lines(draft)]
    assert "sha256: null  # the server does not say it; this prints it: curl -fL URL | sha256sum" in lines
    assert "bytes: null  # the server does not say it; this prints it: curl -fL URL | wc -c" in lines


def test_a_hub_that_names_no_commit_is_remarked_on(tmp_path: Path) -> None:
    draft = drafted(elsewhere(made(tmp_path), "hf:owner/repo/m.gguf"))
    assert draft.record["files"][0]["url"] == "https://hub.example.com/owner/repo/resolve/main/m.gguf"
    assert "revision" not in draft.record
    assert any("names no commit" in remark for remark in draft.remarks)


def test_parts_of_two_commits_are_refused(tmp_path: Path) -> None:
    model = read_model(str(split(tmp_path, parts=2)[0]), FileSource)
    names = [f"hf:owner/repo/m-0000{number}-of-00002.gguf" for number in (1, 2)]
    parts = elsewhere(model, *names).parts
    changed = replace(model, parts=(replace(parts[0], revision=COMMIT), replace(parts[1], revision="0c" * 20)))
    with pytest.raises(GgufError, match="of different commits"):
        draft_profile("m", changed, HUB)


@pytest.mark.parametrize(
    ("name", "stored", "profile"),
    [
        ("https://example.com/a%20b%C3%A4(1).gguf", "a-b-1-.gguf", "a-b-1"),
        ("https://example.com/download?id=3", "download", "download"),
        ("https://example.com/", "model.gguf", "model"),
        ("https://example.com/..gguf", "gguf", "model"),
        ("hf:owner/repo/Qwen3.5-35B-A3B_Q8_0.GGUF", "repo/Qwen3.5-35B-A3B_Q8_0.GGUF", "qwen3.5-35b-a3b_q8_0"),
        ("hf:owner/.hidden/.m.gguf", "hidden/m.gguf", "m"),
    ],
)
def test_names_become_such_as_the_catalogue_takes(tmp_path: Path, name: str, stored: str, profile: str) -> None:
    draft = drafted(elsewhere(made(tmp_path), name))
    assert (draft.record["files"][0]["name"], draft.name) == (stored, profile)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "A small one, Q4_K - Medium, mostly f16"),
        ({"general__size_label": "4B", "general__file_type": 1}, "A small one, 4B, F16"),
        (
            {"general__name": "Small 4b Chat", "general__size_label": "4B", "general__file_type": 1},
            "Small 4b Chat, F16",
        ),
        ({"general__name": None, "general__file_type": None}, "llama, mostly f16"),
        ({"general__name": " two\n lines ", "general__file_type": 1}, "two lines, F16"),
        ({"general__name": "yes: #1 'x' \x1b[2J", "general__file_type": 1}, "yes: #1 'x' \x1b[2J, F16"),
        ({"general__name": " ".join(["long"] * 60), "general__file_type": 1}, " ".join(["long"] * 60) + ", F16"),
    ],
)
def test_a_description_says_name_size_and_quantisation(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert drafted(made(tmp_path, **changes)).record["description"] == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "mit"),
        ({"general__license": "other", "general__license__name": "gemma"}, "gemma"),
        ({"general__license": "other"}, "other"),
        ({"general__license": None, "general__license__name": "gemma"}, "gemma"),
        ({"general__license": "mit", "general__license__name": "MIT License"}, "mit"),
        ({"general__license": None}, None),
        ({"general__license": 7}, None),
    ],
)
def test_a_licence_is_the_files_own_word(tmp_path: Path, changes: dict[str, Any], expected: str | None) -> None:
    assert drafted(made(tmp_path, **changes)).record.get("licence") == expected


def test_what_a_person_should_know_is_remarked(tmp_path: Path) -> None:
    sampling: dict[str, Any] = {"general__sampling__temp": 0.5, "general__sampling__top_k": 20}
    draft = drafted(made(tmp_path, **sampling))
    assert draft.remarks == (
        "Trained with a context of 4096 tokens; server: {ctx_size: N} says how much is wanted.",
        "The file itself recommends temp 0.5, top_k 20: llama-server samples so where server says nothing else.",
    )
    text = "\n".join(profile_lines(draft))
    assert all(f"    # {remark}" in text for remark in draft.remarks)
    assert drafted(made(tmp_path, llama__context_length=None)).remarks == ()


def test_a_name_that_would_end_a_comment_does_not(tmp_path: Path) -> None:
    model = elsewhere(made(tmp_path), "https://example.com/m.gguf")
    draft = draft_profile("m.gguf\nllm_profiles_x: {}", model, HUB)
    assert list(yaml.safe_load("\n".join(profile_lines(draft)))) == [draft.variable]


def test_a_vision_projector_belongs_to_its_model(tmp_path: Path) -> None:
    model = made(tmp_path)
    path = tmp_path / "mmproj-F16.gguf"
    path.write_bytes(file(PROJECTOR, TENSORS[:1]))
    projector = read_model(str(path), FileSource)
    draft = drafted(model, projector=projector)
    assert draft.record["mmproj"]["path"] == str(path)
    assert draft.record["mmproj"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert local_bytes(model, projector) == model.parts[0].bytes + path.stat().st_size  # type: ignore[operator]
    with pytest.raises(GgufError, match="is a vision projector, no model") as caught:
        drafted(projector)
    assert "--mmproj" in caught.value.remedy
    with pytest.raises(GgufError, match="is no vision projector"):
        drafted(model, projector=model)


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="is no model but 'adapter'"):
        drafted(made(tmp_path, general__type="adapter"))
    assert drafted(made(tmp_path, general__type="model")).record["shape"]["architecture"] == "llama"


def test_a_file_that_changes_under_the_reader_is_an_error(tmp_path: Path) -> None:
    model = made(tmp_path)
    with Path(model.parts[0].name).open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(GgufError, match="something writes to it"):
        drafted(model)
    Path(model.parts[0].name).unlink()
    with pytest.raises(GgufError, match="there is no file"):
        drafted(model)


@pytest.mark.parametrize("name", ["chat", "Qwen3.5_35b-q4", "4o", "a b", "", "-a", ".a", "a/b", "ä", "a\n"])
def test_a_profiles_name_is_what_the_catalogue_takes(name: str) -> None:
    try:
        TypeAdapter(ProfileName).validate_python(name)
        taken = True
    except ValidationError:
        taken = False
    assert bool(NAME.fullmatch(name)) == taken


def test_numbers_that_look_like_others_stay_texts(tmp_path: Path) -> None:
    """A digest of digits alone, and one that YAML 1.2 takes for a number."""
    for digest in ("1" * 64, "1" * 30 + "e" + "1" * 33):
        model = elsewhere(made(tmp_path), "hf:o/r/m.gguf", sha256=digest, revision="2" * 40)
        draft = drafted(model)
        assert f'sha256: "{digest}"' in "\n".join(profile_lines(draft))
