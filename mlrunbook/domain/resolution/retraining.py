"""Path C: which rows a retraining learns from, and what its version is called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import sqrt

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.policy.policy import Retraining

# `train` fits on 70 % and needs at least 10 failures in each of the two parts of 15 % that choose the threshold and measure.
LEAST_FAILURES_TO_TRAIN = 80
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # of a model or a version; also a folder: no separators, no leading dot
KOLMOGOROV_1_PERCENT = 1.63  # sup |Brownian bridge| exceeds this in 1 % of sequences without a change


@dataclass(frozen=True)
class TrainingWindow:
    """Train on [start, end); what is later is held out for validation. `onset`: where a change in the errors was found."""

    start: datetime
    end: datetime
    sentence: str
    onset: datetime | None = None


def check_window(start: datetime, end: datetime, now: datetime) -> None:
    """Invalid, by the option's name, when the window is reversed, empty or not over yet."""
    if end <= start:
        raise Invalid(f"--start-date {start:%Y-%m-%d %H:%M} is not before --end-date {end:%Y-%m-%d %H:%M}; swap them", field="start-date")
    if end > now:
        raise Invalid(f"--end-date {end:%Y-%m-%d %H:%M} UTC is in the future; choose one up to now", field="end-date")


def check_name(name: str, field: str) -> None:
    """Invalid unless `name` can be that of a model or a version: it becomes an argument of a command and a folder."""
    if not re.fullmatch(NAME, name):
        raise Invalid(f"{field} {name!r} must be 1-64 letters, digits, dots, dashes or underscores, a letter or digit first", field=field)


def training_window(
    rows: Sequence[Prediction], now: datetime, policy: Retraining, *, cause: Cause | None = None, known_types: Sequence[str] | None = None
) -> TrainingWindow | None:
    """Where training data begin and end. `rows`: labelled predictions in any order; None when they hold too few failures.

    The newest `holdout_share` is held out, and more where that holds fewer than `min_positives` failures: without those nobody could
    say whether the candidate is better. For a concept drift training begins at the estimated onset when enough failures lie between
    it and the holdout: what was true before would be learned wrong. Else it looks back `look_back_days`. With asset types outside
    `known_types` (those the serving version was trained on) the share is one of the rows since they appeared, or they all might be
    held out.
    """
    since = now - timedelta(days=policy.look_back_days)
    seen = sorted((p for p in rows if p.outcome is not None and p.at >= since), key=lambda p: (p.at, p.id))
    if not seen:
        return None
    if cause is Cause.CONCEPT_DRIFT and (onset := onset_of(seen)):
        used = [p for p in seen if p.at >= onset]
        if cut := _cut(used, used, policy):
            return _window(onset, cut, used, "since the errors changed", onset)
    unknown = [p.at for p in seen if known_types is not None and p.asset_type not in known_types]
    fresh = [p for p in seen if not unknown or p.at >= unknown[0]]
    cut = _cut(seen, fresh, policy)
    return _window(max(since, seen[0].at), cut, seen, f"of the last {policy.look_back_days} days") if cut else None


def _window(start: datetime, cut: datetime, used: Sequence[Prediction], words: str, onset: datetime | None = None) -> TrainingWindow:
    failures, held = sum(bool(p.outcome) for p in used if p.at < cut), sum(p.at >= cut for p in used)
    return TrainingWindow(start, cut, f"train on the rows {words}, {failures} known failures; the newest {held} rows are held out", onset)


def _cut(rows: Sequence[Prediction], shared: Sequence[Prediction], policy: Retraining) -> datetime | None:
    """When the holdout begins: the newest share of `shared`; None when it does not leave enough failures on both sides."""
    failures = [p.at for p in rows if p.outcome]
    if len(failures) < LEAST_FAILURES_TO_TRAIN + policy.min_positives:
        return None
    cut = min(shared[min(int(len(shared) * (1 - policy.holdout_share)), len(shared) - 1)].at, failures[-policy.min_positives])
    return cut if sum(at < cut for at in failures) >= LEAST_FAILURES_TO_TRAIN else None


def onset_of(rows: Sequence[Prediction]) -> datetime | None:
    """When the share of wrong predictions changed; None when chance explains the course. `rows` oldest first, with outcomes.

    The change point is where the cumulative sum of (wrong - mean) lies farthest from 0 (CUSUM: Page 1954); without a change that sum is a
    Brownian bridge, whose maximum exceeds 1.63 standard deviations in 1 % of sequences (Kolmogorov).
    """
    wrong = [float(p.label is not bool(p.outcome)) for p in rows]
    at = change_point(wrong)
    return rows[at].at if at is not None else None


def change_point(values: Sequence[float]) -> int | None:
    """Index of the first value after the change of the mean; None when there is none beyond chance.

    >>> change_point([0.0] * 500 + [1.0, 0.0] * 250)
    500
    """
    n = len(values)
    if n < 2:
        return None
    mean = sum(values) / n
    spread = sqrt(sum((v - mean) ** 2 for v in values) / n)
    if not spread:
        return None
    total, best, at = 0.0, 0.0, 0
    for i, value in enumerate(values):
        total += value - mean
        if abs(total) > best:
            best, at = abs(total), i + 1
    return at if best / (spread * sqrt(n)) > KOLMOGOROV_1_PERCENT and at < n else None


_VERSION = re.compile(r"^(?P<v>v?)(?P<major>\d+)\.(?P<minor>\d+)(?:\.(?P<patch>\d+))?(?:\D.*)?$")


def next_version(existing: Sequence[str], wanted: str | None = None) -> str:
    """The name of the version to train: `wanted`, or the next minor version after the highest; the next number where versions are counted.

    >>> next_version(["v1.5.0", "v2.0.0", "canary"])
    'v2.1.0'
    >>> next_version(["1", "2", "10"])
    '11'

    Invalid when `wanted` exists: a version is never overwritten.
    """
    if wanted:
        if wanted in existing:
            raise Invalid(f"version {wanted} exists, and a version is never overwritten; choose another one", field="version")
        return wanted
    if existing and all(version.isdecimal() for version in existing):
        return str(max(map(int, existing)) + 1)
    parsed = [(int(m["major"]), int(m["minor"]), m["v"]) for m in map(_VERSION.match, existing) if m]
    major, minor, prefix = max(parsed, default=(0, 0, "v"))
    while (name := f"{prefix}{major}.{minor + 1}.0") in existing:  # "v2.1.0" beside "2.1"
        minor += 1
    return name
