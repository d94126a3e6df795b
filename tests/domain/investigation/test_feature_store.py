"""What is wrong with the feature store, and whether materialising again mends it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.investigation.feature_store import MENDABLE, FeatureCheck, FeatureVerdict, findings_of, judge, merged
from mlrunbook.domain.investigation.findings import Finding, State
from mlrunbook.domain.observed import FeatureFault, FeatureProblem, FeatureServerAnswer, FeatureStoreState, Missing, ViewSchedule, ViewState
from mlrunbook.domain.policy.judging import FeatureStorePolicy

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
POLICY = FeatureStorePolicy()
WHOLE = {"torque_nm": 0.0}


def minutes(n: float) -> datetime:
    return NOW - timedelta(minutes=n)


def view(**changes: Any) -> ViewState:
    """A view that is as it should be."""
    sound = ViewState(
        "asset_sensors",
        job_end_at=minutes(1),
        source_newest_at=minutes(1),
        online_newest_at=minutes(1),
        entities=200,
        null_online=WHOLE,
        null_source=WHOLE,
    )
    return replace(sound, **changes)


def verdict(*views: ViewState, schedules: tuple[ViewSchedule, ...] | None = None, **state: Any) -> FeatureVerdict:
    return judge(FeatureStoreState(views, **{"read_ok": True} | state), schedules, now=NOW, policy=POLICY)


def faults(one: FeatureVerdict) -> set[FeatureFault]:
    return {p.fault for p in one.problems}


def suspended(name: str = "asset_sensors") -> tuple[ViewSchedule, ...]:
    return (ViewSchedule(name, suspended=True, last_run_at=minutes(5)),)


class TestStaleness:
    def test_a_sound_store_has_nothing_to_mend(self) -> None:
        found = verdict(view())
        assert (found.problems, found.mendable, found.views, found.outage) == ((), None, (), False)
        assert found.sentence == "the feature store is sound: 1 views, rows asset_sensors 60 s old"

    def test_a_fresh_job_over_stale_rows_is_stale_data_and_wants_a_look_back(self) -> None:
        found = verdict(view(source_newest_at=minutes(2), online_newest_at=minutes(180), behind=200))
        assert faults(found) == {FeatureFault.STALE_DATA}
        assert (found.mendable, found.views) == (True, ("asset_sensors",))
        assert found.since == NOW - timedelta(hours=POLICY.look_back_h)
        assert "was materialized 60 s ago, and its online rows are up to 3 h behind the source" in found.sentence

    def test_an_old_job_is_a_stale_job_and_the_incremental_mends_it(self) -> None:
        found = verdict(view(job_end_at=minutes(180), online_newest_at=minutes(180), behind=200))
        assert faults(found) == {FeatureFault.STALE_JOB}
        assert (found.mendable, found.since) == (True, None)

    def test_a_job_that_never_ran_says_so(self) -> None:
        found = verdict(view(job_end_at=None, online_newest_at=None, missing=200, null_online=None))
        assert faults(found) == {FeatureFault.STALE_JOB}
        assert "was never materialized" in found.sentence

    def test_an_old_job_over_rows_as_new_as_their_source_is_the_sources_trouble(self) -> None:
        found = verdict(view(job_end_at=minutes(180), source_newest_at=minutes(181), online_newest_at=minutes(181)))
        assert faults(found) == {FeatureFault.SOURCE_STALE}
        assert found.mendable is False
        assert "materializing cannot help" in found.sentence

    def test_a_lag_within_the_limits_is_no_problem(self) -> None:
        assert verdict(view(source_newest_at=minutes(0), online_newest_at=minutes(14), behind=200)).mendable is None

    def test_a_suspended_schedule_counts_as_soon_as_it_leaves_rows_behind_and_is_resumed(self) -> None:
        found = verdict(view(source_newest_at=minutes(0), online_newest_at=minutes(1), behind=200), schedules=suspended())
        assert faults(found) == {FeatureFault.STALE_JOB}
        assert (found.resume, found.mendable) == (("asset_sensors",), True)
        assert "its schedule is suspended" in found.sentence
        assert verdict(view(), schedules=suspended()).problems == (), "as long as nothing is behind"

    def test_a_schedule_that_fails_gives_its_error(self) -> None:
        failing = (ViewSchedule("asset_sensors", suspended=False, last_run_at=minutes(180), error="disk full"),)
        found = verdict(view(job_end_at=minutes(180), online_newest_at=minutes(180), behind=200), schedules=failing)
        assert "its last run failed (disk full)" in found.sentence
        assert found.resume == ()

    def test_a_few_late_rows_show_though_the_newest_row_is_fresh(self) -> None:
        found = verdict(view(behind=12, lag_s=7200.0))
        assert faults(found) == {FeatureFault.STALE_DATA}
        assert "12 of 200 sampled entities" in found.sentence

    def test_an_end_in_the_future_is_named_and_looked_back_behind(self) -> None:
        found = verdict(view(job_end_at=NOW + timedelta(days=2), online_newest_at=minutes(180), behind=200))
        assert faults(found) == {FeatureFault.FUTURE_END}
        assert found.mendable is True
        assert found.since is not None

    def test_two_clocks_that_differ_a_little_are_no_future_end(self) -> None:
        assert verdict(view(job_end_at=NOW + timedelta(seconds=20))).mendable is None


class TestGaps:
    def test_nulls_online_over_a_whole_source_are_mended(self) -> None:
        found = verdict(view(null_online={"torque_nm": 1.0}))
        assert faults(found) == {FeatureFault.NULLS_ONLINE}
        assert found.mendable is True
        assert found.since is not None

    def test_nulls_in_the_source_are_a_humans_work(self) -> None:
        found = verdict(view(null_online={"torque_nm": 1.0}, null_source={"torque_nm": 1.0}))
        assert faults(found) == {FeatureFault.NULLS_IN_SOURCE}
        assert found.mendable is False
        assert found.problems[0].feature == "torque_nm"

    def test_the_one_gap_does_not_hide_the_other(self) -> None:
        found = verdict(view(null_online={"torque_nm": 1.0, "type": 1.0}, null_source={"torque_nm": 0.0, "type": 1.0}))
        assert faults(found) == {FeatureFault.NULLS_IN_SOURCE, FeatureFault.NULLS_ONLINE}
        assert found.mendable is False

    def test_an_entity_that_the_source_has_and_the_store_lacks_is_loaded_again(self) -> None:
        found = verdict(view(missing=3))
        assert faults(found) == {FeatureFault.ENTITIES_MISSING}
        assert found.mendable is True
        assert found.since is not None


class TestOutage:
    @pytest.mark.parametrize("fault", [f for f in FeatureFault if f not in MENDABLE])
    def test_what_is_broken_is_not_materialised(self, fault: FeatureFault) -> None:
        broken = FeatureProblem(fault, "it is broken; mend it", "asset_sensors")
        found = verdict(view(behind=200, online_newest_at=minutes(500), source_newest_at=minutes(1)), problems=(broken,))
        assert found.mendable is False
        assert "it is broken; mend it" in found.sentence

    def test_a_read_that_fails_without_a_known_cause_is_an_outage(self) -> None:
        found = verdict(view(), read_ok=False)
        assert (found.outage, found.mendable) == (True, False)
        assert "look at the feature store's log" in found.sentence

    def test_rows_are_not_called_mendable_while_the_store_is_locked(self) -> None:
        locked = FeatureProblem(FeatureFault.ONLINE_LOCKED, "locked")
        found = verdict(view(job_end_at=minutes(500), behind=1), problems=(locked,), read_ok=False)
        assert (found.outage, found.mendable) == (True, False)

    def test_a_store_of_which_nothing_was_read_is_not_called_sound(self) -> None:
        assert "nothing was read" in verdict(read_ok=None).sentence


times = st.one_of(st.none(), st.floats(-5000, 50000).map(minutes))
shares = st.one_of(st.none(), st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0, 1), max_size=2))
views = st.builds(
    ViewState,
    name=st.sampled_from(["v", "w"]),
    job_end_at=times,
    source_newest_at=times,
    online_newest_at=times,
    entities=st.just(200),
    behind=st.integers(0, 200),
    missing=st.integers(0, 200),
    null_online=shares,
    null_source=shares,
    lag_s=st.one_of(st.none(), st.floats(0, 1e6)),
)
problems = st.builds(FeatureProblem, st.sampled_from(list(FeatureFault)), st.just("x; do y"), st.sampled_from([None, "v"]))
states = st.builds(
    FeatureStoreState,
    views=st.lists(views, max_size=2, unique_by=lambda v: v.name).map(tuple),
    problems=st.lists(problems, max_size=2).map(tuple),
    read_ok=st.sampled_from([None, True, False]),
)
plans = st.one_of(st.none(), st.lists(st.builds(ViewSchedule, st.sampled_from("vw"), st.booleans(), times, st.just(None)), max_size=2))


@given(states, plans)
def test_a_verdict_is_consistent_with_its_problems(state: FeatureStoreState, schedules: list[ViewSchedule] | None) -> None:
    found = judge(state, schedules, now=NOW, policy=POLICY)
    if found.mendable is None:
        assert (found.problems, found.outage) == ((), False)
    elif found.mendable:
        assert found.problems
        assert faults(found) <= MENDABLE
        assert not found.outage
    assert found.since is None or found.since <= NOW
    assert set(found.views) <= {v.name for v in state.views}
    assert all(p in found.problems for p in state.problems)
    assert all(p.sentence in found.sentence for p in found.problems)
    kept = FeatureCheck(found, ())
    assert FeatureCheck.from_record(json.loads(json.dumps(kept.to_record()))) == kept


@given(states, plans, st.sampled_from([Missing("none"), FeatureServerAnswer(True, True), FeatureServerAnswer(True, False, "500")]))
def test_findings_are_json_and_say_suspect_where_the_verdict_does(
    state: FeatureStoreState, schedules: list[ViewSchedule] | None, server: FeatureServerAnswer | Missing
) -> None:
    found = judge(state, schedules, now=NOW, policy=POLICY)
    items = {f.key: f for f in findings_of(state, found, schedules, now=NOW, server=server)}
    assert json.dumps([f.value for f in items.values()])
    if found.outage or (isinstance(server, FeatureServerAnswer) and server.read_ok is False):
        assert items["data_quality.feature_store_connectivity"].state is State.SUSPECT
    if faults(found) & {FeatureFault.STALE_JOB, FeatureFault.STALE_DATA, FeatureFault.FUTURE_END}:
        assert items["data_quality.data_freshness"].state is State.SUSPECT


class TestFindings:
    def items(
        self, *seen: ViewState, server: FeatureServerAnswer | Missing = Missing("none configured"), **state: Any
    ) -> dict[str, Finding]:
        read = FeatureStoreState(seen, **{"read_ok": True} | state)
        found = judge(read, None, now=NOW, policy=POLICY)
        return {f.key.split(".")[1]: f for f in findings_of(read, found, None, now=NOW, server=server)}

    def test_a_sound_store_is_ok_everywhere(self) -> None:
        assert {f.state for f in self.items(view()).values()} == {State.OK}

    def test_a_green_health_check_is_not_believed_while_reads_fail(self) -> None:
        items = self.items(view(), server=FeatureServerAnswer(healthy=True, read_ok=False, detail="HTTP 500"))
        assert items["feature_store_availability"].state is State.SUSPECT
        assert "reads through it fail all the same" in items["feature_store_availability"].sentence
        assert "HTTP 500" in items["feature_store_connectivity"].sentence

    def test_a_definition_that_changed_last_week_is_a_recent_change_an_older_one_is_not(self) -> None:
        assert self.items(view(updated_at=minutes(120)))["feature_store_updates"].state is State.SUSPECT
        assert self.items(view(updated_at=NOW - timedelta(days=8)))["feature_store_updates"].state is State.OK

    def test_what_could_not_be_read_is_unknown(self) -> None:
        items = self.items(read_ok=None)
        assert items["data_freshness"].state is State.UNKNOWN
        assert items["feature_store_updates"].state is State.UNKNOWN

    def test_two_sources_of_one_item_are_suspect_if_either_is_and_keep_both_sentences(self) -> None:
        log = Finding("data_quality.data_freshness", State.OK, "prediction log", {"age_s": 1.0}, "the newest prediction is 1 s old")
        stale = self.items(view(job_end_at=minutes(500), online_newest_at=minutes(500), behind=9))["data_freshness"]
        both = merged(log, stale)
        assert both.state is State.SUSPECT
        assert both.sentence.startswith(stale.sentence)
        assert log.sentence in both.sentence
        assert merged(log, replace(stale, state=State.UNKNOWN)).state is State.OK
