"""How long ago the fix was, whatever became of the clock since."""

from __future__ import annotations

from datetime import datetime, timedelta

from mlrunbook.domain.resolution.fix import Fix
from mlrunbook.response.run import Run


def since_fix(run: Run, fix: Fix) -> timedelta:
    return run.world.elapsed().since(fix.counted, by_clock=run.world.now() - fix.at)


def fixed_at(run: Run, fix: Fix) -> datetime:
    """What today's clock would have shown; never later than what was written: what came after the fix still does."""
    return min(fix.at, run.world.now() - since_fix(run, fix))
