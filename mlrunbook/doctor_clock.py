"""Whose clock is off: leases, deadlines and windows are compared across machines."""

from __future__ import annotations

from datetime import datetime

from mlrunbook.doctor import Finding, fail, ok, warn

WARN_S = 2.0
FAIL_S = 15.0  # half of the default lease: beyond it a live run may be taken for dead


def skew(name: str, theirs: datetime, sent: datetime, received: datetime, *, resolution_s: float) -> Finding:
    """Their clock read between our `sent` and `received`; a reading cut to whole seconds has `resolution_s` 1."""
    early = (theirs - received).total_seconds()  # over 0: surely ahead
    late = (sent - theirs).total_seconds() - resolution_s  # over 0: surely behind
    off = max(early, late, 0.0)
    side = "ahead of" if early >= late else "behind"
    if off > WARN_S:
        said = f"{off:.1f} s {side} this machine's"
        return (fail if off > FAIL_S else warn)(name, said, "synchronise both machines (chrony, systemd-timesyncd)")
    return ok(name, f"agrees with this machine's within {WARN_S:.0f} s")
