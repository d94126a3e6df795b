"""What every audit is made of: a line of the runbook with its verdict, the sentence that explains it, and the evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from math import sqrt

from mlrunbook.domain.audits.period import Period
from mlrunbook.domain.evaluation.performance import Confusion, wilson, z_value
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.plural import counted


class Verdict(StrEnum):
    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    NOT_ENOUGH_DATA = "not_enough_data"

    @property
    def words(self) -> str:
        return self.value.replace("_", " ")


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Lines:
    """One value a day (or month) and series; None where there is none. `limit` is drawn across; the audited period begins at `since`."""

    title: str
    at: tuple[date, ...]
    series: Mapping[str, tuple[float | None, ...]]
    unit: str = ""
    limit: float | None = None
    limit_name: str = ""
    since: date | None = None


@dataclass(frozen=True)
class Estimate:
    """`value` with its interval; None where it is not judged. `before`: what it was."""

    name: str
    value: float | None
    low: float = 0.0
    high: float = 1.0
    before: float | None = None


@dataclass(frozen=True)
class Intervals:
    """Estimates on one scale from 0 to 1."""

    title: str
    estimates: tuple[Estimate, ...]
    before_name: str = "before"


@dataclass(frozen=True)
class Matrix:
    title: str
    counts: Confusion


@dataclass(frozen=True)
class Bars:
    """Values of 0 or more by name, in parts that add up."""

    title: str
    names: tuple[str, ...]
    parts: Mapping[str, tuple[float, ...]]
    unit: str = ""
    limit: float | None = None
    limit_name: str = ""


Chart = Lines | Intervals | Matrix | Bars


@dataclass(frozen=True)
class Opens:
    """The incident that a broken limit calls for."""

    type: IncidentType
    severity: Severity
    subtype: Subtype | None = None


@dataclass(frozen=True)
class Section:
    """`group` is the heading it stands under, such as a function of the NIST AI RMF. `opens` is None where a failure needs no incident.
    `incident_id` and `note` say what came of a failure."""

    key: str
    title: str
    verdict: Verdict
    sentence: str
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    opens: Opens | None = None
    group: str = ""
    incident_id: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Audit:
    """One audit of one model. `before` holds the verdicts of the last one of its kind by section key; None: this is the first."""

    model: str
    period: Period
    at: datetime
    sections: tuple[Section, ...]
    before: Mapping[str, Verdict] | None = None
    before_name: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)  # for the head of the report: version, ...

    @property
    def verdict(self) -> Verdict:
        """Pass only when every section passes: what could not be judged is not known to be well."""
        found = {s.verdict for s in self.sections}
        return next((v for v in (Verdict.FAIL, Verdict.NOT_ENOUGH_DATA) if v in found), Verdict.PASS)

    @property
    def sentence(self) -> str:
        counts = {v: sum(s.verdict is v for s in self.sections) for v in Verdict}
        said = [f"{counts[v]} {words}" for v, words in _COUNTED if counts[v]]
        failed = ", ".join(s.title for s in self.sections if s.verdict is Verdict.FAIL)
        return f"{', '.join(said)} of {len(self.sections)}" + (f". Limits broken: {failed}" if failed else "")

    def change(self, section: Section) -> str:
        """What became of a section since the last audit, in words; empty when its verdict is the same, or there was none.

        A verdict that data no longer support is no recovery, and is said too.
        """
        was = (self.before or {}).get(section.key)
        return f"was {was.words}, now {section.verdict.words}" if was not in (None, section.verdict) else ""

    @property
    def changes(self) -> tuple[str, ...]:
        return tuple(f"{s.title}: {words}" for s in self.sections if (words := self.change(s)))

    def with_incident(self, key: str, incident_id: str | None, note: str) -> Audit:
        sections = tuple(replace(s, incident_id=incident_id, note=note) if s.key == key else s for s in self.sections)
        return replace(self, sections=sections)


_COUNTED = ((Verdict.PASS, "pass"), (Verdict.FAIL, "fail"), (Verdict.NOT_ENOUGH_DATA, "could not be judged"))


def missing(key: str, title: str, why: Missing, group: str = "") -> Section:
    """What could not be read is not judged."""
    return Section(key, title, Verdict.NOT_ENOUGH_DATA, why.reason, group=group)


def at_most(what: str, value: float | None, limit: float, n: int, least: int, words: Callable[[float | None], str]) -> tuple[Verdict, str]:
    """Is a measured rate within its limit? Not judged on fewer than `least` requests. `words` writes value and limit."""
    if n < least or value is None:
        few = f"{what}: {counted(n, 'request') if n else 'no request'} in the period, {least} needed"
        return Verdict.NOT_ENOUGH_DATA, few if n < least else f"{what} is not measured"
    is_, limit_is = words(value), words(limit)
    return (Verdict.FAIL, f"{what} {is_}, over {limit_is}") if value > limit else (Verdict.PASS, f"{what} {is_}, within {limit_is}")


def difference(better: tuple[float, float], worse: tuple[float, float], confidence: float) -> tuple[float, float, float]:
    """(size, low, high) of the difference of two shares, each given as (successes, trials): Newcombe 1998, method 10."""
    z = z_value(confidence)
    (a, n), (b, m) = better, worse
    (low_a, high_a), (low_b, high_b) = wilson(a, n, z), wilson(b, m, z)
    p, q = a / n, b / m
    return p - q, p - q - sqrt((p - low_a) ** 2 + (high_b - q) ** 2), p - q + sqrt((high_a - p) ** 2 + (q - low_b) ** 2)


def figure(value: float | None, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value)


def share(value: float | None) -> str:
    """'3.1 %', or '-' when it is not known."""
    return "-" if value is None else f"{value * 100:.1f} %"


def seconds(value: float | None) -> str:
    return figure(value, "{:.2f} s")


def listed(names: Sequence[str], most: int = 5) -> str:
    """'a, b and 3 more'."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
