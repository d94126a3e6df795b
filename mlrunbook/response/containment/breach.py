"""Security and compliance incidents: who is told at once, and the named decision about an isolated model server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.actions import Isolate, Plan, PlanKind
from mlrunbook.domain.communication import messages
from mlrunbook.domain.communication.regulatory import clocks_for
from mlrunbook.domain.containment import breach
from mlrunbook.domain.containment.containment import ContainmentDecided
from mlrunbook.domain.containment.evidence import MANIFEST
from mlrunbook.domain.detection.alerts import proven_as, type_of
from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.detection.reports import FirstReport, PersonsReport
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.incident import Incident, Subtype
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.policy.changes import BREACH_TYPES
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.fix import Applied, Fix, HumanResolution
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication import regulatory_clocks, reports
from mlrunbook.response.communication.notifications import Page, page, receivers, send_message, snapshot
from mlrunbook.response.execution import dry_run
from mlrunbook.response.execution.execute import execute
from mlrunbook.response.lifecycle.opening import stated_subtypes
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.store import alerts, evidence, incidents, journal, plans, records
from mlrunbook.store.journal import isolations

OFFICERS = (Role.SECURITY_OFFICER, Role.COMPLIANCE_OFFICER)


def is_breach(run: Run) -> bool:
    return run.incident().type in BREACH_TYPES


@dataclass(frozen=True)
class _Words:
    """What is said of a breach: everything, or by those alone whom policy trusts to isolate on their word. Where an alert has opened a
    closed incident again, what was said before counts no more for that."""

    first: FirstReport | None
    people: Sequence[PersonsReport]
    alerts: Sequence[Mapping[str, Any]]  # their bodies
    stated: Collection[Subtype]
    description: str


def _words(conn: Connection, incident: Incident, trusts: Callable[[str], bool] | None = None) -> _Words:
    again, first = records.recall(conn, incident.id, Reopened), records.recall(conn, incident.id, FirstReport)
    begun = again.at if trusts and again and not again.measured else None
    believed = trusts or (lambda _: True)

    def counts(proven: str, at: datetime) -> bool:
        return believed(proven) and (begun is None or at >= begun)

    first_counts = begun is None and (first is None or believed(first.proven_as))
    rows = alerts.of_incident(conn, incident.id)
    return _Words(
        first if first_counts else None,
        [one for one in reports.of_incident(conn, incident.id) if counts(one.proven_as, one.at)],
        [row["body"] for row in rows if counts(proven_as(row["body"]), row["last_seen_at"])],
        [kind for kind, said in stated_subtypes(conn, incident.id).items() if counts(said.proven_as, said.at)],
        incident.description if first_counts else "",
    )


def _kinds(words: _Words, policy: Policy) -> frozenset[Subtype]:
    signals = []
    for body in words.alerts:
        labels, annotations = body.get("labels", {}), body.get("annotations", {})
        signals.append((str(labels.get("alertname", "")), str(labels.get("subtype", "")), str(annotations.get("summary", ""))))
    return breach.recognise(words.stated, signals, words.description, policy.breach)


def kinds_of(conn: Connection, policy: Policy, incident: Incident) -> frozenset[Subtype]:
    """What kind of breach it is, as far as people, alerts or their words tell; empty: not known, or no breach."""
    return _kinds(_words(conn, incident), policy) if incident.type in BREACH_TYPES else frozenset()


def _isolation(conn: Connection, policy: Policy, incident: Incident) -> breach.Verdict:
    """On the word of those alone whom policy trusts for it."""
    trusts = partial(policy.intake.trusted_for.trusts, "isolation")
    said = _words(conn, incident, trusts)
    types = {one.type for one in said.people} | ({said.first.type} if said.first else set())
    types |= {type_of(policy, body) or incident.type for body in said.alerts}  # of the same family, whatever it calls itself
    if said.description and said.first is None:  # of a release that kept no first report
        types.add(incident.type)
    if not types & set(BREACH_TYPES):
        everything = _words(conn, incident)
        who = {one.by for one in everything.people if not trusts(one.proven_as)}
        who |= {row["sender"] or row["source"] for row in alerts.of_incident(conn, incident.id) if not trusts(proven_as(row["body"]))}
        return breach.unproven(breach.in_words(_kinds(everything, policy), incident.type), who)
    type_ = incident.type if incident.type in types else min(types & set(BREACH_TYPES))
    triage = records.recall(conn, incident.id, Triage)
    severity = triage.backed.assessment.severity if triage and triage.backed else incident.severity
    return breach.isolation(type_, _kinds(said, policy), severity, policy.breach)


def verdict(run: Run) -> breach.Verdict | None:
    """Whether the model server is isolated at once, and why; None where this is no breach, or one on paper alone."""
    with run.world.transaction() as conn:
        incident = incidents.get(conn, run.incident_id)
        if incident.type not in BREACH_TYPES:
            return None
        kinds = kinds_of(conn, run.world.policy, incident)
        if breach.is_on_paper(kinds, incident.severity):
            return None
        return _isolation(conn, run.world.policy, incident)


def alarm(run: Run) -> None:
    """The clocks of the law start, and the officers are paged and told, once for what is known of the breach.

    It comes before evidence and isolation and needs nothing but the store, so it is said also when those fail.
    """
    if not is_breach(run):
        return
    with run.write() as conn:
        policy, now = run.world.policy, run.world.now()
        incident = incidents.get(conn, run.incident_id)
        kinds = kinds_of(conn, policy, incident)
        what = breach.in_words(kinds, incident.type)
        for clock in clocks_for(kinds, incident.severity, incident.detected_at, policy.regulatory, what=what):
            regulatory_clocks.begin(conn, policy, incident, clock, by=ACTOR, now=now)
        again = records.recall(conn, run.incident_id, Reopened)
        on_paper = breach.is_on_paper(kinds, incident.severity)
        said = f"{what}, {again.at if again else None}" + (", on paper" if on_paper else "")
        name = hashlib.sha256(said.encode()).hexdigest()[:12]
        _contain_anew(run, conn, policy, incident, kinds, name)
        if records.recall(conn, run.incident_id, breach.Alarm, name):
            return
        run.keep(conn, breach.Alarm(tuple(sorted(kinds))), name)
        key = Record.ALARM.of(name)
        state = snapshot(conn, policy, incident, now=now)
        text = (
            messages.ticket(state) if on_paper else messages.breach_notice(state, what, "; ".join(state.reported) or incident.description)
        )
        for to in receivers(policy.escalation.of(Role.COMPLIANCE_OFFICER), Role.COMPLIANCE_OFFICER.words):
            send_message(conn, policy, incident, to, text, key=key, now=now)
        if on_paper:
            run.note(conn, "breach", f"Taken as {what}, low: a ticket, and the compliance officer is told")
            return
        run.note(conn, "breach", f"Taken as {what}: security and the compliance officer are told")
        todo = f"Evidence: mlrunbook incidents evidence {incident.id} --out bundle"
        for role in OFFICERS:
            page(conn, policy, incident, Page(role, what, f"{key}:{role}", todo), now=now)
        for to in receivers(policy.contacts.security, "security team"):
            send_message(conn, policy, incident, to, text, key=key, now=now)


def _contain_anew(run: Run, conn: Connection, policy: Policy, incident: Incident, kinds: frozenset[Subtype], name: str) -> None:
    """It turns out to be a kind that is isolated at once, or somebody says so whom policy trusts, after a containment that left that to a
    person. Once for what is known of the breach."""
    decided = records.recall(conn, run.incident_id, ContainmentDecided)
    if not _isolation(conn, policy, incident).at_once or records.recall(conn, run.incident_id, breach.Alarm, name, "isolates"):
        return
    run.keep(conn, breach.Alarm(tuple(sorted(kinds))), name, "isolates")
    if decided and not decided.isolates:
        records.forget(conn, run.incident_id, Record.CONTAINMENT, Record.CONTAINED)


def isolating(run: Run) -> list[journal.Row]:
    with run.world.transaction() as conn:
        return isolations(conn, run.incident_id)


def plan_release(run: Run) -> str | None:
    """The digest of the plan to lift the isolation, for a named person to decide; None: nothing is isolated.

    It is decided anew after a fix: what was refused before it may be right now. Rejecting it keeps the server isolated.
    """
    rows = isolating(run)
    if not rows:
        return None
    tried = dry_run.dry_run(run.world, rows[-1].model, [Isolate(rows[-1].model, False)])
    with run.write() as conn:
        fix = records.recall(conn, run.incident_id, HumanResolution) or records.recall(conn, run.incident_id, Applied)
        about = (rows[-1].id, fix.stored_at if fix else "")
        if standing := records.recall(conn, run.incident_id, breach.Release, *about):
            return standing.digest
        proposed = tried.shown(_release(run, conn, rows, fix))
        digest = plans.propose(conn, proposed, now=run.world.now())
        run.keep(conn, breach.Release(digest), *about)
        return digest


def _release(run: Run, conn: Connection, rows: list[journal.Row], fix: Fix | None) -> Plan:
    incident = incidents.get(conn, run.incident_id)
    diagnosis = records.recall(conn, run.incident_id, Diagnosed)
    what = breach.in_words(kinds_of(conn, run.world.policy, incident), incident.type)
    kept = {item.name: item.sha256 for item in evidence.manifest(conn, run.incident_id)}
    done = f"{fix.by} says it is fixed: {fix.what}" if isinstance(fix, HumanResolution) else "the approved plan is carried out"
    reasons = [
        "; ".join([f"{what}; isolated since {rows[-1].done_at or rows[-1].intended_at:%Y-%m-%d %H:%M:%S} UTC", *rows[-1].caveats]),
        diagnosis.sentence if diagnosis else "",
        f"since then: {done}" if fix else "nothing has been fixed yet",
        "approve: it serves again, and the incident goes on; reject: it stays isolated, and people take a path or hand over",
    ]
    return Plan(
        run.incident_id,
        PlanKind.ISOLATION,
        incident.model,
        (Isolate(incident.model, False),),
        tuple(r for r in reasons if r),
        expected="every client reaches the model server again; what it held in memory may change from then on",
        facts={"evidence_files": len(kept), "manifest_sha256": kept.get(MANIFEST)},
    )


def lift(run: Run, digest: str) -> None:
    """Carry out the approved release; every isolation of this incident then counts as taken back."""
    rows = isolating(run)
    if not rows:
        return
    with run.world.transaction() as conn:
        plan = plans.get(conn, run.incident_id, digest)
    done = execute(run.world, run.lease, plan, 0, undo_of=rows[-1].id)
    with run.write() as conn:
        for row in rows:
            journal.set_undone(conn, row.id, done.id)
