"""One live stack for all flow tests, with a fleet that has a past."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.flows.live import ChildStack, Live


@pytest.fixture(scope="session")
def live(stack: ChildStack) -> Live:
    """The model serves v1.5.0 on a labelled past; nothing is open."""
    from tests.flows.live import Live, wait_for

    live = Live(stack)
    live.simulator.build_history(live.engine, now=datetime.now(UTC))
    wait_for("the model server serves", lambda: live.serving()["serverHealthy"])
    return live
