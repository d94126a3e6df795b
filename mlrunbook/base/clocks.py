"""How long something took, by a clock that nobody can set. What time it is, is `World.now`: that one can be set, and jumps."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Elapsed:
    """Seconds since an origin that is the same for every process of one boot of one machine: readings of different boots do not compare.

    `total_s` goes on while the machine sleeps, `awake_s` does not: a run that slept with its machine has not died.
    """

    boot: str
    total_s: float
    awake_s: float


def elapsed() -> Elapsed:
    awake_s = time.monotonic()
    total_s = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else awake_s
    return Elapsed(_boot(), total_s, awake_s)


@cache
def _boot() -> str:
    """Where the system names no boot, each process is an observer of its own."""
    try:
        return BOOT_ID.read_text().strip() or uuid.uuid4().hex
    except OSError:
        return uuid.uuid4().hex
