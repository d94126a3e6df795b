"""What the feature store looks like to this incident: read once, judged, recorded; and path B as a person asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import httpx

from mlrunbook.base.settings import settings
from mlrunbook.domain.actions import Path
from mlrunbook.domain.communication.durations import utc
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.investigation import findings as checks
from mlrunbook.domain.investigation.feature_store import FeatureCheck, FeatureVerdict, findings_of, judge
from mlrunbook.domain.investigation.findings import Finding
from mlrunbook.domain.observed import FeatureServerAnswer, Missing, ViewSchedule
from mlrunbook.domain.resolution.existing import check_views
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.run import Run
from mlrunbook.response.tried import or_none
from mlrunbook.response.world import World

ANSWER_WITHIN_S = 3.0
DIGITS = 19  # of a 64-bit number: a longer one is a name


def check(run: Run) -> list[Finding]:
    """The checklist's items that the feature store answers, read from Feast itself once, which takes seconds; with the server alone,
    its two."""
    read = _read(run)
    return list(read.findings) if read else quick_check(run)


def recorded_verdict(run: Run) -> FeatureVerdict | None:
    """What `check` found, without looking again; None before it, or without a feature store."""
    read = run.recall(FeatureCheck)
    return read.verdict if read else None


def quick_check(run: Run) -> list[Finding]:
    """The look before containment: the feature server's health, and a read through it, which `/health` says nothing about."""
    return checks.feature_store(_server(run))


def server_answer(world: World, model: str) -> FeatureServerAnswer | Missing:
    """`curl -X GET http://feast-server:6566/health`, which stays green while reads fail, and `POST /get-online-features`."""
    url = settings().feature_server_url
    if url is None:
        return Missing("no feature store is configured (MLRUNBOOK_FEATURE_SERVER_URL)")
    policy = world.policy.for_model(model).features
    ask = {"feature_service": policy.service, "entities": {key: [_entity(world, model)] for key in policy.join_keys}}
    with httpx.Client(base_url=url, timeout=ANSWER_WITHIN_S, trust_env=False) as http:
        try:
            health = http.get("/health")
        except httpx.HTTPError as error:
            return FeatureServerAnswer(healthy=False, read_ok=False, detail=f"{type(error).__name__} from {url}")
        try:
            read = http.post("/get-online-features", json=ask)
            why = "" if read.is_success else f"HTTP {read.status_code} to a read of {policy.service}"
        except httpx.HTTPError as error:
            why = f"{type(error).__name__} within {ANSWER_WITHIN_S:g} s at a read of {policy.service}"
    detail = why if health.is_success else f"HTTP {health.status_code} to /health" + (f", {why}" if why else "")
    return FeatureServerAnswer(healthy=health.is_success, read_ok=not why, detail=detail)


def asked(world: World, model: str, views: Sequence[str], end: datetime | None, look_back_h: int, *, reason: str, by: str) -> Request:
    """A person's request for path B, as `opening.open_or_join` takes it. Invalid names the parameter.

    No `views` means all that the model reads by the policy. A time without a zone is UTC, as in Feast.
    """
    policy, now = world.policy.for_model(model).features, world.now()
    if world.features is None:
        raise Invalid(
            "no feature store is configured: set MLRUNBOOK_FEATURE_REPO to the folder of feature_store.yaml", field="featureViews"
        )
    own = world.policy.feature_views_of(model)
    check_views(model, views, own)
    end = utc(end) if end else None
    if end is not None and end > now:
        why = "Feast would then load nothing until that moment"
        raise Invalid(f"endDate {end:%Y-%m-%d %H:%M %Z} is in the future: {why}; leave it empty for now", field="endDate")
    if not 0 <= look_back_h <= policy.look_back_h:
        raise Invalid(f"lookBackHours must be 0 to {policy.look_back_h} (features.look_back_h of the policy)", field="lookBackHours")
    since = now - timedelta(hours=look_back_h) if look_back_h else None
    if since and end and end <= since:
        raise Invalid(f"endDate {end:%Y-%m-%d %H:%M %Z} is before the look-back begins; look back further", field="lookBackHours")
    return Request(path=Path.MATERIALIZE, views=tuple(dict.fromkeys(views or own)), since=since, until=end, reason=reason, by=by)


def _read(run: Run) -> FeatureCheck | None:
    if standing := run.recall(FeatureCheck):
        return standing
    store = run.world.features
    if store is None:
        return None
    own = run.world.policy.feature_views_of(run.incident().model)
    state, scheduled, now = store.inspect().of_views(own), schedules(run), run.world.now()
    verdict = judge(state, scheduled, now=now, policy=run.world.policy.features)
    found = findings_of(state, verdict, scheduled, now=now, server=_server(run))
    with run.write() as conn:
        return run.keep(conn, FeatureCheck(verdict, tuple(found)))


def schedules(run: Run) -> Sequence[ViewSchedule] | None:
    """Of the views that the incident's model reads."""
    own = run.world.policy.feature_views_of(run.incident().model)
    known = or_none("the list of schedules", run.world.platform.feature_schedules)
    return None if known is None else [s for s in known if s.view in own]  # not this platform's, or away: the rows speak for themselves


def _server(run: Run) -> FeatureServerAnswer | Missing:
    return server_answer(run.world, run.incident().model)


def _entity(world: World, model: str) -> str | int:
    """An entity to read: one that the model was asked about; any other costs and fails the same."""
    log = or_none("the prediction log", lambda: world.platform.prediction_log(model, limit=1))
    name = log[0].asset_id if log else "probe"
    return int(name) if name.isdecimal() and len(name) < DIGITS else name
