"""Trouble of the server itself: told from other causes, restarted only where a new process mends it, and over only when it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from mlrunbook.domain.actions import Path, RollBack
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.investigation.diagnosis import Diagnosis, diagnose
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State
from mlrunbook.domain.investigation.serving_health import SETTLES, Trouble, is_over, trouble_of
from mlrunbook.domain.policy.judging import SeverityPolicy
from mlrunbook.domain.resolution.paths import Situation
from mlrunbook.domain.resolution.plan import propose
from tests.domain.builders import FALLEN, HEALTHY, NOW, change, gathered, metrics, status, window

POLICY = SeverityPolicy()
CANNOT = "v2.0.0 cannot score: Input X contains NaN"


def found(**states: State) -> list[Finding]:
    return [Finding(i.key, states.get(i.key.split(".")[1], State.OK), "test", None, f"{i.key} seen") for i in CHECKLIST]


def decide(findings: Sequence[Finding] | None = None, **facts: Any) -> Diagnosis:
    """A sound model that serves, unless `facts` say otherwise."""
    values: dict[str, Any] = {
        "detected_at": NOW,
        "metrics": metrics(HEALTHY),
        "changes": [],
        "status": status(),
        "predictions": [],
        "model_version": "v2.0.0",
    }
    return diagnose(findings or found(), gathered(**(values | facts)), NOW)


def failing(**errors: int) -> Any:
    """A tenth of what was asked failed in these ways."""
    return metrics(HEALTHY, error_rate=0.1, errors=errors)


class TestDiagnosis:
    def test_a_server_that_does_not_answer_is_restarted(self) -> None:
        d = decide(status=status(server_healthy=False, server_version=None))
        assert (d.top.cause, d.path) == (Cause.SERVING_INFRASTRUCTURE, Path.RESTART)
        assert d.sentence.startswith("serving is in trouble: the model server does not answer")

    def test_a_server_that_does_not_answer_is_restarted_also_when_nothing_else_is_known(self) -> None:
        unknown = [Finding(i.key, State.UNKNOWN, "test", None, "not known") for i in CHECKLIST]
        d = decide(unknown, metrics=None, changes=None, status=status(server_healthy=False, server_version=None))
        assert (d.top.cause, d.path) == (Cause.SERVING_INFRASTRUCTURE, Path.RESTART)

    @pytest.mark.parametrize("healthy", [True, False])
    def test_a_route_to_a_version_that_does_not_load_is_named_and_no_restart_is_offered(self, healthy: bool) -> None:
        """A restart loads no other version: while something serves still, it would leave nothing."""
        route = "v9.9.9: predictive_maintenance has no version 'v9.9.9'; registered are v1.5.0, v2.0.0"
        d = decide(status=status(server_healthy=healthy, server_version="v2.0.0" if healthy else None, unloadable_route=route))
        assert (d.top.cause, d.path) == (Cause.SERVING_INFRASTRUCTURE, None)
        assert route in d.sentence
        assert "--take-back" in d.advice

    def test_a_route_that_leads_to_nothing_is_the_lesser_trouble_of_a_model_that_is_wrong(self) -> None:
        released = [change("deployment", hours_ago=1)]
        d = decide(metrics=metrics(FALLEN), changes=released, status=status(unloadable_route="v9.9.9: there is none"))
        assert d.top.cause is not Cause.SERVING_INFRASTRUCTURE

    def test_a_slow_server_with_a_sound_model_is_restarted(self) -> None:
        d = decide(found(inference_latency=State.SUSPECT), metrics=metrics(HEALTHY, latency_p95_ms=4000.0))
        assert (d.top.cause, d.path) == (Cause.SERVING_INFRASTRUCTURE, Path.RESTART)
        assert "up to 4000 ms" in d.sentence

    @pytest.mark.parametrize("kind", ["scoring", "features"])
    def test_errors_of_the_server_itself_are_answered_by_a_restart(self, kind: str) -> None:
        d = decide(metrics=failing(**{kind: 90, "invalid_features": 10}))
        assert (d.top.cause, d.path) == (Cause.SERVING_INFRASTRUCTURE, Path.RESTART)

    @pytest.mark.parametrize(
        ("errors", "look"),
        [
            ({"invalid_features": 90, "scoring": 10}, "find the caller"),
            ({"storage": 50}, "look at the database"),
            ({"a kind of another platform": 50}, "look at the model server's log"),
            ({}, "look at the model server's log"),
        ],
    )
    def test_errors_that_a_new_process_would_see_again_go_to_a_human(self, errors: dict[str, int], look: str) -> None:
        d = decide(metrics=failing(**errors))
        assert (d.top.cause, d.path) == (Cause.SERVING_INFRASTRUCTURE, None)
        assert f"No safe automatic path here: {look}" in d.sentence or look in d.advice

    @pytest.mark.parametrize("seen", [{"latency_p95_ms": 4000.0}, {"error_rate": 0.1, "errors": {"scoring": 9}}])
    def test_trouble_since_a_release_is_not_restarted_away(self, seen: dict[str, Any]) -> None:
        fresh, old = ([change("deployment", hours_ago=h)] for h in (3, 60))
        assert decide(metrics=metrics(HEALTHY, **seen), changes=fresh).path is None
        assert decide(metrics=metrics(HEALTHY, **seen), changes=old).path is Path.RESTART

    def test_failing_feature_reads_of_a_store_that_is_out_are_the_stores_trouble(self) -> None:
        d = decide(found(feature_store_connectivity=State.SUSPECT), metrics=failing(features=90))
        assert (d.top.cause, d.path) == (Cause.FEATURE_STORE_OUTAGE, None)

    def test_failing_feature_reads_are_not_restarted_away_while_nobody_knows_of_the_store(self) -> None:
        unknown = dict.fromkeys(("feature_store_connectivity", "feature_store_availability"), State.UNKNOWN)
        assert decide(found(**unknown), metrics=failing(features=90)).path is None

    def test_a_bad_model_on_a_slow_server_is_first_of_all_a_bad_model(self) -> None:
        d = decide(metrics=metrics(FALLEN, latency_p95_ms=4000.0), changes=[change("deployment", hours_ago=3)])
        assert d.top.cause is not Cause.SERVING_INFRASTRUCTURE

    def test_a_release_that_cannot_be_loaded_is_rolled_back_to_what_really_serves(self) -> None:
        held = status(server_version="v1.5.0", previous_version="v1.4.0", not_loaded=CANNOT)
        d = decide(status=held, model_version="v1.5.0", changes=[change("deployment", hours_ago=0.1)])
        assert (d.top.cause, d.path, d.target_version) == (Cause.BAD_DEPLOYMENT, Path.ROLLBACK, "v1.5.0")
        assert d.headline == f"v2.0.0 is a bad release: the model server cannot load v2.0.0: {CANNOT}"
        assert d.chain[0] == f"Why does v2.0.0 not serve? Because {CANNOT}"

    def test_with_nothing_loaded_it_goes_back_to_the_version_before_and_is_not_restarted(self) -> None:
        empty = status(server_healthy=False, server_version=None, not_loaded=CANNOT)
        d = decide(status=empty, changes=[change("deployment", hours_ago=0.1)])
        assert (d.top.cause, d.path, d.target_version) == (Cause.BAD_DEPLOYMENT, Path.ROLLBACK, "v1.5.0")

    def test_without_a_version_that_loads_people_deploy_one(self) -> None:
        d = decide(status=status(server_healthy=False, server_version=None, previous_version=None, not_loaded=CANNOT))
        assert (d.top.cause, d.path) == (Cause.BAD_DEPLOYMENT, None)

    @pytest.mark.parametrize(
        "facts",
        [
            {"status": status(server_healthy=False)},
            {"status": status(server_version="v1.5.0", not_loaded=CANNOT)},
            {"metrics": metrics(HEALTHY, latency_p95_ms=4000.0)},
            {"metrics": failing(invalid_features=9)},
        ],
    )
    def test_trouble_of_serving_is_never_nothing_wrong(self, facts: dict[str, Any]) -> None:
        scores = {c.cause: c.score for c in decide(**facts).causes}
        assert scores[Cause.NOTHING_WRONG] == 0.0


class TestPlan:
    def test_the_plan_restarts_once_and_says_what_to_expect(self) -> None:
        down = status(server_healthy=False, server_version=None)
        facts = gathered(detected_at=NOW, metrics=metrics(HEALTHY), changes=[], status=down, predictions=[], model_version="v2.0.0")
        plan = propose(Situation("incident_7", "m", diagnose(found(), facts, NOW), facts))
        assert plan is not None
        assert (plan.path, [a.target() for a in plan.actions]) == (Path.RESTART, [{"restart_id": "incident_7-serving"}])
        assert "answers" in plan.expected

    def test_a_release_that_never_loaded_is_named_as_the_reason(self) -> None:
        held = status(server_version="v1.5.0", previous_version="v1.4.0", not_loaded=CANNOT)
        facts = gathered(detected_at=NOW, metrics=metrics(HEALTHY), changes=[], status=held, predictions=[], model_version="v1.5.0")
        plan = propose(Situation("incident_7", "m", diagnose(found(), facts, NOW), facts))
        assert plan is not None
        [action] = plan.actions
        assert isinstance(action, RollBack)
        assert (action.target_version, action.reason) == ("v1.5.0", "incident_7: v2.0.0 cannot be loaded")


class TestTrouble:
    def test_a_server_at_its_limits_is_not_in_trouble(self) -> None:
        at = window(HEALTHY, latency_p95_ms=POLICY.latency_p95_ms, error_rate=POLICY.error_rate)
        assert trouble_of(status(), at, POLICY) is None

    def test_a_few_slow_requests_say_nothing(self) -> None:
        assert trouble_of(status(), window(HEALTHY, latency_p95_ms=9000.0, predictions=POLICY.min_predictions - 1), POLICY) is None

    def test_time_outs_of_a_slow_server_are_its_slowness(self) -> None:
        seen = trouble_of(status(), window(HEALTHY, latency_p95_ms=9000.0, error_rate=0.2, errors={"features": 9}), POLICY)
        assert seen is not None
        assert seen.trouble is Trouble.SLOW


class TestRecovery:
    LATER, SOON = SETTLES + timedelta(seconds=1), timedelta(seconds=5)

    def judged(self, fresh: Any = None, since: timedelta = LATER, **held: Any) -> bool | None:
        return is_over(status(**held), window(HEALTHY) if fresh is None else fresh, POLICY, since_change=since)[0]

    def test_a_server_that_answers_within_its_limits_on_fresh_requests_has_recovered_at_once(self) -> None:
        assert self.judged(since=self.SOON) is True

    def test_too_few_fresh_requests_are_no_recovery(self) -> None:
        assert self.judged(window(HEALTHY, predictions=10)) is None

    @pytest.mark.parametrize(
        ("fresh", "held"),
        [
            (window(HEALTHY, latency_p95_ms=4000.0), {}),
            (window(HEALTHY, error_rate=0.05), {}),
            (window(HEALTHY), {"server_healthy": False}),
            (window(HEALTHY), {"server_version": "v1.5.0", "not_loaded": CANNOT}),
            (window(HEALTHY), {"unloadable_route": "v9.9.9: there is none"}),
        ],
    )
    def test_what_is_still_wrong_is_waited_for_while_it_settles_and_not_recovered_after(self, fresh: Any, held: dict[str, Any]) -> None:
        assert self.judged(fresh, self.SOON, **held) is None
        assert self.judged(fresh, self.LATER, **held) is False

    def test_what_cannot_be_looked_at_is_not_called_recovered(self) -> None:
        assert is_over(None, window(HEALTHY), POLICY, since_change=self.LATER)[0] is None
        assert is_over(status(), None, POLICY, since_change=self.LATER)[0] is None
