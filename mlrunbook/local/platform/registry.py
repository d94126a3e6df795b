"""Model versions, and which of them serves, served before, and waits in staging.

What serves is a target, never a step: "v1.5.0 serves" may be asked for again and again and happens once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, RowMapping, insert, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.domain.resolution.retraining import check_name
from mlrunbook.local.platform import artefacts, change_log
from mlrunbook.local.platform.tables import models, production, versions

PROMOTE, ROLLBACK, REGISTER, STAGING = "promote", "rollback", "register", "staging"


@dataclass(frozen=True)
class Version:
    """A registered version. `asset_types` are those it was trained on; None: not recorded."""

    model: str
    version: str
    sha256: str
    sklearn_version: str
    trained_from: datetime
    trained_to: datetime
    features: tuple[str, ...]
    threshold: float
    metrics: dict[str, float | None]
    asset_types: tuple[str, ...] | None
    registered_by: str
    registered_at: datetime


@dataclass(frozen=True)
class Slots:
    """What the registry says. `previous` is what served before `serving`: after a rollback the version rolled back from."""

    model: str
    serving: str | None
    previous: str | None
    staging: str | None
    deployed_at: datetime | None


@dataclass(frozen=True)
class Deployment:
    """One stretch of the production history; `to_at` is None while it serves."""

    version: str
    kind: str
    from_at: datetime
    to_at: datetime | None
    by: str
    reason: str


def register(conn: Connection, models_dir: Path, *, model: str, version: str, by: str, at: datetime, key: str | None = None) -> Version:
    """Check the artefact in `models_dir/model/version` and enter it. Repeating it is fine, with the same `key` or with another.

    Invalid: a bad name, a tampered or unlisted artefact. NotFound: no such folder. Refused: the version exists with another artefact.
    """
    for field, name in (("model", model), ("version", version)):
        check_name(name, field)
    manifest = _checked(models_dir, model, version).manifest
    if (manifest.model, manifest.version) != (model, version):
        raise Invalid(
            f"the manifest says {manifest.model} {manifest.version}, not {model} {version}: move it to its folder", field="version"
        )
    conn.execute(pg_insert(models).values(name=model, created_at=at).on_conflict_do_nothing())
    change_log.lock(conn, model)
    if change_log.is_repeat(conn, model, REGISTER, key, {"version": version}):
        return get(conn, model, version)
    values = {
        "sha256": manifest.sha256,
        "sklearn_version": manifest.sklearn_version,
        "trained_from": manifest.trained_from,
        "trained_to": manifest.trained_to,
        "features": list(manifest.features),
        "threshold": manifest.threshold,
        "metrics": dict(manifest.metrics),
        "asset_types": list(manifest.asset_types),
    }
    new = pg_insert(versions).values(model=model, version=version, registered_by=by, registered_at=at, **values)
    entered = conn.execute(new.on_conflict_do_nothing().returning(versions.c.version)).first() is not None
    stored = get(conn, model, version)
    if stored.sha256 != manifest.sha256:
        raise Refused(f"{model} {version} is registered with another artefact; a version never changes: register a new one")
    change_log.record(conn, model, REGISTER, target={"version": version}, applied=entered, at=at, key=key)
    return stored


def list_models(conn: Connection) -> list[str]:
    """Every registered model by name."""
    return list(conn.execute(select(models.c.name).order_by(models.c.name)).scalars())


def get(conn: Connection, model: str, version: str) -> Version:
    """NotFound names the versions there are."""
    row = conn.execute(select(versions).where(versions.c.model == model, versions.c.version == version)).mappings().one_or_none()
    if row is None:
        change_log.find(conn, model)
        known = ", ".join(v.version for v in list_versions(conn, model))
        raise NotFound(f"{model} has no version {version!r}; registered are {known or 'none'}")
    return _version(row)


def list_versions(conn: Connection, model: str) -> list[Version]:
    """Oldest first."""
    rows = conn.execute(select(versions).where(versions.c.model == model).order_by(versions.c.registered_at, versions.c.version)).mappings()
    return [_version(row) for row in rows]


def _version(row: RowMapping) -> Version:
    asset_types = tuple(row["asset_types"]) if row["asset_types"] is not None else None
    return Version(**{**row, "features": tuple(row["features"]), "asset_types": asset_types})


def load(conn: Connection, models_dir: Path, model: str, version: str) -> artefacts.LoadedModel:
    """The artefact of a registered version, checked against what was registered. NotFound, or Invalid when tampered with."""
    return verified(models_dir, get(conn, model, version))


def verified(models_dir: Path, registered: Version) -> artefacts.LoadedModel:
    """The same for a version that was read before."""
    model, version = registered.model, registered.version
    loaded = _checked(models_dir, model, version)
    if loaded.manifest.sha256 != registered.sha256:
        raise Invalid(
            f"{model} {version} is not the artefact that was registered: do not serve it, find out who changed it", field="version"
        )
    return loaded


def _checked(models_dir: Path, model: str, version: str) -> artefacts.LoadedModel:
    try:
        return artefacts.load(models_dir / model / version)
    except (NotFound, Invalid):
        raise
    except Refused as error:
        raise Invalid(str(error), field="version") from error


def slots(conn: Connection, model: str) -> Slots:
    """NotFound for an unknown model."""
    row = change_log.find(conn, model)
    latest = history(conn, model, limit=2)
    serving = latest[0] if latest else None
    return Slots(
        model=model,
        serving=serving.version if serving else None,
        previous=latest[1].version if len(latest) > 1 else None,
        staging=row["staging_version"],
        deployed_at=serving.from_at if serving else None,
    )


def history(conn: Connection, model: str, *, limit: int = 500) -> list[Deployment]:
    """What was in production and when, newest first."""
    rows = conn.execute(select(production).where(production.c.model == model).order_by(production.c.id.desc()).limit(limit))
    return [Deployment(r.version, r.kind, r.from_at, r.to_at, r.by, r.reason) for r in rows]


@dataclass(frozen=True)
class Change:
    """How what serves is changed (promote or rollback), by whom, when and why. The same `key` again is the same change."""

    kind: str
    by: str
    at: datetime
    reason: str = ""
    key: str | None = None


def serve(conn: Connection, models_dir: Path, *, model: str, version: str, change: Change) -> Slots:
    """Make `version` the one that serves and return what then does.

    Already serving, or a repeated key: nothing changes. NotFound: unknown version; Invalid: its artefact was tampered with.
    """
    row = change_log.lock(conn, model)
    target = {"version": version}
    if change_log.is_repeat(conn, model, change.kind, change.key, target):
        return slots(conn, model)
    get(conn, model, version)
    before = slots(conn, model)
    needed = before.serving != version
    if needed:
        load(conn, models_dir, model, version)
        conn.execute(update(production).where(production.c.model == model, production.c.to_at.is_(None)).values(to_at=change.at))
        conn.execute(
            insert(production).values(model=model, version=version, kind=change.kind, from_at=change.at, by=change.by, reason=change.reason)
        )
        if row["staging_version"] == version:
            conn.execute(update(models).where(models.c.name == model).values(staging_version=None, staged_at=None))
        detail = {"from": before.serving, "to": version, "reason": change.reason}
        what = "rollback" if change.kind == ROLLBACK else "deployment"
        change_log.note_change(conn, model, what, ref=version, author=change.by, at=change.at, detail=detail)
    change_log.record(conn, model, change.kind, target=target, applied=needed, at=change.at, key=change.key)
    return slots(conn, model)


def stage(conn: Connection, models_dir: Path, *, model: str, version: str | None, by: str, at: datetime, key: str | None = None) -> Slots:
    """Put `version` in the staging slot; None empties it. A repeated `key` changes nothing.

    NotFound: unknown model or version; Invalid: its artefact was tampered with; Refused: it serves already.
    """
    row = change_log.lock(conn, model)
    target = {"version": version}
    if change_log.is_repeat(conn, model, STAGING, key, target):
        return slots(conn, model)
    needed = row["staging_version"] != version
    if needed:
        if version is not None:
            load(conn, models_dir, model, version)
            if slots(conn, model).serving == version:
                raise Refused(f"{model} {version} serves already: stage another version")
        values = {"staging_version": version, "staged_at": at if version else None}
        conn.execute(update(models).where(models.c.name == model).values(values))
        detail = {"from": row["staging_version"], "to": version}
        change_log.note_change(conn, model, "staging", ref=version or "none", author=by, at=at, detail=detail)
    change_log.record(conn, model, STAGING, target=target, applied=needed, at=at, key=key)
    return slots(conn, model)
