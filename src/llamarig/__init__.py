"""llamarig: reproducible llama.cpp servers on GPU boxes."""

from typing import Final

__version__: Final = "0.1.0"
