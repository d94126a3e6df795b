"""What the model server reads by asset id, and what it hears when the feature store is locked, dropped, unreachable or incomplete."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from mlrunbook.adapters.feast.api import load_feast
from mlrunbook.domain.errors import Transient
from mlrunbook.local.features import definitions
from mlrunbook.local.features.repository import apply
from mlrunbook.local.platform.columns import RAW
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.local.serving.online_features import OnlineFeatures
from tests.local.features.feast_kit import Feast
from tests.local.platform.kit import reading
from tests.waiting import until

NOW = datetime.now(UTC)
UNKNOWN = dict.fromkeys(RAW)


@pytest.fixture(scope="module")
def feast(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Feast:
    made = Feast(postgres, tmp_path_factory.mktemp("feast"))
    for i in range(20):
        made.land(NOW - timedelta(minutes=1), f"asset_{i}", torque_nm=float(i))
    made.land(NOW - timedelta(minutes=1), "deaf", torque_nm=None, type=None)
    made.materialize(NOW)
    return made


@pytest.fixture(scope="module")
def online(feast: Feast) -> Iterator[OnlineFeatures]:
    reader = OnlineFeatures(feast.repo)
    with pytest.raises(Transient, match="is being loaded"):
        reader.read(["asset_1"])
    assert reader.state == "loading"
    reader.start()
    until(lambda: reader.state == "ok")
    yield reader
    reader.stop()


def failure(online: OnlineFeatures) -> str:
    with pytest.raises(Transient) as raised:
        online.probe()
    return str(raised.value)


def test_features_come_in_the_order_asked_once_for_every_time_an_asset_is_named(online: OnlineFeatures) -> None:
    asked = ["asset_7", "nobody", "asset_3", "asset_7"]
    assert online.read(asked) == [reading(7.0), UNKNOWN, reading(3.0), reading(7.0)]
    assert online.read([]) == []
    online.probe()


def test_a_null_is_unknown_and_nothing_else(online: OnlineFeatures) -> None:
    assert online.read(["deaf"]) == [reading(None, type=None)]


def test_threads_read_their_own_assets(online: OnlineFeatures) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda i: online.read([f"asset_{i % 20}", "nobody"]), range(60)))
    assert answers == [[reading(float(i % 20)), UNKNOWN] for i in range(60)]


def test_a_row_is_served_however_old_it_is_so_age_must_be_watched_elsewhere(feast: Feast, online: OnlineFeatures) -> None:
    old = NOW - definitions.TTL - timedelta(days=1)
    feast.land(old, "forgotten", torque_nm=55.0)
    feast.store.materialize(old - timedelta(hours=1), old + timedelta(hours=1))
    assert online.read(["forgotten"]) == [reading(55.0)]


def test_reading_goes_on_after_postgresql_has_cut_every_connection(feast: Feast, online: OnlineFeatures) -> None:
    feast.cut_connections()
    assert online.read(["asset_2"]) == [reading(2.0)]


def test_a_database_that_lets_nobody_in_is_unreachable_until_it_does(feast: Feast, online: OnlineFeatures) -> None:
    feast.let_in(False)
    feast.cut_connections()
    try:
        with pytest.raises(Transient, match="online store cannot be reached"):
            online.read(["asset_2"])
        assert "cannot be reached" in online.state
    finally:
        feast.let_in(True)
    assert online.read(["asset_2"]) == [reading(2.0)]
    assert online.state == "ok"


def test_a_locked_table_ends_the_read_and_the_probe_and_is_named(feast: Feast, online: OnlineFeatures) -> None:
    with psycopg.connect(feast.url) as holder:
        holder.execute("LOCK TABLE fleet_asset_wear IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(8) as threads:  # they take turns, and none waits for all the others
            failures = list(threads.map(lambda _: failure(online), range(8)))
        assert all("the online store is locked" in one for one in failures), failures
        assert "locked" in online.state
    assert online.read(["asset_2"]) == [reading(2.0)]


def test_a_dropped_table_is_named(feast: Feast, online: OnlineFeatures) -> None:
    feast.sql("ALTER TABLE fleet_asset_wear RENAME TO gone")
    with pytest.raises(Transient, match=r"table of the online store is gone .*fleet_asset_wear.*materialise"):
        online.probe()
    feast.sql("ALTER TABLE gone RENAME TO fleet_asset_wear")
    online.probe()


def test_a_service_that_leaves_the_registry_or_loses_a_feature_is_noticed_and_so_is_its_return(
    feast: Feast, online: OnlineFeatures
) -> None:
    def said(words: str) -> bool:
        try:
            online.probe()
        except Transient as error:
            return words in str(error)
        return False

    feast.store.delete_feature_service(definitions.SERVICE)
    until(lambda: said("the registry has no feature service asset_features"))
    found = load_feast()
    feast.store.apply([definitions.service(found, definitions.views(found, feast.readings)[:1])])
    until(lambda: said("asset_features lacks tool_wear_min"))
    apply(feast.store, feast.repo)

    def mended() -> bool:
        try:
            return online.read(["asset_2"]) == [reading(2.0)]
        except Transient:
            return False

    until(mended)


def test_a_store_that_is_not_there_yet_is_waited_for(feast: Feast, tmp_path: Path) -> None:
    reader = OnlineFeatures(tmp_path / "features")
    reader.start()
    until(lambda: "no feature store" in reader.state)
    with pytest.raises(Transient, match="not ready: there is no feature store"):
        reader.probe()
    (tmp_path / "features").symlink_to(feast.repo)
    until(lambda: reader.state == "ok")
    assert threading.active_count() < 100
