"""Every kind of change can be read, judged and applied."""

from __future__ import annotations

from mlrunbook.domain.actions import ACTIONS, Action
from mlrunbook.response.execution.handlers import HANDLERS


def test_every_kind_of_action_is_listed() -> None:
    assert set(ACTIONS.values()) == set(Action.__subclasses__())


def test_every_action_has_its_handler_and_no_handler_is_left_over() -> None:
    assert set(HANDLERS) == set(ACTIONS)
