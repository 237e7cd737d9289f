"""Shapes of the catalogue: what is published is written, what was read from a file is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llamarig.config.shape import Shape
from llamarig.errors import LlamarigError
from llamarig.lab import catalogue_shapes

PROFILES = """\
---
llm_profiles_family:
  one: {files: [{name: a.gguf}], shape: glm-4.7-flash.q8_0}
  two: {files: [{name: b.gguf}], shape: read.from-a-file}
  three: {based_on: one}
  four: {files: [{name: c.gguf}], shape: {architecture: llama}}
"""
HEADER = """\
---
llm_shapes_family:
  read.from-a-file:
    architecture: llama
    vocabulary: 7
    metadata: {block_count: 1, rope.freq_base: 1.0e-06}
    tensors: {"blk.{0}.ffn_up.weight": f32 4x4}
  glm-4.7-flash.q8_0:
    source: published
    architecture: llama
    vocabulary: 7
    metadata: {}
    tensors: {}
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "family.yml").write_text(PROFILES)
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/family.yml").write_text(HEADER)
    (tmp_path / "other.yml").write_text("---\nllm_profiles_other: {five: {files: [{name: d.gguf}]}}\n")
    return tmp_path


def test_what_a_file_said_is_kept_and_what_is_published_written_anew(models: Path) -> None:
    ((path, text),) = catalogue_shapes.files(models).items()
    assert path == models / "shapes/family.yml"
    shapes = yaml.safe_load(text)["llm_shapes_family"]
    assert shapes["read.from-a-file"] == yaml.safe_load(HEADER)["llm_shapes_family"]["read.from-a-file"] | {
        "source": "header"
    }
    assert shapes["glm-4.7-flash.q8_0"] == catalogue_shapes.published("glm-4.7-flash.q8_0")


def test_what_was_written_is_read_as_the_same_shape(models: Path) -> None:
    """Also numbers such as 1e-06, which are words to YAML unless they have a point."""
    (text,) = catalogue_shapes.files(models).values()
    for shape in yaml.safe_load(text)["llm_shapes_family"].values():
        assert Shape.from_dict(shape).to_dict() == shape


def test_writing_twice_changes_nothing(models: Path) -> None:
    (first,) = catalogue_shapes.files(models).values()
    (models / "shapes/family.yml").write_text(first)
    assert list(catalogue_shapes.files(models).values()) == [first]


def test_a_shape_that_nobody_published_is_refused(models: Path) -> None:
    (models / "shapes/family.yml").unlink()
    with pytest.raises(LlamarigError, match="'read'"):
        catalogue_shapes.files(models)
