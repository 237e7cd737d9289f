"""The picture of the page in the documents: ``python -m tests.unit.api.page_picture`` draws it anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.unit.api.browser import CHROMIUM, browser
from tests.unit.api.scenes import play
from tests.unit.api.world import world

PATH: Final = Path(__file__).parents[3] / "docs/pictures/page.png"
_WIDTH: Final = 1280
# With each one more the picture is 8 KB larger; it is to be less than 150.
_EVENTS: Final = 3


def draw(path: Path) -> None:
    """Write what the page shows of a host at work, in the dark."""
    with world() as api, browser() as page:
        play(api)
        api.board.events = api.board.events[-_EVENTS:]
        page.look(width=_WIDTH)
        page.go(f"http://127.0.0.1:{api.server.port}/ui")
        page.until("document.querySelectorAll('.cell').length === 6")
        # The port is a test's own.
        page.do("document.getElementById('host').textContent = '127.0.0.1:8081'")
        page.picture(path)


def main() -> None:
    """Draw it, where there is a browser."""
    if CHROMIUM is None:
        sys.exit("page_picture: there is no chromium here\n    remedy: apt-get install chromium")
    draw(PATH)
    sys.stdout.write(f"{PATH} written, {PATH.stat().st_size // 1024} KiB\n")


if __name__ == "__main__":
    main()
