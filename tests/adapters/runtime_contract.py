"""What every `ServingRuntime` must do, whatever runs the servers: the same tests for one machine and for a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlrunbook.domain.actions import Configure, Isolate, Restart, RouteTraffic, Scale, UndoRollout
from mlrunbook.domain.errors import Invalid, NotFound, Refused, Transient
from mlrunbook.domain.observed import ServingState
from mlrunbook.ports import MISSING, ServingRuntime
from tests.adapters.own_model import VERBS, strangers
from tests.waiting import until

FORMER = "v1.5.0"


@dataclass
class Case:
    """`started` makes what was asked for come up, where nothing else does; `restarts` counts them outside of the runtime; `world` is all
    that its verbs could change, as it is now."""

    runtime: ServingRuntime
    model: str
    restarts: Callable[[], int]
    world: Callable[[], bytes]
    started: Callable[[], None] = lambda: None
    waits_s: float = 30.0
    writes_log: bool = True

    def observed(self, wanted: Callable[[ServingState], bool]) -> ServingState:
        """Wait for a state; a server that is caught while it starts or stops gives no usable answer, which tasks retry too."""
        seen: list[ServingState] = []

        def holds() -> bool:
            self.started()
            try:
                seen.append(self.runtime.observe(self.model))
            except Transient:
                return False
            return wanted(seen[-1])

        until(holds, self.waits_s)
        return seen[-1]

    def serving(self) -> ServingState:
        return self.observed(lambda state: state.config is not None)


class RuntimeContract:
    @pytest.fixture(autouse=True)
    def _serves_at_the_start(self, case: Case) -> None:
        case.serving()

    def test_stopping_leaves_no_server_and_starting_brings_as_many_back(self, case: Case) -> None:
        before = case.serving()
        case.runtime.scale(case.model, replicas=0)
        stopped = case.observed(lambda state: state.replicas == 0 and state.config is None)
        assert stopped.ready_replicas == 0
        case.runtime.scale(case.model, replicas=before.replicas)
        back = case.serving()
        assert back.replicas == before.replicas

    def test_a_route_is_followed_and_removed(self, case: Case) -> None:
        case.runtime.route(case.model, version=FORMER)
        case.observed(lambda state: state.route_version == FORMER)
        case.runtime.route(case.model, version=None)
        case.observed(lambda state: state.route_version is None)

    def test_only_the_keys_that_are_named_change(self, case: Case) -> None:
        stored = case.runtime.read_config(case.model)
        wanted = {"threshold": 0.61, "auto_scheduling": not stored.auto_scheduling}
        written = case.runtime.write_config(case.model, wanted, expected_revision=stored.revision)
        assert written.as_dict() == {**stored.as_dict(), **wanted}
        assert written.revision != stored.revision
        assert case.runtime.read_config(case.model) == written

    def test_a_switch_acts_at_once(self, case: Case) -> None:
        stored = case.runtime.read_config(case.model)
        case.runtime.write_config(case.model, {"human_approval": not stored.human_approval}, expected_revision=stored.revision)
        case.observed(lambda state: state.config is not None and state.config.human_approval is not stored.human_approval)

    def test_a_config_that_somebody_else_wrote_meanwhile_is_transient(self, case: Case) -> None:
        stale = case.runtime.read_config(case.model)
        now = case.runtime.write_config(case.model, {"threshold": 0.71}, expected_revision=stale.revision)
        with pytest.raises(Transient, match="somebody changed it meanwhile"):
            case.runtime.write_config(case.model, {"threshold": 0.4}, expected_revision=stale.revision)
        assert case.runtime.read_config(case.model) == now

    @pytest.mark.parametrize(
        ("changes", "field"),
        [({"treshold": 0.4}, "treshold"), ({"threshold": 1.5}, "threshold"), ({"human_approval": "yes"}, "human_approval")],
    )
    def test_a_wrong_config_is_refused_by_the_name_of_its_key(self, case: Case, changes: dict[str, Any], field: str) -> None:
        with pytest.raises(Invalid, match=field) as refused:
            case.runtime.write_config(case.model, changes, expected_revision=case.runtime.read_config(case.model).revision)
        assert refused.value.field == field

    def test_a_restart_is_done_once_however_often_it_is_asked_for(self, case: Case) -> None:
        before = case.restarts()
        case.runtime.restart(case.model, restart_id="contract-1")
        case.observed(lambda state: state.restart_id == "contract-1" and state.config is not None)
        assert case.restarts() == before + 1
        case.runtime.restart(case.model, restart_id="contract-1")
        assert case.serving().restart_id == "contract-1"
        assert case.restarts() == before + 1

    def test_isolation_is_seen_is_lifted_and_ends_no_server(self, case: Case) -> None:
        before = case.serving()
        case.runtime.isolate(case.model, isolated=True)
        isolated = case.observed(lambda state: state.isolated)
        case.runtime.isolate(case.model, isolated=True)
        assert (isolated.replicas, isolated.ready_replicas) == (before.replicas, before.ready_replicas)
        case.runtime.isolate(case.model, isolated=False)
        case.observed(lambda state: not state.isolated)
        case.runtime.isolate(case.model, isolated=False)

    def test_what_is_evidence_is_kept_and_nothing_of_it_is_missing(self, case: Case) -> None:
        kept = case.runtime.preserve(case.model)
        assert not [name for name in kept if name.endswith(MISSING)]
        assert any(name.startswith("logs/") for name in kept)
        assert any("config" in name for name in kept)

    def test_logs_since_a_moment_have_nothing_that_was_written_before(self, case: Case) -> None:
        def lines(since: datetime | None = None, tail: int = 500) -> int:
            return sum(not line.startswith("==>") for line in case.runtime.logs(case.model, tail=tail, since=since).splitlines())

        assert lines() > 0 or not case.writes_log
        assert lines(datetime.now(UTC) - timedelta(days=365)) == lines()
        assert lines(datetime.now(UTC) + timedelta(days=1)) == 0
        assert lines(tail=1) <= 2 * len(case.runtime.instances(case.model))

    def test_use_of_cpu_and_memory_is_a_share_or_said_not_to_be_known(self, case: Case) -> None:
        try:
            used = case.runtime.resources(case.model)
        except NotFound:
            return
        assert all(share is None or 0 <= share <= 1 for share in (used.cpu, used.memory))

    def test_a_rehearsal_changes_nothing(self, case: Case) -> None:
        before, model = case.serving(), case.model
        actions = [
            Scale(model, 0),
            RouteTraffic(model, FORMER),
            Configure(model, {"threshold": 0.33}),
            Restart(model, "x"),
            Isolate(model, True),
        ]
        restarts = case.restarts()
        case.runtime.dry_run(model, actions)
        assert case.runtime.observe(model) == before
        assert case.restarts() == restarts

    def test_a_rehearsal_finds_what_would_be_refused(self, case: Case) -> None:
        for action in (Scale(case.model, -1), Configure(case.model, {"threshold": 7}), UndoRollout(case.model, 4711)):
            with pytest.raises(Refused):
                case.runtime.dry_run(case.model, [action])

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_model_that_is_not_served_is_refused_and_nothing_changes(self, case: Case, verb: str) -> None:
        """Rule 4 of the design: whatever the name, a verb for another model than the runtime's own touches nothing, and reads nothing."""
        before = case.world()
        for model in strangers(case.model):
            with pytest.raises(Refused):
                VERBS[verb](case.runtime, model)
            assert case.world() == before, model

    def test_the_evidence_of_a_model_that_is_not_served_is_missing_with_the_reason(self, case: Case) -> None:
        kept = case.runtime.preserve("churn")
        assert all(name.endswith(MISSING) for name in kept)
        assert any(b"churn" in reason for reason in kept.values())

    def test_a_rehearsal_refuses_an_action_on_another_model(self, case: Case) -> None:
        with pytest.raises(Refused):
            case.runtime.dry_run(case.model, [Scale(case.model, 0), Isolate("churn", True)])

    def test_a_revision_that_the_history_does_not_have_cannot_be_put_back(self, case: Case) -> None:
        with pytest.raises(Refused):
            case.runtime.undo_rollout(case.model, revision=4711)
