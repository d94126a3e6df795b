"""One guard around what may fail while an incident is looked at: it goes on, and what was not found out is said to be unknown."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Fenced, Refused, RunbookError
from mlrunbook.domain.observed import Missing

T = TypeVar("T")
log = logging.getLogger(__name__)


def tried(what: str, read: Callable[[], T]) -> T | Missing:
    """What `read` gives. `Missing` where a source is absent or fails, and for an error that nobody expected."""
    try:
        return read()
    except Fenced:
        raise
    except RunbookError as error:
        return Missing(str(error))
    except Exception as error:
        return unexpected(what, error)


def or_none(what: str, read: Callable[[], T]) -> T | None:
    found = tried(what, read)
    return None if isinstance(found, Missing) else found


def required(what: str, read: Callable[[], T]) -> T:
    """As `tried`, where nothing may be decided without it: our own errors pass, and one that nobody expected is Refused."""
    try:
        return read()
    except RunbookError:
        raise
    except Exception as error:
        raise Refused(unexpected(what, error).reason) from error


def unexpected(what: str, error: Exception) -> Missing:
    """People get a sentence, the log the traceback."""
    log.error("%s failed on an error that nobody expected", what, exc_info=error)
    name = type(error).__name__
    said = f"{what} failed unexpectedly ({name}: {line(str(error), 200)}); the log of the flow run has the details"
    return Missing(said, unexpected=name)
