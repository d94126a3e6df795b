"""How far the journal says a change to production got, and what follows from it."""

from __future__ import annotations

from enum import StrEnum


class ActionState(StrEnum):
    """Stored: never change a value."""

    INTENDED = "intended"  # written down; nothing was sent yet
    APPLYING = "applying"  # sent; not read back yet
    DONE = "done"
    ALREADY_HELD = "already_held"  # it was so before anything was sent
    UNKNOWN = "unknown"  # sent; reading back shows neither the state before nor the target
    REFUSED = "refused"


SETTLED = frozenset({ActionState.DONE, ActionState.ALREADY_HELD})
SENT = SETTLED | {ActionState.APPLYING, ActionState.UNKNOWN}  # it happened, or may have; an intent alone changes nothing
BEGUN = SENT | {ActionState.INTENDED}  # too late to say no: a run that has written its intent down goes on without asking again


def may_have_happened(state: str, attempts: int) -> bool:
    """Also what was refused in the end may have been sent before."""
    return state in SENT or attempts > 0
