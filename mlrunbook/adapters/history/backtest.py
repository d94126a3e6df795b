"""A log, replayed: read, judged look by look, each call investigated, and what follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mlrunbook.adapters.history import mapping, source, staging
from mlrunbook.adapters.history.reading import EVERY_VERSION, MOST_VERSIONS, Reader, maturity_of, span_of
from mlrunbook.domain.backtest import hindsight, plain
from mlrunbook.domain.backtest.blocks import BlockLog, confusion, confusions
from mlrunbook.domain.backtest.diagnosing import Around, explain, window
from mlrunbook.domain.backtest.drifting import MOST_FEATURES as MOST_DRIFT
from mlrunbook.domain.backtest.drifting import drift_of
from mlrunbook.domain.backtest.replay import Called, Replay, Watch, watch_at
from mlrunbook.domain.backtest.result import Alarm, Backtest, Baseline, Call, Explained, LogFacts, Unjudged
from mlrunbook.domain.backtest.suggestions import suggest
from mlrunbook.domain.evaluation.performance import Evidence, ModelMetrics
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.investigation.facts import RECENT_ROWS, REFERENCE_PARTS, REFERENCE_ROWS
from mlrunbook.domain.policy.judging import F1
from mlrunbook.domain.policy.policy import Policy

MOST_EXPLAINED = 25
PERIODS, SAMPLED = 12, 2500
STEPS = ("reading", "checking", "counting", "replaying", "investigating", "drift", "suggesting")


@dataclass(frozen=True)
class Asked:
    """What is backtested: by which columns, and under which name and policy (`policy_from`: in words)."""

    log: Path
    given: mapping.Given
    model: str
    policy: Policy
    policy_from: str


def backtest(asked: Asked, progress: Callable[[str, float], None], settled: Callable[[mapping.Columns], None] = lambda _: None) -> Backtest:
    """`settled` hears of the columns before the log is read. Invalid for what cannot be replayed, with what to do."""
    with _room(), staging.database() as db:
        opened = source.open_source(db, asked.log)
        columns = mapping.settle(opened.types, asked.given)
        settled(columns)
        opened = staging.only_model(db, opened, columns, asked.model)
        staged = staging.stage(db, opened, columns, time.time(), lambda step: progress(step, 0.0))
        progress("counting", 0.0)
        span = span_of(staged)
        ripe, median = maturity_of(staged, span)
        return _Backtest(asked, staged, Reader(staged, span, ripe), progress).made(ripe.reason, median)


@contextmanager
def _room() -> Iterator[None]:
    """What the database on disk may run into, such as no room; the readers of the log have named the rest."""
    import duckdb

    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise staging.no_room(error) from error


def _named(version: str) -> str:
    return "" if version == EVERY_VERSION else f"{version}, "


class _Backtest:
    def __init__(self, asked: Asked, staged: staging.Staged, reader: Reader, progress: Callable[[str, float], None]) -> None:
        self.asked, self.staged, self.reader, self.progress = asked, staged, reader, progress
        self.policy = asked.policy.for_model(asked.model)
        self.served = reader.versions()
        self.log: BlockLog = reader.block_log([name for name, *_ in self.served])

    def made(self, maturity: str, median: float | None) -> Backtest:
        severity = self.policy.severity
        replay = Replay(self.log, severity, self.policy.recovery, lambda share: self.progress("replaying", share)).run()
        calls = self._calls(replay)
        self.progress("drift", 0.0)
        known = hindsight.variance_of(replay)
        facts = self._facts(maturity, median, known)
        per_weight = known.per_weight if known else None
        drift = drift_of(list(self.reader.sample(PERIODS, SAMPLED)), tuple(self.staged.features), self._period_starts(), self.policy.drift)
        self.progress("suggesting", 0.0)
        confidence = severity.drops.confidence
        return Backtest(
            model=self.asked.model,
            source=self.asked.log.name,
            policy=self.asked.policy_from,
            columns=dict(self.staged.columns.of),
            threshold=self._threshold(),
            bad=self.staged.bad,
            facts=facts,
            alarms=tuple(self._alarms(replay)),
            calls=tuple(calls),
            missed=tuple(hindsight.missed(replay)),
            unjudged=tuple(
                Unjudged(self.log.starts(w.since), self.log.starts(w.until), w.version.version, w.why)
                for w in replay.watches
                if w.against is None
            ),
            baselines=tuple(self._baselines(replay.watches)),
            points=hindsight.points(self.log, per_weight, confidence),
            segments=hindsight.segments(self.log, per_weight, confidence),
            drift=drift,
            suggestions=suggest(self.asked.model, facts, self.reader.scores([(c.began, c.until) for c in replay.called]), severity),
            planned_fall=severity.run_length.planned_fall,
            notes=tuple(self._notes()),
        )

    def _calls(self, replay: Replay) -> list[Call]:
        found = []
        for number, called in enumerate(replay.called, 1):
            self.progress("investigating", number / max(len(replay.called), 1))
            against, verdict = called.watch.against, called.verdict
            assert against is not None
            assert verdict.severity is not None
            made = Call(
                number,
                self.log.closes(called.look),
                self.log.starts(called.began),
                self.log.closes(called.over) if called.over is not None else None,
                self.log.starts(called.until) if called.until < called.watch.version.end else None,
                called.watch.version.version,
                (called.raised[1].severity if called.raised else None) or verdict.severity,
                verdict.severity,
                verdict.drop,
                verdict.fell,
                confusion(against.version.between(against.since, against.until)).f1,
                confusion(called.watch.version.between(called.began, called.look + 1)).f1,
                self._reason(called),
                f"{_named(against.version.version)}{self.log.starts(against.since):%d %b %Y} to {self.log.starts(against.until):%d %b %Y}",
            )
            found.append(replace(made, explained=self._explained(replay, called, made)) if number <= MOST_EXPLAINED else made)
        return found

    def _reason(self, called: Called) -> str:
        if called.raised is None:
            return called.verdict.reason
        look, verdict = called.raised
        return f"{called.verdict.reason}; then, by {self.log.closes(look):%d %b %Y}, {verdict.reason}"

    def _explained(self, replay: Replay, called: Called, call: Call) -> Explained:
        against, version, log, read = called.watch.against, called.watch.version, self.log, self.reader
        assert against is not None
        now = read.since_s + (called.look + 1) * log.block_s + log.age_s
        since, until = (read.since_s + b * log.block_s for b in (called.window, called.look + 1))
        before = (read.since_s + against.since * log.block_s, read.since_s + against.until * log.block_s)
        old, new = against.version.version, version.version
        usual = confusions(against.version.between(against.since, against.until))
        metrics = ModelMetrics(
            self.asked.model,
            window(
                log.starts(called.window), log.starts(called.look + 1), new, confusions(version.between(called.window, called.look + 1)),
                read.segment_blocks(new, called.window, called.look + 1),
            ),
            window(
                log.starts(against.since), log.starts(against.until), old, usual,
                read.segment_blocks(old, against.since, against.until),
            ),
            history=replay.history(called.watch, called.look),
        )  # fmt: skip
        around = Around(
            self.asked.model,
            call.at,
            new,
            metrics,
            reference=read.spread(old, *before, now, REFERENCE_ROWS, REFERENCE_PARTS),
            recent=read.rows(new, since, now, now, RECENT_ROWS),
            labelled=read.rows(new, since, until, now, RECENT_ROWS, labelled=True),
            served=[(name, read.at(first)) for name, _, first in self.served],
        )
        return explain(around, call.severity, self.policy)

    def _alarms(self, replay: Replay) -> list[Alarm]:
        rule = self.policy.severity.drops.rule(F1)
        if rule is None:
            return []
        drops = plain.drops_of(self.log)
        return [self._alarm(replay, episode, rule.severity(episode.worst)) for episode in plain.episodes(drops, rule.medium)]

    def _alarm(self, replay: Replay, episode: plain.Episode, severity: Severity) -> Alarm:
        number, verdict, said = self._verdict(replay, episode)
        log = self.log
        return Alarm(log.closes(episode.first), log.closes(episode.last), episode.looks, episode.worst, severity, verdict, said, number)

    def _verdict(self, replay: Replay, episode: plain.Episode) -> tuple[int | None, str, str]:
        for number, called in enumerate(replay.called, 1):
            if episode.first <= called.look <= episode.last:
                return number, "real", called.verdict.reason
            if called.look < episode.first < called.until:
                return number, "part_of_call", f"call {number} was open"
        watch = next(watch_at(replay, episode.last), None)
        if watch is None or watch.against is None:
            return None, "no_baseline", watch.why if watch and watch.why else "the baseline was still being collected"
        verdict = replay.judged(watch, episode.last)
        assert verdict is not None
        words = {Evidence.FALSE_ALARM: "chance", Evidence.INSUFFICIENT: "no_baseline"}
        return None, words.get(verdict.evidence, "unproven"), verdict.reason

    def _baselines(self, watches: Sequence[Watch]) -> list[Baseline]:
        log, found = self.log, []
        for w in watches:
            if w.against is not None:
                p = w.against
                f1 = confusion(p.version.between(p.since, p.until)).f1 or 0.0
                dates = (log.starts(p.since), log.starts(p.until), f1, log.starts(w.since), log.starts(w.until))
                found.append(Baseline(p.version.version, *dates, w.version.version, p.provable))
        return found

    def _facts(self, maturity: str, median: float | None, known: hindsight.Known | None) -> LogFacts:
        log, read, total = self.log, self.reader, confusion(self.log.total)
        as_one = known.rows_as_one if known else 1.0
        late = read.count(f"outcome IS NOT NULL AND known_s > at_s + {log.age_s + 1e-3!r}") if self.staged.is_delayed else 0
        of = self.staged.columns.of
        return LogFacts(
            first=read.at(read.span.first),
            last=read.at(read.span.last),
            rows=self.staged.rows,
            judged=total.n,
            pending=read.span.rows - total.n - late - read.unjudged,
            late=late,
            failures=total.positives,
            effective=round(total.n / as_one),
            rows_as_one=as_one,
            delay_median_s=median,
            mature_age_s=log.age_s,
            maturity=maturity,
            block_s=log.block_s,
            versions={name: count for name, count, _ in self.served if name != EVERY_VERSION},
            segments=read.distinct("segment") if "segment" in of else 0,
            assets=read.distinct("asset") if "asset" in of else 0,
            plain_rule=plain.rule_words(log.block_s, self.policy.severity.drops),
        )

    def _period_starts(self) -> list[datetime]:
        span = self.reader.span
        return [self.reader.at(span.first + (span.last - span.first) * k / PERIODS) for k in range(PERIODS)]

    def _threshold(self) -> str:
        columns = self.staged.columns
        if "threshold" in columns.of:
            return f"logged with each row ({columns.of['threshold']})"
        return (
            f"{columns.threshold:g}, {columns.threshold_from}"
            if columns.has_score and "label" not in columns.of
            else columns.threshold_from
        )

    def _notes(self) -> list[str]:
        said = []
        if "id" not in self.staged.columns.of:
            said.append("no prediction id is logged, so duplicate rows cannot be told")
        if len(self.staged.columns.features) > staging.MOST_FEATURES:
            said.append(f"only the first {staging.MOST_FEATURES} of {len(self.staged.columns.features)} features were looked at")
        if self.staged.counters:
            words = "column rises or falls" if len(self.staged.counters) == 1 else "columns rise or fall"
            said.append(f"no feature: {', '.join(self.staged.counters[:12])}; the {words} with every row, as a row number or a time does")
        if (more := len(self.staged.features) - MOST_DRIFT) > 0:
            said.append(f"drift was looked at in the first {MOST_DRIFT} features, not in {more} more")
        if self.reader.small_versions:
            few = f"{self.reader.unjudged:,} outcomes of {self.reader.small_versions} small versions were not judged"
            said.append(f"{few}: only the {MOST_VERSIONS} with the most outcomes are")
        said.append("a log holds no changes, servers or feature store: causes that show only there were not checked")
        return said
