"""What an alert would do is said without asking what came before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mlrunbook.domain.detection.alerts import NormalisedAlert, how_read, judge
from mlrunbook.domain.detection.verdicts import Outcome, verdict
from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.policy.policy import Policy

NOW, HOUR = datetime(2026, 3, 2, 9, tzinfo=UTC), timedelta(hours=1)


def judged(said: dict[str, str], state: State = State.FIRING) -> NormalisedAlert:
    alert = judge(Facts("1", state, "ModelF1Drop", said), Policy(), {}, received_at=NOW)
    assert isinstance(alert, NormalisedAlert)
    return alert


def test_what_fires_opens_what_is_over_ends_and_what_is_silenced_waits() -> None:
    alert, policy = judged({"model": "pumps"}), Policy()
    assert verdict(alert, policy, now=NOW).outcome is Outcome.OPEN
    assert verdict(replace(alert, firing=False), policy, now=NOW).outcome is Outcome.END
    silence = {"models": ["pumps"], "start": NOW - HOUR, "end": NOW + HOUR, "reason": "moved", "created_by": "ml_team_lead"}
    quiet = Policy.model_validate({"silences": [silence]})
    assert verdict(alert, quiet, now=NOW).outcome is Outcome.SILENCE
    assert "moved" in verdict(alert, quiet, now=NOW).happens
    assert verdict(alert, quiet, now=NOW + 2 * HOUR).outcome is Outcome.OPEN


def test_how_it_was_read_is_one_line_whatever_the_sender_writes() -> None:
    alert = judged({"model": "pumps", "severity": "page\nnow", "incident_type": "security\n"})
    said = how_read(Policy(), alert)
    assert said.isprintable()
    assert all(word in said for word in ("pumps", "security", "critical"))


def test_what_nobody_had_to_read_has_no_such_sentence() -> None:
    assert how_read(Policy(), replace(judged({"model": "pumps"}), body={"labels": {}})) == ""
