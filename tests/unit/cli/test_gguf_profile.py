"""Adding a model is one record: what ``llamarig gguf --profile`` prints is planned as it stands."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llamarig.cli.main import main
from llamarig.cli.models import _stores
from llamarig.config.catalogue import Profile
from llamarig.errors import ExitCode
from llamarig.lab.models import MODELS, write_model
from llamarig.planning.intent import plan_host
from tests.support import HOST, ROOT, problems, variables
from tests.unit.cli.conftest import Shell
from tests.unit.gguf.files import TENSORS, file, split
from tests.unit.gguf.server import Site, serving

COMMIT = "0a" * 20
CARD = {
    "name": "card",
    "uuid": "GPU-00000000-0000-0000-0000-000000000001",
    "model": "NVIDIA GeForce RTX 5060",
    "memory_mib": 8151,
    "compute_capability": "12.0",
}
HARDWARE = {"memory_mib": 32768, "cpu_threads": 8, "reserve_mib": 1024, "gpus": [CARD]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that llama-server loads."""
    path = tmp_path / "Tiny-Dense-F16.gguf"
    write_model(path, MODELS[0])
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with serving() as site:
        monkeypatch.setenv("HF_ENDPOINT", site.address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield site


def offer(hub: Site, path: str, content: bytes, revision: str = "main") -> None:
    """Put a file into the repository owner/Tiny-GGUF of the hub, which redirects to it as the real one does."""
    said = {"X-Repo-Commit": COMMIT, "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
    hub.files[f"/cdn/{path}"] = content
    for at in (revision, COMMIT):
        hub.redirect(f"/owner/Tiny-GGUF/resolve/{at}/{path}", f"/cdn/{path}", headers=said)


def printed(shell: Shell, *words: str) -> tuple[str, dict[str, Any]]:
    """The text of a profile and what YAML reads in it: a variable of the catalogue."""
    result = shell("gguf", *words)
    assert result.exit_code == ExitCode.OK, result.stderr
    return result.stdout, yaml.safe_load(result.stdout)


def using(catalogue: dict[str, Any]) -> dict[str, Any]:
    """A host's variables with a service that runs the one profile."""
    ((name,),) = catalogue.values()
    service = {"profile": name, "strategy": "auto"}
    return variables(**catalogue, service=service, host_hardware=HARDWARE)


def test_a_profile_of_a_file_here_is_planned_as_it_is_printed(shell: Shell, model: Path) -> None:
    text, catalogue = printed(shell, str(model), "--profile")
    assert text.startswith("---\n# ")
    (record,) = catalogue["llm_profiles_tiny_dense_f16"].values()
    (item,) = Profile.model_validate(record).files
    assert (item.name, item.path, item.bytes) == (model.name, str(model), model.stat().st_size)
    plan = plan_host(HOST, using(catalogue))
    (spec,) = plan["specs"]
    assert (spec["strategy"], spec["asked"], plan["incomplete"]) == ("A", "auto", [])
    assert spec["files"][0]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert spec["memory"]["devices"][0]["weights"] > 0


def test_a_profile_of_the_hub_is_planned_as_it_is_printed(shell: Shell, hub: Site, model: Path) -> None:
    content = model.read_bytes()
    offer(hub, "Tiny-F16.gguf", content)
    _, catalogue = printed(shell, "hf:owner/Tiny-GGUF/Tiny-F16.gguf", "--profile", "tiny.one")
    record = catalogue["llm_profiles_tiny_one"]["tiny.one"]
    assert record["files"] == [
        {
            "name": "Tiny-GGUF/Tiny-F16.gguf",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "url": f"{hub.address}/owner/Tiny-GGUF/resolve/{COMMIT}/Tiny-F16.gguf",
        }
    ]
    assert plan_host(HOST, using(catalogue))["specs"][0]["files"][0]["path"].endswith("/models/Tiny-GGUF/Tiny-F16.gguf")


def test_the_pinned_address_leads_to_the_bytes_of_the_record(shell: Shell, hub: Site, model: Path) -> None:
    offer(hub, "Tiny-F16.gguf", model.read_bytes())
    _, catalogue = printed(shell, f"{hub.address}/owner/Tiny-GGUF/blob/main/Tiny-F16.gguf", "--profile")
    ((record,),) = (part.values() for part in catalogue.values())
    offer(hub, "Tiny-F16.gguf", b"another file, on the main branch")
    offer(hub, "Tiny-F16.gguf", model.read_bytes(), revision=COMMIT)
    _, again = printed(shell, record["files"][0]["url"], "--profile")
    assert again == catalogue


def test_a_split_model_of_the_hub_has_every_part(shell: Shell, hub: Site, tmp_path: Path) -> None:
    paths = split(tmp_path)
    for path in paths:
        offer(hub, f"Q4/{path.name}", path.read_bytes())
    _, catalogue = printed(shell, "hf:owner/Tiny-GGUF/Q4/model-00003-of-00003.gguf", "--profile")
    ((record,),) = (part.values() for part in catalogue.values())
    assert [item["name"] for item in record["files"]] == [f"Tiny-GGUF/Q4/{path.name}" for path in paths]
    assert all(item["url"].endswith(f"/{COMMIT}/Q4/{path.name}") for item, path in zip(record["files"], paths))  # noqa: B905


def test_a_profile_of_another_server_lacks_its_checksum_and_the_plan_says_so(
    shell: Shell, hub: Site, model: Path
) -> None:
    hub.files["/models/m.gguf"] = model.read_bytes()
    text, catalogue = printed(shell, f"{hub.address}/models/m.gguf", "--profile")
    assert "sha256: null  # the server does not say it; this prints it: curl -fL URL | sha256sum" in text
    (problem,) = problems(using(catalogue))
    assert "has no sha256" in problem.message
    assert plan_host(HOST, using(catalogue), only_plan=True)["specs"][0]["strategy"] == "A"


def test_a_vision_projector_comes_along(shell: Shell, hub: Site, model: Path) -> None:
    eyes = file({"general.architecture": "clip", "general.type": "mmproj"}, TENSORS[:1])
    offer(hub, "Tiny-F16.gguf", model.read_bytes())
    offer(hub, "mmproj-F16.gguf", eyes)
    words = ["hf:owner/Tiny-GGUF/Tiny-F16.gguf", "--profile", "--mmproj", "hf:owner/Tiny-GGUF/mmproj-F16.gguf"]
    _, catalogue = printed(shell, *words)
    ((record,),) = (part.values() for part in catalogue.values())
    assert record["mmproj"]["sha256"] == hashlib.sha256(eyes).hexdigest()
    Profile.model_validate(record)


def test_a_model_in_the_models_directory_of_this_host_names_no_source(
    shell: Shell, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamarig.cli.models._stores", lambda: (str(model.parent),))
    _, catalogue = printed(shell, str(model), "--profile")
    ((record,),) = (part.values() for part in catalogue.values())
    assert record["files"][0].keys() == {"name", "bytes", "sha256"}


def test_the_models_directories_are_those_of_this_hosts_services(shell: Shell, tmp_path: Path) -> None:
    assert shell("list").exit_code == ExitCode.OK
    assert _stores() == ("/srv/llamarig/models",)
    (tmp_path / "etc/llamarig/services.d/alpha.json").write_text("{", encoding="utf-8")
    assert _stores() == ()


def test_programs_get_the_record_as_data(shell: Shell, model: Path) -> None:
    _, catalogue = printed(shell, str(model), "--profile", "tiny")
    said = shell.json("gguf", str(model), "--profile", "tiny")["data"]["profile"]
    assert {said["variable"]: {said["name"]: said["record"]}} == catalogue
    assert said["remarks"] == ["Trained with a context of 2048 tokens; server: {ctx_size: N} says how much is wanted."]
    assert "profile" not in shell.json("gguf", str(model))["data"]


def test_what_is_printed_is_clean_yaml_of_the_house(shell: Shell, hub: Site, tmp_path: Path) -> None:
    """Addresses of real files are longer than a line, and a file may have a long name."""
    name = f"{'Long-' * 12}Q4_K_M.gguf"
    metadata = {
        "general.architecture": "llama",
        "general.name": " ".join(["a long name"] * 20),
        "llama.context_length": 4096,
    }
    offer(hub, name, file(metadata, TENSORS))
    target = tmp_path / "new.yml"
    for place in (f"hf:owner/Tiny-GGUF/{name}", f"{hub.address}/cdn/{name}"):
        target.write_text(printed(shell, place, "--profile")[0], encoding="utf-8")
        command = [sys.executable, "-m", "yamllint", "--strict", "-c", str(ROOT / ".yamllint"), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_name_may_be_left_out_before_the_file_too(shell: Shell, model: Path) -> None:
    assert printed(shell, "--profile", str(model))[1] == printed(shell, str(model), "--profile")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile"], "Missing argument 'FILE|URL'"),
        (["m.gguf", "--profile", "a b"], "'a b' is no name of a profile"),
        (["m.gguf", "--mmproj", "eyes.gguf"], "--mmproj goes with --profile"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(shell: Shell, words: list[str], said: str) -> None:
    result = shell("gguf", *words)
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr


def test_a_host_needs_no_library_for_it(shell: Shell, model: Path) -> None:
    """Of what the control node has, a host has click alone."""
    without = "import sys; sys.modules.update(dict.fromkeys(['pydantic', 'yaml', 'gguf', 'numpy']))"
    program = f"{without}; from llamarig.cli.main import main; main()"
    command = [sys.executable, "-c", program, "gguf", str(model), "--profile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed(shell, str(model), "--profile")[0]


def test_an_interrupted_reading_leaves_nothing_behind(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("llamarig.gguf.draft.sha256", interrupted)
    monkeypatch.setattr("sys.argv", ["llamarig", "gguf", str(model), "--profile"])
    monkeypatch.chdir(model.parent)
    before = sorted(model.parent.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == ExitCode.INTERRUPTED
    assert capsys.readouterr().out == ""
    assert sorted(model.parent.rglob("*")) == before


def test_a_projector_in_the_place_of_the_model_is_said_to_be_one(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "mmproj.gguf"
    path.write_bytes(file({"general.architecture": "clip"}, TENSORS[:1]))
    result = shell("gguf", str(path), "--profile")
    assert result.exit_code == ExitCode.FAILED
    assert "is a vision projector, no model" in result.stderr
    assert not result.stdout
