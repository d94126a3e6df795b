"""The runbook's "Regular Audits": read what is known, judge it, open what a broken limit calls for, file the report.

One record a model, kind and period: an audit that was killed and starts again finds what it has opened and filed.
"""

from __future__ import annotations

from sqlalchemy import Connection

from mlrunbook.adapters.reports.audit import render
from mlrunbook.domain.audits.annual import annual
from mlrunbook.domain.audits.monthly import monthly
from mlrunbook.domain.audits.period import Kind, Period
from mlrunbook.domain.audits.quarterly import quarterly
from mlrunbook.domain.audits.section import Audit, Section, Verdict
from mlrunbook.domain.audits.weekly import weekly
from mlrunbook.domain.detection.reports import NewReport, Origin
from mlrunbook.domain.incident import IncidentType, Status
from mlrunbook.response.audits import facts as audit_facts
from mlrunbook.response.audits import records
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.world import World
from mlrunbook.store import audits, incidents
from mlrunbook.store.audits import Filed


def filed(world: World, model: str, period: Period) -> Filed | None:
    """The record of that period, if there is one."""
    with world.transaction() as conn:
        return audits.of_period(conn, model, period.kind, period.name)


def examine(world: World, model: str, period: Period) -> Audit:
    """Read and judge; nothing is written. NotFound for a model that the platform does not know, Transient while it does not answer."""
    version, sections = _judged(world, model, period)
    with world.transaction() as conn:
        last = audits.last_before(conn, model, period.kind, period.until)
    return Audit(
        model,
        period,
        world.now(),
        sections,
        before=last.verdicts if last else None,
        before_name=last.period if last else "",
        facts={"version": version} if version else {},
    )


def _judged(world: World, model: str, period: Period) -> tuple[str, tuple[Section, ...]]:
    if period.kind is Kind.WEEKLY:
        facts = audit_facts.weekly(world, model, period)
        return audit_facts.versions(facts.metrics), weekly(facts, world.policy.for_model(model))
    if period.kind is Kind.MONTHLY:
        fairness = audit_facts.monthly(world, model, period)
        return fairness.version, monthly(fairness, world.policy)
    version = world.platform.status(model).serving_version
    if period.kind is Kind.QUARTERLY:
        return version, quarterly(records.quarterly(world, model, period), period, world.policy.for_model(model))
    return version, annual(records.annual(world, model, period), period, world.policy.for_model(model))


def open_incidents(world: World, audit: Audit) -> Audit:
    """Open or join an incident for every broken limit that calls for one: once a finding and calendar period, however often one looks.

    None is opened where one of the same failure family was detected in the period and is over: it is what broke the limit.
    """
    failed = [s for s in audit.sections if s.verdict is Verdict.FAIL and s.opens is not None]
    for one in sorted(failed, key=lambda s: -s.opens.severity.rank if s.opens else 0):  # the gravest opens it, the others join
        assert one.opens is not None
        with world.transaction() as conn:
            over = _explained_by(conn, world, audit, one)
        if over:
            audit = audit.with_incident(one.key, None, f"{over}, which is over, was in this {audit.period.kind.unit}: no other is opened.")
            continue
        said = NewReport(
            model=audit.model,
            severity=one.opens.severity,
            type=one.opens.type,
            description=f"{one.title}: {one.sentence}",
            impact=f"Found by the {audit.period.kind} audit of {audit.period.name}",
            reported_by=f"{audit.period.kind} audit",
            subtype=one.opens.subtype,
            origin=Origin.AUDIT,
        )
        by_run = f"audit:{audit.model}:{audit.period.kind}:{audit.period.within}:{one.key}"
        incident_id = open_or_join(world, said, by_run=by_run, start=True, unknown_model=True)
        audit = audit.with_incident(one.key, incident_id, "")
    return audit


def _explained_by(conn: Connection, world: World, audit: Audit, one: Section) -> str | None:
    if one.opens is None or one.opens.type in (IncidentType.COMPLIANCE, IncidentType.SECURITY):  # never the same finding twice
        return None
    family = world.policy.family_of(one.opens.type)
    alike = [i for i in audit_facts.incidents_of(conn, audit.model, audit.period) if i.family == family]
    mended = [i for i in alike if i.status in (Status.RESOLVED, Status.CLOSED) and not _is_ours(i.reported_by)]
    is_open = any(i.family == family for i in incidents.find(conn, model=audit.model, only_open=True))
    return mended[-1].id if mended and not is_open else None


def _is_ours(reported_by: str) -> bool:
    return reported_by in {f"{kind} audit" for kind in Kind}


def file(world: World, audit: Audit) -> tuple[Filed, bytes]:
    """The record and the report that stand for that period."""
    page = render(audit)
    with world.transaction() as conn:
        made = audits.file(conn, audit, page)
        return made, audits.report(conn, made.id)


def sentence(made: Filed) -> str:
    """What the run page and the log say."""
    failed = ", ".join(s["title"] for s in made.sections if s["verdict"] == Verdict.FAIL)
    opened = f"; incidents: {', '.join(made.incident_ids)}" if made.incident_ids else ""
    return f"{made.kind} audit of {made.model}, {made.period}: {made.verdict.words}{f' ({failed})' if failed else ''}{opened}"
