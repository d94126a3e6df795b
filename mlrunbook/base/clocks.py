"""How long something took, by a clock that nobody can set. What time it is, is `World.now`: that one can be set, and jumps."""

from __future__ import annotations

import time
import uuid
from functools import cache
from pathlib import Path

from mlrunbook.domain.elapsed import Elapsed

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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
