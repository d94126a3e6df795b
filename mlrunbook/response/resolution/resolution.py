"""Step 4: the plan a person decides about, the check that it worked, and taking containment back."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from mlrunbook.domain.actions import Action, Configure, Path, PlanKind, Promote, Restart, RollBack
from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.containment.taking_back import Undo, undo_plan
from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.errors import NotFound, Refused, RunbookError, Transient
from mlrunbook.domain.evaluation.outcomes import next_look_s
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.evaluation.rollback_target import objection
from mlrunbook.domain.incident import IncidentType, Status
from mlrunbook.domain.investigation.causes.definition import Repair
from mlrunbook.domain.investigation.diagnosis import Diagnosis
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.observed import ServingState
from mlrunbook.domain.records import OF_THE_FIX, Record
from mlrunbook.domain.resolution.plan import propose, restart_id
from mlrunbook.domain.resolution.recovery import judge_recovery, judge_types
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.notifications import Page, request_action
from mlrunbook.response.containment import emergency
from mlrunbook.response.detection.triage import figures_of
from mlrunbook.response.execution import dry_run
from mlrunbook.response.execution.approvals import approve_by_rule
from mlrunbook.response.execution.plans import executed_containment, plan_of, report_left_out
from mlrunbook.response.investigation import rollback_target
from mlrunbook.response.investigation.investigation import rediagnosed
from mlrunbook.response.measurement import metrics
from mlrunbook.response.resolution import promotion, serving_recovery, threshold
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.store import incidents, journal, plans, records

UNDO_RULE = "containment.undo_on_verified_recovery"


def plan(run: Run) -> str | None:
    """The digest of the resolution plan, made once; None when there is no safe automatic path (`why_no_plan` says why)."""
    if standing := run.recorded("resolution_plan"):
        return _digest(standing)
    diagnosis, facts = rediagnosed(run)
    request = run.recorded("request")
    state = _observed(run)
    if request:
        diagnosis = _as_asked(run, diagnosis, facts, request)
        if diagnosis.path is Path.THRESHOLD and diagnosis.target_threshold is None:
            diagnosis = threshold.chosen(run, diagnosis, state)
    elif diagnosis.target_version and metrics.is_dangerous(run, diagnosis.target_version):
        why = f"{diagnosis.target_version} is dangerous too: nobody is offered to go back to it; deploy a fixed version"
        diagnosis = replace(diagnosis, path=None, sentence=f"{diagnosis.sentence} But {why}", advice=f"{diagnosis.advice}, but {why}")
    if diagnosis.path is Path.RESTART and _was_restarted(run):
        why = "a restart did not help: look at the model server, its log and its host"
        diagnosis = replace(diagnosis, path=None, sentence=f"{diagnosis.sentence} But {why}", advice=f"{diagnosis.advice}, but {why}")
    fit, why_not = promotion.candidate(run) if diagnosis.path is Path.RETRAIN else None, f"{diagnosis.headline}. {diagnosis.advice}"
    if isinstance(fit, str):
        fit, why_not = None, f"the retrained candidate is not promoted: {fit}"
    incident = run.incident()
    executed = executed_containment(run)
    effect, target = None, diagnosis.target_threshold
    if diagnosis.path is Path.THRESHOLD and target is not None:
        effect = threshold.expected(run, target, state)
    proposed = propose(
        run.incident_id, incident.model, diagnosis, facts, state=state, executed=executed, candidate=fit, threshold_effect=effect
    )
    again = run.recall(Reopened)
    if proposed and again:  # decided anew: the yes to the plan that did not hold covers no second attempt
        proposed = replace(proposed, reasons=(*proposed.reasons, f"reopened at {again.at}: {again.why}"))
    if proposed:
        tried = dry_run.dry_run(run, incident.model, proposed.actions)
        if refused := dry_run.refusal(proposed, tried):
            proposed, why_not = None, f"{diagnosis.headline}. {diagnosis.advice}: {refused}"
        else:
            proposed = tried.shown(proposed)
    with run.write() as conn:
        if standing := records.get(conn, run.incident_id, "resolution_plan"):
            return _digest(standing)
        if proposed is None:
            run.note(conn, "plan", f"No plan: {why_not}")
        digest = plans.propose(conn, proposed, now=run.world.now()) if proposed else None
        path = str(proposed.path) if proposed else None
        run.record(conn, "resolution_plan", {"digest": digest, "path": path, "why": None if proposed else why_not})
    return digest


def _as_asked(run: Run, diagnosis: Diagnosis, facts: DiagnosisFacts, request: dict[str, Any]) -> Diagnosis:
    """A person has named the path; the diagnosis stays as a second opinion for the approver."""
    against = _objection(run, request["target_version"]) if request.get("target_version") else None
    asked = f"{request['by']} {'asked for it anyway' if against else 'asks for this path'}: {request['reason'] or 'no reason given'}"
    repair = None
    if request["path"] == Path.MATERIALIZE:
        views = tuple(request.get("views") or run.world.policy.feature_views_of(run.incident().model))
        resume = tuple(v for v in (facts.features.resume if facts.features else ()) if v in views)
        repair = Repair(views, request.get("since"), resume, until=request.get("until"), as_of=run.world.now().isoformat())
    return replace(
        diagnosis,
        path=Path(request["path"]),
        target_version=request.get("target_version"),
        target_threshold=request.get("threshold"),
        repair=repair,
        sentence=f"{asked}. Diagnosis: {diagnosis.sentence}",
        objection=against,
    )


def _objection(run: Run, version: str) -> str | None:
    """What speaks against a version that a person has named, from the same comparison that chooses one where nobody has."""
    rollback_target.choose(run)
    current = run.incident().model_version
    return objection(version, current=current, targets=rollback_target.recorded(run), dangerous=metrics.is_dangerous(run, version))


def _was_restarted(run: Run) -> bool:
    """This incident's own restart is over; the id makes it once, and so would another attempt change nothing."""
    target = Restart(run.incident().model, restart_id(run.incident_id)).target()
    with run.world.transaction() as conn:
        return any(row.target == target and row.settled for row in journal.of_incident(conn, run.incident_id))


def why_no_plan(run: Run) -> str:
    """For the human who is asked instead."""
    return str((run.recorded("resolution_plan") or {}).get("why") or "there is no safe automatic path: look at the findings, fix it")


def _digest(standing: dict[str, Any]) -> str | None:
    return standing["digest"] or None


def begin(run: Run, digest: str) -> None:
    wanted = plan_of(run, digest)
    if run.recorded("applied"):
        return
    with run.write() as conn:
        if incidents.get(conn, run.incident_id).status is Status.MONITORING:  # of a fix by hand: a person asks for a path instead
            why = "the fix that was measured is not the last word"
            incidents.set_status(conn, run.incident_id, Status.INVESTIGATING, why=why, actor=ACTOR, now=run.world.now())
        why = "; ".join(a.summary for a in wanted.actions)
        incidents.set_status(conn, run.incident_id, Status.RESOLVING, why=why, actor=ACTOR, now=run.world.now())


def applied(run: Run, digest: str) -> None:
    """Every action is read back; what the running server has loaded must agree. Then: monitoring."""
    if run.recorded("applied"):
        return
    wanted = plan_of(run, digest)
    serves = [a.target_version for a in wanted.actions if isinstance(a, RollBack)]
    serves += [a.version for a in wanted.actions if isinstance(a, Promote)]
    _confirm_running(run, [a for a in wanted.actions if isinstance(a, Configure)], serves)
    with run.write() as conn:
        now = run.world.now()
        if run.record(conn, "applied", {"at": now, "path": str(wanted.path)}):
            why = "every change is read back; measuring fresh predictions"
            incidents.set_status(conn, run.incident_id, Status.MONITORING, why=why, actor=ACTOR, now=now)


def _confirm_running(run: Run, configured: list[Configure], serves: list[str]) -> None:
    """Path A: `GET .../status`. Path D: "read the threshold back from the running server"."""
    model = run.incident().model
    seen = run.world.runtime.observe(model)
    for action in configured:
        loaded = seen.config.as_dict() if seen.config else {}
        wrong = {k: loaded.get(k) for k, v in action.settings.items() if loaded.get(k) != v}
        if wrong:
            raise Transient(f"the running server has {wrong}, not {dict(action.settings)}, loaded; waiting for its restart")
    for version in serves:
        status = run.world.platform.status(model)
        if status.serving_version != version:
            raise Refused(f"{model} serves {status.serving_version}, not {version}: somebody changed it after us")


def measure_recovery(run: Run) -> dict[str, Any]:
    """Judge predictions made after the fix; waits up to the world's `patience_s`. `recovered` None: too early to say, or a promoted version
    is still being watched (`look_again_s`: when to look next)."""
    deadline = time.monotonic() + run.world.patience_s
    if standing := run.recorded("recovery"):
        return _watched(run, standing, deadline)
    since = _fixed_at(run)
    _monitor(run)
    while True:
        verdict = _judge(run, since)
        if verdict["recovered"] is not None or time.monotonic() > deadline:
            break
        run.world.sleep(min(run.world.policy.recovery_watch.check_every_s, 1.0))
    if verdict["recovered"] is None:
        return _not_known_yet(run, verdict, since)
    with run.write() as conn:
        run.note(conn, "recovery", f"Recovery check: {verdict['sentence']}", {"f1": verdict["f1"], "labelled": verdict["labelled"]})
        if verdict["recovered"]:
            verdict = run.record(conn, "recovery", verdict)
        else:
            incidents.set_status(conn, run.incident_id, Status.INVESTIGATING, why=verdict["sentence"], actor=ACTOR, now=run.world.now())
    return _watched(run, verdict, deadline) if verdict["recovered"] else verdict


def _monitor(run: Run) -> None:
    """A fix by hand is measured in the same status as one of ours."""
    if run.recorded("human_resolution") and run.incident().status in (Status.INVESTIGATING, Status.CONTAINED):
        with run.write() as conn:
            why = "a person says it is fixed; measuring fresh predictions"
            incidents.set_status(conn, run.incident_id, Status.MONITORING, why=why, actor=ACTOR, now=run.world.now())


def _not_known_yet(run: Run, verdict: dict[str, Any], since: datetime) -> dict[str, Any]:
    """While predictions flow and only their outcomes are missing, the incident stays in monitoring for as long as they take, and the
    team lead is told once that they are late. Anything else that cannot be measured in time goes to a human (`give_up`)."""
    elapsed = run.world.now() - since
    overdue = elapsed > timedelta(minutes=run.world.policy.recovery_watch.give_up_after_min)
    if not verdict["waits_for_outcomes"]:
        return {**verdict, "give_up": overdue}
    if overdue and not run.recorded("outcomes_overdue"):
        with run.write() as conn:
            if not records.get(conn, run.incident_id, "outcomes_overdue"):
                run.record(conn, "outcomes_overdue", {"sentence": verdict["sentence"]})
                why = f"outcomes are late, so the recovery cannot be judged: {verdict['sentence']}"
                todo = "Find out what holds outcomes up. The incident stays in monitoring and is measured as they come."
                incident = incidents.get(conn, run.incident_id)
                call = Page(Role.ML_TEAM_LEAD, why, "outcomes", todo)
                request_action(conn, run.world.policy, incident, call, now=run.world.now())
    return {**verdict, "give_up": False, "look_again_s": next_look_s(elapsed.total_seconds(), verdict["label_delay_s"])}


def _watched(run: Run, standing: dict[str, Any], deadline: float) -> dict[str, Any]:
    """A watch that ends within our patience is waited for here."""
    while True:
        seen = promotion.watched(run, standing)
        left_s = seen.get("look_again_s")
        if left_s is None or time.monotonic() + left_s > deadline:
            return seen
        run.world.sleep(min(left_s, run.world.policy.recovery_watch.check_every_s))


def _judge(run: Run, since: datetime) -> dict[str, Any]:
    model = run.incident().model
    by_word = run.recorded("human_resolution")
    try:
        seen = run.world.platform.metrics(model, since=since)
        comes_back = threshold.coming_back(run)
        if comes_back is not None:  # at the raised one a sound model looks worse than it is
            seen = threshold.counted_at(run, seen, comes_back)
    except NotFound as error:
        if by_word:
            return _verdict(True, f"resolved on the word of {by_word['by']}: nothing measures {model} ({error})", None, None)
        return _verdict(None, str(error), None, None)
    except RunbookError as error:
        return _verdict(None, f"the recovery cannot be measured: {error}", None, None)
    if by_word and not seen.baseline.confusion.f1:
        return _verdict(True, f"resolved on the word of {by_word['by']}: there is no baseline to measure against", None, None)
    before = metrics.baseline(run) or seen.baseline.confusion
    judged = judge_recovery(before, seen.current.confusion, run.world.policy.recovery, window=seen.current, usual=seen.baseline)
    if judged.recovered and run.incident().type is IncidentType.BIAS_FAIRNESS:
        types_before = metrics.baseline_by_type(run) or seen.baseline.by_asset_type
        judged = judge_types(types_before, seen.current.by_asset_type, run.world.policy.severity.drops)
    shown = replace(figures_of(seen, run.world.policy.costs), f1_baseline=before.f1)
    recovered, sentence = judged.recovered, judged.sentence
    if comes_back is not None:
        sentence += f", at the threshold {comes_back:g} that comes back"
    if recovered is not False and (served := serving_recovery.recovered(run, since)):
        recovered, sentence = (recovered, f"{sentence}; {served[1]}") if served[0] else served
    delay_s = seen.current.label_delay_s if seen.current.label_delay_s is not None else seen.baseline.label_delay_s
    waiting = {"waits_for_outcomes": judged.waits_for_outcomes, "label_delay_s": delay_s}
    return _verdict(recovered, sentence, before, seen.current.confusion, shown) | waiting


def _verdict(
    recovered: bool | None, sentence: str, baseline: Confusion | None, fresh: Confusion | None, figures: Figures | None = None
) -> dict[str, Any]:
    return {
        "recovered": recovered,
        "sentence": sentence,
        "f1": fresh.f1 if fresh else None,
        "f1_baseline": baseline.f1 if baseline else None,
        "labelled": fresh.n if fresh else 0,
        "figures": vars(figures) if figures else None,
        "waits_for_outcomes": False,
        "label_delay_s": None,
    }


def _fixed_at(run: Run) -> datetime:
    """When the last change of the plan was read back, or when a human said it is fixed."""
    record = run.recorded("applied") or run.recorded("human_resolution")
    if record is None:
        raise Refused("nothing has been applied yet: there is no recovery to measure")
    return datetime.fromisoformat(record["at"])


def plan_undo(run: Run) -> dict[str, Any]:
    """What of the containment is taken back now, and why the rest is kept. {"digest": ..., "undoes": [...]}."""
    incident = run.incident()
    with run.world.transaction() as conn:
        now = run.world.now()
        resolution = plans.current(conn, run.incident_id, PlanKind.RESOLUTION)
        if reported := reports.unanswered(conn, run.incident_id):
            raise Refused(f"containment stays: {reported}")
        if newer := emergency.in_force(conn, run.world.policy, incident, since=_fixed_at(run), now=now):
            word = f"mlrunbook incidents contain {run.incident_id} --take-back"
            raise Refused(f"recovered, but ordered since the fix: {'; '.join(newer)}; only a person takes that back: {word}")
        if left := emergency.not_in_force(conn, run.world.policy, incident, now=now):
            word = f"do it by hand and order it again, or withdraw it: mlrunbook incidents contain {run.incident_id} --take-back"
            raise Refused(f"recovered, but what was ordered is not in force: {'; '.join(left)}; {word}")
    if standing := run.recorded("undo"):
        return standing
    executed = executed_containment(run)
    held = emergency.held_by_others(run)
    undo = undo_plan(run.incident_id, incident.model, executed, resolution=resolution, state=_observed(run), held=held)
    undo, left_out = _feasible(run, undo)
    with run.write() as conn:
        if standing := records.get(conn, run.incident_id, "undo"):
            return standing
        for action, why in left_out:
            report_left_out(run, conn, action, why)
        digest = None
        if undo.plan:
            again = records.recall(conn, run.incident_id, Reopened)  # a plan of the same words would count as carried out
            anew = (f"reopened at {again.at}",) if again else ()
            ruled = replace(undo.plan, rule=UNDO_RULE, reasons=(*undo.plan.reasons, *anew))
            digest = plans.propose(conn, ruled, now=run.world.now())
            approve_by_rule(conn, ruled, now=run.world.now())
        for action_id, why in undo.kept.items():
            journal.set_kept(conn, action_id, why)
        if undo.kept:
            names = {row.id: row.summary for row in journal.of_incident(conn, run.incident_id)}
            kept = "; ".join(f"{names[i]} ({why})" for i, why in undo.kept.items())
            run.note(conn, "containment", f"Kept: {kept}")
        return run.record(conn, "undo", {"digest": digest, "undoes": undo.undoes, "kept": dict(undo.kept)})


def _feasible(run: Run, undo: Undo) -> tuple[Undo, list[tuple[Action, str]]]:
    """Without what a dry run refuses: that stays in force, with this reason, and the rest is taken back."""
    if undo.plan is None:
        return undo, []
    actions = undo.plan.actions
    tried = dry_run.dry_run(run, undo.plan.model, actions)
    keep, left_out = dry_run.left_out(actions, tried)
    reason = f"a dry run of taking it back was refused ({'; '.join(tried.refused.values())}); a person was asked"
    kept = {**undo.kept, **{u: reason for i, u in enumerate(undo.undoes) if u and i not in keep}}
    plan = replace(undo.plan, actions=tuple(actions[i] for i in keep)) if keep else None
    return Undo(plan, tuple(undo.undoes[i] for i in keep), kept), left_out


def reopen(run: Run) -> None:
    """The fix did not work: what was found and planned is put aside, a human decides how to go on."""
    with run.write() as conn:
        records.forget(conn, run.incident_id, *OF_THE_FIX)
        for name in records.with_prefix(conn, run.incident_id, Record.FINDINGS):
            records.forget(conn, run.incident_id, name)
        why = "the fix is put aside"
        incidents.set_status(conn, run.incident_id, Status.INVESTIGATING, why=why, actor=ACTOR, now=run.world.now())


def _observed(run: Run) -> ServingState | None:
    try:
        return run.world.runtime.observe(run.incident().model)
    except RunbookError:
        return None
