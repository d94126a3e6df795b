"""A backup is whole or refused, and a restore makes a new data folder or leaves everything as it was."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, NullPool, create_engine

from mlrunbook.base import db, tokens
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.actions import Plan, PlanKind, RollBack
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.local.backup import MADE_ANEW, add_files, back_up, hold, restore
from mlrunbook.local.backup_archive import HEAD, SUMS, Head, Writer
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.local.stack import Stack
from mlrunbook.store import incidents, outbox, plans, timeline
from tests.fakes import MODEL, T0, empty_store
from tests.store.conftest import report

NOW = datetime(2026, 3, 29, 12, tzinfo=UTC)
KEPT = {
    "secrets/operator.token": "mlrb_1_secret",
    "models/pump/v1/model.skops": "weights",
    "features/source/readings/a.parquet": "readings",
    "serving/desired.json": "{}",
    "messages/incident_1/001-page.md": "page",
    "training/pump/v2.json": "{}",
    "a-part-of-a-later-release/state": "kept without being named",
}
LEFT = {
    "logs/gateway.log": "log",
    "run/stack.json": "{}",
    "prefect/x": "x",
    "features/feature_store.yaml": "the old password",
    "models/pump/.v3.building/model.skops": "half",
    "serving/desired.new": "half",
}


@dataclass(frozen=True)
class Home:
    path: Path
    token: str
    incident_id: str


def store_of(server: EmbeddedPostgres) -> Engine:
    return create_engine(db.normalise_url(server.url("mlrunbook")), poolclass=NullPool)


@pytest.fixture(scope="module")
def home(scratch: Path) -> Home:
    """A data folder with a past whose stack is stopped."""
    folder = scratch / "backed-up"
    with EmbeddedPostgres(folder, durable=False) as server:
        engine = store_of(server)
        db.upgrade(engine)
        with db.transaction(engine) as conn:
            incident_id = incidents.open_or_join(conn, report(), now=T0)[0].id
            token = tokens.create(conn, name="lead", scopes=[Scope.READ])
    for name, content in (KEPT | LEFT).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "secrets/operator.token").chmod(0o600)
    (scratch / "other-disk").mkdir()
    (scratch / "other-disk/model.skops").write_text("elsewhere")
    (folder / "models/linked").symlink_to(scratch / "other-disk")
    (folder / "models/round").symlink_to(folder / "models")
    return Home(folder, token, incident_id)


@pytest.fixture(scope="module")
def archive(home: Home, scratch: Path) -> Path:
    out = scratch / "backup.tar"
    back_up(home.path, out, now=NOW)
    return out


def rewritten(archive: Path, out: Path, change: Callable[[str, bytes], bytes | None], *, sums: bool = False) -> Path:
    """A copy whose members were changed, or left out where `change` gives None; with `sums` the sums are those of the change."""
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as source, tarfile.open(out, "w") as target:
        for info in source.getmembers():
            content = source.extractfile(info).read()  # type: ignore[union-attr]
            if info.name == SUMS and sums:
                content = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in found.items()).encode()
            changed = change(info.name, content)
            if changed is not None:
                found[info.name] = changed
                info.size = len(changed)
                target.addfile(info, io.BytesIO(changed))
    return out


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def test_a_backup_is_private_has_all_but_what_a_start_makes_anew_and_leaves_the_folder_as_it_was(home: Home, archive: Path) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert all(info.uname == info.gname == "" and info.uid == 0 for info in tar.getmembers())
    assert (names[0], names[-1]) == (HEAD, SUMS)
    assert set(KEPT) | {"models/linked/model.skops", "databases/mlrunbook.dump", "databases/feast.dump"} == set(names) - {HEAD, SUMS}
    assert not (home.path / "postgres/postmaster.pid").exists()
    assert sorted(p.name for p in archive.parent.iterdir() if "backup" in p.name.replace("backed", "")) == ["backup.tar"]


def test_a_restored_folder_has_the_incident_the_token_and_the_files_and_its_own_password(home: Home, archive: Path, scratch: Path) -> None:
    target = scratch / "restored"
    found = restore(archive, target, Policy(), now=NOW + timedelta(hours=1))
    assert (found.incidents, found.open, found.tokens, found.altered) == (1, 1, 1, ())
    assert found.made_at == NOW
    assert {name: (target / name).read_text() for name in KEPT} == KEPT
    assert (target / "models/linked/model.skops").read_text() == "elsewhere"
    assert not [name for name in LEFT if (target / name).exists()]
    assert {path.name for path in target.iterdir()} & MADE_ANEW == {"postgres"}
    assert stat.S_IMODE((target / "secrets/operator.token").stat().st_mode) == 0o600
    assert stat.S_IMODE((target / "secrets").stat().st_mode) == 0o700
    password = "secrets/postgres-password"
    assert (target / password).read_text() != (home.path / password).read_text()
    with EmbeddedPostgres(target, durable=False) as server, db.transaction(store_of(server)) as conn:
        assert tokens.verify(conn, home.token) is not None
        assert timeline.broken_at(conn, home.incident_id) is None
        assert [e.kind for e in timeline.read(conn, home.incident_id)][-1] == "restored"
        assert outbox.of_incident(conn, home.incident_id, "page"), "on-call is to look"


def test_a_folder_that_has_data_is_never_restored_into(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(Invalid, match="is not empty"):
        restore(archive, tmp_path, Policy(), now=NOW)
    assert everything(tmp_path) == ["mine"]
    with pytest.raises(Invalid, match="is not empty"):
        restore(archive, tmp_path / "mine", Policy(), now=NOW)


def test_a_backup_overwrites_nothing_and_does_not_lie_in_what_it_is_of(home: Home, archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(Invalid, match="overwrites nothing"):
        back_up(home.path, archive, now=NOW)
    assert archive.read_bytes() == before
    with pytest.raises(Invalid, match="lies in the data folder"):
        back_up(home.path, home.path / "models" / "backup.tar", now=NOW)
    with pytest.raises(Invalid, match="holds no databases"):
        back_up(tmp_path, tmp_path / "out.tar", now=NOW)
    assert everything(tmp_path) == []


def head_of(change: Callable[[dict[str, object]], object]) -> Callable[[str, bytes], bytes]:
    def changed(name: str, content: bytes) -> bytes:
        if name != HEAD:
            return content
        body = json.loads(content)
        change(body)
        return json.dumps(body).encode()

    return changed


NEWER: dict[str, tuple[Callable[[str, bytes], bytes], str]] = {
    "format": (head_of(lambda b: b.update(format=2, release="9.0.0", more="x")), "mlrunbook 9.0.0 in a newer format"),
    "schema": (head_of(lambda b: b.update(schema_revision="0999", release="9.0.0")), "mlrunbook 9.0.0 with the schema 0999"),
    "PostgreSQL": (head_of(lambda b: b.update(postgresql=99, release="9.0.0")), "mlrunbook 9.0.0 on PostgreSQL 99"),
}


@pytest.mark.parametrize("what", NEWER)
def test_a_backup_of_a_newer_release_says_which_one_to_install(what: str, archive: Path, tmp_path: Path) -> None:
    change, said = NEWER[what]
    newer = rewritten(archive, tmp_path / "newer.tar", change, sums=True)
    with pytest.raises(Refused, match=said) as caught:
        restore(newer, tmp_path / "home", Policy(), now=NOW)
    assert "install that release or a newer one" in str(caught.value)
    assert everything(tmp_path / "home") == []


def cut(archive: Path, out: Path, keep: float) -> Path:
    content = archive.read_bytes()
    out.write_bytes(content[: int(len(content) * keep)])
    return out


def cut_in_the_last_file(archive: Path, out: Path) -> Path:
    """Not in the zeros behind it, which nobody needs."""
    with tarfile.open(archive) as source:
        last = source.getmembers()[-1]
    out.write_bytes(archive.read_bytes()[: last.offset_data + last.size // 2])
    return out


DAMAGED: dict[str, Callable[[Path, Path], Path]] = {
    "a changed file": lambda a, out: rewritten(a, out, lambda n, c: b"other!!" if n.endswith("model.skops") else c),
    "a changed dump": lambda a, out: rewritten(a, out, lambda n, c: c[:-1] + b"!" if n.endswith("mlrunbook.dump") else c),
    "a missing file": lambda a, out: rewritten(a, out, lambda n, c: None if n.endswith("desired.json") else c),
    "a missing dump": lambda a, out: rewritten(a, out, lambda n, c: None if n.endswith("feast.dump") else c),
    "no sums": lambda a, out: rewritten(a, out, lambda n, c: None if n == SUMS else c),
    "no head": lambda a, out: rewritten(a, out, lambda n, c: None if n == HEAD else c),
    "a head that is none": lambda a, out: rewritten(a, out, lambda n, c: b"[]" if n == HEAD else c, sums=True),
    "cut in the middle": lambda a, out: cut(a, out, 0.5),
    "cut near the end": lambda a, out: cut_in_the_last_file(a, out),
    "empty": lambda a, out: cut(a, out, 0),
    "another file": lambda a, out: (out.write_text("hello " * 500), out)[1],
    "a way out of the folder": lambda a, out: out_of_the_folder(a, out, "../escaped"),
    "an absolute path": lambda a, out: out_of_the_folder(a, out, str(out.parent / "escaped")),
    "a link": lambda a, out: out_of_the_folder(a, out, "models/x", kind=tarfile.SYMTYPE),
}


def out_of_the_folder(archive: Path, out: Path, name: str, kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(archive) as source, tarfile.open(out, "w") as target:
        for info in source.getmembers():
            if info.name == SUMS:
                hostile = tarfile.TarInfo(name)
                hostile.type, hostile.linkname = kind, "/etc/passwd"
                target.addfile(hostile, io.BytesIO(b""))
            target.addfile(info, source.extractfile(info))
    return out


@pytest.mark.parametrize("how", DAMAGED)
def test_a_file_that_is_damaged_or_none_of_ours_is_refused_and_leaves_nothing(how: str, archive: Path, tmp_path: Path) -> None:
    damaged = DAMAGED[how](archive, tmp_path / "damaged.tar")
    with pytest.raises(Refused):
        restore(damaged, tmp_path / "home", Policy(), now=NOW)
    assert everything(tmp_path) == ["damaged.tar"]


def test_an_empty_folder_that_was_there_stays_and_stays_empty_when_the_restore_fails(archive: Path, tmp_path: Path) -> None:
    """As a volume that is mounted: it can be filled, and not removed."""
    damaged, target = cut_in_the_last_file(archive, tmp_path / "damaged.tar"), tmp_path / "home"
    target.mkdir()
    with pytest.raises(Refused):
        restore(damaged, target, Policy(), now=NOW)
    assert target.is_dir()
    assert everything(target) == []


def test_a_restore_that_was_killed_in_the_middle_is_not_taken_for_a_new_data_folder(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "restoring").mkdir()
    with pytest.raises(Invalid, match="broken off"):
        Stack(tmp_path, parts=frozenset(), durable=False, report=lambda _: None).start()
    with pytest.raises(Invalid, match="is not empty"):
        restore(archive, tmp_path, Policy(), now=NOW)


def test_a_timeline_that_was_edited_before_the_backup_is_named(home: Home, scratch: Path) -> None:
    """The chain says so itself; the restore only looks."""
    edited = scratch / "edited"
    restore_from = scratch / "edited.tar"
    back_up(home.path, restore_from, now=NOW)
    restore(restore_from, edited, Policy(), now=NOW)
    with EmbeddedPostgres(edited, durable=False) as server, db.transaction(store_of(server)) as conn:
        conn.exec_driver_sql("UPDATE timeline SET text = 'nothing happened' WHERE seq = 1")
    back_up(edited, scratch / "edited-2.tar", now=NOW)
    assert restore(scratch / "edited-2.tar", scratch / "edited-3", Policy(), now=NOW).altered == (home.incident_id,)


def test_readings_that_are_merged_while_the_backup_runs_are_in_it_in_their_new_file(tmp_path: Path) -> None:
    """The listing names a file that has gone when it is to be read; what stands for it came after the listing."""
    readings = tmp_path / "features/source/readings"
    readings.mkdir(parents=True)
    for name in ("a", "b"):
        (readings / f"{name}.parquet").write_text(name)

    class Merging(Writer):
        def add(self, name: str, path: Path) -> None:
            if name.endswith("b.parquet"):
                path.rename(readings / "c.parquet")
            super().add(name, path)

    with (tmp_path.parent / "merging.tar").open("wb") as out:
        writer = Merging(out, Head(1, "0", "0", 18, NOW))
        assert add_files(writer, tmp_path) == 2
        writer.close()
    with tarfile.open(tmp_path.parent / "merging.tar") as tar:
        assert [Path(name).name for name in tar.getnames() if "readings/" in name] == ["a.parquet", "c.parquet"]


class TestWhatWasApproved:
    """After a restore nobody knows whether it was carried out meanwhile."""

    @pytest.fixture
    def store(self, engine: Engine) -> Engine:
        empty_store(engine)
        return engine

    def plan(self, store: Engine, incident_id: str, kind: PlanKind, door: str, *, rule: str | None = None) -> str:
        plan = Plan(incident_id, kind, MODEL, (RollBack(MODEL, "v1.5.0", reason="F1 fell"),), ("F1 fell",), rule=rule)
        with db.transaction(store) as conn:
            digest = plans.propose(conn, plan, now=T0)
            plans.decide(conn, incident_id, digest, Decision("approved", "lead", "ml_team_lead", door), now=T0)
        return digest

    def test_a_persons_yes_to_what_is_not_done_is_void_and_a_rule_s_stands(self, store: Engine) -> None:
        with db.transaction(store) as conn:
            incident_id = incidents.open_or_join(conn, report(), now=T0)[0].id
        by_person = self.plan(store, incident_id, PlanKind.RESOLUTION, "cli")
        by_rule = self.plan(store, incident_id, PlanKind.CONTAINMENT, "policy_rule", rule="containment.critical.route_previous")
        with db.transaction(store) as conn:
            hold(conn, Policy(), made_at=T0, now=NOW)
        with db.transaction(store) as conn:
            (voided,), (stands,) = (plans.approvals_of(conn, incident_id, digest) for digest in (by_person, by_rule))
            pages = outbox.of_incident(conn, incident_id, "page")
            assert timeline.broken_at(conn, incident_id) is None
        assert (voided.voided_at, stands.voided_at) == (NOW, None)
        assert len(pages) == 1

    def test_what_is_over_is_left_alone(self, store: Engine) -> None:
        from mlrunbook.domain.incident import Status

        with db.transaction(store) as conn:
            incident_id = incidents.open_or_join(conn, report(), now=T0)[0].id
            incidents.set_status(conn, incident_id, Status.FALSE_ALARM, why="chance", actor="lead", now=T0)
            before = timeline.read(conn, incident_id)
            hold(conn, Policy(), made_at=T0, now=NOW)
            assert timeline.read(conn, incident_id) == before
