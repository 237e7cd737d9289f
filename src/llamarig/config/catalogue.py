"""The records of the catalogue: models with their files, shape, recommended settings, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, field_validator, model_validator

from llamarig.config.records import ModelPath, ProfileName, Record, ServerValue, Sha256
from llamarig.config.shape import Shape

Text = Annotated[str, StringConstraints(min_length=1)]
Date = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Task = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Repository = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")]
_REMEMBERED: Final = 256


class Capability(StrEnum):
    """What a model can do beside writing text."""

    THINKING = "thinking"
    TOOLS = "tools"
    VISION = "vision"
    FIM = "fim"


class ModelFile(Record):
    """One GGUF file: where it comes from, and how it is known to be the right one."""

    name: ModelPath = Field(
        description="Path below the models directory, of letters, digits and `. _ + - /`; the first file is the model."
    )
    bytes: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="Size. A file that a service uses must have it."
    )
    sha256: Sha256 | None = Field(default=None, description="Checksum. A file that a service uses must have it.")
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")] | None = Field(
        default=None, description="Where the host fetches it. A file has a url or a path, not both."
    )
    path: str | None = Field(
        default=None,
        description="Where it is on the control node, from where it is pushed; a relative path begins at the checkout.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> ModelFile:
        if self.url and self.path:
            msg = "has both url and path; a file has one source"
            raise ValueError(msg)
        return self


class ClientSettings(Record):
    """What a client should send for one kind of task; what it sends overrules the server's options."""

    temperature: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Sampler temperature.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Nucleus sampling; 1 is all tokens."
    )
    top_k: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="How many tokens are chosen from; 0 is all tokens."
    )
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Least probability, as a part of the likeliest token's; 0 is all tokens."
    )
    presence_penalty: float | None = Field(
        default=None, description="Penalty for tokens that are there already; 0 is none."
    )
    repeat_penalty: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Penalty for repeated tokens; 1 is none."
    )
    max_tokens: Annotated[int, Field(gt=0)] | None = Field(default=None, description="Length of an answer, in tokens.")
    reasoning_effort: Text | None = Field(default=None, description="How much the model should think, in its words.")
    system_prompt: Text | None = Field(default=None, description="System message that the task needs.")
    template: dict[str, bool | int | float | str] = Field(
        default={}, description="`chat_template_kwargs` of the request, such as `enable_thinking`."
    )


class Speed(Record):
    """One published measurement of a profile; never an estimate."""

    tokens_per_second: Annotated[float, Field(gt=0)] = Field(
        description="Tokens that were generated in a second for one client, as the source says it; sources round."
    )
    hardware: Text = Field(description="The cards and the machine that it was measured on.")
    layout: Text = Field(description="How the model was laid out: strategy, blocks on each card, what else matters.")
    context: Annotated[int, Field(gt=0)] | None = Field(
        default=None, description="`ctx_size` of the server, in tokens; null where the source does not say."
    )
    source: Text = Field(description="Where it is published, so that it can be looked up.")
    date: Date | None = Field(
        default=None, description="Day of the measurement, as `2026-02-15` in quotes; null where the source says none."
    )


class Profile(Record):
    """A model with its recommended server settings."""

    description: str = Field(default="", description="What a person should know when choosing it.")
    title: str = Field(default="", description="What people call the model; without it, the profile's own name.")
    based_on: ProfileName | None = Field(
        default=None,
        description=(
            "Another profile, of which this one has all that it does not say itself: files, shape, clients and the"
            " rest. Options in `server` are laid over the other's; `speeds` and `notes` stay behind. One level: the"
            " other is based on none."
        ),
    )
    files: Annotated[list[ModelFile], Field(min_length=1)] = Field(
        default=[],
        description=(
            "Its files; required without based_on. The engine is started with the first, so of a split model that is"
            " the first part."
        ),
    )
    mmproj: ModelFile | None = Field(
        default=None, description="Its vision projector. It is fetched and loaded only where a service asks for vision."
    )
    shape: str | dict[str, Any] | None = Field(
        default=None,
        description=(
            "Its shape, so that plans need no file: what `llamarig gguf FILE --shape` writes, or the name of an entry"
            " of `llm_shapes_<family>`."
        ),
    )
    repository: Repository | None = Field(
        default=None, description="Where people find the files on a hub, as `owner/name`; nothing is fetched from it."
    )
    revision: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = Field(
        default=None, description="Commit of the repository that bytes and sha256 were taken from, all 40 digits."
    )
    licence: str | None = Field(default=None, description="Licence of the model, as its maker names it.")
    capabilities: list[Annotated[Capability, Field(strict=False)]] = Field(
        default=[], description="What the model can do beside writing text."
    )
    server: dict[str, ServerValue] = Field(
        default={}, description="Recommended llama-server options: long option in snake_case, and its value."
    )
    clients: dict[Task, ClientSettings] = Field(
        default={},
        description="What clients should send, by task; a task is a word such as `general`, `coding` or `instruct`.",
    )
    speeds: list[Speed] = Field(default=[], description="What others measured with it, and on which hardware.")
    notes: list[Text] = Field(default=[], description="Facts worth knowing, a sentence or two each.")
    bench: bool = Field(default=False, description="A profile for benchmarks; lists for people leave it out.")
    retired: Text | None = Field(
        default=None, description="Why it is not recommended any more, and since when. It can still be served."
    )

    @field_validator("shape", mode="before")
    @classmethod
    def _possible_shape(cls, value: object) -> object:
        if isinstance(value, dict):
            read_shape(value)
        elif value is not None and not isinstance(value, str):
            msg = "must be a shape, or the name of one"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _complete(self) -> Profile:
        if not self.files and self.based_on is None:
            msg = "has no files; a profile names them, or is based_on one that does"
            raise ValueError(msg)
        names = [item.name for item in [*self.files, *([self.mmproj] if self.mmproj else [])]]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"names the file {twice[0]} twice"
            raise ValueError(msg)
        return self

    @cached_property
    def model_shape(self) -> Shape | None:
        """The shape of its model; None where the profile has none, or only the name of one."""
        return read_shape(self.shape) if isinstance(self.shape, dict) else None

    def having(self, **changes: Any) -> Profile:
        """Return a copy with these fields in the place of its own; they are not validated again."""
        copy = self.model_copy(update=changes)
        copy.__dict__.pop("model_shape", None)
        return copy


def read_shape(data: Mapping[str, Any]) -> Shape:
    """Read a shape as the catalogue holds it. Equal shapes are read once, and are one object in all profiles and hosts.

    Raises:
        ShapeError: it is no shape, or one that no model can have.

    """
    return _remembered_shape(json.dumps(data, default=repr))


@lru_cache(maxsize=_REMEMBERED)
def _remembered_shape(text: str) -> Shape:
    return Shape.from_dict(json.loads(text))
