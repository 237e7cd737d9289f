"""The verb that measures how fast a service is: speed."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from llamarig.cli.output import fail, finish
from llamarig.cli.verb import JSON, host_root, needs_root, sayer
from llamarig.cli.worse import PERCENT, WorseError, conclude
from llamarig.errors import LlamarigError

if TYPE_CHECKING:
    from llamarig.config.spec import Spec

_BEST_OF: Final = 3
# A slower figure is measured again this often, and so long, before it is believed.
_MORE_TIMES: Final = 9
_MORE_SECONDS: Final = 20.0
_TOKENS: Final = 64
_SECONDS: Final = 300.0


@click.command()
@click.option("--against", metavar="IMAGE", help="Compare with what this engine reached with the same service.")
@click.option("--slower", default=10.0, show_default=True, type=PERCENT, help="Per cent that it may be slower.")
@JSON
def speed(*, against: str | None, slower: float, as_json: bool) -> None:
    """Measure how fast the active service generates: 64 tokens, the best of three times, in the layout that it has.

    The figure is kept for each engine and service. With --against it exits 6 where the service is slower by more than
    --slower per cent than it was with that engine; it measures nine times, and for 20 s, before it says so.

    \b
    Examples:
      sudo llamarig engine speed
      sudo llamarig engine speed --against llamarig/llama-cpp:v0.7.0-cuda-0123456789ab --slower 10
    """  # noqa: D301
    from llamarig.daemon.speeds import Figure, SpeedStore  # noqa: PLC0415
    from llamarig.daemon.state import StateStore  # noqa: PLC0415
    from llamarig.runtime.specs import SpecStore  # noqa: PLC0415

    needs_root("engine speed", as_json=as_json)
    root = host_root()
    active = StateStore(root).read().first
    running = SpecStore(root).running(active) if active else None
    if active is None or running is None:
        data: dict[str, Any] = {"image": None, "service": active, "tokens_per_second": None, "checks": []}
        finish("engine speed", data, ["nothing serves, so nothing was measured"], as_json=as_json)
        return
    store = SpeedStore(root)
    before = store.read().get(against, {}).get(active) if against else None
    if against and before is None:
        remedy = "measure it while it serves: sudo llamarig engine speed"
        fail("engine speed", LlamarigError(f"{active} was never measured with {against}", remedy), as_json=as_json)
    least = before.tokens_per_second * (1 - slower / 100) if before else 0.0
    best = _measured(root, running, least, sayer(as_json=as_json), as_json=as_json)
    store.keep(running.image, active, Figure(round(best, 3), round(time.time()), running.spec_sha256))
    others = {image: figures[active].tokens_per_second for image, figures in store.read().items() if active in figures}
    message = f"{active}: {best:.4g} tokens/s with {running.image}"
    if before is not None:
        change = 100 * (best / before.tokens_per_second - 1)
        message += f", {before.tokens_per_second:.4g} with {against} ({change:+.1f} %, {-slower:g} % is the most)"
    too_slow = best < least
    check = {
        "name": "speed",
        "status": "fail" if too_slow else "ok",
        "message": message,
        "remedy": "go back: sudo llamarig engine rollback" if too_slow else "",
    }
    data = {
        "image": running.image,
        "service": active,
        "tokens_per_second": round(best, 3),
        "images": others,
        "against": {"image": against, "tokens_per_second": before.tokens_per_second} if before else None,
        "slower_percent": round(100 * (1 - best / before.tokens_per_second), 1) if before else None,
        "checks": [check],
    }
    worse = WorseError(message, check["remedy"]) if too_slow else None
    conclude("engine speed", data, [message], worse, as_json=as_json)


def _measured(root: Path, spec: Spec, least: float, say: Any, *, as_json: bool) -> float:
    """Return the best of three times, or of more where none is as fast as it should be."""
    from llamarig.runtime.completions import SPEED_PROMPT, Completions  # noqa: PLC0415
    from llamarig.runtime.engine import EngineError  # noqa: PLC0415

    best, server, start = 0.0, Completions(root), time.monotonic()
    for number in itertools.count():
        patient = number < _MORE_TIMES or time.monotonic() - start < _MORE_SECONDS
        if number >= _BEST_OF and (best >= least or not patient):
            break
        try:
            answer = server.generate(spec, SPEED_PROMPT, _TOKENS, timeout=_SECONDS)
        except EngineError as error:
            _unmeasured(spec, str(error), as_json=as_json)
        if not answer.predicted_per_second:
            _unmeasured(spec, "the server does not say how fast it was", as_json=as_json)
        say(f"{spec.service}: {answer.predicted_per_second:.4g} tokens/s")
        best = max(best, answer.predicted_per_second)
    return best


def _unmeasured(spec: Spec, why: str, *, as_json: bool) -> NoReturn:
    error = LlamarigError(f"{spec.service} could not be measured: {why}", f"llamarig logs {spec.service}")
    fail("engine speed", error, as_json=as_json)
