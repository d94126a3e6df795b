"""The team's model platform over HTTP: the runbook's endpoints, with failures translated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import NotFound, Refused, Transient, Unknown
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, Rewritten, WindowMetrics
from mlrunbook.domain.observed import Change, ModelVersion, Prediction, Replayed, ServingStatus, VersionReplay, ViewSchedule, WorkOrder

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
        return self._read("/api/v1/ml/models", lambda b: [str(m["model"]) for m in b["models"]])

    def status(self, model: str) -> ServingStatus:
        return self._read(f"{_model(model)}/status", _about(model, _status))

    def metrics(
        self, model: str, *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
    ) -> ModelMetrics:
        params = {"since": _iso(since), "until": _iso(until), "version": version}
        return self._read(f"/api/v1/model-performance/metrics/{quote(model, safe='')}", _about(model, _metrics), params)

    def history(self, model: str, *, days: int, until: datetime | None = None) -> Sequence[DayFigures]:
        params = {"days": days, "until": _iso(until)}
        parse = _about(model, lambda b: [_day(d) for d in b["days"]])
        return self._read(f"/api/v1/model-performance/history/{quote(model, safe='')}", parse, params)

    def alerts(self, model: str | None = None) -> Sequence[Mapping[str, Any]]:
        return self._read(
            "/api/v1/model-performance/alerts", lambda b: [dict(a) for a in b["alerts"] if _is_of(model, a)], {"model": model}
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
        return self._read("/api/v1/ml/predictions/logs", _about(model, lambda b: [_prediction(p) for p in b["predictions"]]), params)

    def changes(self, model: str, *, since: datetime) -> Sequence[Change]:
        parse = _about(model, lambda b: [_change(c) for c in b["changes"]])
        return self._read(f"{_model(model)}/changes", parse, {"since": _iso(since)})

    def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> ServingStatus:
        body = {"targetVersion": target_version, "reason": reason, "rolledBackBy": rolled_back_by}
        return self._write(f"{_model(model)}/rollback", body, _about(model, _status), idempotency_key)

    def versions(self, model: str) -> Sequence[ModelVersion]:
        return self._read(f"{_model(model)}/versions", _about(model, lambda b: [_version(v) for v in b["versions"]]))

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

    def _read(self, path: str, parse: Callable[[Any], T], params: Mapping[str, Any] | None = None) -> T:
        given = {k: v for k, v in (params or {}).items() if v is not None}
        try:
            response = self._http.get(path, params=given)
        except httpx.HTTPError as error:
            raise Transient(f"{self._url} does not answer ({_words(error)}): is the model platform up?") from error
        return self._parsed(response, parse)

    def _write(self, path: str, body: Mapping[str, Any], parse: Callable[[Any], T], key: str) -> T:
        try:
            response = self._http.post(path, json=dict(body), headers={"Idempotency-Key": key})
        except _NOT_SENT as error:
            raise Transient(f"{self._url} does not answer ({_words(error)}): is the model platform up?") from error
        except httpx.HTTPError as error:
            raise Unknown(f"POST {path} was sent and got no answer ({_words(error)}): read back whether it happened") from error
        if response.status_code in _LOST_ANSWER:
            raise Unknown(f"POST {path} was answered {response.status_code} on the way: read back whether it happened")
        return self._parsed(response, parse)

    def _parsed(self, response: httpx.Response, parse: Callable[[Any], T]) -> T:
        where = f"{response.request.method} {response.request.url.path}"
        if not response.is_success:
            raise _refusal(where, response)
        try:
            return parse(response.json())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise Refused(f"{where} answered something that is not the runbook's shape ({what}); check MLRUNBOOK_PLATFORM_URL") from error


def _model(model: str) -> str:
    return f"/api/v1/ml/models/{quote(model, safe='')}"


def _about(model: str, parse: Callable[[Any], T]) -> Callable[[Any], T]:
    """`parse` for an answer about this model: one that names another, as a whole or in a row, is Refused. Leaving the name out is fine."""

    def checked(b: Any) -> T:
        rows = [row for part in b.values() if isinstance(part, list) for row in part if isinstance(row, dict)]
        if other := next((part["model"] for part in (b, *rows) if part.get("model") not in (None, model)), None):
            raise Refused(f"the platform was asked about {model} and answers about {other}: look at both models, then correct the platform")
        return parse(b)

    return checked


def _is_of(model: str | None, alert: Mapping[str, Any]) -> bool:
    return model is None or (alert.get("labels") or {}).get("model") in (None, model)


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


def _time(value: Any) -> datetime:
    at = datetime.fromisoformat(value)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _status(b: Any) -> ServingStatus:
    if b["servingVersion"] is None:
        raise NotFound(f"no version of {b['model']} is in production: promote one first")
    version, unloadable = _not_loaded(b.get("server"))
    names_serving = version == b["servingVersion"]
    return ServingStatus(
        model=b["model"],
        serving_version=str(b["servingVersion"]),
        previous_version=b.get("previousVersion"),
        staging_version=b.get("stagingVersion"),
        server_healthy=bool(b["serverHealthy"]),
        server_version=b.get("serverVersion"),
        deployed_at=_time(b["deployedAt"]) if b.get("deployedAt") else None,
        features=_features_word(b.get("server")),
        not_loaded=unloadable if names_serving else None,
        unloadable_route=None if names_serving or unloadable is None else f"{version}: {unloadable}",
    )


def _features_word(server: Any) -> str | None:
    """`server` is the model server's health as the platform passes it on; another platform may leave it out."""
    said = server.get("features") if isinstance(server, dict) else None
    features: dict[str, Any] = said if isinstance(said, dict) else {}
    state = features.get("state")
    if state in (None, "loading", "not_configured"):
        return None
    return "ok" if state == "ok" else str(features.get("error") or state)


def _not_loaded(server: Any) -> tuple[str | None, str | None]:
    """The version that the server cannot load, and why; another platform may leave it out. Where it is not what the registry names,
    traffic is routed to it, which is no deployment."""
    said = server.get("notLoaded") if isinstance(server, dict) else None
    if not isinstance(said, dict) or not said.get("version"):
        return None, None
    return str(said["version"]), str(said.get("error") or "no reason given")


def _confusion(b: Any) -> Confusion:
    m = b["confusionMatrix"]
    return Confusion(tp=int(m["tp"]), fp=int(m["fp"]), fn=int(m["fn"]), tn=int(m["tn"]))


def _rewritten(b: Any) -> Rewritten | None:
    """Who keeps no authors of outcomes leaves it out."""
    if not b:
        return None
    return Rewritten(
        count=int(b["count"]),
        of=int(b["of"]),
        by={line(str(name), 200): int(count) for name, count in b["by"].items()},
        first=_confusion(b["firstReported"]),
        now=_confusion(b["current"]),
        oldest=_time(b["oldest"]) if b.get("oldest") else None,
        newest=_time(b["newest"]) if b.get("newest") else None,
    )


def _window(b: Any) -> WindowMetrics:
    return WindowMetrics(
        since=_time(b["since"]),
        until=_time(b["until"]),
        predictions=int(b["predictions"]),
        labelled=int(b["labelled"]),
        confusion=_confusion(b),
        flagged_share=b.get("flaggedShare"),
        latency_p95_ms=b.get("latencyP95Ms"),
        error_rate=b.get("errorRate"),
        errors={str(kind): int(count) for kind, count in (b.get("errors") or {}).items()},
        refused={str(kind): int(count) for kind, count in (b.get("refused") or {}).items()},
        null_rate=b.get("nullRate"),
        versions=tuple(b.get("versions", ())),
        by_risk_level={name: _confusion(g) for name, g in b.get("byRiskLevel", {}).items()},
        by_asset_type={name: _confusion(g) for name, g in b.get("byAssetType", {}).items()},
        label_delay_s=b.get("labelDelayS"),
        outcomes_due=b.get("outcomesDue"),
        outcomes_missing=b.get("outcomesMissing"),
        rewritten=_rewritten(b.get("rewritten")),
        blocks=tuple(Confusion(*(int(count) for count in counts)) for counts in b.get("blocks") or ()),
    )


def _day(b: Any) -> DayFigures:
    return DayFigures(
        day=date.fromisoformat(b["day"]),
        predictions=int(b["predictions"]),
        confusion=_confusion(b),
        flagged_share=b.get("flaggedShare"),
        latency_p95_ms=b.get("latencyP95Ms"),
        error_rate=b.get("errorRate"),
        null_rate=b.get("nullRate"),
        versions=tuple(b.get("versions", ())),
    )


def _metrics(b: Any) -> ModelMetrics:
    return ModelMetrics(
        model=b["model"],
        current=_window(b["current"]),
        baseline=_window(b["baseline"]),
        rewritten_lately=_rewritten(b.get("rewrittenLately")),
    )


def _prediction(b: Any) -> Prediction:
    return Prediction(
        id=int(b["predictionId"]),
        at=_time(b["at"]),
        asset_id=b["assetId"],
        asset_type=b["assetType"],
        features=dict(b["features"]),
        score=float(b["score"]),
        label=bool(b["label"]),
        version=b["version"],
        threshold=float(b["threshold"]),
        latency_ms=float(b["latencyMs"]),
        outcome=b.get("outcome"),
        shadow_version=b.get("shadowVersion"),
        shadow_score=b.get("shadowScore"),
    )


def _version(b: Any) -> ModelVersion:
    return ModelVersion(
        version=b["version"],
        registered_at=_time(b["registeredAt"]),
        trained_from=_time(b["trainedFrom"]),
        trained_to=_time(b["trainedTo"]),
        features=tuple(b["features"]),
        threshold=float(b["threshold"]),
        asset_types=tuple(b["assetTypes"]) if b.get("assetTypes") is not None else None,
    )


def _replayed(b: Any) -> Replayed:
    versions = tuple(
        VersionReplay(v["version"], tuple(map(float, v["scores"])), v.get("problem"), v.get("sizeBytes"), v.get("latencyMs"))
        for v in b["versions"]
    )
    rows = tuple(_prediction(p) for p in b["rows"])
    if any(len(v.scores) != (0 if v.problem else len(rows)) for v in versions):
        raise ValueError("a version has not one score a row")
    return Replayed(rows, versions)


def _schedules(b: Any) -> list[ViewSchedule]:
    return [
        ViewSchedule(s["view"], bool(s["suspended"]), _time(s["lastRunAt"]) if s.get("lastRunAt") else None, s.get("error"))
        for s in b["schedules"]
    ]


def _change(b: Any) -> Change:
    return Change(kind=b["kind"], ref=b["ref"], author=b["author"], at=_time(b["at"]), detail=b.get("detail") or {})


def _work_orders(b: Any) -> list[WorkOrder]:
    return [
        WorkOrder(
            id=int(w["id"]),
            asset_id=w["assetId"],
            state=w["state"],
            flagged_for_review=bool(w["flaggedForReview"]),
            created_at=_time(w["createdAt"]),
        )
        for w in b["workOrders"]
    ]
