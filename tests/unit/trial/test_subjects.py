from __future__ import annotations

from pathlib import Path

import pytest

from llamarig.config.spec import Spec
from llamarig.lab.models import MODELS, write_model
from llamarig.trial.subjects import subjects
from tests.support import make_spec


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    for model in MODELS[:2]:
        write_model(directory / f"{model.name}.gguf", model)
    (directory / "larger.gguf").write_bytes((directory / "tiny-dense.gguf").read_bytes() + b"\0" * (2 << 20))
    (directory / "none.gguf").write_text("a web page")
    return directory


def spec(models: Path, service: str, name: str) -> Spec:
    return make_spec(service, models_dir=str(models), argv=["--model", f"/models/{name}.gguf", "--jinja"])


def test_the_smallest_model_of_each_architecture_is_tried(models: Path) -> None:
    specs = [spec(models, "big", "larger"), spec(models, "chat", "tiny-dense"), spec(models, "moe", "tiny-moe")]
    found, troubles = subjects(specs, Path)
    assert troubles == []
    assert [(one.architecture, one.spec.service) for one in found] == [("llama", "chat"), ("qwen3moe", "moe")]
    assert [(one.layers, one.context) for one in found] == [(5, 2048), (5, 2048)]


def test_a_model_that_cannot_be_read_is_told_with_its_service(models: Path) -> None:
    found, troubles = subjects(
        [spec(models, "a", "gone"), spec(models, "b", "none"), spec(models, "c", "tiny-moe")], Path
    )
    assert [one.spec.service for one in found] == ["c"]
    assert troubles[0].startswith("a: there is no file ")
    assert troubles[1].startswith("b: ")
    assert "no GGUF model" in troubles[1]
