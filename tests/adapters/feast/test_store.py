"""FeastStore on a real Feast: DuckDB over Parquet, registry and online store on PostgreSQL."""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mlrunbook.adapters.feast.api import open_store
from mlrunbook.adapters.feast.store import FeastStore
from mlrunbook.domain.errors import NotFound, Refused, Transient
from mlrunbook.domain.investigation.feature_store import FeatureVerdict, judge
from mlrunbook.domain.observed import FeatureFault, ViewState
from mlrunbook.domain.policy.judging import FeatureStorePolicy
from mlrunbook.local.features import lake
from mlrunbook.local.features.repository import apply, readings_folder, write_config
from mlrunbook.local.postgres import EmbeddedPostgres

POLICY = FeatureStorePolicy()
SENSORS, WEAR = POLICY.views
ASSETS = 40
_numbers = itertools.count(1)


@dataclass
class Scene:
    """A Feast project of its own: nothing landed, nothing materialised. `now` is real time unless a test moves it."""

    repo: Path
    url: str
    feast: Any
    shift: timedelta = timedelta()
    policy: FeatureStorePolicy = POLICY
    progress: list[tuple[str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = FeastStore(self.repo, self.policy, now=self.now, lock_limit_s=0.3)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift

    def land(self, *, age: timedelta = timedelta(seconds=5), assets: int = ASSETS, torque: float | None = 40.0, first: int = 0) -> datetime:
        import pandas as pd

        at = (self.now() - age).replace(microsecond=250_000)
        names = [f"asset_{i}" for i in range(first, first + assets)]
        rest = dict.fromkeys(("air_temperature_k", "process_temperature_k", "rotational_speed_rpm"), 300.0)
        lake.land(
            readings_folder(self.repo),
            pd.DataFrame({"asset_id": names, "type": "L", **rest, "torque_nm": torque, "tool_wear_min": 7.0}),
            at,
        )
        return at

    def materialize(self, *views: str, since: datetime | None = None, until: datetime | None = None) -> None:
        def note(view: str, done: int, total: int) -> None:
            self.progress.append((view, done, total))

        self.store.materialize(views or POLICY.views, since=since, until=until or self.now(), progress=note)

    def natively(self, **kwargs: Any) -> None:
        """As a scheduled job does it."""
        with contextlib.redirect_stdout(io.StringIO()):
            if "start_date" in kwargs:
                self.feast.materialize(**kwargs)
            else:
                self.feast.materialize_incremental(**kwargs)

    def view(self, name: str = SENSORS, **how: Any) -> ViewState:
        state = self.store.inspect(**how)
        assert state.problems == ()
        return next(v for v in state.views if v.name == name)

    def verdict(self) -> FeatureVerdict:
        return judge(self.store.inspect(), None, now=self.now(), policy=self.policy)

    def faults(self) -> set[FeatureFault]:
        return {p.fault for p in self.verdict().problems}

    def torque(self, asset: str = "asset_1") -> float | None:
        read = self.feast.get_online_features(features=["asset_sensors:torque_nm"], entity_rows=[{"asset_id": asset}]).to_dict()
        value: float | None = read["torque_nm"][0]
        return value

    def end(self, name: str = SENSORS) -> datetime | None:
        end: datetime | None = self.feast.get_feature_view(name).most_recent_end_time
        return end

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(statement)

    def written(self) -> set[Any]:
        """The physical rows of the first view: each write makes a new one."""
        with psycopg.connect(self.url) as conn:
            return {row[0] for row in conn.execute(f"SELECT (xmin, ctid)::text FROM {self.table()}")}

    def table(self, name: str = SENSORS) -> str:
        return f"fleet_{name}"


@pytest.fixture(scope="module")
def repo(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose definitions are applied in the database `feast_applied`: each test copies that."""
    folder = tmp_path_factory.mktemp("feature_repo")
    postgres.create_database("feast_applied")
    write_config(folder, database_url=postgres.url("feast_applied"))
    store = open_store(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        apply(store, folder)
    left(store)
    return folder


@pytest.fixture
def scene(repo: Path, postgres: EmbeddedPostgres) -> Iterator[Scene]:
    name = f"feast_{next(_numbers)}"
    postgres.create_database(name, template="feast_applied")
    shutil.rmtree(readings_folder(repo))
    write_config(repo, database_url=postgres.url(name))
    made = Scene(repo, postgres.url(name), open_store(repo))
    yield made
    made.store._close()
    left(made.feast)


def left(store: Any) -> None:
    """Feast closes no connection by itself."""
    store.registry.read_engine.dispose()
    store.registry.write_engine.dispose()
    if connection := store._get_provider().online_store._conn:
        connection.close()


class TestMaterialize:
    def test_what_has_landed_is_online_afterwards_and_the_views_are_sound(self, scene: Scene) -> None:
        at = scene.land()
        assert scene.faults() == {FeatureFault.STALE_JOB}, "never materialised"
        scene.materialize()
        seen = scene.view()
        assert (seen.entities, seen.behind, seen.missing, seen.lag_s) == (ASSETS, 0, 0, 0.0)
        assert seen.online_newest_at == seen.source_newest_at == at
        assert seen.null_online == dict.fromkeys(seen.null_online or {}, 0.0)
        assert scene.torque() == 40.0
        assert scene.verdict().mendable is None
        assert scene.progress == [(SENSORS, 0, ASSETS), (SENSORS, ASSETS, ASSETS), (WEAR, 0, ASSETS), (WEAR, ASSETS, ASSETS)]

    def test_the_incremental_goes_on_where_the_last_one_ended_and_costs_nothing_when_nothing_came(self, scene: Scene) -> None:
        scene.land(age=timedelta(minutes=5), torque=30.0)
        scene.materialize()
        scene.land(torque=50.0, assets=3)
        scene.progress.clear()
        scene.materialize(SENSORS)
        assert scene.progress[-1] == (SENSORS, 3, 3)
        assert (scene.torque("asset_1"), scene.torque("asset_9")) == (50.0, 30.0)
        scene.materialize(SENSORS)
        assert scene.progress[-1] == (SENSORS, 0, 0)

    def test_the_end_is_never_in_the_future_and_not_beyond_what_has_landed(self, scene: Scene) -> None:
        at = scene.land()
        scene.materialize(until=scene.now() + timedelta(days=3))
        assert scene.end() == at + timedelta(microseconds=1)

    def test_a_future_end_makes_feasts_incremental_do_nothing_and_is_set_right(self, scene: Scene) -> None:
        scene.land(age=timedelta(hours=2), torque=30.0)
        scene.natively(end_date=scene.now() + timedelta(days=2))
        scene.land(torque=50.0)
        scene.natively(end_date=scene.now())
        assert scene.torque() == 30.0, "feast #4222: it succeeds and loads nothing"
        found = scene.verdict()
        assert {p.fault for p in found.problems} == {FeatureFault.FUTURE_END}
        assert found.mendable is True
        scene.materialize(since=found.since)
        assert scene.torque() == 50.0
        assert scene.faults() == set()
        scene.land(age=timedelta(seconds=1), torque=60.0)
        scene.natively(end_date=scene.now())
        assert scene.torque() == 60.0, "and Feast's own incremental works again"

    def test_late_rows_are_found_and_loaded_by_a_look_back_only(self, scene: Scene) -> None:
        scene.land(age=timedelta(hours=5), torque=30.0)
        scene.materialize()
        scene.land(age=timedelta(minutes=1), assets=1, first=99)
        scene.materialize()
        late = scene.land(age=timedelta(hours=1), torque=50.0, assets=20)
        scene.natively(end_date=scene.now())
        assert scene.torque() == 30.0
        found = scene.verdict()
        assert {p.fault for p in found.problems} == {FeatureFault.STALE_DATA}
        assert "20 of 41 sampled entities" in found.sentence
        scene.materialize(since=found.since)
        assert (scene.torque("asset_1"), scene.torque("asset_30")) == (50.0, 30.0)
        assert scene.faults() == set()
        assert late

    def test_a_look_back_never_puts_an_older_row_over_a_newer_one_as_feast_would(self, scene: Scene) -> None:
        import pandas as pd

        scene.land(age=timedelta(hours=1), torque=30.0)
        scene.materialize()
        columns = dict.fromkeys(("air_temperature_k", "process_temperature_k", "rotational_speed_rpm"), 300.0)
        pushed = pd.DataFrame(
            {"asset_id": ["asset_1"], "type": "L", **columns, "torque_nm": 70.0, "event_timestamp": scene.now(), "created": scene.now()}
        )
        scene.feast.write_to_online_store(SENSORS, pushed)
        scene.materialize(SENSORS, since=scene.now() - timedelta(days=1))
        assert scene.torque() == 70.0
        scene.natively(start_date=scene.now() - timedelta(days=1), end_date=scene.now())
        assert scene.torque() == 30.0, "last write wins in Feast, also with older values"

    def test_rows_loaded_empty_are_mended_from_a_whole_source(self, scene: Scene) -> None:
        scene.land(torque=None)
        scene.natively(end_date=scene.now())
        shutil.rmtree(readings_folder(scene.repo))
        readings_folder(scene.repo).mkdir()
        scene.land(age=timedelta(minutes=2), torque=45.0)  # the pipeline wrote them again, some with an older time
        found = scene.verdict()
        assert {(p.fault, p.feature) for p in found.problems} == {(FeatureFault.NULLS_ONLINE, "torque_nm")}
        scene.materialize(*found.views, since=found.since)
        assert scene.torque() == 45.0
        assert scene.faults() == set()

    def test_rows_up_to_a_past_moment_can_be_asked_for(self, scene: Scene) -> None:
        scene.land(age=timedelta(hours=2), torque=30.0)
        scene.land(torque=50.0)
        cut = scene.now() - timedelta(hours=1)
        scene.materialize(until=cut)
        assert scene.torque() == 30.0
        assert scene.view(until=cut).behind == 0
        assert scene.view().behind == ASSETS

    def test_it_may_be_repeated_and_writes_only_what_differs(self, scene: Scene) -> None:
        scene.land()
        since = scene.now() - timedelta(days=1)
        scene.materialize(since=since)
        one = "feature_name = 'torque_nm' AND encode(entity_key, 'escape') LIKE '%asset_7'"
        scene.sql(f"UPDATE {scene.table()} SET value = ''::bytea WHERE {one}")
        before = scene.written()
        scene.materialize(since=since)
        assert scene.torque("asset_7") == 40.0
        assert len(scene.written() - before) == 5, "the five features of the one row that was broken"

    def test_a_view_that_does_not_exist_is_named(self, scene: Scene) -> None:
        with pytest.raises(NotFound, match="feature view asset_engines is not in the registry"):
            scene.materialize("asset_engines")

    def test_no_row_in_the_window_is_said(self, scene: Scene) -> None:
        scene.land(age=timedelta(days=40))
        with pytest.raises(Refused, match="has no row between"):
            scene.materialize()
        assert scene.faults() == {FeatureFault.NO_ROWS_IN_WINDOW}


class TestAges:
    def test_a_job_that_loads_nothing_looks_fresh_to_feast_and_not_to_us(self, scene: Scene) -> None:
        scene.land(age=timedelta(hours=5))
        scene.natively(end_date=scene.now())
        end = scene.end()
        assert end is not None
        assert scene.now() - end < timedelta(minutes=1), "job time is not data age"
        assert scene.faults() == {FeatureFault.SOURCE_STALE}

    def test_rows_far_older_than_the_ttl_still_come_back_so_age_is_judged_by_their_own_time(self, scene: Scene) -> None:
        scene.land(age=timedelta(minutes=5))
        scene.materialize()
        scene.sql(f"UPDATE {scene.table()} SET event_ts = event_ts - interval '90 days'")
        assert scene.torque() == 40.0, "feast #6821: the TTL is not enforced online"
        assert FeatureFault.STALE_DATA in scene.faults()

    def test_an_entity_that_was_lost_online_is_missing_one_that_has_just_landed_is_behind(self, scene: Scene) -> None:
        scene.land(age=timedelta(minutes=1))
        scene.materialize()
        scene.sql(f"DELETE FROM {scene.table()} WHERE encode(entity_key, 'escape') LIKE '%asset_7'")
        scene.land(assets=2, first=500)
        seen = scene.view()
        assert (seen.missing, seen.behind) == (1, 2)
        found = scene.verdict()
        assert {p.fault for p in found.problems} == {FeatureFault.ENTITIES_MISSING}
        scene.materialize(*found.views, since=found.since)
        assert scene.torque("asset_7") == 40.0

    def test_only_a_changed_definition_counts_as_an_update_not_a_materialisation(self, scene: Scene) -> None:
        scene.land()
        scene.materialize()
        assert scene.view().updated_at is None
        view = scene.feast.get_feature_view(WEAR)
        view.features = [*view.features, type(view.features[0])(name="torque_nm", dtype=view.features[0].dtype)]
        with contextlib.redirect_stdout(io.StringIO()):
            scene.feast.apply([view])
        scene.materialize()
        changed = scene.view(WEAR).updated_at
        assert changed is not None
        assert abs(scene.now() - changed) < timedelta(minutes=1)


class TestBroken:
    """Each is a finding of its own, and says what to do; none of them raises."""

    def broken(self, scene: Scene) -> tuple[set[FeatureFault], str]:
        found = scene.verdict()
        assert found.mendable is False
        return {p.fault for p in found.problems}, found.sentence

    def test_a_missing_registry_looks_like_an_empty_store(self, scene: Scene) -> None:
        file = scene.repo / "feature_store.yaml"
        file.write_text(file.read_text().replace("project: fleet", "project: elsewhere"))
        assert self.broken(scene)[0] == {FeatureFault.REGISTRY_MISSING}
        file.unlink()
        faults, sentence = self.broken(Scene(scene.repo, scene.url, scene.feast))
        assert faults == {FeatureFault.REGISTRY_MISSING}
        assert "set MLRUNBOOK_FEATURE_REPO" in sentence

    def test_a_missing_view_and_a_missing_service_are_named(self, scene: Scene) -> None:
        scene.land()
        scene.materialize()
        scene.feast.delete_feature_service(POLICY.service)
        assert self.broken(scene) == ({FeatureFault.SERVICE_MISSING}, self.broken(scene)[1])
        scene.feast.delete_feature_view(WEAR)
        faults, sentence = self.broken(scene)
        assert faults == {FeatureFault.VIEW_MISSING, FeatureFault.SERVICE_MISSING}
        assert "asset_wear is not in the registry" in sentence

    def test_a_locked_online_store_is_an_outage_and_is_read_again_once_it_is_free(self, scene: Scene) -> None:
        scene.land()
        scene.materialize()
        with psycopg.connect(scene.url) as holder:
            holder.execute(f"LOCK TABLE {scene.table()} IN ACCESS EXCLUSIVE MODE")
            faults, sentence = self.broken(scene)
            assert faults == {FeatureFault.ONLINE_LOCKED}
            assert "end the transaction that holds its tables" in sentence
            with pytest.raises(Transient, match="locked"):
                scene.materialize(since=scene.now() - timedelta(days=1))
        assert scene.faults() == set()

    def test_a_dropped_table_is_told_from_a_locked_one(self, scene: Scene) -> None:
        scene.land()
        scene.materialize()
        scene.sql(f"DROP TABLE {scene.table()}")
        faults, sentence = self.broken(scene)
        assert faults == {FeatureFault.ONLINE_DROPPED}
        assert "apply the definitions again (feast apply), then materialize" in sentence

    def test_a_database_that_does_not_answer_is_unreachable(self, scene: Scene) -> None:
        file = scene.repo / "feature_store.yaml"
        text = file.read_text()
        file.write_text(text.replace("port: 5432", "port: 5439"))
        assert self.broken(scene)[0] == {FeatureFault.ONLINE_UNREACHABLE}
        file.write_text(text)
        scene.land()
        scene.materialize()
        assert scene.faults() == set(), "the next look opens it anew"

    def test_connections_that_the_server_closed_are_made_again(self, scene: Scene) -> None:
        scene.land()
        scene.materialize()
        scene.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        scene.verdict()
        assert scene.faults() == set()

    def test_a_missing_source_a_corrupt_file_and_a_lost_column_are_told_apart(self, scene: Scene) -> None:
        folder = readings_folder(scene.repo)
        assert self.broken(scene)[0] == {FeatureFault.SOURCE_MISSING}
        scene.land()
        (folder / "half.parquet").write_bytes(b"PAR1 cut off")
        faults, sentence = self.broken(scene)
        assert faults == {FeatureFault.SOURCE_CORRUPT}
        assert "half.parquet" in sentence
        with pytest.raises(Refused, match=r"half\.parquet"):
            scene.materialize()
        (folder / "half.parquet").unlink()
        import pyarrow.parquet as pq

        file = next(folder.glob("*.parquet"))
        table = pq.read_table(file)
        pq.write_table(table.rename_columns(["machine_id" if n == "asset_id" else n for n in table.column_names]), file)
        faults, sentence = self.broken(scene)
        assert faults == {FeatureFault.WRONG_ENTITY_KEY}
        assert "has no column asset_id" in sentence

    def test_a_store_keyed_otherwise_than_callers_ask_is_named(self, scene: Scene) -> None:
        scene.land()
        scene.materialize()
        asked = Scene(scene.repo, scene.url, scene.feast, policy=FeatureStorePolicy(join_keys=("machine_id",)))
        faults, sentence = self.broken(asked)
        assert faults == {FeatureFault.WRONG_ENTITY_KEY}
        assert "keyed by asset_id, but callers ask by machine_id" in sentence

    def test_a_service_that_gives_a_key_another_name_is_asked_by_that_name(self, scene: Scene) -> None:
        """Also where it has the same views twice, for two machines of a pair."""
        from mlrunbook.adapters.feast.api import load_feast
        from mlrunbook.local.features import definitions

        feast = load_feast()
        scene.land()
        views, others = (definitions.views(feast, readings_folder(scene.repo)) for _ in range(2))
        first = [view.with_join_key_map({"asset_id": "machine_id"}) for view in views]
        pair = [view.with_name(f"{view.name}_1").with_join_key_map({"asset_id": "machine_id"}) for view in views]
        pair += [view.with_name(f"{view.name}_2").with_join_key_map({"asset_id": "spare_id"}) for view in others]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            for features, keys in ((first, ("machine_id",)), (pair, ("machine_id", "spare_id"))):
                service = feast.FeatureService(name=POLICY.service, features=features)
                scene.feast.apply([definitions.entity(feast), *definitions.views(feast, readings_folder(scene.repo)), service])
                scene.natively(end_date=scene.now())
                asked = Scene(scene.repo, scene.url, scene.feast, policy=FeatureStorePolicy(join_keys=keys))
                assert asked.faults() == set(), asked.verdict().sentence
        faults, sentence = self.broken(scene)
        assert faults == {FeatureFault.WRONG_ENTITY_KEY}
        assert "keyed by machine_id, but callers ask by asset_id" in sentence

    @pytest.mark.parametrize(
        ("state", "fault", "command"),
        [
            ("MATERIALIZING", FeatureFault.MATERIALIZING, "serve_features_while_materializing: true"),
            ("GENERATED", FeatureFault.NOT_SERVED, "feast materialize"),
            (None, FeatureFault.NOT_SERVED, "feast feature-views enable asset_sensors"),
        ],
    )
    def test_a_view_that_feast_does_not_serve_is_no_wrong_key(
        self, scene: Scene, state: str | None, fault: FeatureFault, command: str
    ) -> None:
        from feast.feature_view import FeatureViewState

        scene.land()
        scene.materialize()
        view = scene.feast.registry.get_feature_view(SENSORS, scene.feast.project)
        if state:
            view.state = FeatureViewState[state]
        else:
            view.enabled = False
        with psycopg.connect(scene.url, autocommit=True) as conn:  # Feast's own apply takes a view in another state for the same view
            change = "UPDATE feature_views SET feature_view_proto = %s WHERE feature_view_name = %s"
            assert conn.execute(change, (view.to_proto().SerializeToString(), SENSORS)).rowcount == 1
        faults, sentence = self.broken(scene)
        assert faults == {fault}
        assert command in sentence
        assert (scene.verdict().mendable, scene.verdict().outage) == (False, True)

    def test_values_lost_upstream_are_not_materialised_over(self, scene: Scene) -> None:
        scene.land(torque=None)
        scene.materialize()
        faults, sentence = self.broken(scene)
        assert faults == {FeatureFault.NULLS_IN_SOURCE}
        assert "torque_nm is empty in 100 % of the newest source rows" in sentence
