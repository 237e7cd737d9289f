"""The command ``llamarig``: its verbs put together. Thin; every verb says what other rooms know."""

from __future__ import annotations

import os
import sys

import click

from llamarig.cli.completion import completion
from llamarig.cli.dashboard import dashboard
from llamarig.cli.engine import engine
from llamarig.cli.jobs import cancel, history, jobs
from llamarig.cli.keys import keys
from llamarig.cli.logs import logs
from llamarig.cli.machine import detect, doctor, tune, version
from llamarig.cli.models import gguf
from llamarig.cli.planning import explain, plan
from llamarig.cli.reconcile import reconcile
from llamarig.cli.services import list_command
from llamarig.cli.status import status
from llamarig.cli.switch import stop, switch
from llamarig.cli.verb import services
from llamarig.errors import ExitCode

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_EPILOG = (
    "Every verb takes --help, and every one but dashboard --json. Exit codes: 0 done, 1 failed, 2 typed wrong,"
    " 3 no such service, 4 not allowed, 5 busy, 6 unhealthy, 7 warnings, 8 llamarigd does not answer,"
    " 130 interrupted or cancelled."
)
# As people meet them: what serves, what happens, what is planned, the host itself.
_VERBS = (
    *(list_command, status, switch, stop, logs, jobs, cancel, history, dashboard),
    *(plan, explain, gguf, engine, detect),
    *(doctor, keys, completion, version, reconcile, tune),
)


def main() -> None:
    """Run the command; a user's mistake ends with a sentence, never with a traceback."""
    os.umask(0o022)
    try:
        cli.main(prog_name="llamarig", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(int(ExitCode.INTERRUPTED))
    except OSError as error:
        # A full disk, a file that this user may not read: said in a sentence like any other mistake.
        click.echo(f"llamarig: {error}\n    remedy: look at the file named, and at df; try with sudo", err=True)
        sys.exit(int(ExitCode.FAILED))


class Verbs(click.Group):
    """The verbs in the order in which people meet them; a service typed in place of one is answered with its verb."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's
        """Return the verbs as they were put together."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; raises UsageError where there is none."""
        word = args[0]
        # With start.sh the name of a service was all that was typed.
        if word not in self.commands and word in services():
            msg = f"{word!r} is a service; what switches to it is: llamarig switch {word}"
            raise click.UsageError(msg, ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings=_CONTEXT, invoke_without_command=True, epilog=_EPILOG)
@click.pass_context
def cli(context: click.Context) -> None:
    """Serve models with llama.cpp on this host, and switch between them safely.

    On a terminal and without a verb: a menu of the services of this host.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False
    if context.invoked_subcommand is not None:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo(context.get_help())
        sys.exit(int(ExitCode.USAGE))
    from llamarig.cli.menu import run  # noqa: PLC0415

    run()


for _verb in _VERBS:
    cli.add_command(_verb)
