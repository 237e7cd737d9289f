"""The verb about a model's file: gguf."""

from __future__ import annotations

import os

import click

from llamarig.cli.output import fail, finish
from llamarig.cli.verb import JSON, host_root
from llamarig.errors import LlamarigError


@click.command(short_help="Say what a GGUF file holds; write its profile.")
@click.argument("file", metavar="FILE|URL", required=False)
@click.option("--tensors", is_flag=True, help="List every tensor too.")
@click.option("--shape", is_flag=True, help="Print the record shape of a profile, as YAML.")
@click.option(
    "--profile",
    is_flag=False,
    flag_value="",
    metavar="[NAME]",
    help="Print a whole profile of the catalogue, as YAML; by default it is named after the file.",
)
@click.option("--mmproj", metavar="FILE|URL", help="With --profile: the vision projector that belongs to the model.")
@JSON
def gguf(
    file: str | None, *, tensors: bool, shape: bool, profile: str | None, mmproj: str | None, as_json: bool
) -> None:
    """Say what the header of a GGUF model says: shape, attention layer by layer, quantisation, parts.

    Of a split model any part may be named. hf:OWNER/REPOSITORY/FILE[@REVISION] names a file of the hub at HF_ENDPOINT,
    by default huggingface.co, and so does the address of its page there; HF_TOKEN is sent to that hub alone. Weights
    are never read, but by --profile of a file on this machine: its sha256 takes reading all of it.

    --profile prints all that a host needs to serve the model: its files with size, sha256 and where they are, and its
    shape. docs/how-to/add-a-model.md says how to go on.

    \b
    Examples:
      llamarig gguf /srv/llamarig/models/model.gguf
      llamarig gguf https://example.com/model-00001-of-00003.gguf --json
      llamarig gguf hf:owner/repository/model.gguf --shape
      llamarig gguf hf:owner/repository/model.gguf --profile
      llamarig gguf hf:owner/repository/model.gguf --profile chat > group_vars/all/models/chat.yml
      llamarig gguf model.gguf --profile eyes --mmproj mmproj.gguf
    """  # noqa: D301
    from llamarig.cli.gguf import Wanted, present  # noqa: PLC0415

    if file is None and profile:
        file, profile = profile, ""  # --profile FILE: what follows is no name then
    if file is None:
        raise click.UsageError("Missing argument 'FILE|URL'.")
    if mmproj is not None and profile is None:
        raise click.UsageError("--mmproj goes with --profile.")
    stores = () if profile is None else _stores()
    if profile:
        _check_profile_name(profile)
    try:
        wanted = Wanted(tensors=tensors, shape=shape, profile=profile, mmproj=mmproj, quiet=as_json)
        data, lines = present(file, os.environ, stores, wanted)
    except LlamarigError as error:
        fail("gguf", error, as_json=as_json)
    finish("gguf", data, lines, as_json=as_json)


def _check_profile_name(name: str) -> None:
    from llamarig.gguf.draft import NAME  # noqa: PLC0415

    if not NAME.fullmatch(name):
        why = f"{name!r} is no name of a profile: letters, digits, and . _ - after the first of them."
        raise click.BadParameter(why, param_hint="--profile")


def _stores() -> tuple[str, ...]:
    """Return the models directories of the services that this host runs; none where it runs none."""
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    try:
        return tuple({spec.models_dir for spec in SpecStore(host_root()).all()})
    except (LlamarigError, OSError):
        return ()
