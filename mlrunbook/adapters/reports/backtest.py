"""A backtest as one HTML page that needs nothing else, and the same as JSON."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from mlrunbook.adapters.reports import backtest_charts as pictures
from mlrunbook.adapters.reports import charts
from mlrunbook.adapters.reports.charts import short
from mlrunbook.base import pages
from mlrunbook.domain.audits.section import Estimate, Intervals
from mlrunbook.domain.backtest.result import Backtest, Call
from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.evaluation.maturity import duration
from mlrunbook.domain.plural import counted

MOST_ALARMS = 100  # on the page; the JSON has all
REAL = pictures.REAL


def check_folder(folder: Path) -> None:
    """Before a long replay, that its report can be written there; Invalid where it cannot."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        raise Invalid(f"the report cannot be written to {folder}: {there} is no folder; name another with --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise Invalid(f"the report cannot be written to {folder}: no permission to write into {there}; name another with --out")


def write(found: Backtest, folder: Path) -> tuple[Path, Path]:
    """`report.html` and `report.json`, made anew; Invalid where they cannot be written."""
    html, data = folder / "report.html", folder / "report.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(data, json.dumps(as_data(found), indent=1, default=_plain).encode())
        _replace(html, page(found))
    except OSError as error:
        raise Invalid(f"the report cannot be written to {folder}: {error.strerror or error}; name another folder with --out") from error
    return html, data


def _replace(file: Path, content: bytes) -> None:
    """Whole or not at all, and never through a link to a file elsewhere."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        with fresh.open("xb") as out:
            out.write(content)
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def as_data(found: Backtest) -> dict[str, Any]:
    by_verdict = Counter(alarm.verdict for alarm in found.alarms)
    counts = {"plain_alarms": len(found.alarms), "by_verdict": dict(by_verdict), "calls": len(found.calls), "left_out": found.left_out}
    return {"summary": counts, **asdict(found)}


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def page(found: Backtest) -> bytes:
    return pages.render(
        __package__,
        "backtest.html.j2",
        found=found,
        cards=cards(found),
        headline=list(headline(found)),
        alarms=sorted(found.alarms, key=lambda a: (a.verdict not in REAL, -a.worst_drop))[:MOST_ALARMS],
        verdict_words=pictures.verdict_words,
        timeline=Markup(pictures.timeline(found)),  # noqa: S704 - our own SVG, its texts escaped
        heatmap=Markup(pictures.heatmap(found.drift)) if found.drift else None,  # noqa: S704
        segments=Markup(_segments(found)) if found.segments else None,  # noqa: S704
        data_rows=list(data_rows(found)),
        moment=moment,
        whole=lambda sentence: escape(_arrows(_begun(line(sentence, 4000)))),
        arrows=_arrows,
        pasted=Markup("\n".join(escape(line_) for line_ in found.suggestions.models.splitlines())),  # noqa: S704 - escaped just now
        f1_words=lambda call: _arrows(f1_words(call)),
        percent=lambda share: f"{share:.0%}",
    ).encode()


def _segments(found: Backtest) -> str:
    shown = [s for s in found.segments if s.outcomes][:25]
    estimates = tuple(Estimate(short(s.name, 30), s.f1 if s.failures >= 5 else None, s.low or 0.0, s.high or 1.0, s.before) for s in shown)
    return charts.draw(Intervals("F1 by segment, the newest quarter", estimates, "the first quarter"))


def moment(at: datetime) -> str:
    return f"{at:%d %b %Y}" if at.hour == at.minute == 0 else f"{at:%d %b %Y %H:%M}"


def cards(found: Backtest) -> list[tuple[str, str]]:
    real = sum(alarm.verdict in REAL for alarm in found.alarms)
    return [
        (f"{len(found.alarms):,}", "times the plain thresholds would have alarmed"),
        (f"{len(found.calls):,}", f"drops the runbook would have called real, which cover {real:,} of those alarms"),
        (f"{len(found.missed):,}", "drops that are clear in hindsight and were not called"),
        (f"{found.facts.effective:,}", f"effective sample size of {found.facts.judged:,} outcomes"),
    ]


def headline(found: Backtest) -> Iterator[str]:
    facts, alarms = found.facts, Counter(alarm.verdict for alarm in found.alarms)
    yield f"{found.model}: {facts.judged:,} outcomes, {moment(facts.first)} to {moment(facts.last)}; {facts.base_rate:.2%} failed"
    said = {
        "real": "real",
        "part_of_call": "during an open call",
        "chance": "explained by chance",
        "unproven": "undecided",
        "no_baseline": "no baseline yet",
    }
    parts = [f"{alarms[verdict]} {words}" for verdict, words in said.items() if alarms[verdict]]
    yield f"Plain thresholds: {counted(len(found.alarms), 'alarm')}" + (f" ({', '.join(parts)})" if parts else "")
    missed = f"; {len(found.missed)} missed in hindsight" if found.missed else ""
    yield f"This runbook: {counted(len(found.calls), 'real drop')} called{missed}"
    for base in {(b.since, b.until): b for b in found.baselines if b.provable > found.planned_fall}.values():
        yield (
            f"Against the baseline {moment(base.since)} to {moment(base.until)}, only drops over {base.provable:.0%} can be proven "
            f"(policy asks for {found.planned_fall:.0%}): it holds too few independent failures"
        )
    for gap in found.unjudged:
        yield f"Not judged {moment(gap.since)} to {moment(gap.until)}: {gap.sentence}"


def called_words(call: Call) -> str:
    over = f", recovered {moment(call.over)}" if call.over else ", did not recover" if call.closed else ", open at the end"
    path = f" [path: {call.explained.path or 'a person decides'}]" if call.explained else ""
    cause = f": {call.explained.cause.replace('_', ' ')}{path}" if call.explained else ""
    return f"{moment(call.at)}, {f1_words(call)} (began {moment(call.began)}{over}){cause}"


def _begun(sentence: str) -> str:
    """With a capital, where it begins with a word and not with a name."""
    first = sentence.split(" ", 1)[0]
    return sentence[0].upper() + sentence[1:] if first.isalpha() and first.islower() else sentence


def _arrows(text: str) -> str:
    return text.replace("->", "\N{RIGHTWARDS ARROW}")


def f1_words(call: Call) -> str:
    before, now = (f"{f1:.2f}" if f1 is not None else "undefined" for f1 in (call.f1_before, call.f1_now))
    return f"F1 {before} -> {now}"


def suggestion_words(found: Backtest) -> Iterator[str]:
    if found.suggestions.models:
        yield "for your policy:"
        yield from found.suggestions.models.splitlines()
    if found.suggestions.threshold is not None:
        yield found.suggestions.said[-1]


def data_rows(found: Backtest) -> Iterator[tuple[str, str]]:
    facts = found.facts
    yield "Rows", f"{facts.rows:,} read, {found.left_out:,} left out, {facts.judged:,} judged"
    waiting = f"{facts.pending:,} without a mature outcome" + (
        f", {facts.late:,} whose outcome came too late to count" if facts.late else ""
    )
    yield "Not judged", waiting
    yield "Failures", f"{facts.failures:,}, {facts.base_rate:.2%} of the outcomes"
    if facts.delay_median_s is not None:
        yield (
            "Outcome delay",
            f"{duration(facts.delay_median_s)} (median); predictions count after {duration(facts.mature_age_s)}: {facts.maturity}",
        )
    else:
        yield "Outcome delay", facts.maturity
    as_one = (
        f"outcomes are correlated, {facts.rows_as_one:.1f} say as much as one" if facts.rows_as_one >= 1.05 else "outcomes are independent"
    )
    yield "Effective sample size", f"{facts.effective:,}: {as_one}"
    yield "Evaluated", f"every {duration(facts.block_s)}"
    yield "Plain rule", facts.plain_rule
    yield "Threshold", found.threshold
    if facts.versions:
        yield "Versions", ", ".join(f"{name} ({count:,})" for name, count in facts.versions.items())
    yield "Columns", ", ".join(f"{role}: {name}" for role, name in found.columns.items())
    yield "Policy", found.policy
