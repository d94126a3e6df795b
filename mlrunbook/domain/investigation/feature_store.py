"""What is wrong with the feature store, and whether materialising again can mend it (runbook, Path B).

Three clocks are kept apart: how far the materialisation says it came (job time), how old the rows online are (data age), and how new
the source is. An incremental run with no new row moves the first alone, so only all three together tell who is late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mlrunbook.domain.evaluation.performance import percent
from mlrunbook.domain.investigation.findings import Finding, State, ago, finding
from mlrunbook.domain.observed import FeatureFault, FeatureProblem, FeatureServerAnswer, FeatureStoreState, Missing, ViewSchedule, ViewState
from mlrunbook.domain.policy.judging import FeatureStorePolicy
from mlrunbook.domain.records import IsoTime, Record, Recorded

CLOCK_SKEW = timedelta(seconds=60)  # an end this little ahead of our clock is two clocks, not a mistake


MENDABLE = frozenset(
    {
        FeatureFault.FUTURE_END,
        FeatureFault.STALE_JOB,
        FeatureFault.STALE_DATA,
        FeatureFault.NULLS_ONLINE,
        FeatureFault.ENTITIES_MISSING,
    }
)
# An incremental run would not load these rows: it begins where the last run says it ended.
NEEDS_LOOK_BACK = MENDABLE - {FeatureFault.STALE_JOB}
OUTAGES = frozenset(
    {
        FeatureFault.REGISTRY_MISSING,
        FeatureFault.SERVICE_MISSING,
        FeatureFault.ONLINE_UNREACHABLE,
        FeatureFault.ONLINE_LOCKED,
        FeatureFault.ONLINE_DROPPED,
        FeatureFault.MATERIALIZING,
        FeatureFault.NOT_SERVED,
    }
)
# What may pass by itself: worth another try.
PASSING = frozenset({FeatureFault.ONLINE_UNREACHABLE, FeatureFault.ONLINE_LOCKED, FeatureFault.MATERIALIZING})


@dataclass(frozen=True)
class FeatureVerdict:
    """`mendable`: True, materialising `views` (and resuming `resume`) mends all of it; False, something is broken that it cannot
    mend; None, nothing is wrong. `since` None: incremental. `outage`: features cannot be read at all."""

    problems: tuple[FeatureProblem, ...]
    views: tuple[str, ...]
    since: IsoTime | None
    resume: tuple[str, ...]
    mendable: bool | None
    outage: bool
    sentence: str
    judged_at: IsoTime

    def has(self, *faults: FeatureFault) -> bool:
        return any(p.fault in faults for p in self.problems)


@dataclass(frozen=True)
class FeatureCheck(Recorded, key=Record.FEATURES):
    """The feature store, read once an investigation."""

    verdict: FeatureVerdict
    findings: tuple[Finding, ...]


def judge(
    state: FeatureStoreState, schedules: Sequence[ViewSchedule] | None, *, now: datetime, policy: FeatureStorePolicy
) -> FeatureVerdict:
    """Name every problem, and say whether path B is the answer. `schedules` None: the platform does not run them.

    A suspended schedule counts as soon as it leaves rows behind; any other lag counts from the policy's limits on.
    """
    by_view = {s.view: s for s in schedules or ()}
    problems = list(state.problems)
    for view in state.views:
        known = {(p.fault, p.view) for p in problems}
        problems += [p for p in _problems(view, by_view.get(view.name), now, policy) if (p.fault, p.view) not in known]
    outage = state.read_ok is False or any(p.fault in OUTAGES for p in problems)
    mends = [p for p in problems if p.fault in MENDABLE]
    mendable = None if not problems and not outage else bool(problems) and not outage and len(mends) == len(problems)
    ill = {p.view for p in mends if p.view}
    views = tuple(v.name for v in state.views if v.name in ill)
    look_back = any(p.fault in NEEDS_LOOK_BACK for p in mends)
    since = (now - timedelta(hours=policy.look_back_h)).replace(second=0, microsecond=0) if look_back else None
    resume = tuple(s.view for s in schedules or () if s.suspended)
    return FeatureVerdict(
        tuple(problems), views, since, resume, mendable, outage, _sentence(state, problems, views, since, resume, mendable, now), now
    )


def _problems(view: ViewState, schedule: ViewSchedule | None, now: datetime, policy: FeatureStorePolicy) -> list[FeatureProblem]:
    found: list[FeatureProblem] = []

    def add(fault: FeatureFault, sentence: str, feature: str | None = None) -> None:
        found.append(FeatureProblem(fault, sentence, view.name, feature))

    end, source = view.job_end_at, view.source_newest_at
    if end is not None and end > now + CLOCK_SKEW:
        add(
            FeatureFault.FUTURE_END,
            f"{view.name} was materialized up to {_at(end)}, which is in the future: until then incremental runs succeed and load nothing; "
            "materialize it with a look-back, which also sets the end right",
        )
    if source is not None and (now - source).total_seconds() > policy.max_age_s:
        add(
            FeatureFault.SOURCE_STALE,
            f"the source of {view.name} is {ago(now - source)} old: nothing new arrives there, so materializing cannot help; "
            "look at the pipeline that writes it",
        )
    if not any(p.fault is FeatureFault.FUTURE_END for p in found):  # that explains stale rows
        found += _staleness(view, schedule, now, policy)
    if view.missing and not any(p.fault is FeatureFault.STALE_JOB for p in found):
        add(
            FeatureFault.ENTITIES_MISSING,
            f"{view.missing} of {view.entities} sampled entities have no online row of {view.name}, though the source has one that the "
            "materialization has passed; materialize it with a look-back",
        )
    for feature, share in sorted((view.null_source or {}).items()):
        if share > policy.null_rate:
            add(
                FeatureFault.NULLS_IN_SOURCE,
                f"{feature} is empty in {percent(share)} of the newest source rows of {view.name}: materializing would load the same gap; "
                "find where the pipeline loses it",
                feature,
            )
    for feature, share in sorted((view.null_online or {}).items()):
        if share > policy.null_rate and (view.null_source or {}).get(feature, 0.0) <= policy.null_rate:
            whole = "the source has its values" if view.null_source is not None else "the source could not be compared"
            add(
                FeatureFault.NULLS_ONLINE,
                f"{feature} is empty in {percent(share)} of the online rows of {view.name}, and {whole}; materialize it with a look-back",
                feature,
            )
    return found


def _staleness(view: ViewState, schedule: ViewSchedule | None, now: datetime, policy: FeatureStorePolicy) -> list[FeatureProblem]:
    """Rows behind their source: because the job does not run (STALE_JOB), or although it does (STALE_DATA)."""
    end, source, online = view.job_end_at, view.source_newest_at, view.online_newest_at
    if source is None:
        return []
    suspended = schedule is not None and schedule.suspended
    error = schedule.error if schedule is not None else None
    if end is None:
        why = "its schedule is suspended; resume it and materialize" if suspended else "materialize it, and look at its schedule"
        return [FeatureProblem(FeatureFault.STALE_JOB, f"{view.name} was never materialized: {why}", view.name)]
    lag_s = view.lag_s if view.lag_s is not None else (source - online).total_seconds() if online is not None else 0.0
    unloaded_s = (source - end).total_seconds()  # how far the source has gone on since the job ended
    behind = lag_s > 0 or view.behind > 0
    too_old = online is not None and behind and (now - online).total_seconds() > policy.max_age_s
    if not (lag_s > policy.max_lag_s or unloaded_s > policy.max_lag_s or too_old or (behind and suspended)):
        return []
    rows = f"its online rows are up to {ago(timedelta(seconds=lag_s))} behind the source" if lag_s > 0 else "the source has newer rows"
    if view.entities:
        rows += f" ({view.behind} of {view.entities} sampled entities)"
    if suspended or unloaded_s > policy.max_lag_s or (now - end).total_seconds() > policy.max_age_s:
        why = "its schedule is suspended" if suspended else f"its last run failed ({error})" if error else "nothing runs it"
        then = "resume the schedule and materialize it" if suspended else "materialize it, and look at its schedule"
        sentence = f"the materialization of {view.name} stopped {ago(now - end)} ago: {why}, and {rows}; {then}"
        return [FeatureProblem(FeatureFault.STALE_JOB, sentence, view.name)]
    sentence = (
        f"{view.name} was materialized {ago(now - end)} ago, and {rows} all the same: rows came after the run that should have loaded "
        "them; materialize it with a look-back"
    )
    return [FeatureProblem(FeatureFault.STALE_DATA, sentence, view.name)]


def _sentence(
    state: FeatureStoreState,
    problems: Sequence[FeatureProblem],
    views: tuple[str, ...],
    since: datetime | None,
    resume: tuple[str, ...],
    mendable: bool | None,
    now: datetime,
) -> str:
    if not problems:
        if mendable is False:
            return "a feature read by service and entity fails, and no cause was found; look at the feature store's log"
        if not state.views:
            return "nothing was read from the feature store; name its views in the policy"
        ages = [f"{v.name} {ago(now - v.online_newest_at)}" for v in state.views if v.online_newest_at]
        return f"the feature store is sound: {len(state.views)} views, rows {' and '.join(ages) or 'of unknown age'} old"
    said = "; ".join(p.sentence for p in problems)
    if mendable:
        back = f" from {_at(since)} on" if since else ""
        again = f", after resuming the schedule of {', '.join(resume)}" if resume else ""
        return f"{said}. Materializing {', '.join(views)}{back} fixes it{again}"
    return f"{said}. Materializing alone does not fix it"


# --- The checklist's items ---------------------------------------------------------------------------------------------------

SOURCE = "Feast"
FRESHNESS = frozenset(
    {FeatureFault.FUTURE_END, FeatureFault.STALE_JOB, FeatureFault.STALE_DATA, FeatureFault.SOURCE_STALE, FeatureFault.NO_ROWS_IN_WINDOW}
)
GAPS = frozenset({FeatureFault.NULLS_ONLINE, FeatureFault.NULLS_IN_SOURCE, FeatureFault.ENTITIES_MISSING})


def findings_of(
    state: FeatureStoreState,
    verdict: FeatureVerdict,
    schedules: Sequence[ViewSchedule] | None,
    *,
    now: datetime,
    server: FeatureServerAnswer | Missing,
    days: int = 7,
) -> list[Finding]:
    """The five items that the feature store answers. For the two that the prediction log answers as well see `merged`."""
    return [
        _connectivity(state, verdict, server),
        _availability(verdict, server),
        _item("data_quality.data_freshness", verdict, FRESHNESS, _ages(state, now), "online rows are as new as their source"),
        _item("data_quality.missing_features", verdict, GAPS, _gaps(state), "no online feature is empty where its source has a value"),
        _updates(state, schedules, now=now, days=days),
    ]


def merged(first: Finding, second: Finding) -> Finding:
    """Two sources' answers to one item: suspect if either says so, unknown only if neither knows."""
    rank = (State.SUSPECT, State.OK, State.UNKNOWN)
    states = sorted((first.state, second.state), key=rank.index)
    worse, other = sorted((first, second), key=lambda f: rank.index(f.state))
    value = {first.source: first.value, second.source: second.value}
    return Finding(first.key, states[0], f"{first.source}; {second.source}", value, f"{worse.sentence}; {other.sentence}")


def _connectivity(state: FeatureStoreState, verdict: FeatureVerdict, server: FeatureServerAnswer | Missing) -> Finding:
    served = None if isinstance(server, Missing) else server.read_ok
    said = [p.sentence for p in verdict.problems if p.fault in OUTAGES or p.fault is FeatureFault.WRONG_ENTITY_KEY]
    if state.read_ok is False and not said:
        said = [verdict.sentence]
    if not isinstance(server, Missing) and served is False:
        said.append(f"a read through the feature server fails: {server.detail}")
    works = "a read by feature service and entity works" + (", also through the feature server" if served else "")
    suspect = bool(said) or None if state.read_ok is None and served is None else bool(said)
    words = "; ".join(said) or (works if suspect is False else "no feature read was tried")
    return finding("data_quality.feature_store_connectivity", SOURCE, suspect, {"read_ok": state.read_ok, "server_read_ok": served}, words)


def _availability(verdict: FeatureVerdict, server: FeatureServerAnswer | Missing) -> Finding:
    """A green /health is not believed where reads fail."""
    healthy = None if isinstance(server, Missing) else server.healthy
    said = [p.sentence for p in verdict.problems if p.fault in OUTAGES]
    if not isinstance(server, Missing) and not server.healthy:
        said.append(f"the feature server fails its health check{f': {server.detail}' if server.detail else ''}")
    elif not isinstance(server, Missing) and server.read_ok is False:
        said.append("the feature server answers its health check, and reads through it fail all the same")
    up = "the feature store is up" + (", and its server answers" if healthy else "")
    return finding("infrastructure.feature_store_availability", SOURCE, bool(said), {"healthy": healthy}, "; ".join(said) or up)


def _item(key: str, verdict: FeatureVerdict, faults: frozenset[FeatureFault], value: Mapping[str, Any], sound: str) -> Finding:
    said = [p.sentence for p in verdict.problems if p.fault in faults]
    if said:
        return finding(key, SOURCE, True, value, "; ".join(said))
    if not value:
        return finding(key, SOURCE, None, value, "not known: the feature views could not be compared with their source")
    return finding(key, SOURCE, False, value, sound)


def _updates(state: FeatureStoreState, schedules: Sequence[ViewSchedule] | None, *, now: datetime, days: int) -> Finding:
    key = "recent_changes.feature_store_updates"
    updated = {v.name: v.updated_at for v in state.views if v.updated_at and now - v.updated_at <= timedelta(days=days)}
    said = [f"the definition of {name} changed {ago(now - at)} ago" for name, at in updated.items() if at]
    said += [f"the scheduled materialization of {s.view} is suspended" for s in schedules or () if s.suspended]
    if not state.views:
        return finding(key, SOURCE, None, None, "not known: no feature view could be read")
    value = {name: at.isoformat() for name, at in updated.items() if at}
    words = "; ".join(said) or f"no feature view changed in the last {days} days"
    return finding(key, SOURCE, bool(said), value, words)


def _ages(state: FeatureStoreState, now: datetime) -> dict[str, float]:
    """Age in seconds of the newest online row, by view."""
    return {v.name: round((now - v.online_newest_at).total_seconds(), 1) for v in state.views if v.online_newest_at}


def _gaps(state: FeatureStoreState) -> dict[str, Any]:
    return {v.name: {"null_online": dict(v.null_online), "missing": v.missing} for v in state.views if v.null_online is not None}


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
