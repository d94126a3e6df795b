"""Path C before the gate: nobody is asked about a candidate that has not proved better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from flows.candidate import prepare_candidate
from mlrunbook.domain.actions import Path
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.domain.observed import Prediction, Replayed
from mlrunbook.domain.policy.connections import PlatformParts, Replay, ReplayPart, Shadow
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy, Retraining
from mlrunbook.domain.resolution.candidate import Outlook
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.containment import evidence
from mlrunbook.response.detection import triage
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.lifecycle.runs import take
from mlrunbook.response.resolution import candidate
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from mlrunbook.store import records
from tests.fakes import MODEL, Clock, FileWorld
from tests.response.carrying import play
from tests.response.people import incident_of, recorded, report, told

NAMED = "v3.0.0"


def asked(world: World, model: str = MODEL, **changes: Any) -> Request:
    start, end = world.now() - timedelta(days=20), world.now() - timedelta(hours=1)
    wish = Request(path=Path.RETRAIN, start_date=start, end_date=end, version=NAMED, reason="the load has changed", by="an engineer")
    return candidate.check_request(world, model, replace(wish, **changes))


def carried(world: World, request: Request | None) -> Run:
    incident_id = report(world)
    incident = incident_of(world, incident_id)
    if request:
        open_or_join(world, NewReport(MODEL, incident.severity, incident.type, "retraining requested", "", "an engineer"), request)
    run = take(world, incident_id, "run-1")
    assert run is not None
    triage.triage(run)
    evidence.preserve(run)
    return run


@pytest.fixture
def run(world: World) -> Run:
    return carried(world, asked(world))


def test_a_candidate_that_proves_better_is_staged_and_waits_for_a_person(run: Run, file_world: FileWorld) -> None:
    assert play(prepare_candidate, run).verdict == "promote"
    assert file_world.state["staging"] == NAMED
    assert file_world.state["serving"] == "v2.0.0"
    assert file_world.applied == {f"train:{NAMED}": 1, f"register:{NAMED}": 1, f"stage:{NAMED}": 1}
    assert [t.split(":")[0] for t in told(run.world, run.incident_id, "candidate")] == [
        "Path C", *[t for t in ("Trained v3.0.0 on 2026-03-09 00",)], "Validation", "Shadow",
    ]  # fmt: skip


def test_every_step_may_be_repeated_and_applies_once(run: Run, file_world: FileWorld) -> None:
    first = play(prepare_candidate, run)
    before = file_world.applied
    assert play(prepare_candidate, run) == first
    assert file_world.applied == before


def test_the_staging_plan_rests_on_a_named_rule(run: Run) -> None:
    play(prepare_candidate, run)
    assert [t for t in told(run.world, run.incident_id, "plan") if "Staging planned: register" in t]
    assert recorded(run.world, run.incident_id, "candidate_plan")["digest"]


def test_a_candidate_that_is_no_better_is_never_staged(run: Run, file_world: FileWorld) -> None:
    file_world.set(bad_versions=file_world.state["bad_versions"] | {NAMED: "degraded"})
    assert play(prepare_candidate, run).verdict == "do_not_promote"
    assert file_world.state["staging"] is None
    with pytest.raises(Refused, match="validation has not passed"):
        candidate.stage(run)
    assert f"stage:{NAMED}" not in file_world.applied


BROKEN: dict[str, Callable[[float], object]] = {
    "another unit": lambda v: v * 10,
    "a constant": lambda _: 41.0,
    "nothing": lambda _: None,
    "text": str,
    "infinite": lambda _: float("inf"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_candidate_that_was_trained_on_broken_rows_is_refused_by_the_feature(
    run: Run, file_world: FileWorld, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    everything = file_world.prediction_log

    def log(*args: Any, **asked: Any) -> list[Prediction]:
        rows = everything(*args, **asked)
        if not asked.get("labelled_only") or asked.get("until") is None:
            return list(rows)  # not the training window
        value = BROKEN[name]
        return [replace(p, features=dict(p.features) | {"torque_nm": value(p.features["torque_nm"])}) for p in rows]

    monkeypatch.setattr(file_world, "prediction_log", log)
    assert play(prepare_candidate, run).verdict == "do_not_promote"
    (said,) = [t for t in told(run.world, run.incident_id, "candidate") if t.startswith("Validation")]
    assert "trained on broken rows: torque_nm" in said
    assert file_world.state["staging"] is None


def test_a_candidate_that_fails_in_the_shadow_is_taken_out_again(run: Run, file_world: FileWorld) -> None:
    candidate.wanted(run)
    candidate.train(run, lambda _: None)
    candidate.register(run)
    candidate.validate(run)
    candidate.stage(run)
    file_world.set(bad_versions={NAMED: "degraded"})  # live traffic is not what was held out
    for _ in range(2):
        assert play(prepare_candidate, run).verdict == "do_not_promote"
    assert file_world.state["staging"] is None
    assert file_world.applied["stage:None"] == 1


def test_a_shadow_that_says_nothing_yet_is_looked_at_again_and_given_up_in_time(
    run: Run, file_world: FileWorld, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = file_world.prediction_log
    monkeypatch.setattr(file_world, "prediction_log", lambda *a, **k: list(everything(*a, **k))[:20])
    assert play(prepare_candidate, run).verdict == "waiting"
    assert not run.recorded("shadow")
    clock.advance(minutes=run.world.policy.retraining.shadow_give_up_min)
    assert play(prepare_candidate, run).verdict == "not_enough_evidence"
    assert file_world.state["staging"] is None


@pytest.fixture
def offline(world: World, file_world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The log holds no scores of a shadow, and says which artefacts were run."""
    everything, replayed = file_world.prediction_log, file_world.replay

    def log(*args: Any, **asked: Any) -> list[Prediction]:
        return [replace(p, shadow_version=None, shadow_score=None) for p in everything(*args, **asked)]

    def replay(*args: Any, **asked: Any) -> Replayed:
        found = replayed(*args, **asked)
        return replace(found, versions=tuple(replace(one, digest=f"digest of {one.version}") for one in found.versions))

    monkeypatch.setattr(file_world, "prediction_log", log)
    monkeypatch.setattr(file_world, "replay", replay)
    parts = PlatformParts(replay=ReplayPart(Replay.REST), shadow=Shadow.OFFLINE)
    by_the_log = replace(world, policy=Policy(models={MODEL: ModelRules(platform=parts)}))
    return carried(by_the_log, asked(by_the_log))


def test_without_live_traffic_a_candidate_is_tried_offline_on_what_was_logged_since_and_that_is_said(
    offline: Run, file_world: FileWorld
) -> None:
    assert play(prepare_candidate, offline).verdict == "promote"
    assert file_world.state["staging"] == NAMED
    assert "offline" in recorded(offline.world, offline.incident_id, "shadow")["sentence"]
    (ran,) = [t for t in told(offline.world, offline.incident_id, "candidate") if t.startswith("Replay")]
    assert f"digest of {NAMED}" in ran


def test_a_candidate_whose_model_fails_is_not_compared_and_never_staged(offline: Run, file_world: FileWorld) -> None:
    file_world.set(unreadable={NAMED: "its process was ended by signal 9"})
    assert play(prepare_candidate, offline).verdict == "do_not_promote"
    assert file_world.state["staging"] is None
    assert f"stage:{NAMED}" not in file_world.applied
    assert any("not compared: its process was ended" in t for t in told(offline.world, offline.incident_id, "candidate"))


def test_a_candidate_whose_model_fails_only_in_the_shadow_is_taken_out_again(offline: Run, file_world: FileWorld) -> None:
    candidate.wanted(offline)
    candidate.train(offline, lambda _: None)
    candidate.register(offline)
    candidate.validate(offline)
    candidate.stage(offline)
    file_world.set(unreadable={NAMED: "it took longer than 240 s"})
    assert play(prepare_candidate, offline).verdict == "do_not_promote"
    assert file_world.state["staging"] is None


def test_a_holdout_with_too_few_failures_waits_for_outcomes(world: World, clock: Clock, file_world: FileWorld) -> None:
    patient = replace(world, policy=Policy(retraining=Retraining(min_positives=100_000)))
    run = carried(patient, asked(patient))
    assert play(prepare_candidate, run).verdict == "waiting"
    assert not run.recorded("validation")
    clock.advance(days=2)
    assert play(prepare_candidate, run).verdict == "not_enough_evidence"
    assert run.recorded("validation")
    assert file_world.state["staging"] is None


def test_without_path_c_nothing_is_prepared(world: World, file_world: FileWorld) -> None:
    run = carried(world, None)
    assert play(prepare_candidate, run) == Outlook(None)
    assert run.recorded("retrain") is None
    assert file_world.applied == {}


def live(now: datetime, n: int) -> list[Prediction]:
    """The errors double half way."""
    rows = []
    for i in range(n):
        failed = i % 20 == 0
        wrong = i % 40 == 3 or (i > n // 2 and i % 10 == 7)
        at = now - timedelta(seconds=n - i)
        rows.append(Prediction(i, at, f"asset_{i}", "L", {}, 0.5, failed is not wrong, "v2.0.0", 0.5, 1.0, outcome=failed))
    return rows


def test_a_concept_drift_is_retrained_from_its_onset_on(world: World, file_world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    run = carried(world, None)
    rows = live(world.now(), 8000)

    def page(_: str, *, limit: int, until: datetime | None = None, **__: Any) -> list[Prediction]:
        return [p for p in reversed(rows) if until is None or p.at < until][:limit]

    monkeypatch.setattr(file_world, "prediction_log", page)
    monkeypatch.setattr(candidate, "PAGE", 3000)
    with run.write() as conn:
        records.put(conn, run.incident_id, "diagnosis", {"path": "retrain", "cause": "concept_drift"}, now=world.now())
    wanted = candidate.wanted(run)
    assert wanted is not None
    assert wanted.version == "v2.1.0"
    assert wanted.start is not None
    assert abs((wanted.start - rows[4000].at).total_seconds()) < 200
    assert candidate.wanted(run) == wanted


def test_too_few_known_failures_are_said_to_the_person_who_is_asked(
    world: World, file_world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = carried(world, None)
    monkeypatch.setattr(file_world, "prediction_log", lambda *_, **__: live(world.now(), 1000))
    with run.write() as conn:
        records.put(conn, run.incident_id, "diagnosis", {"path": "retrain", "cause": "new_segment"}, now=world.now())
    assert play(prepare_candidate, run).verdict == "not_enough_evidence"
    assert "too few failures" in recorded(world, run.incident_id, "validation")["sentence"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "v1.5.0"}, "never overwritten"),
        ({"version": "../v9"}, "1-64 letters"),
        ({"version": "v9; rm -rf"}, "1-64 letters"),
        ({"end_date": datetime(2999, 1, 1)}, "future"),  # noqa: DTZ001 - people type times without a zone
        ({"end_date": datetime(2001, 1, 1)}, "swap"),  # noqa: DTZ001
    ],
)
def test_a_request_that_cannot_be_done_is_refused_before_an_incident_opens(world: World, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        asked(world, **changes)


def test_times_without_a_zone_count_as_utc(world: World) -> None:
    start = (world.now() - timedelta(days=2)).replace(tzinfo=None)
    assert asked(world, start_date=start).to_record()["start_date"] == start.isoformat() + "+00:00"


def test_an_unknown_model_cannot_be_retrained(world: World) -> None:
    with pytest.raises(NotFound):
        asked(world, "other")
