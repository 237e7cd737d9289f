from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from gguf import GGUFReader

from llamarig.lab.models import MODELS, TinyModel, make_models, write_model
from tests.support import ROOT

CATALOGUE = yaml.safe_load((ROOT / "group_vars/all/models/lab.yml").read_text(encoding="utf-8"))["llm_profiles_lab"]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_lab_model_is_the_bytes_that_the_catalogue_says(tmp_path: Path, model: TinyModel) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, model)
    content = path.read_bytes()
    (item,) = CATALOGUE[model.name]["files"]
    assert (len(content), hashlib.sha256(content).hexdigest()) == (item["bytes"], item["sha256"])


def test_every_lab_profile_is_a_model_that_the_lab_makes() -> None:
    made = {f".lab/models/{model.name}.gguf" for model in MODELS}
    assert {item["path"] for profile in CATALOGUE.values() for item in profile["files"]} == made


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_lab_model_has_the_shape_it_claims(tmp_path: Path, model: TinyModel) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, model)
    reader = GGUFReader(path)

    def value(key: str) -> object:
        field = reader.get_field(key)
        assert field is not None
        return field.contents()

    assert value("general.architecture") == model.architecture
    assert value(f"{model.architecture}.block_count") == model.layers
    assert len(value("tokenizer.ggml.tokens")) == model.vocabulary  # type: ignore[arg-type]
    experts = [tensor for tensor in reader.tensors if tensor.name.endswith("_exps.weight")]
    assert len(experts) == (3 * model.layers if model.experts else 0)
    assert all(int(tensor.shape[-1]) == model.experts for tensor in experts)


def test_models_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    said: list[str] = []
    make_models(tmp_path, said.append)
    assert len(said) == len(MODELS)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {path.name for path in stamps} == {f"{model.name}.gguf" for model in MODELS}
    make_models(tmp_path, said.append)
    assert len(said) == len(MODELS)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps
