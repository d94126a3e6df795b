"""Every kind of change can be read, judged and applied."""

from __future__ import annotations

from mlrunbook.domain.actions import ACTIONS
from mlrunbook.response.execution.handlers import HANDLERS


def test_every_action_has_its_handler_and_no_handler_is_left_over() -> None:
    assert set(HANDLERS) == set(ACTIONS)
