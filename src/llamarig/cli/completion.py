"""The verb that teaches a shell the command's words: completion."""

from __future__ import annotations

import click

from llamarig.cli.output import finish
from llamarig.cli.verb import JSON

_VARIABLE = "_LLAMARIG_COMPLETE"


@click.command(short_help="Print what makes a shell complete words.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@JSON
@click.pass_context
def completion(context: click.Context, shell: str, *, as_json: bool) -> None:
    """Print what makes SHELL complete verbs, options and the services of this host.

    \b
    Examples:
      llamarig completion bash | sudo tee /etc/bash_completion.d/llamarig
      llamarig completion zsh > ~/.zfunc/_llamarig
      llamarig completion fish > ~/.config/fish/completions/llamarig.fish
    """  # noqa: D301  click's mark
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    kind = get_completion_class(shell)
    if kind is None:
        msg = f"there is no completion for {shell}."
        raise click.UsageError(msg)
    # The template alone: click's own source() would start a bash to learn its version.
    wanted = kind(context.find_root().command, {}, "llamarig", _VARIABLE)
    script = wanted.source_template % wanted.source_vars()
    finish("completion", {"shell": shell, "script": script}, [script.rstrip()], as_json=as_json)
