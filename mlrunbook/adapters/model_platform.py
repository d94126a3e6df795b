"""The team's model platform over HTTP: the runbook's endpoints, with failures translated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from mlrunbook.adapters.fields import DAY_MS, MOST, TEN_YEARS_S, WRONG_SHAPE, Fields, Misread, in_words, parsed
from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import NotFound, Refused, RunbookError, Transient, Unknown
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeBlocks
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, Rewritten, WindowMetrics
from mlrunbook.domain.observed import Change, ModelVersion, Prediction, Replayed, ServingStatus, VersionReplay, ViewSchedule, WorkOrder
from mlrunbook.domain.tally import BINARY, TASKS, Tally

T = TypeVar("T")
_SCHEDULES = "/api/v1/ml/features/schedules"
# The request was never sent, so nothing can have happened.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
# A proxy lost the answer: the platform may have acted.
_LOST_ANSWER = (502, 504)


class HttpPlatform:
    """`ports.ModelPlatform` over REST. Thread-safe. Answers may hold more than we read, never less."""

    def __init__(
        self, url: str, token: str | None = None, timeout_s: float = 10.0, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = url.rstrip("/")
        self._http = httpx.Client(base_url=self._url, headers=headers, timeout=timeout_s, transport=transport)

    def close(self) -> None:
        self._http.close()

    def models(self) -> Sequence[str]:
        return self._read("/api/v1/ml/models", lambda b: [m.id("model") for m in b.parts("models")])

    def status(self, model: str) -> ServingStatus:
        return self._read(f"{_model(model)}/status", _about(model, _status))

    def metrics(
        self, model: str, *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
    ) -> ModelMetrics:
        params = {"since": _iso(since), "until": _iso(until), "version": version}
        return self._read(f"/api/v1/model-performance/metrics/{quote(model, safe='')}", _about(model, _metrics), params)

    def history(self, model: str, *, days: int, until: datetime | None = None) -> Sequence[DayFigures]:
        params = {"days": days, "until": _iso(until)}
        parse = _about(model, lambda b: [_day(d) for d in b.parts("days")])
        return self._read(f"/api/v1/model-performance/history/{quote(model, safe='')}", parse, params)

    def outcome_blocks(self, model: str, *, since: datetime, until: datetime, block_s: float, version: str | None = None) -> OutcomeBlocks:
        params = {"since": _iso(since), "until": _iso(until), "blockS": block_s, "version": version}
        whole = int((until - since).total_seconds() / block_s + 1e-9)
        parse = _about(model, lambda b: _outcome_blocks(b, since, block_s, whole))
        return self._read(f"/api/v1/model-performance/outcome-blocks/{quote(model, safe='')}", parse, params)

    def alerts(self, model: str | None = None) -> Sequence[Mapping[str, Any]]:
        return self._read(
            "/api/v1/model-performance/alerts", lambda b: [a for a in b.list_of_any("alerts") if _is_of(model, a)], {"model": model}
        )

    def prediction_log(
        self,
        model: str,
        *,
        limit: int = 100,
        since: datetime | None = None,
        until: datetime | None = None,
        labelled_only: bool = False,
    ) -> Sequence[Prediction]:
        labelled = "true" if labelled_only else None
        params = {"model": model, "limit": limit, "since": _iso(since), "until": _iso(until), "labelledOnly": labelled}
        return self._read("/api/v1/ml/predictions/logs", _about(model, lambda b: [_prediction(p) for p in b.parts("predictions")]), params)

    def changes(self, model: str, *, since: datetime) -> Sequence[Change]:
        parse = _about(model, lambda b: [_change(c) for c in b.parts("changes")])
        return self._read(f"{_model(model)}/changes", parse, {"since": _iso(since)})

    def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> ServingStatus:
        body = {"targetVersion": target_version, "reason": reason, "rolledBackBy": rolled_back_by}
        return self._write(f"{_model(model)}/rollback", body, _about(model, _status), idempotency_key)

    def versions(self, model: str) -> Sequence[ModelVersion]:
        return self._read(f"{_model(model)}/versions", _about(model, lambda b: [_version(v) for v in b.parts("versions")]))

    def register(self, model: str, *, version: str, registered_by: str, idempotency_key: str) -> ModelVersion:
        body = {"version": version, "registeredBy": registered_by}
        return self._write(f"{_model(model)}/versions", body, _about(model, _version), idempotency_key)

    def stage(self, model: str, *, version: str | None, staged_by: str, idempotency_key: str) -> ServingStatus:
        body = {"version": version, "stagedBy": staged_by}
        return self._write(f"{_model(model)}/staging", body, _about(model, _status), idempotency_key)

    def promote(self, model: str, *, version: str, reason: str, promoted_by: str, idempotency_key: str) -> ServingStatus:
        body = {"version": version, "reason": reason, "promotedBy": promoted_by}
        return self._write(f"{_model(model)}/promote", body, _about(model, _status), idempotency_key)

    def replay(
        self, model: str, *, versions: Sequence[str], since: datetime | None = None, until: datetime | None = None, limit: int = 4000
    ) -> Replayed:
        params = {"version": list(versions), "since": _iso(since), "until": _iso(until), "limit": limit}
        return self._read(f"{_model(model)}/replay", _about(model, _replayed), params)

    def feature_schedules(self) -> Sequence[ViewSchedule]:
        return self._read(_SCHEDULES, _schedules)

    def resume_feature_schedules(self, views: Sequence[str], *, resumed_by: str, idempotency_key: str) -> Sequence[ViewSchedule]:
        return self._write(f"{_SCHEDULES}/resume", {"views": list(views), "changedBy": resumed_by}, _schedules, idempotency_key)

    def work_orders(self, model: str, *, state: str | None = None) -> Sequence[WorkOrder]:
        return self._read(f"{_model(model)}/work-orders", _about(model, _work_orders), {"state": state})

    def flag_pending_work_orders(self, model: str, *, reason: str, idempotency_key: str) -> Sequence[WorkOrder]:
        return self._write(f"{_model(model)}/work-orders/flag", {"reason": reason}, _about(model, _work_orders), idempotency_key)

    def _read(self, path: str, parse: Callable[[Fields], T], params: Mapping[str, Any] | None = None) -> T:
        given = {k: v for k, v in (params or {}).items() if v is not None}
        try:
            response = self._http.get(path, params=given)
        except httpx.HTTPError as error:
            raise Transient(f"{self._url} does not answer ({_words(error)}): is the model platform up?") from error
        return self._parsed(response, parse, Refused)

    def _write(self, path: str, body: Mapping[str, Any], parse: Callable[[Fields], T], key: str) -> T:
        try:
            response = self._http.post(path, json=dict(body), headers={"Idempotency-Key": key})
        except _NOT_SENT as error:
            raise Transient(f"{self._url} does not answer ({_words(error)}): is the model platform up?") from error
        except httpx.HTTPError as error:
            raise Unknown(f"POST {path} was sent and got no answer ({_words(error)}): read back whether it happened") from error
        if response.status_code in _LOST_ANSWER:
            raise Unknown(f"POST {path} was answered {response.status_code} on the way: read back whether it happened")
        return self._parsed(response, parse, Unknown)

    def _parsed(self, response: httpx.Response, parse: Callable[[Fields], T], misread: type[RunbookError]) -> T:
        """`misread`: what an answer of another shape means. A change that was answered so may have happened."""
        where = f"{response.request.method} {response.request.url.path}"
        if not response.is_success:
            raise _refusal(where, response)
        try:
            return parse(Fields(parsed(response.content)))
        except WRONG_SHAPE as error:
            what = f"{where} answered something that is not the runbook's shape ({in_words(error)})"
            raise misread(f"{what}; correct the platform (`mlrunbook platform-contract` tests it), or MLRUNBOOK_PLATFORM_URL") from error


def _model(model: str) -> str:
    return f"/api/v1/ml/models/{quote(model, safe='')}"


def _about(model: str, parse: Callable[[Fields], T]) -> Callable[[Fields], T]:
    """`parse` for an answer about this model: one that names another, as a whole or in a row, is Refused. Leaving the name out is fine."""

    def checked(b: Fields) -> T:
        named = (part.maybe("model", part.id) for part in (b, *b.rows()))
        if other := next((name for name in named if name not in (None, model)), None):
            raise Refused(f"the platform was asked about {model} and answers about {other}: look at both models, then correct the platform")
        return parse(b)

    return checked


def _is_of(model: str | None, alert: Mapping[str, Any]) -> bool:
    labels = alert.get("labels")
    return model is None or (labels.get("model") if isinstance(labels, Mapping) else None) in (None, model)


def _refusal(where: str, response: httpx.Response) -> Exception:
    status, detail = response.status_code, _detail(response)
    if status >= 500 or status == 429:
        return Transient(f"{where} answered {status}: {detail}; trying again may help")
    if status == 404 and "html" in response.headers.get("content-type", ""):  # a proxy in between: it knows nothing of models
        return Transient(f"{where} was answered 404 by a web page, not by the model platform; check MLRUNBOOK_PLATFORM_URL")
    if status == 404:
        return NotFound(f"{where}: {detail}")
    if status in (401, 403):
        return Refused(f"{where} answered {status}: {detail}; give MLRUNBOOK_PLATFORM_TOKEN a token of scope operate")
    return Refused(f"{where} answered {status}: {detail}")


def _detail(response: httpx.Response) -> str:
    """The problem's own words (RFC 9457), else the start of whatever came."""
    try:
        body = response.json()
        said = body.get("detail") or body.get("title")
    except (ValueError, AttributeError):
        said = None
    return str(said or response.text[:200].strip() or response.reason_phrase)


def _words(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _iso(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z") if at else None


def _status(b: Fields) -> ServingStatus:
    if b.is_null("servingVersion"):
        raise NotFound(f"no version of {b.id('model')} is in production: promote one first")
    serving, server = b.id("servingVersion"), b.part_if_any("server")
    version, unloadable = _not_loaded(server)
    names_serving = version == serving
    return ServingStatus(
        model=b.id("model"),
        serving_version=serving,
        previous_version=b.id_if_any("previousVersion"),
        staging_version=b.id_if_any("stagingVersion"),
        server_healthy=b.flag("serverHealthy"),
        server_version=b.id_if_any("serverVersion"),
        deployed_at=b.maybe("deployedAt", b.time),
        features=_features_word(server),
        not_loaded=unloadable if names_serving else None,
        unloadable_route=None if names_serving or unloadable is None else f"{version}: {unloadable}",
    )


def _features_word(server: Fields) -> str | None:
    """`server` is the model server's health as the platform passes it on; another platform may leave it out."""
    features = server.part_if_any("features")
    state = features.maybe("state", features.text)
    if state in (None, "loading", "not_configured"):
        return None
    return "ok" if state == "ok" else features.maybe("error", features.text) or state


def _not_loaded(server: Fields) -> tuple[str | None, str | None]:
    """The version that the server cannot load, and why; another platform may leave it out. Where it is not what the registry names,
    traffic is routed to it, which is no deployment."""
    said = server.part_if_any("notLoaded")
    version = said.maybe("version", said.id)
    return (version, said.maybe("error", said.text) or "no reason given") if version else (None, None)


def _confusion(b: Fields, most: int = MOST) -> Confusion:
    """Of `most` predictions: there are no more outcomes than that."""
    m = b.part("confusionMatrix")
    counts = Confusion(tp=m.count("tp", most), fp=m.count("fp", most), fn=m.count("fn", most), tn=m.count("tn", most))
    if counts.n > most:
        raise b.misread("confusionMatrix", f"the counts of at most {most} predictions")
    return counts


def _rewritten(b: Fields, name: str) -> Rewritten | None:
    """Who keeps no authors of outcomes leaves it out."""
    if not b.has(name):
        return None
    b = b.part(name)
    return Rewritten(
        count=b.count("count"),
        of=b.count("of"),
        by={line(who, 200): count for who, count in b.counts("by").items()},
        first=_confusion(b.part("firstReported")),
        now=_confusion(b.part("current")),
        oldest=b.maybe("oldest", b.time),
        newest=b.maybe("newest", b.time),
    )


def _task(b: Fields) -> type[Tally]:
    """What the window's tallies count; a platform that knows binary models alone does not say."""
    name = b.maybe("task", b.text) or BINARY
    if name not in TASKS:
        raise b.misread("task", f"one of {', '.join(TASKS)}")
    return TASKS[name]


def _tally(b: Fields, task: type[Tally], most: int) -> Tally:
    """Of `most` predictions, as `_confusion`."""
    if task is Confusion:
        return _confusion(b, most)
    found = _sums(b.part("tally"), task)
    if not 0 <= found.n <= most:
        raise b.misread("tally", f"the sums of at most {most} predictions")
    return found


def _sums(m: Fields, task: type[Tally]) -> Tally:
    return task(*(m.count(f.name) if f.type in ("int", int) else m.number(f.name, -MOST, MOST) for f in fields(task)))


def _blocks(b: Fields, task: type[Tally], name: str = "blocks") -> tuple[Tally, ...]:
    if not b.has(name):
        return ()
    return b.each(name, _block) if task is Confusion else tuple(_sums(block, task) for block in b.parts(name))


def _window(b: Fields) -> WindowMetrics:
    since, until, predictions = b.time("since"), b.time("until"), b.count("predictions")
    if until < since:
        raise b.misread("until", f"no earlier than since, {since}")
    task, types = _task(b), b.parts_by_name("byAssetType")
    return WindowMetrics(
        since=since,
        until=until,
        predictions=predictions,
        labelled=b.count("labelled", predictions),
        tally=_tally(b, task, predictions),
        flagged_share=b.figure("flaggedShare", 1),
        latency_p95_ms=b.figure("latencyP95Ms", DAY_MS),
        error_rate=b.figure("errorRate", 1),
        errors=b.counts("errors"),
        refused=b.counts("refused"),
        null_rate=b.figure("nullRate", 1),
        versions=_versions(b),
        by_risk_level={name: _confusion(g, predictions) for name, g in b.parts_by_name("byRiskLevel").items()},
        by_asset_type={name: _tally(g, task, predictions) for name, g in types.items()},
        label_delay_s=b.figure("labelDelayS", TEN_YEARS_S),
        mature_age_s=b.figure("matureAgeS", TEN_YEARS_S),
        outcomes_due=b.maybe("outcomesDue", b.count),
        outcomes_missing=b.maybe("outcomesMissing", b.count),
        rewritten=_rewritten(b, "rewritten"),
        blocks=_blocks(b, task),
        blocks_by_asset_type={name: _blocks(g, task) for name, g in types.items() if g.has("blocks")},
        assets_by_asset_type={name: _blocks(g, task, "assets") for name, g in types.items() if g.has("assets")},
    )


def _versions(b: Fields) -> tuple[str, ...]:
    return b.each("versions", Fields.id) if b.has("versions") else ()


def _block(b: Fields, name: str) -> Confusion:
    counts = b.each(name, Fields.count)
    if len(counts) != 4:
        raise b.misread(name, "the four counts tp, fp, fn and tn")
    return Confusion(*counts)


def _outcome_blocks(b: Fields, since: datetime, block_s: float, whole: int) -> OutcomeBlocks:
    """Other blocks than those asked for would be taken for these."""
    task = _task(b)
    found = OutcomeBlocks(b.time("since"), b.number("blockS", 0, TEN_YEARS_S), _blocks(b, task), _blocks(b, task, "byAsset"))
    if abs((found.since - since).total_seconds()) > 1:
        raise b.misread("since", f"as it was asked for, {since.isoformat()}")
    if abs(found.block_s - block_s) > 1e-3:
        raise b.misread("blockS", f"as it was asked for, {block_s:g}")
    if len(found.blocks) != whole:
        raise b.misread("blocks", f"the {whole} whole blocks of the time asked for")
    return found


def _day(b: Fields) -> DayFigures:
    predictions = b.count("predictions")
    return DayFigures(
        day=b.day("day"),
        predictions=predictions,
        confusion=_confusion(b, predictions),
        flagged_share=b.figure("flaggedShare", 1),
        latency_p95_ms=b.figure("latencyP95Ms", DAY_MS),
        error_rate=b.figure("errorRate", 1),
        null_rate=b.figure("nullRate", 1),
        versions=_versions(b),
    )


def _metrics(b: Fields) -> ModelMetrics:
    return ModelMetrics(
        model=b.id("model"),
        current=_window(b.part("current")),
        baseline=_window(b.part("baseline")),
        rewritten_lately=_rewritten(b, "rewrittenLately"),
    )


def _prediction(b: Fields) -> Prediction:
    number = b.count("predictionId")
    return Prediction(
        id=number,
        at=b.time("at"),
        asset_id=b.maybe("assetId", b.text) or f"row {number}",  # a request that names no asset is one by itself
        asset_type=b.maybe("assetType", b.text) or "unknown",
        features=b.any_of("features"),
        score=b.share("score"),
        label=b.flag("label"),
        version=b.id("version"),
        threshold=b.share("threshold"),
        latency_ms=b.figure("latencyMs", DAY_MS),
        outcome=b.maybe("outcome", b.flag),
        shadow_version=b.maybe("shadowVersion", b.id),
        shadow_score=b.maybe("shadowScore", b.share),
    )


def _version(b: Fields) -> ModelVersion:
    return ModelVersion(
        version=b.id("version"),
        registered_at=b.time("registeredAt"),
        trained_from=b.time("trainedFrom"),
        trained_to=b.time("trainedTo"),
        features=b.each("features", Fields.text),
        threshold=b.share("threshold"),
        asset_types=b.maybe("assetTypes", lambda name: b.each(name, Fields.text)),
    )


def _replayed(b: Fields) -> Replayed:
    versions = tuple(
        VersionReplay(
            v.id("version"),
            v.each("scores", Fields.share),
            v.maybe("problem", v.text),
            v.maybe("sizeBytes", v.count),
            v.figure("latencyMs", DAY_MS),
        )
        for v in b.parts("versions")
    )
    rows = tuple(_prediction(p) for p in b.parts("rows"))
    if any(len(v.scores) != (0 if v.problem else len(rows)) for v in versions):
        raise Misread("a version has not one score a row")
    return Replayed(rows, versions)


def _schedules(b: Fields) -> list[ViewSchedule]:
    return [
        ViewSchedule(s.id("view"), s.flag("suspended"), s.maybe("lastRunAt", s.time), s.maybe("error", s.text))
        for s in b.parts("schedules")
    ]


def _change(b: Fields) -> Change:
    author = b.maybe("author", b.text) or "unknown"
    return Change(kind=b.text("kind"), ref=b.text("ref"), author=author, at=b.time("at"), detail=b.any_of("detail"))


def _work_orders(b: Fields) -> list[WorkOrder]:
    return [
        WorkOrder(
            id=w.count("id"),
            asset_id=w.text("assetId"),
            state=w.text("state"),
            flagged_for_review=w.flag("flaggedForReview"),
            created_at=w.time("createdAt"),
        )
        for w in b.parts("workOrders")
    ]
