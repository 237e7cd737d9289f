"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# The same examples in each run, and as much time for one as a busy machine takes.
settings.register_profile("llamarig", deadline=None, derandomize=True)
settings.load_profile("llamarig")
