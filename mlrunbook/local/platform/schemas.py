"""The platform's requests and answers on the wire: camelCase JSON, as in the runbook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from mlrunbook.base.web import CamelModel, Moment
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeBlocks
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, Rewritten, WindowMetrics
from mlrunbook.domain.observed import Change, Prediction, Replayed, ServingConfig, WorkOrder
from mlrunbook.domain.resolution.retraining import NAME
from mlrunbook.domain.tally import all_binary
from mlrunbook.local.platform.feature_schedules import Schedule
from mlrunbook.local.platform.outcomes import Version as OutcomeVersion
from mlrunbook.local.platform.registry import Deployment, Slots, Version

Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
Text = Annotated[str, StringConstraints(max_length=2000)]
Person = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=200)]
MOST_ASSETS = 5000
MOST_OUTCOMES = 10_000
MOST_VIEWS = 1000
MOST_REPLAYED = 10_000
MOST_VERSIONS = 50
MOST_DAYS = 800  # two years, for a comparison


class Asset(CamelModel):
    """One reading. `features` are checked by the model's own rules; without them they are read from the feature store by `assetId`.
    `assetType` defaults to the feature `type`."""

    asset_id: Id
    asset_type: Id | None = None
    features: dict[str, float | str | None] | None = None


class PredictRequest(CamelModel):
    assets: Annotated[list[Asset], Field(min_length=1, max_length=MOST_ASSETS)]


class Outcome(CamelModel):
    prediction_id: Annotated[int, Field(ge=1, lt=2**63)]
    failed: bool


class OutcomesRequest(CamelModel):
    outcomes: Annotated[list[Outcome], Field(min_length=1, max_length=MOST_OUTCOMES)]


class RollbackRequest(CamelModel):
    target_version: Name
    reason: Text = ""
    rolled_back_by: Person | None = None


class PromoteRequest(CamelModel):
    version: Name
    reason: Text = ""
    promoted_by: Person | None = None


class RegisterRequest(CamelModel):
    """`artefact` is where it lies below the models folder; only `{model}/{version}` is accepted."""

    version: Name
    artefact: Text | None = None
    registered_by: Person | None = None


class StagingRequest(CamelModel):
    """`version` null empties the slot."""

    version: Name | None
    staged_by: Person | None = None


class ConfigRequest(CamelModel):
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    human_approval: bool | None = None
    auto_work_orders: bool | None = None
    auto_scheduling: bool | None = None
    expected_revision: str | None = None
    changed_by: Person | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.changes():
            raise ValueError("give at least one of threshold, humanApproval, autoWorkOrders, autoScheduling")
        return self

    def changes(self) -> dict[str, Any]:
        return self.model_dump(include={"threshold", "human_approval", "auto_work_orders", "auto_scheduling"}, exclude_none=True)


class RestartRequest(CamelModel):
    restart_id: Id | None = None
    restarted_by: Person | None = None


class FlagRequest(CamelModel):
    reason: Text = ""
    flagged_by: Person | None = None


class SchedulesRequest(CamelModel):
    views: Annotated[list[Id], Field(min_length=1, max_length=MOST_VIEWS)]
    changed_by: Person | None = None


class BaselineRequest(CamelModel):
    since: Moment
    until: Moment


def slots(s: Slots) -> dict[str, Any]:
    return {
        "model": s.model,
        "servingVersion": s.serving,
        "previousVersion": s.previous,
        "stagingVersion": s.staging,
        "deployedAt": s.deployed_at,
    }


def version(v: Version) -> dict[str, Any]:
    return {
        "model": v.model,
        "version": v.version,
        "sha256": v.sha256,
        "sklearnVersion": v.sklearn_version,
        "trainedFrom": v.trained_from,
        "trainedTo": v.trained_to,
        "features": list(v.features),
        "threshold": v.threshold,
        "metrics": v.metrics,
        "assetTypes": list(v.asset_types) if v.asset_types is not None else None,
        "registeredBy": v.registered_by,
        "registeredAt": v.registered_at,
    }


def deployment(d: Deployment) -> dict[str, Any]:
    return {"version": d.version, "kind": d.kind, "from": d.from_at, "to": d.to_at, "by": d.by, "reason": d.reason}


def schedules(found: Sequence[Schedule]) -> dict[str, Any]:
    rows = [
        {
            "view": s.view,
            "suspended": s.suspended,
            "lastRunAt": s.last_run_at,
            "materializedUntil": s.materialized_until,
            "error": s.error,
        }
        for s in found
    ]
    return {"schedules": rows}


def config(c: ServingConfig) -> dict[str, Any]:
    return {
        "revision": c.revision,
        "threshold": c.threshold,
        "humanApproval": c.human_approval,
        "autoWorkOrders": c.auto_work_orders,
        "autoScheduling": c.auto_scheduling,
    }


def prediction(p: Prediction) -> dict[str, Any]:
    """JSON as it stands: thousands of them go into one answer, and FastAPI's encoder takes ten times as long over them."""
    return {
        "predictionId": p.id,
        "at": p.at.isoformat(),
        "assetId": p.asset_id,
        "assetType": p.asset_type,
        "features": dict(p.features),
        "score": p.score,
        "label": p.label,
        "version": p.version,
        "threshold": p.threshold,
        "latencyMs": p.latency_ms,
        "outcome": p.outcome,
        "shadowVersion": p.shadow_version,
        "shadowScore": p.shadow_score,
    }


def replayed(r: Replayed) -> dict[str, Any]:
    versions = [
        {"version": v.version, "scores": list(v.scores), "problem": v.problem, "sizeBytes": v.size_bytes, "latencyMs": v.latency_ms}
        for v in r.versions
    ]
    return {"rows": [prediction(p) for p in r.rows], "versions": versions}


def work_order(w: WorkOrder) -> dict[str, Any]:
    return {"id": w.id, "assetId": w.asset_id, "state": w.state, "flaggedForReview": w.flagged_for_review, "createdAt": w.created_at}


def change(c: Change) -> dict[str, Any]:
    return {"kind": c.kind, "ref": c.ref, "author": c.author, "at": c.at, "detail": dict(c.detail)}


def _ratios(c: Confusion) -> dict[str, Any]:
    return {"f1": c.f1, "precision": c.precision, "recall": c.recall, "confusionMatrix": {"tp": c.tp, "fp": c.fp, "fn": c.fn, "tn": c.tn}}


def _groups(groups: Mapping[str, Confusion]) -> dict[str, Any]:
    return {name: _ratios(c) for name, c in sorted(groups.items())}


def _rewritten(r: Rewritten | None) -> dict[str, Any] | None:
    if r is None:
        return None
    return {
        "count": r.count,
        "of": r.of,
        "by": dict(r.by),
        "firstReported": _ratios(r.first),
        "current": _ratios(r.now),
        "oldest": r.oldest,
        "newest": r.newest,
    }


def outcome_version(v: OutcomeVersion) -> dict[str, Any]:
    return {"failed": v.outcome, "at": v.at, "reportedBy": v.by, "tokenId": v.token_id, "previous": v.previous, "rewrites": v.rewrites}


def _parts(w: WindowMetrics, asset_type: str) -> dict[str, Any]:
    known = {"blocks": w.blocks_by_asset_type, "assets": w.assets_by_asset_type}
    return {part: [list(tally.values) for tally in of[asset_type]] for part, of in known.items() if asset_type in of}


def _window(w: WindowMetrics) -> dict[str, Any]:
    return {
        "since": w.since,
        "until": w.until,
        "predictions": w.predictions,
        "labelled": w.labelled,
        "labelDelayS": w.label_delay_s,
        "matureAgeS": w.mature_age_s,
        "outcomesDue": w.outcomes_due,
        "outcomesMissing": w.outcomes_missing,
        **_ratios(w.confusion),
        "flaggedShare": w.flagged_share,
        "latencyP95Ms": w.latency_p95_ms,
        "errorRate": w.error_rate,
        "errors": dict(w.errors),
        "refused": dict(w.refused),
        "nullRate": w.null_rate,
        "versions": list(w.versions),
        "byRiskLevel": _groups(w.by_risk_level),
        "byAssetType": {name: group | _parts(w, name) for name, group in _groups(all_binary(w.by_asset_type)).items()},
        "rewritten": _rewritten(w.rewritten),
        "blocks": [list(block.values) for block in w.blocks],
    }


def outcome_blocks(model: str, found: OutcomeBlocks) -> dict[str, Any]:
    """JSON as it stands, as of `prediction`."""
    blocks, assets = ([list(tally.values) for tally in tallies] for tallies in (found.blocks, found.by_asset))
    return {"model": model, "since": found.since.isoformat(), "blockS": found.block_s, "blocks": blocks, "byAsset": assets}


def day(d: DayFigures) -> dict[str, Any]:
    return {
        "day": d.day,
        "predictions": d.predictions,
        "labelled": d.confusion.n,
        **_ratios(d.confusion),
        "flaggedShare": d.flagged_share,
        "latencyP95Ms": d.latency_p95_ms,
        "errorRate": d.error_rate,
        "nullRate": d.null_rate,
        "versions": list(d.versions),
    }


def metrics(m: ModelMetrics) -> dict[str, Any]:
    """Both windows, and how each ratio changed relative to the baseline (-0.21: fell by 21 %)."""
    now, before = m.current.confusion, m.baseline.confusion

    def relative(is_: float | None, was: float | None) -> float | None:
        return is_ / was - 1 if was and is_ is not None else None

    change = {
        "f1": relative(now.f1, before.f1),
        "precision": relative(now.precision, before.precision),
        "recall": relative(now.recall, before.recall),
    }
    return {
        "model": m.model,
        "current": _window(m.current),
        "baseline": _window(m.baseline),
        "change": change,
        "rewrittenLately": _rewritten(m.rewritten_lately),
    }
