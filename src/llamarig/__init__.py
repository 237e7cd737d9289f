"""llamarig: reproducible llama.cpp servers on GPU boxes."""

from typing import Final

__version__: Final = "0.1.0"


def release() -> str | None:
    """Return the name of the release that this is; None of a checkout."""
    try:
        from llamarig._release import RELEASE  # type: ignore[import-not-found]  # noqa: PLC0415  written by the build
    except ImportError:
        return None
    return str(RELEASE)
