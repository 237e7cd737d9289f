"""The engine as the inventory says it, and as a plan has it: one image, named by everything that goes into it.

Variables are ``llama_image_<field>``. The lock, ``llama_image_source`` and ``llama_image_digests``, is written by
playbooks (lock, vendor, upgrade, rollback); people choose the rest.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from llamarig.config.records import Record, Sha256

PREFIX: Final = "llama_image_"

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+_-]*$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
ImageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._:/-]*(@sha256:[0-9a-f]{64})?$")]
Architecture = Annotated[str, StringConstraints(pattern=r"^\d{2,3}[af]?(-real|-virtual)?$")]


class Archive(Record):
    """A snapshot of the source on the control node; hosts build from exactly its bytes."""

    file: str = Field(description="Its path, relative to the checkout.")
    sha256: Sha256 = Field(description="Its checksum.")
    bytes: Annotated[int, Field(gt=0)] = Field(description="Its size in bytes.")
    pruned: bool = Field(description="Whether what the server does not need was left out.")


class Source(Record):
    """The lock of llama.cpp's source; `playbooks/lock.yml` writes it."""

    repository: str = Field(
        default="https://github.com/ggml-org/llama.cpp.git", description="The git repository that it comes from."
    )
    ref: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")] = Field(
        description="Tag, branch or commit that was asked for."
    )
    version: Version = Field(description="What llama-server says it is; options are checked against its `--help`.")
    commit: Commit | None = Field(default=None, description="The full commit; null until it was looked up.")
    committed: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Time of the commit in Unix seconds: every time in the image (`SOURCE_DATE_EPOCH`)."
    )
    build: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Number of commits up to it, where it is known."
    )
    archive: Archive | None = Field(default=None, description="The vendored snapshot; `playbooks/vendor.yml` makes it.")


class Bases(Record):
    """The images that one backend's build and runtime start from."""

    build: ImageName = Field(description="Has, or can install, compilers, and for cuda the toolkit.")
    runtime: ImageName = Field(description="What the engine's image is made on.")


class BasesOfBackends(Record):
    """Base images by backend."""

    cpu: Bases | None = Field(default=None, description="For the CPU.")
    cuda: Bases | None = Field(default=None, description="For NVIDIA cards.")


class Package(Record):
    """Debian's own package of llama.cpp, for the CPU."""

    suite: str = Field(description="Suite of the archive.")
    version: Version = Field(description="What llama-server must say it is.")
    packages: list[str] = Field(description="Packages that hold the tools.")


class Prebuilt(Record):
    """An image that somebody else built."""

    image: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}$")] = Field(
        description="Its name with its digest, as `registry.example/llama.cpp@sha256:…`; a tag alone can move."
    )
    version: Version = Field(description="What llama-server must say it is.")


class Engine(Record):
    """The engine that a host runs, and how its image comes about."""

    recipe: Literal["source", "debian-package", "prebuilt"] = Field(
        default="source",
        description="`source` builds llama.cpp; `prebuilt` pulls an image; `debian-package` is Debian's, for the CPU.",
    )
    repository: ImageName = Field(default="llamarig/llama-cpp", description="The image's name before the colon.")
    backend: Literal["auto", "cuda", "cpu"] = Field(
        default="auto", description="What `source` builds for; `auto` is cuda where the host declares cards."
    )
    architectures: list[Architecture] | Literal["declared"] = Field(
        default=["89-real", "120a-real"],
        description="CUDA architectures as CMake has them, or `declared`: those of the host's declared cards.",
    )
    fa_all_quants: Annotated[bool, Field(strict=False)] = Field(
        default=False,
        description="Whether flash attention is built for every pair of cache types: many more kernels to compile.",
    )
    bases: BasesOfBackends = Field(
        default=BasesOfBackends(), description="Base images of `source`; name a mirror's here where there is one."
    )
    digests: dict[str, Digest] = Field(
        default={}, description="Digests of base images as of the lock; a name without one is taken as it is."
    )
    apt_snapshot: Annotated[str, StringConstraints(pattern=r"^(\d{8}T\d{6}Z)?$")] = Field(
        default="", description="Ubuntu's archive as of this moment, as `20260801T000000Z`, for what a build installs."
    )
    source: Source | None = Field(default=None, description="What `source` builds.")
    package: Package | None = Field(default=None, description="What `debian-package` installs.")
    prebuilt: Prebuilt | None = Field(default=None, description="What `prebuilt` pulls.")

    @property
    def version(self) -> str | None:
        """What llama-server of this engine says it is; None where the recipe lacks its record."""
        chosen = {"source": self.source, "debian-package": self.package, "prebuilt": self.prebuilt}[self.recipe]
        return chosen.version if chosen is not None else None
