"""Which version serves is a target: asked for once or ten times, it happens once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine

from mlrunbook.base.db import metadata, transaction
from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.local.platform import change_log, registry, tables
from mlrunbook.local.platform.registry import Slots
from tests.local.platform.kit import NOW, new_model, release, save_version


@pytest.fixture
def model() -> str:
    return new_model()


def serve(engine: Engine, models_dir: Path, model: str, version: str, *, kind: str = registry.ROLLBACK, key: str | None = None) -> Slots:
    with transaction(engine) as conn:
        change = registry.Change(kind, "ml_team_lead", NOW, "worse", key)
        return registry.serve(conn, models_dir, model=model, version=version, change=change)


def history(engine: Engine, model: str) -> list[registry.Deployment]:
    with transaction(engine) as conn:
        return registry.history(conn, model)


def applied(engine: Engine, model: str) -> dict[str, int]:
    with transaction(engine) as conn:
        return change_log.applied_counts(conn, model)


def test_the_migration_makes_the_tables_the_code_uses(engine: Engine) -> None:
    with transaction(engine) as conn:
        context = MigrationContext.configure(conn, opts={"include_schemas": True})
        difference = compare_metadata(context, metadata)
    assert [d for d in difference if tables.SCHEMA in str(d)] == []


def test_a_rollback_makes_the_target_serve_and_keeps_the_whole_history(engine: Engine, tmp_path: Path, model: str) -> None:
    release(engine, tmp_path, model, "v1.5.0", "v2.0.0")
    after = serve(engine, tmp_path, model, "v1.5.0")
    assert (after.serving, after.previous, after.deployed_at) == ("v1.5.0", "v2.0.0", NOW)
    stretches = history(engine, model)
    assert [(d.version, d.kind, d.by) for d in stretches] == [
        ("v1.5.0", "rollback", "ml_team_lead"),
        ("v2.0.0", "promote", "release_pipeline"),
        ("v1.5.0", "promote", "release_pipeline"),
    ]
    assert [d.to_at for d in stretches] == [None, stretches[0].from_at, stretches[1].from_at]


def test_rolling_back_to_what_serves_changes_nothing(engine: Engine, tmp_path: Path, model: str) -> None:
    release(engine, tmp_path, model, "v1.5.0", "v2.0.0")
    first = serve(engine, tmp_path, model, "v1.5.0")
    assert serve(engine, tmp_path, model, "v1.5.0") == first
    assert len(history(engine, model)) == 3
    assert applied(engine, model) == {"promote": 2, "register": 2, "rollback": 1}


def test_the_same_key_never_applies_twice_even_when_something_else_was_promoted_meanwhile(
    engine: Engine, tmp_path: Path, model: str
) -> None:
    release(engine, tmp_path, model, "v1.5.0", "v2.0.0")
    serve(engine, tmp_path, model, "v1.5.0", key="incident_1:1")
    serve(engine, tmp_path, model, "v2.0.0", kind=registry.PROMOTE)
    late = serve(engine, tmp_path, model, "v1.5.0", key="incident_1:1")
    assert late.serving == "v2.0.0"
    assert applied(engine, model)["rollback"] == 1


def test_a_key_used_for_another_target_is_refused(engine: Engine, tmp_path: Path, model: str) -> None:
    release(engine, tmp_path, model, "v1.5.0", "v2.0.0")
    serve(engine, tmp_path, model, "v1.5.0", key="k")
    with pytest.raises(Invalid) as refused:
        serve(engine, tmp_path, model, "v2.0.0", key="k")
    assert refused.value.field == "Idempotency-Key"


def test_an_unknown_version_is_not_found_and_the_message_lists_the_known_ones(engine: Engine, tmp_path: Path, model: str) -> None:
    release(engine, tmp_path, model, "v1.5.0")
    with pytest.raises(NotFound, match=r"v9\.9\.9.*v1\.5\.0"):
        serve(engine, tmp_path, model, "v9.9.9")
    with pytest.raises(NotFound, match="no model 'nobody'"):
        serve(engine, tmp_path, "nobody", "v1.5.0")


def test_a_tampered_artefact_is_neither_registered_nor_served(engine: Engine, tmp_path: Path, model: str) -> None:
    release(engine, tmp_path, model, "v1.5.0", "v2.0.0")
    (tmp_path / model / "v1.5.0" / "model.skops").write_bytes(b"changed")
    with pytest.raises(Invalid, match="changed after it was saved"):
        serve(engine, tmp_path, model, "v1.5.0")
    assert history(engine, model)[0].version == "v2.0.0"
    folder = save_version(tmp_path, model, "v3.0.0")
    (folder / "model.skops").write_bytes(b"changed")
    with pytest.raises(Invalid), transaction(engine) as conn:
        registry.register(conn, tmp_path, model=model, version="v3.0.0", by="x", at=NOW)


def test_artefact_and_manifest_exchanged_together_are_found_out(engine: Engine, tmp_path: Path, model: str) -> None:
    release(engine, tmp_path, model, "v1.5.0", "v2.0.0")
    (tmp_path / model / "v1.5.0").rename(tmp_path / "gone")
    save_version(tmp_path, model, "v1.5.0", flags_all=True)
    with pytest.raises(Invalid, match="not the artefact that was registered"):
        serve(engine, tmp_path, model, "v1.5.0")
    with pytest.raises(Refused, match="a version never changes"), transaction(engine) as conn:
        registry.register(conn, tmp_path, model=model, version="v1.5.0", by="x", at=NOW)


@pytest.mark.parametrize("version", ["../../etc", ".hidden", "", "a/b", "x" * 65])
def test_a_version_name_cannot_leave_the_models_folder(engine: Engine, tmp_path: Path, model: str, version: str) -> None:
    with pytest.raises(Invalid) as refused, transaction(engine) as conn:
        registry.register(conn, tmp_path, model=model, version=version, by="x", at=NOW)
    assert refused.value.field == "version"


def test_staging_holds_one_version_until_it_is_promoted(engine: Engine, tmp_path: Path, model: str) -> None:
    release(engine, tmp_path, model, "v1.5.0")
    save_version(tmp_path, model, "v2.1.0")
    with transaction(engine) as conn:
        registry.register(conn, tmp_path, model=model, version="v2.1.0", by="x", at=NOW)
        for _ in range(2):
            staged = registry.stage(conn, tmp_path, model=model, version="v2.1.0", by="x", at=NOW, key="incident_1:1")
        with pytest.raises(Refused, match="serves already"):
            registry.stage(conn, tmp_path, model=model, version="v1.5.0", by="x", at=NOW)
    assert (staged.serving, staged.staging) == ("v1.5.0", "v2.1.0")
    assert serve(engine, tmp_path, model, "v2.1.0", kind=registry.PROMOTE).staging is None
    assert applied(engine, model) == {"promote": 2, "register": 2, "staging": 1}
    with transaction(engine) as conn:  # the same request once more, late: it was done, and is not done again
        assert registry.stage(conn, tmp_path, model=model, version="v2.1.0", by="x", at=NOW, key="incident_1:1").staging is None


def test_a_tampered_version_is_not_staged(engine: Engine, tmp_path: Path, model: str) -> None:
    release(engine, tmp_path, model, "v1.5.0", "v2.0.0")
    (tmp_path / model / "v1.5.0" / "model.skops").write_bytes(b"changed")
    with pytest.raises(Invalid, match="changed after it was saved"), transaction(engine) as conn:
        registry.stage(conn, tmp_path, model=model, version="v1.5.0", by="x", at=NOW)


def test_a_version_is_registered_once_whatever_the_key(engine: Engine, tmp_path: Path, model: str) -> None:
    save_version(tmp_path, model, "v2.1.0")
    save_version(tmp_path, model, "v2.2.0")
    who: dict[str, Any] = {"model": model, "by": "x", "at": NOW}
    for key in ("k1", "k1", "k2", None):
        with transaction(engine) as conn:
            registry.register(conn, tmp_path, version="v2.1.0", key=key, **who)
    assert applied(engine, model) == {"register": 1}
    with pytest.raises(Invalid, match="use a new key"), transaction(engine) as conn:
        registry.register(conn, tmp_path, version="v2.2.0", key="k1", **who)


def test_deployments_and_rollbacks_are_changes_newest_first(engine: Engine, tmp_path: Path, model: str) -> None:
    release(engine, tmp_path, model, "v1.5.0", "v2.0.0")
    serve(engine, tmp_path, model, "v1.5.0")
    with transaction(engine) as conn:
        found = change_log.list_changes(conn, model, since=NOW - timedelta(days=7))
    assert [(c.kind, c.ref, c.author) for c in found] == [
        ("rollback", "v1.5.0", "ml_team_lead"),
        ("deployment", "v2.0.0", "release_pipeline"),
        ("deployment", "v1.5.0", "release_pipeline"),
    ]
    assert found[0].detail == {"from": "v2.0.0", "to": "v1.5.0", "reason": "worse"}
