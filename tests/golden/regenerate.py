"""Write the expected files of every golden case anew: ``python -m tests.golden.regenerate``, then ``git diff``."""

from __future__ import annotations

from tests.golden.cases import CASES, regenerate

if __name__ == "__main__":
    for directory in CASES:
        regenerate(directory)
