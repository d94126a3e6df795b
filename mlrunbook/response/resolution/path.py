"""Which path is planned: the one that the diagnosis names, or the one that a person asks for."""

from __future__ import annotations

from dataclasses import replace

from mlrunbook.domain.actions import Path, Restart
from mlrunbook.domain.evaluation.rollback_target import objection
from mlrunbook.domain.investigation.causes.definition import Repair
from mlrunbook.domain.investigation.diagnosis import Diagnosis
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.observed import ServingState
from mlrunbook.domain.resolution.paths import restart_id
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.investigation import rollback_target
from mlrunbook.response.investigation.investigation import rediagnosed
from mlrunbook.response.measurement import metrics
from mlrunbook.response.resolution import threshold
from mlrunbook.response.run import Run
from mlrunbook.store import journal


def chosen(run: Run, state: ServingState | None) -> tuple[Diagnosis, DiagnosisFacts]:
    """The diagnosis with the path to plan, and its facts. Its `path` is None where none is safe, and its sentence then says why."""
    diagnosis, facts = rediagnosed(run)
    if request := run.recall(Request):
        diagnosis = _as_asked(run, diagnosis, facts, request)
        if diagnosis.path is Path.THRESHOLD and diagnosis.target_threshold is None:
            diagnosis = threshold.chosen(run, diagnosis, state)
    elif diagnosis.target_version and metrics.is_dangerous(run, diagnosis.target_version):
        why = f"{diagnosis.target_version} is dangerous too: nobody is offered to go back to it; deploy a fixed version"
        diagnosis = _no_path(diagnosis, why)
    if diagnosis.path is Path.RESTART and _was_restarted(run):
        diagnosis = _no_path(diagnosis, "a restart did not help: look at the model server, its log and its host")
    return diagnosis, facts


def _no_path(diagnosis: Diagnosis, why: str) -> Diagnosis:
    return replace(diagnosis, path=None, sentence=f"{diagnosis.sentence} But {why}", advice=f"{diagnosis.advice}, but {why}")


def _as_asked(run: Run, diagnosis: Diagnosis, facts: DiagnosisFacts, request: Request) -> Diagnosis:
    """A person has named the path; the diagnosis stays as a second opinion for the approver."""
    against = _objection(run, request.target_version) if request.target_version else None
    asked = f"{request.by} {'asked for it anyway' if against else 'asks for this path'}: {request.reason or 'no reason given'}"
    repair = None
    if request.path is Path.MATERIALIZE:
        views = request.views or run.world.policy.feature_views_of(run.incident().model)
        resume = tuple(v for v in (facts.features.resume if facts.features else ()) if v in views)
        since, until = (at.isoformat() if at else None for at in (request.since, request.until))
        repair = Repair(tuple(views), since, resume, until=until, as_of=run.world.now().isoformat())
    return replace(
        diagnosis,
        path=request.path,
        target_version=request.target_version,
        target_threshold=request.threshold,
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
