"""What a backtest found: values alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from mlrunbook.domain.incident import Severity


@dataclass(frozen=True)
class BadRows:
    """`count` rows that were left out for one reason, and where the first of them is."""

    reason: str
    count: int
    example: str


@dataclass(frozen=True)
class Explained:
    """The diagnosis of one call, what follows from it (`advice`), and what people would have been asked."""

    cause: str
    path: str | None
    sentence: str
    advice: str
    asked: tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """A fall that the product would have called real `at` that look. `began`: when it set in, as the evidence has it; `over`: when what
    fell was back within the recovery's tolerance; None where it never was, waited for until `closed` (None: the end). `drop` is of
    the metric that leads, over the window that was judged; `f1_now` plainly of the outcomes since it set in. `severity` is the
    worst; `called_as` that of the call, before the outcomes since it set in outweighed those before."""

    number: int
    at: datetime
    began: datetime
    over: datetime | None
    closed: datetime | None
    version: str
    severity: Severity
    called_as: Severity
    drop: float | None
    fell: tuple[str, ...]
    f1_before: float | None
    f1_now: float | None
    sentence: str
    baseline: str
    explained: Explained | None = None


@dataclass(frozen=True)
class Alarm:
    """An episode of plain alarms. `verdict`: real, part_of_call, chance, unproven or no_baseline; `call` is the one it belongs to."""

    since: datetime
    until: datetime
    looks: int
    worst_drop: float
    severity: Severity
    verdict: str
    sentence: str
    call: int | None = None


@dataclass(frozen=True)
class Missed:
    """A fall that is plain in hindsight, and was never called."""

    since: datetime
    until: datetime
    version: str
    drop: float
    low: float
    high: float


@dataclass(frozen=True)
class Unjudged:
    """A time in which no fall could have been proven, and why."""

    since: datetime
    until: datetime
    version: str
    sentence: str


@dataclass(frozen=True)
class Baseline:
    """What a version was compared with, from `used_since` to `used_until`; `provable` is the smallest fall that it can prove."""

    version: str
    since: datetime
    until: datetime
    f1: float
    used_since: datetime
    used_until: datetime
    of_version: str
    provable: float


@dataclass(frozen=True)
class Point:
    """F1 of a stretch of time with its interval, dependence taken into account; None where nothing can be measured."""

    at: datetime
    f1: float | None
    low: float | None
    high: float | None
    outcomes: int
    failures: int


@dataclass(frozen=True)
class SegmentFigure:
    name: str
    outcomes: int
    failures: int
    f1: float | None
    low: float | None
    high: float | None
    before: float | None


@dataclass(frozen=True)
class FeatureDrift:
    """How far a feature lay from the first period's values, by period (None: not judged), and in which of them it had drifted."""

    name: str
    distance: tuple[float | None, ...]
    drifted: tuple[bool, ...]


@dataclass(frozen=True)
class Drift:
    reference: str
    at: tuple[datetime, ...]
    features: tuple[FeatureDrift, ...]
    sampled: int


@dataclass(frozen=True)
class LogFacts:
    """`mature_age_s`: from this age on a prediction counted; `pending` were younger or had no outcome, `late` outcomes came after that age.
    `effective`: how many independent outcomes the `judged` ones are worth."""

    first: datetime
    last: datetime
    rows: int
    judged: int
    pending: int
    late: int
    failures: int
    effective: int
    rows_as_one: float
    delay_median_s: float | None
    mature_age_s: float
    maturity: str
    block_s: float
    versions: Mapping[str, int]
    segments: int
    assets: int
    plain_rule: str

    @property
    def base_rate(self) -> float:
        return self.failures / self.judged if self.judged else 0.0


@dataclass(frozen=True)
class Suggestions:
    """`models`: the section to paste into the policy; `said`: why, a sentence each; `threshold` None where another is not surely better."""

    models: str
    said: tuple[str, ...]
    threshold: float | None = None


@dataclass(frozen=True)
class Backtest:
    model: str
    source: str
    policy: str
    columns: Mapping[str, str]
    threshold: str
    bad: tuple[BadRows, ...]
    facts: LogFacts
    alarms: tuple[Alarm, ...]
    calls: tuple[Call, ...]
    missed: tuple[Missed, ...]
    unjudged: tuple[Unjudged, ...]
    baselines: tuple[Baseline, ...]
    points: tuple[Point, ...]
    segments: tuple[SegmentFigure, ...]
    drift: Drift | None
    suggestions: Suggestions
    planned_fall: float
    notes: tuple[str, ...] = ()

    @property
    def left_out(self) -> int:
        return sum(b.count for b in self.bad)
