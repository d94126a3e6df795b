"""Outcomes carry their author, a correction is a version, and a rewrite shows in the metrics answer."""

from __future__ import annotations

import itertools
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.evaluation.performance import Rewritten
from mlrunbook.local.platform import api, metrics, outcomes
from tests.local.platform.kit import NOW, bearer, log, new_model, release, settings_for

FEED = Identity("0000aaaa", "maintenance records", None, frozenset({Scope.OUTCOMES}))
OTHER = Identity("0000bbbb", "another caller", None, frozenset({Scope.OUTCOMES}))
SINCE, UNTIL = NOW - timedelta(days=30), NOW + timedelta(days=30)
HOUR = timedelta(hours=1)


class World:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.model = engine, new_model()

    def report(self, ids: list[int], failed: bool, *, who: Identity = FEED, at: datetime = NOW) -> list[int]:
        with transaction(self.engine) as conn:
            return outcomes.record(conn, dict.fromkeys(ids, failed), who=who, at=at)

    def versions(self, of: int) -> list[tuple[bool, str | None, bool | None]]:
        with transaction(self.engine) as conn:
            return [(v.outcome, v.by, v.previous) for v in outcomes.versions(conn, of)[1]]

    def rewritten(self) -> Rewritten:
        with transaction(self.engine) as conn:
            found = metrics.window(conn, self.model, since=SINCE, until=UNTIL).rewritten
        assert found is not None
        return found


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def test_every_correction_is_a_version_with_its_author_and_the_same_value_is_none(world: World) -> None:
    (one,) = log(world.engine, world.model, unlabelled=1)
    assert world.report([one], True) == []
    world.report([one], True, who=OTHER)
    world.report([one], False, who=OTHER, at=NOW + HOUR)
    world.report([one], True, at=NOW + 2 * HOUR)
    assert world.versions(one) == [
        (True, "maintenance records", None),
        (False, "another caller", True),
        (True, "maintenance records", False),
    ]


def test_the_version_that_was_there_before_authors_were_kept_stays_known(world: World) -> None:
    (one,) = log(world.engine, world.model, tp=1)
    assert world.versions(one) == [(True, None, None)]
    world.report([one], False)
    assert world.versions(one) == [(True, None, None), (False, "maintenance records", True)]
    assert world.report([one, 2**62], False) == [2**62]


@pytest.mark.parametrize("change", ["UPDATE platform.outcomes SET by = 'x'", "DELETE FROM platform.outcomes"])
def test_no_version_is_changed_or_removed(world: World, change: str) -> None:
    world.report(log(world.engine, world.model, unlabelled=1), True)
    with pytest.raises(DBAPIError, match="never changed"), world.engine.begin() as conn:
        conn.execute(text(change))


def test_who_reported_it_may_correct_it_for_an_hour_and_nobody_else_may_unseen(world: World) -> None:
    first, second, third = log(world.engine, world.model, unlabelled=3)
    world.report([first, second, third], False)
    world.report([first], True, at=NOW + HOUR)
    assert world.rewritten().count == 0
    world.report([second], True, at=NOW + HOUR + timedelta(seconds=1))
    world.report([third], True, who=OTHER, at=NOW + timedelta(seconds=1))
    assert world.rewritten().by == {"maintenance records": 1, "another caller": 1}


def test_metrics_use_the_newest_and_know_the_first(world: World) -> None:
    ids = log(world.engine, world.model, tp=5, fp=2, fn=1, tn=12)
    world.report(ids[:5], False, who=OTHER)
    seen = world.rewritten()
    assert (seen.count, seen.of, seen.by) == (5, 20, {"another caller": 5})
    assert (seen.first.tp, seen.first.fp, seen.now.tp, seen.now.fp) == (5, 2, 0, 7)
    world.report(ids[:5], True, at=NOW + HOUR)
    assert world.rewritten().count == 0, "set right again"


def test_a_late_correction_does_not_make_outcomes_look_slow(world: World) -> None:
    ids = log(world.engine, world.model, unlabelled=3, at=NOW - timedelta(days=20))
    world.report(ids, True, at=NOW - timedelta(days=20) + HOUR)
    world.report(ids, False, who=OTHER)
    with transaction(world.engine) as conn:
        assert metrics.window(conn, world.model, since=SINCE, until=UNTIL).label_delay_s == 3600


def test_reports_at_the_same_time_leave_one_line_of_versions(world: World) -> None:
    ids = log(world.engine, world.model, unlabelled=50)
    world.report(ids, True)
    begin = threading.Barrier(6)

    def rewrite(failed: bool, order: int) -> None:
        begin.wait()
        world.report(ids[::order], failed, who=OTHER)

    threads = [threading.Thread(target=rewrite, args=(bool(i % 2), 1 if i % 3 else -1)) for i in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for one in ids:
        found = world.versions(one)
        assert all(later[2] is earlier[0] and later[0] is not earlier[0] for earlier, later in itertools.pairwise(found))


def test_over_rest_the_rewrite_of_old_outcomes_shows_by_whom(world: World, tmp_path: Path) -> None:
    """Predictions of twenty days ago, which are in neither window."""
    config = settings_for(tmp_path, world.engine)
    release(world.engine, config.models_dir, world.model, "v1.5.0")
    ids = log(world.engine, world.model, tp=40, fp=1, fn=1, tn=458, at=NOW - timedelta(days=20))
    app = api.create_app(config, world.engine, evaluate_every_s=None, clock=lambda: NOW)
    with TestClient(app, headers=bearer(world.engine, Scope.READ)) as http:
        flipped = {"outcomes": [{"predictionId": i, "failed": n >= 40} for n, i in enumerate(ids)]}
        sender = bearer(world.engine, Scope.OUTCOMES, name="another caller")
        assert http.post("/api/v1/ml/predictions/outcomes", json=flipped, headers=sender).json()["recorded"] == 500
        seen = http.get(f"/api/v1/model-performance/metrics/{world.model}").json()["rewrittenLately"]
        assert (seen["of"], seen["by"]) == (500, {"another caller": seen["count"]})
        assert seen["firstReported"]["f1"] > 0.95
        assert seen["current"]["f1"] < 0.05
        newest = http.get(f"/api/v1/ml/predictions/{ids[0]}/outcomes").json()["versions"][-1]
        assert (newest["reportedBy"], newest["failed"], newest["previous"]) == ("another caller", False, True)
        assert http.get("/api/v1/ml/predictions/1/outcomes", headers={"Authorization": ""}).status_code == 401
        assert http.get(f"/api/v1/ml/predictions/{2**62}/outcomes").status_code == 404
