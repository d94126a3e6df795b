"""The runbook's automated alerts: each fires past its limit, not at it, waits as long as it says and ends as slowly as it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.detection import alert_rules
from mlrunbook.domain.detection.alert_rules import RULES, Level, RuleState, Seen, ServerSeen
from mlrunbook.domain.detection.critical_assets import MissedFailure
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, Rewritten, WindowMetrics
from mlrunbook.domain.evaluation.probing import Probing
from mlrunbook.domain.investigation.findings import Finding, State
from mlrunbook.domain.policy.judging import FairnessPolicy
from mlrunbook.domain.policy.policy import AlertThresholds, Policy

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LIMITS = AlertThresholds()
GOOD = Confusion(tp=80, fp=20, fn=20, tn=880)  # precision, recall and F1 are 0.8
CLEARS = timedelta(seconds=LIMITS.clears_after_s)


def seen(current: Confusion = GOOD, baseline: Confusion = GOOD, server: ServerSeen = ServerSeen(), drift: Any = None, **now: Any) -> Seen:
    def window(c: Confusion) -> WindowMetrics:
        return WindowMetrics(since=NOW - timedelta(days=7), until=NOW, predictions=c.n, labelled=c.n, tally=c, error_rate=0.0)

    return Seen("m", ModelMetrics("m", replace(window(current), **now), window(baseline)), server, drift)


def drift(state: State) -> Finding:
    return Finding("data_quality.feature_distributions", state, {}, "the distribution moved for torque_nm", "prediction log")


def drifting(minutes: float) -> Seen:
    return replace(seen(drift=drift(State.SUSPECT)), drift_for=timedelta(minutes=minutes))


def fired(what: Seen, states: dict[str, RuleState] | None = None, at: datetime = NOW) -> dict[str, str]:
    return {name: one.rule.level.value for name, one in alert_rules.firing(alert_rules.evaluate(what, LIMITS, states or {}, at)).items()}


def down(seconds: float) -> ServerSeen:
    return ServerSeen(down_for=timedelta(seconds=seconds), features_known=False)


def unread(seconds: float) -> ServerSeen:
    return ServerSeen(features_down_for=timedelta(seconds=seconds))


def unloaded(seconds: float) -> ServerSeen:
    return ServerSeen(not_loaded="v2.0.0 cannot score", not_loaded_for=timedelta(seconds=seconds))


def probed(suspicious: bool | None) -> Seen:
    return replace(seen(), probing=Probing(suspicious, 80, 20, 1, ("asset_7",), 2000, "80 requests that hardly differ"))


def missed(count: int | None) -> Seen:
    one = MissedFailure(7, "press_1", "H", 0.04, 0.5, NOW - timedelta(hours=3), NOW)
    return replace(seen(), missed=None if count is None else (one,) * count)


def groups(tp: int) -> Seen:
    """Type H is served as well as L at tp=800, and 0.07 of F1 worse at 730."""
    return seen(by_asset_type={"L": BASE, "H": Confusion(tp=tp, fp=1000 - tp, fn=1000 - tp, tn=8000)})


# rule -> (fires, at the limit, well). A baseline of 1000 positives makes drops of exactly 10, 15 and 20 % possible.
BASE = Confusion(tp=800, fp=200, fn=200, tn=8800)


def both(tp: int) -> Seen:
    """F1, precision and recall are tp/1000: as many false alarms as missed failures."""
    return seen(Confusion(tp=tp, fp=1000 - tp, fn=1000 - tp, tn=8000), BASE)


def predicted(tp: int, fp: int) -> Seen:
    return seen(Confusion(tp=tp, fp=fp, fn=1000 - tp, tn=8000), BASE)


def rewritten(count: int) -> Seen:
    found = seen()
    assert found.metrics is not None
    lately = Rewritten(count, 10_000, {"another caller": count})
    return replace(found, metrics=replace(found.metrics, rewritten_lately=lately))


CASES: dict[str, tuple[Seen, Seen, Seen]] = {
    "AllAssetsHighRisk:critical": (seen(flagged_share=0.90), seen(flagged_share=0.90), seen(flagged_share=0.899)),
    "ModelServerDown:critical": (seen(server=down(31)), seen(server=down(30)), seen(server=down(29))),
    "FeatureStoreUnavailable:critical": (seen(server=unread(11)), seen(server=unread(10)), seen(server=unread(9.9))),
    "DeploymentFailed:warning": (seen(server=unloaded(31)), seen(server=unloaded(30)), seen(server=unloaded(29))),
    "ModelF1Drop:critical": (both(639), both(640), both(700)),
    "ModelF1Drop:warning": (both(719), both(720), both(780)),
    "ModelPrecisionDrop:warning": (predicted(800, 377), predicted(816, 384), predicted(800, 300)),
    "ModelRecallDrop:warning": (both(679), both(680), both(700)),
    "FeatureNullRateHigh:warning": (seen(null_rate=0.051), seen(null_rate=0.05), seen(null_rate=0.0)),
    "FeatureDrift:warning": (drifting(15), drifting(14.9), seen(drift=drift(State.OK))),
    "InferenceLatencyHigh:warning": (seen(latency_p95_ms=2001.0), seen(latency_p95_ms=2000.0), seen(latency_p95_ms=40.0)),
    "OutcomesMissing:warning": (
        seen(outcomes_due=1000, outcomes_missing=501),
        seen(outcomes_due=1000, outcomes_missing=500),
        seen(outcomes_due=1000, outcomes_missing=0),
    ),
    "OutcomesRewritten:warning": (rewritten(51), rewritten(50), rewritten(0)),
    "CriticalFailureMissed:critical": (missed(1), missed(None), missed(0)),
    "FairnessGap:warning": (groups(600), groups(730), groups(800)),
    "ModelProbed:critical": (probed(True), probed(None), probed(False)),
    "ModelErrorRateHigh:warning": (seen(error_rate=0.011), seen(error_rate=0.01), seen(error_rate=0.0)),
}
AT_THE_LIMIT_FIRES = {
    "AllAssetsHighRisk:critical",
    "ModelServerDown:critical",
    "FeatureStoreUnavailable:critical",
    "DeploymentFailed:warning",
}


def level_of(key: str, what: Seen) -> bool:
    rule = next(r for r in RULES if r.key == key)
    (one,) = (j for j in alert_rules.evaluate(what, LIMITS, {}, NOW) if j.rule is rule)
    return one.state.firing_since is not None


def test_how_far_types_may_lie_apart_is_the_policys() -> None:
    assert "FairnessGap" in fired(groups(600))
    assert "FairnessGap" not in fired(replace(groups(600), fairness=FairnessPolicy(max_gap=0.30)))


@pytest.mark.parametrize("key", CASES)
def test_a_rule_fires_past_its_limit_not_at_it_and_not_when_all_is_well(key: str) -> None:
    past, at, well = CASES[key]
    assert level_of(key, past)
    assert level_of(key, at) == (key in AT_THE_LIMIT_FIRES)
    assert not level_of(key, well)


def test_the_ten_rules_of_the_runbook_are_there() -> None:
    assert set(CASES) <= {rule.key for rule in RULES}
    assert len({rule.key for rule in RULES}) == len(RULES)
    assert {rule.alert for rule in RULES} <= set(Policy().alert_types)


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        (GOOD, {}),
        (Confusion(tp=73, fp=27, fn=27, tn=873), {}),  # F1 0.73: down 8.8 %
        (Confusion(tp=71, fp=29, fn=29, tn=871), {"ModelF1Drop": "warning"}),  # F1 0.71: down 11 %
        (
            Confusion(tp=63, fp=37, fn=37, tn=863),
            {"ModelF1Drop": "critical", "ModelPrecisionDrop": "warning", "ModelRecallDrop": "warning"},
        ),
        (Confusion(tp=66, fp=14, fn=34, tn=886), {"ModelRecallDrop": "warning"}),  # recall 0.66: down 17.5 %, precision up
    ],
)
def test_an_alert_has_its_worst_level(current: Confusion, expected: dict[str, str]) -> None:
    assert fired(seen(current)) == expected


@pytest.mark.parametrize(
    ("few", "key"),
    [
        (seen(Confusion(fn=50, tn=49)), "ModelF1Drop:warning"),
        (seen(Confusion(fn=4, tn=200)), "ModelRecallDrop:warning"),
        (seen(GOOD, Confusion(fn=4, tn=200)), "ModelPrecisionDrop:warning"),
        (seen(flagged_share=1.0, predictions=199), "AllAssetsHighRisk:critical"),
        (seen(null_rate=0.5, predictions=199), "FeatureNullRateHigh:warning"),
        (seen(latency_p95_ms=9000.0, predictions=199), "InferenceLatencyHigh:warning"),
        (seen(server=down(60)), "FeatureStoreUnavailable:critical"),
        (Seen("m"), "ModelServerDown:critical"),
        (Seen("m"), "ModelErrorRateHigh:warning"),
        (seen(drift=drift(State.UNKNOWN)), "FeatureDrift:warning"),
        (replace(drifting(60), metrics=seen(predictions=199).metrics), "FeatureDrift:warning"),
    ],
)
def test_too_few_data_neither_start_nor_end_an_alert(few: Seen, key: str) -> None:
    assert not level_of(key, few)
    standing = RuleState(NOW, NOW, quiet_since=NOW)
    (one,) = (j for j in alert_rules.evaluate(few, LIMITS, {key: standing}, NOW + 10 * CLEARS) if j.rule.key == key)
    assert one.state.firing_since == NOW


def test_a_model_that_only_fails_fires_without_any_prediction() -> None:
    assert fired(seen(Confusion(), predictions=0, error_rate=1.0))["ModelErrorRateHigh"] == "warning"


def test_a_critical_drop_stays_critical_until_it_is_below_the_warning_level() -> None:
    around = both(650)  # down 18.75 %
    assert fired(around)["ModelF1Drop"] == "warning"
    standing = {"ModelF1Drop:critical": RuleState(NOW, NOW)}
    assert fired(around, standing, NOW + 10 * CLEARS)["ModelF1Drop"] == "critical"


def run(key: str, looks: list[tuple[float, Seen]]) -> list[str]:
    """The rule's state at each look, `looks` being (seconds since the start, what is seen)."""
    rule, state, told = next(r for r in RULES if r.key == key), RuleState(), []
    for seconds, what in looks:
        state = alert_rules.advance(rule, state, rule.read(what, LIMITS), LIMITS, NOW + timedelta(seconds=seconds))
        told.append(state.words)
    return told


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (down(0), "the model server of m does not answer"),
        (down(31), "the model server of m has not answered for 31 s"),
        (unread(0), "the model server of m cannot read features"),
        (unread(12), "the model server of m has not been able to read features for 12 s"),
    ],
)
def test_how_long_it_has_lasted_is_said_only_where_it_is_known(server: ServerSeen, words: str) -> None:
    assert words in {one.sentence for one in alert_rules.evaluate(seen(server=server), LIMITS, {}, NOW)}


def test_a_restart_of_the_server_is_no_outage_but_half_a_minute_is() -> None:
    silent, well = seen(server=down(0)), seen()  # a caller that cannot tell for how long
    assert run("ModelServerDown:critical", [(0, silent), (20, silent), (30, silent)]) == ["pending", "pending", "firing"]
    assert run("ModelServerDown:critical", [(0, silent), (20, well), (30, silent)]) == ["pending", "ok", "pending"]
    assert run("ModelServerDown:critical", [(0, silent), (20, Seen("m")), (30, silent)]) == ["pending", "ok", "pending"]


def test_drift_at_one_look_is_no_alert_but_a_quarter_of_an_hour_of_it_is() -> None:
    looks = [(60.0 * minute, seen(drift=drift(State.SUSPECT))) for minute in range(16)]
    assert run("FeatureDrift:warning", looks) == ["pending"] * 15 + ["firing"]
    looks[7] = (7 * 60.0, seen(drift=drift(State.OK)))
    assert set(run("FeatureDrift:warning", looks)) == {"pending", "ok"}


def test_an_alert_ends_only_after_all_has_been_well_for_as_long_as_the_policy_says() -> None:
    bad, well, few = both(700), both(800), seen(Confusion(tn=50))
    key = "ModelF1Drop:warning"
    assert run(key, [(0, bad), (15, well), (30, well), (45, well)]) == ["firing", "firing", "firing", "ok"]
    assert run(key, [(0, bad), (15, well), (30, bad), (45, well), (60, well)]) == ["firing"] * 5
    assert run(key, [(0, bad), (15, well), (30, few), (45, well), (60, well), (75, well)]) == ["firing"] * 5 + ["ok"]


@given(drops=st.lists(st.integers(0, 1000), max_size=30))
def test_an_alert_keeps_its_start_while_it_fires_and_is_never_pending_once_it_fired(drops: list[int]) -> None:
    rule, state = next(r for r in RULES if r.key == "ModelF1Drop:critical"), RuleState()
    for minute, tp in enumerate(drops):
        now = NOW + timedelta(seconds=15 * minute)
        after = alert_rules.advance(rule, state, rule.read(both(tp), LIMITS), LIMITS, now)
        if state.firing_since and after.firing_since:
            assert after.firing_since == state.firing_since
        assert after.words in ("ok", "firing")
        assert after.quiet_since is None or after.firing_since is not None
        state = after


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_more_harm_never_lowers_the_level(one: int, other: int) -> None:
    rank = {"": 0, Level.WARNING: 1, Level.CRITICAL: 2}
    worse, better = (fired(both(tp)).get("ModelF1Drop", "") for tp in sorted((one, other)))
    assert rank[worse] >= rank[better]
