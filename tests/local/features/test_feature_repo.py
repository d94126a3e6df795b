"""The feature store's folder and definitions: private, applied as often as one likes, and clear about what is wrong."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from sqlalchemy.engine import make_url

from mlrunbook.adapters.feast.api import load_feast, open_store
from mlrunbook.domain.errors import Invalid, NotFound, RunbookError, Transient
from mlrunbook.local.features.definitions import PROJECT, SERVICE, VIEWS
from mlrunbook.local.features.repository import apply, write_config
from mlrunbook.local.platform.columns import RAW
from mlrunbook.local.postgres import EmbeddedPostgres
from tests.local.features.feast_kit import Feast


@pytest.fixture(scope="module")
def feast(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Feast:
    return Feast(postgres, tmp_path_factory.mktemp("feast"))


def test_importing_feast_leaves_the_type_checker_of_others_alone() -> None:
    import typeguard

    with ThreadPoolExecutor(4) as threads:
        assert len({id(found) for found in threads.map(lambda _: load_feast(), range(4))}) == 1

    @typeguard.typechecked
    def doubled(number: int) -> int:
        return 2 * number

    with pytest.raises(typeguard.TypeCheckError):
        doubled("two")  # type: ignore[arg-type]


def test_the_file_holds_the_password_and_is_ours_alone_also_over_an_open_one(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("old")
    (tmp_path / "feature_store.yaml").chmod(0o644)
    file = write_config(tmp_path, database_url="postgresql://me:s3cret@/feast?host=/tmp/sockets")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config = yaml.safe_load(file.read_text())
    assert make_url(config["registry"]["path"]) == make_url("postgresql+psycopg://me:s3cret@/feast?host=/tmp/sockets")
    online = config["online_store"]
    assert (online["host"], online["port"], online["password"], online["sslmode"]) == ("/tmp/sockets", 5432, "s3cret", "disable")
    assert config["telemetry"] is False


def test_every_raw_feature_is_in_one_view_and_the_service_gives_them_all(feast: Feast) -> None:
    assert sorted(name for columns in VIEWS.values() for name in columns) == sorted(RAW)
    assert {view.name for view in feast.store.list_feature_views()} == set(VIEWS)
    service = feast.store.get_feature_service(SERVICE)
    assert {feature.name for view in service.feature_view_projections for feature in view.features} == set(RAW)
    assert [entity.join_key for entity in feast.store.list_entities()] == ["asset_id"]


def test_applying_again_changes_nothing(feast: Feast) -> None:
    def registered() -> list[object]:
        return [feast.sql(f"SELECT * FROM {table}") for table in ("feature_views", "feature_services", "entities", "data_sources")]

    before = registered()
    apply(open_store(feast.repo), feast.repo)
    assert registered() == before


def test_stores_that_open_a_fresh_registry_at_once_all_get_it(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    fresh = Feast(postgres, tmp_path, applied=False)
    together = threading.Barrier(3)

    def opened(_: int) -> str:
        together.wait()
        return open_store(fresh.repo).project

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(opened, range(3))) == [PROJECT] * 3


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (None, NotFound, r"there is no feature store at .*MLRUNBOOK_FEATURE_REPO"),
        ("project: [", Invalid, "cannot be used"),
        ("project: fleet\nprovider: local\nonline_store: {type: never-heard-of}\n", Invalid, "cannot be used"),
        ("just words", Invalid, "cannot be used"),
    ],
)
def test_a_repository_that_cannot_be_opened_says_why(content: str | None, error: type[RunbookError], words: str, tmp_path: Path) -> None:
    if content:
        (tmp_path / "feature_store.yaml").write_text(content)
    with pytest.raises(error, match=words):
        open_store(tmp_path)


def test_a_registry_that_is_away_may_come_back(tmp_path: Path) -> None:
    write_config(tmp_path, database_url=f"postgresql://me@/feast?host={tmp_path}")
    with pytest.raises(Transient, match="registry of the feature store does not answer"):
        open_store(tmp_path)
