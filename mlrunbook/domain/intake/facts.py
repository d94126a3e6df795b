"""What a sender said, as it said it. Formats write it; nothing in it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class State(StrEnum):
    FIRING = "firing"
    RESOLVED = "resolved"
    IGNORED = "ignored"  # neither: a state in between that nobody has to hear of


@dataclass(frozen=True)
class Facts:
    """One alert as its sender gave it.

    identity     what the sender knows it by, the same as long as it goes on; "" where it names nothing
    identified_by  where that stands in the message: "fingerprint", "labels"
    state_because  the sentence that says what decided `state`, or that this is a change
    title        the alert's name, or whatever the sender puts in its place
    said         labels, tags and fields by name: what `intake.models` is asked about
    model_fields the names in `said` under which this format puts a model, besides the labels that any alert may have
    model        (name, version) that the format itself makes out, from a resource name for example; ("", "") where it does not
    levels       words for how bad it is, the most telling first; empty: the labels that any alert may have say it
    unanswered   what kept the sender from measuring, in its words; "" where it measured
    starts_at    None: not said, or not the same from one message to the next
    about        what it is known by where it has no identity: the title without what changes between messages; "": the title
    is_update    somebody has changed something of it: that begins nothing anew where it is over
    kept         what is kept of the message beside `said`: annotations and links
    """

    identity: str
    state: State
    title: str
    said: Mapping[str, str]
    state_because: str = ""
    identified_by: str = ""
    summary: str = ""
    model_fields: tuple[str, ...] = ()
    model: tuple[str, str] = ("", "")
    model_version: str = ""
    levels: tuple[str, ...] = ()
    unanswered: str = ""
    starts_at: datetime | None = None
    seen_at: datetime | None = None  # when it was sent, where that is all that is said
    kept: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    is_update: bool = False
    part: Any = field(default=None, compare=False)  # of the message it stood in; None: the message is all about it

    @property
    def firing(self) -> bool:
        return self.state is State.FIRING


@dataclass(frozen=True)
class Judged(Generic[T]):
    """A verdict, and the sentence for people that says what decided it: the sender's word, and the line of policy."""

    value: T
    because: str
    is_known: bool = True  # False: nothing decided it, and `value` is what then counts
