"""How far the runbook goes by itself for a model: watch, ask, or act."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """`observe`: it looks and says what it would do, changes nothing, asks for nothing and pages nobody. `propose`: people decide every
    change. `act`: what policy lets happen by itself happens.

    What a person reports or orders pages and is acted on in every mode.
    """

    OBSERVE = "observe"
    PROPOSE = "propose"
    ACT = "act"


def carried_in(mode: Mode, *, taken_up: bool, has_changed: bool) -> Mode:
    """The mode that an incident is carried in, from that of its model.

    One that a person has taken up is no longer just observed. One that has changed something already is not left alone with it when its
    model becomes observed: people decide how it goes on.

    >>> carried_in(Mode.OBSERVE, taken_up=True, has_changed=False), carried_in(Mode.OBSERVE, taken_up=False, has_changed=True)
    (<Mode.ACT: 'act'>, <Mode.PROPOSE: 'propose'>)
    """
    if mode is not Mode.OBSERVE:
        return mode
    if taken_up:
        return Mode.ACT
    return Mode.PROPOSE if has_changed else mode
