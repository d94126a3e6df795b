"""Whether a rollout broke the model server, and what to put back: where the limits are."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.investigation.diagnosis import diagnose
from mlrunbook.domain.investigation.rollouts import NO_HISTORY, RolloutVerdict, judge_rollout
from mlrunbook.domain.observed import Instance, Revision, Rollout
from mlrunbook.domain.policy.judging import RolloutPolicy
from mlrunbook.domain.resolution.paths import Situation
from mlrunbook.domain.resolution.plan import propose
from tests.domain.builders import FALLEN, MODEL, NOW, metrics, status
from tests.domain.investigation.test_root_causes import facts, findings

LOOPS = "model-server CrashLoopBackOff, back-off restarting failed container"
DAY = timedelta(days=1)


def revision(
    number: int, ago: timedelta, *, current: bool = False, former: tuple[int, ...] = (), ready: int = 0, spec: str = ""
) -> Revision:
    name, spec = f"server-{number}", spec or f"spec-{number}"
    return Revision(number, former, name, (f"server:{number}",), None, NOW - ago, "kubectl set image", current, ready, spec)


def pod(number: int, problem: str | None, serial: int = 0) -> Instance:
    return Instance(f"server-{number}-{serial}", problem is None, 0, problem)


def judge(
    history: list[Revision], *pods: Instance, rollout: Rollout | None = None, now: datetime = NOW, policy: RolloutPolicy | None = None
) -> RolloutVerdict:
    return judge_rollout(history, rollout, pods, detected_at=NOW, now=now, policy=policy)


NEW = revision(2, timedelta(minutes=20), current=True)
OLD = revision(1, 30 * DAY)


class TestBad:
    @pytest.mark.parametrize("problem", [LOOPS, "model-server ImagePullBackOff, Back-off pulling image", "not ready: ContainersNotReady"])
    def test_none_of_its_pods_serves(self, problem: str) -> None:
        found = judge([NEW, OLD], pod(2, problem), pod(2, problem, 1))
        assert (found.bad, found.suspect, found.target) == (True, NEW, OLD)
        assert "by" not in found.sentence.split()
        assert f"none of its 2 pods serves: server-2-0: {problem}" in found.sentence
        assert "(kubectl set image)" in found.sentence

    def test_its_rollout_made_no_progress_though_the_old_pods_serve(self) -> None:
        failed = Rollout(None, "failed", "the rollout of server made no progress in time", "server")
        found = judge([NEW, revision(1, 30 * DAY, ready=2)], pod(1, None), pod(2, "pending"), rollout=failed)
        assert (found.bad, found.why) == (True, "2 of its pods still serve")

    def test_a_restart_is_no_new_template_the_rollout_before_it_is_judged(self) -> None:
        restarted = revision(3, timedelta(minutes=5), current=True, spec="spec-2")
        found = judge([restarted, revision(2, timedelta(hours=2)), OLD], pod(3, LOOPS))
        assert (found.bad, found.target) == (True, OLD), "revision 2 runs the same as 3: putting it back would change nothing"


class TestPodsOfALongName:
    """Kubernetes cuts a pod's name: 58 characters of its ReplicaSet's, then five of its own."""

    @pytest.mark.parametrize("length", [5, 45, 46, 47, 48, 53, 56, 57, 58, 63, 200])
    def test_are_known_by_their_owner(self, length: int) -> None:
        new, old = (replace(r, name=f"{'m' * length}-{part}") for r, part in ((NEW, "7d9c6b5f4d"), (OLD, "66f5d4c9b8")))
        broken, well = (Instance(f"{r.name}-"[:58] + "x7k2p", r is old, 0, LOOPS if r is new else None, r.name) for r in (new, old))
        assert (judge([new, old], broken).bad, judge([new, old], well).bad) == (True, False)

    @pytest.mark.parametrize("length", [5, 46, 47, 53, 55])
    def test_are_known_by_what_is_left_of_its_name_where_no_owner_is_given(self, length: int) -> None:
        new, old = (replace(r, name=f"{'m' * length}-{part}") for r, part in ((NEW, "7d9c6b5f4d"), (OLD, "66f5d4c9b8")))
        broken, well = (Instance(f"{r.name}-"[:58] + "x7k2p", r is old, 0, LOOPS if r is new else None) for r in (new, old))
        assert (judge([new, old], broken).bad, judge([new, old], well).bad) == (True, False)


class TestNotBad:
    @pytest.mark.parametrize(
        ("history", "pods"),
        [
            pytest.param([NEW, OLD], [pod(2, LOOPS), pod(2, None, 1)], id="one of two pods is ill"),
            pytest.param([NEW, OLD], [pod(1, LOOPS)], id="a pod of another revision"),
            pytest.param([NEW, OLD], [pod(2, "terminating")], id="a pod that goes"),
            pytest.param([NEW, OLD], [], id="no pod is asked for"),
            pytest.param([revision(2, 2 * DAY, current=True), OLD], [pod(2, LOOPS)], id="older than a day"),
            pytest.param([revision(2, -timedelta(minutes=1), current=True), OLD], [pod(2, LOOPS)], id="after the failure was seen"),
            pytest.param([revision(3, timedelta(minutes=9), current=True, former=(1,)), NEW], [pod(3, LOOPS)], id="put back"),
        ],
    )
    def test_something_else_is_wrong(self, history: list[Revision], pods: list[Instance]) -> None:
        assert judge(history, *pods).bad is False

    def test_a_rollout_of_another_deployment_failed(self) -> None:
        assert judge([NEW, OLD], pod(2, None), rollout=Rollout(None, "failed", "no progress", "other")).bad is False

    def test_a_runtime_without_history(self) -> None:
        assert judge([]) == NO_HISTORY


@pytest.mark.parametrize(("age_s", "problem", "bad"), [(119, "not ready", False), (121, "not ready", True), (5, LOOPS, True)])
def test_a_pod_that_is_merely_not_ready_may_still_be_starting(age_s: int, problem: str, bad: bool) -> None:
    assert judge([revision(2, timedelta(seconds=age_s), current=True), OLD], pod(2, problem)).bad is bad


@pytest.mark.parametrize(("hours", "bad"), [(23.9, True), (24.1, False)])
def test_it_is_suspect_for_a_day_as_the_runbook_says(hours: float, bad: bool) -> None:
    assert judge([revision(2, timedelta(hours=hours), current=True), OLD], pod(2, LOOPS)).bad is bad


class TestTarget:
    def test_the_last_one_that_stood_long_enough_not_the_one_before(self) -> None:
        """Revision 2 was replaced after nine minutes: nobody knows that it ever served."""
        history = [revision(3, timedelta(minutes=20), current=True), revision(2, timedelta(minutes=29)), OLD]
        assert judge(history, pod(3, LOOPS)).target == OLD
        history[1] = revision(2, timedelta(minutes=30))
        assert judge(history, pod(3, LOOPS)).target == history[1]

    def test_one_that_was_put_back_and_had_stood_for_days(self) -> None:
        history = [revision(4, timedelta(minutes=5), current=True), revision(3, 9 * DAY, former=(1,)), revision(2, timedelta(minutes=40))]
        found = judge(history, pod(4, LOOPS))
        assert found.target == history[1]

    @pytest.mark.parametrize("tries", [1, 2, 3])
    def test_one_that_was_tried_again_and_again_has_not_served(self, tries: int) -> None:
        """Good and broken in turn: the good one is 1, 3, 5 ..., the broken one 2, 4, 6 ...; then comes the next broken one."""
        last = 2 * tries
        good = revision(last - 1, 30 * DAY, former=tuple(range(1, last - 1, 2)))
        broken = revision(last, timedelta(minutes=40), former=tuple(range(2, last, 2)))
        found = judge([revision(last + 1, timedelta(minutes=35), current=True), broken, good], pod(last + 1, LOOPS))
        assert (found.bad, found.target) == (True, good)

    def test_one_whose_pods_still_serve_goes_before_one_that_stood_for_long(self) -> None:
        """A rolling update that never got anywhere leaves the old pods: those are what serves, however long the new template stood."""
        history = [revision(3, timedelta(minutes=5), current=True), revision(2, timedelta(hours=9)), revision(1, 30 * DAY, ready=2)]
        assert judge(history, pod(3, LOOPS)).target == history[2]

    def test_none_is_offered_where_none_is_known_to_have_served(self) -> None:
        verdict = judge([NEW, revision(1, timedelta(minutes=25))], pod(2, LOOPS))
        assert (verdict.bad, verdict.target) == (True, None)
        found = diagnose(findings(), facts(status=status(server_healthy=False), rollout=verdict), NOW)
        assert (found.top.cause, found.path) == (Cause.BAD_ROLLOUT, None)
        assert "no earlier revision is known to have served; roll out a fixed template" in found.sentence

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.sampled_from("abc")), min_size=1, max_size=6))
    def test_it_is_always_an_older_one_that_runs_something_else(self, past: list[tuple[bool, int, str]]) -> None:
        older = [
            revision(n, timedelta(minutes=20 + 7 * (len(past) - n)), former=(0,) if again else (), ready=ready, spec=spec)
            for n, (again, ready, spec) in enumerate(past, 1)
        ]
        current = revision(len(past) + 1, timedelta(minutes=1), current=True, spec="a")
        target = judge([current, *reversed(older)], pod(current.number, LOOPS)).target
        assert target is None or (target.number < current.number and target.spec != "a")


def test_the_plan_is_to_put_it_back_and_says_why() -> None:
    seen = facts(status=status(server_healthy=False), rollout=judge([NEW, OLD], pod(2, LOOPS)))
    found = diagnose(findings(), seen, NOW)
    assert (found.top.cause, found.path, found.target_revision, found.began_at) == (Cause.BAD_ROLLOUT, Path.UNDO_ROLLOUT, 1, NEW.at)
    plan = propose(Situation("incident_1", MODEL, found, seen))
    assert plan is not None
    assert [a.summary for a in plan.actions] == [f"undo the rollout of {MODEL}, back to revision 1"]
    assert "Undo the rollout, back to revision 1 (server:1), in place from" in plan.reasons[0]


def test_a_server_that_is_down_without_a_rollout_is_restarted() -> None:
    seen = facts(status=status(server_healthy=False), metrics=metrics(FALLEN), rollout=judge([NEW, OLD], pod(2, None)))
    assert diagnose(findings(), seen, NOW).top.cause is Cause.SERVING_INFRASTRUCTURE


def test_a_history_that_cannot_be_read_blames_nothing() -> None:
    unread = facts(status=status(server_healthy=False), rollout=RolloutVerdict(None, "the rollout history cannot be read"))
    causes = {c.cause: c for c in diagnose(findings(), unread, NOW).causes}
    assert causes[Cause.BAD_ROLLOUT].score < 0.5
    assert "the rollout history cannot be read" in causes[Cause.BAD_ROLLOUT].open
