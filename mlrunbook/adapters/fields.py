"""The one door for values from outside: each is read by its kind, and one that is not of it is refused by name.

A figure that may be left out (a latency, a share) is None where it is null, NaN or no such number: nothing rests on it then. Everything
else (what serves, a count, an outcome, a time) must be of its kind, because leaving it out would change what the rest means.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any, TypeGuard, TypeVar

from mlrunbook.domain.errors import Refused, RunbookError
from mlrunbook.domain.observed import truth

T = TypeVar("T")
log = logging.getLogger(__name__)

MOST = 2**53  # what a JSON number holds exactly: no count of anything is larger
DAY_MS, TEN_YEARS_S = 86_400_000.0, 315_360_000.0
_YEARS = range(1970, 2201)  # outside of them arithmetic with days and zones overflows
_ID_CHARS, _TEXT_CHARS = 500, 10_000


class Misread(ValueError):
    """A value that is not of its kind: which one, what it must be, and what came."""


# What reading an unexpected shape raises where nobody asked for the kind first.
WRONG_SHAPE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


@contextmanager
def understood(whose: str) -> Iterator[None]:
    """Refused, naming `whose` answer it was, for anything in it that cannot be read."""
    try:
        yield
    except RunbookError:
        raise
    except WRONG_SHAPE as error:
        raise Refused(f"{whose} gave an answer that cannot be read ({in_words(error)}): look at it, then correct it there") from error


def in_words(error: BaseException) -> str:
    return str(error) if isinstance(error, Misread) else f"{type(error).__name__}: {error}"


def parsed(content: str | bytes) -> Any:
    """JSON; NaN and Infinity, which it does not have and many write, are gaps: null to all but `id_if_any`."""
    return json.loads(content)


class Fields:
    """One JSON object of an answer; `where` is its path in it."""

    __slots__ = ("_given", "_where")

    def __init__(self, given: Any, where: str = "") -> None:
        if not isinstance(given, Mapping):
            raise Misread(f"{where or 'the answer'} must be an object, not {_shown(given)}")
        self._given, self._where = given, where

    def has(self, name: str) -> bool:
        return not _is_gap(self._given.get(name))

    def is_null(self, name: str) -> bool:
        return name in self._given and not self.has(name)

    def maybe(self, name: str, kind: Callable[[str], T]) -> T | None:
        """`maybe("outcome", b.flag)`: None where it is left out, null, or a gap as data frames write one."""
        return kind(name) if self.has(name) else None

    # --- parts

    def part(self, name: str) -> Fields:
        return Fields(self._given.get(name), self._at(name))

    def part_if_any(self, name: str) -> Fields:
        """An empty one where it is left out, or is no object: another's extra, which means nothing then."""
        given = self._given.get(name)
        return Fields(given if isinstance(given, Mapping) else {}, self._at(name))

    def rows(self) -> list[Fields]:
        """Every object in a list of this one."""
        return [Fields(one) for part in self._given.values() if isinstance(part, list) for one in part if isinstance(one, Mapping)]

    def parts(self, name: str) -> list[Fields]:
        return [Fields(one, f"{self._at(name)}[{i}]") for i, one in enumerate(self._list(name))]

    def parts_by_name(self, name: str) -> dict[str, Fields]:
        """Empty where it is left out."""
        return {key: self.part(name).part(key) for key in self.part(name)._given} if self.has(name) else {}

    def each(self, name: str, kind: Callable[[Fields, str], T]) -> tuple[T, ...]:
        """`each("scores", Fields.share)`: a list of values of one kind."""
        one = Fields.__new__(Fields)
        one._where = self._at(name)
        one._given = {f"[{i}]": value for i, value in enumerate(self._list(name))}
        return tuple(kind(one, i) for i in one._given)

    def counts(self, name: str) -> dict[str, int]:
        """Empty where it is left out."""
        part = self.part(name) if self.has(name) else Fields({})
        return {_readable(str(key), 200): part.count(key) for key in part._given}

    def any_of(self, name: str) -> dict[str, Any]:
        """An object whose values we do not know: numbers are finite, texts can be stored. Empty where it is left out."""
        return {_readable(str(key), _TEXT_CHARS): _plain(value) for key, value in self.part(name)._given.items()} if self.has(name) else {}

    def list_of_any(self, name: str) -> list[dict[str, Any]]:
        return [{str(key): _plain(value) for key, value in one._given.items()} for one in self.parts(name)]

    # --- values

    def text(self, name: str) -> str:
        value = self._given.get(name)
        if isinstance(value, float) and value.is_integer():  # what a data frame makes of a column of numbers with a gap
            value = int(value)
        if not isinstance(value, str) and not _is_whole(value):
            raise self.misread(name, "text")
        return _readable(str(value), _TEXT_CHARS)

    def id(self, name: str) -> str:
        """A version, a model, an asset: a registry that counts its versions and one that names them both give text. None counts below 0."""
        value = self._given.get(name)
        text = str(value) if isinstance(value, str) or (_is_whole(value) and value >= 0) else ""
        if not text.strip() or len(text) > _ID_CHARS or not text.isprintable():
            raise self.misread(name, f"a name or a whole number from 0 on, 1 to {_ID_CHARS} printable characters")
        return text

    def id_if_any(self, name: str) -> str | None:
        """None where it is left out or null, which says that there is none. NaN says nothing: what serves, or served, does not go by it."""
        return self.id(name) if self._given.get(name) is not None else None

    def flag(self, name: str) -> bool:
        try:
            return truth(self._given.get(name), name)  # outcomes are often kept as 1 and 0, data frames make 1.0 of them
        except ValueError:
            raise self.misread(name, "true or false") from None

    def count(self, name: str, most: int = MOST) -> int:
        value = self._given.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not _is_whole(value) or not 0 <= value <= most:
            raise self.misread(name, f"a whole number from 0 to {most}")
        return int(value)

    def number(self, name: str, low: float, high: float) -> float:
        value = self._given.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # NaN is in no range
            raise self.misread(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def share(self, name: str) -> float:
        return self.number(name, 0, 1)

    def figure(self, name: str, high: float) -> float | None:
        """A number from 0 to `high` that nothing else depends on: None where it is left out, and where it is none."""
        try:
            return self.maybe(name, lambda one: self.number(one, 0, high))
        except Misread as error:
            log.warning("taken as not known: %s", error)
            return None

    def time(self, name: str) -> datetime:
        """ISO 8601; without a zone it is UTC."""
        value = self._given.get(name)
        try:
            at = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            at = None
        if at is None or at.year not in _YEARS:
            raise self.misread(name, f"a time in ISO 8601, {_YEARS[0]} to {_YEARS[-1]}")
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)

    def day(self, name: str) -> date:
        value = self._given.get(name)
        try:
            day = date.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            day = None
        if day is None or day.year not in _YEARS:
            raise self.misread(name, f"a day in ISO 8601, {_YEARS[0]} to {_YEARS[-1]}")
        return day

    # ---

    def _list(self, name: str) -> list[Any]:
        value = self._given.get(name)
        if not isinstance(value, list):
            raise self.misread(name, "a list")
        return value

    def _at(self, name: str) -> str:
        return f"{self._where}.{name}".lstrip(".").replace(".[", "[")

    def misread(self, name: str, kind: str) -> Misread:
        """To raise where the value of `name` is not `kind`."""
        return Misread(f"{self._at(name)} must be {kind}, not {_shown(self._given.get(name))}")


def _is_gap(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST


def _readable(text: str, most: int) -> str:
    """Without what no database takes: NUL and half characters; cut at `most`."""
    return text[:most].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _readable(value, _TEXT_CHARS)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return value if abs(value) <= MOST or (isinstance(value, float) and math.isfinite(value)) else None
    if isinstance(value, Mapping):
        return {_readable(str(key), _TEXT_CHARS): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else _readable(str(value), _TEXT_CHARS)


def _shown(value: Any) -> str:
    text = _readable("nothing" if value is None else json.dumps(value, default=str), 1000)
    return text if len(text) <= 60 else f"{text[:57]}..."
