"""What can go wrong, by what the caller may do about it.

    RunbookError
    |- Transient       it may work in a moment: retried by the task's policy
    |- Refused         it will not work, whoever asks again: goes to a human at once
    |  |- NotFound     the named thing does not exist
    |  |- Invalid      the request or the configuration is wrong; the message names the field
    |  |  `- Unstorable  the database refuses a value: too long for an index, NUL, a date or number out of range
    |  |- NotApproved  no valid approval covers the change
    |  |- Overtaken    somebody else has changed it since: what they set stays
    |  |- Unreadable   another version wrote the row, with a value that this one does not know
    |  `- Fenced       a newer run of this incident has taken over; this one must stop
    `- Unknown         we cannot tell whether it happened: never retried blindly, read back, else ask

Adapters translate vendor errors into these once and chain the original. Every message says what to do next.
"""

from __future__ import annotations


class RunbookError(Exception):
    """Base of everything mlrunbook raises on purpose."""


class Transient(RunbookError):
    """A timeout, a 429, a 5xx, a refused connection: worth another try."""


class Refused(RunbookError):
    """A definite no. Retrying cannot help."""


class NotFound(Refused):
    """The named model, version, incident or object does not exist."""


class Invalid(Refused):
    """Bad input or configuration. `field` names the culprit where there is one."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Unstorable(Invalid):
    """A value that the database refuses, whoever sends it again: not the store being away."""


class NotApproved(Refused):
    """The change has no valid approval: missing, expired, rejected, voided, or for another plan."""


class Overtaken(Refused):
    """What is to be taken back is no longer as we left it: somebody else has changed it, and that stays."""


class Unreadable(Refused):
    """A row of the store has a form or a value that this version does not know."""


class Fenced(Refused):
    """The lease of this incident now belongs to a newer run."""


class Unknown(RunbookError):
    """The change may or may not have happened."""
