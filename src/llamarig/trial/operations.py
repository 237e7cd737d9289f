"""Whether a candidate computes on a card what it computes on the CPU: llama.cpp's own test-backend-ops."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PROGRAM: Final = "test-backend-ops"
# What models are made of, most of them first; each group is one run with a time limit of its own.
GROUPS: Final = (
    ("MUL_MAT",),
    ("MUL_MAT_ID",),
    ("FLASH_ATTN_EXT",),
    (
        *("SOFT_MAX", "ROPE", "RMS_NORM", "NORM", "L2_NORM", "GET_ROWS", "SET_ROWS", "CPY", "CONT", "CONCAT"),
        *("ADD", "ADD_ID", "SUB", "MUL", "DIV", "SCALE", "SUM_ROWS", "ARGSORT", "TOP_K", "CLAMP"),
        *("SILU", "GELU", "RELU", "SIGMOID", "TANH", "SOFTPLUS", "EXP", "SWIGLU", "SWIGLU_OAI", "GEGLU", "REGLU"),
        *("SSM_CONV", "SSM_SCAN", "GATED_DELTA_NET", "GATED_LINEAR_ATTN"),
    ),
)
# The CPU computes everything too, which is the longer part: on two busy cores 49 s for the first group, 140 s for the
# last, and more than 100 s for each of the others.
GROUP_SECONDS: Final = 300.0
MEMORY_MIB: Final = 8192
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_BACKEND: Final = re.compile(r"^Backend \d+/\d+: (\S+)$", re.MULTILINE)
_CASE: Final = re.compile(r"^(?P<why>.*?)  (?P<case>[A-Z][A-Z0-9_]*\(.*\)): (?P<verdict>OK|FAIL|not supported)")
_NO_ROOM: Final = re.compile(r"failed to allocate|out of memory|OUT_OF_MEMORY|cudaMalloc failed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ran:
    """What one or more runs said.

    Attributes:
        backends: every device that it found, in its order.
        passed: how many cases came out alike.
        unsupported: how many the device leaves to the CPU.
        failed: those that did not, with why.
        no_room: whether memory ran out.

    """

    backends: tuple[str, ...] = ()
    passed: int = 0
    unsupported: int = 0
    failed: tuple[str, ...] = ()
    no_room: bool = False

    def __add__(self, other: Ran) -> Ran:
        return Ran(
            tuple(dict.fromkeys([*self.backends, *other.backends])),
            self.passed + other.passed,
            self.unsupported + other.unsupported,
            self.failed + other.failed,
            self.no_room or other.no_room,
        )

    @property
    def devices(self) -> list[str]:
        """Cards; the CPU has two names, as itself and with a library of its own."""
        return [name for name in self.backends if name not in {"CPU", "BLAS"}]


def words(group: Sequence[str]) -> list[str]:
    """Return the arguments that test these operations on every device but the CPU."""
    return ["test", "-o", ",".join(group)]


def read(out: str, err: str = "") -> Ran:
    """Read what test-backend-ops printed; what it printed before it was ended counts."""
    text = _ANSI.sub("", out)
    cases = [found for line in text.splitlines() if (found := _CASE.match(line))]
    failed = [case for case in cases if case["verdict"] == "FAIL" and not _NO_ROOM.search(case["why"])]
    return Ran(
        backends=tuple(_BACKEND.findall(text)),
        passed=sum(case["verdict"] == "OK" for case in cases),
        unsupported=sum(case["verdict"] == "not supported" for case in cases),
        failed=tuple(f"{case['case']}{f': {why}' if (why := case['why'].strip()) else ''}" for case in failed),
        no_room=bool(_NO_ROOM.search(text) or _NO_ROOM.search(err)),
    )
