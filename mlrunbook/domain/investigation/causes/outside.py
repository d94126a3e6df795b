"""Causes outside the model: its server, the feed of outcomes, whoever rewrites them, an attacker who probes it."""

from __future__ import annotations

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.investigation.causes.case_file import AVAILABILITY, READS, SERVER_LOGS, CaseFile, Line, negated
from mlrunbook.domain.investigation.causes.definition import CauseDefinition, FollowUp, Prevention, Remedy, by_hand, retrain_or
from mlrunbook.domain.investigation.serving_health import Trouble, answer
from mlrunbook.domain.roles import Role

# --- the model server


def serving_evidence(file: CaseFile) -> list[Line]:
    facts, out = file.facts, file.suspect(READS, AVAILABILITY)
    # Failed reads are the server's own fault only if the store is known to answer other clients.
    blind = facts.trouble is not None and facts.trouble.trouble is Trouble.BLIND
    store_well = negated(out) if blind else out is not True
    return [
        Line(0.7, file.serving_in_trouble, file.trouble_words, required=True),
        Line(0.15, file.suspect(SERVER_LOGS), file.sentence_of(SERVER_LOGS)),
        Line(0.15, negated(out), f"features: {file.sentence_of(READS)}"),
        Line(0.0, store_well, "no outage of the feature store explains it", required=True),
        Line(0.0, not facts.not_loaded, file.load_words, required=True),
        Line(0.0, not facts.rollout.bad, "no rollout explains it", required=True),
    ]


def serving_remedy(file: CaseFile) -> Remedy:
    if file.facts.trouble is None:
        return by_hand("look at the model server, its log and its host")
    restart, advice = answer(file.facts.trouble, deployed=file.facts.deployed_in_a_day)
    return Remedy(advice, Path.RESTART) if restart else by_hand(advice)


def serving_whys(file: CaseFile) -> tuple[str, ...]:
    return (f"Why did requests not get their predictions in time? Because {file.trouble_words}",)


SERVING_INFRASTRUCTURE = CauseDefinition(
    Cause.SERVING_INFRASTRUCTURE,
    "serving is in trouble",
    serving_evidence,
    serving_remedy,
    serving_whys,
    Prevention(
        (
            FollowUp("Fix what took the model server down, and test that it restarts by itself", Role.ONCALL_ML_ENGINEER, 7),
            FollowUp("Review the capacity and the health checks of the model server", Role.ONCALL_ML_ENGINEER, 14),
        ),
        "The model is only as available as its server",
        "Infrastructure changes need the model owner's eye",
        "Watch latency and error rate next to model quality",
    ),
)


# --- the feed of outcomes


def labels_evidence(file: CaseFile) -> list[Line]:
    feed, dangerous = file.facts.feed, file.facts.dangerous
    return [
        Line(0.7, feed.stalled if feed else None, feed.sentence if feed else "performance is not measured", required=True),
        Line(0.0, not dangerous, "measured dangerous" if dangerous else "no danger shows without outcomes", required=True),
        Line(0.2, file.server_healthy, file.server_words),
        file.sound_inputs(0.1),
    ]


def labels_remedy(file: CaseFile) -> Remedy:
    look = "look at the feed of outcomes, from the maintenance records to the platform; change no model until they arrive again"
    return retrain_or(file, Cause.LABEL_PROBLEM, look)


def labels_whys(file: CaseFile) -> tuple[str, ...]:
    feed = file.facts.feed
    return (f"Why is performance not known? Because {feed.sentence if feed else 'it is not measured'}",)


LABEL_PROBLEM = CauseDefinition(
    Cause.LABEL_PROBLEM,
    "outcomes no longer arrive",
    labels_evidence,
    labels_remedy,
    labels_whys,
    Prevention(
        (
            FollowUp("Fix the feed of outcomes, and find out why nobody noticed that it had stopped", Role.ONCALL_ML_ENGINEER, 7),
            FollowUp("Agree with the owners of the maintenance records how late outcomes may be", Role.ML_TEAM_LEAD, 14),
        ),
        "Without outcomes a model that fails looks like one that works",
        "The feed of outcomes needs an owner who hears of its delays",
        "Alert on the share of due outcomes that is known",
    ),
)


# --- outcomes that somebody rewrote


def rewritten_evidence(file: CaseFile) -> list[Line]:
    found = file.facts.rewritten
    return [
        Line(0.7, found.beyond if found else None, found.sentence if found else "performance is not measured", required=True),
        Line(0.2, file.server_healthy, file.server_words),
        file.sound_inputs(0.1),
    ]


def rewritten_remedy(file: CaseFile) -> Remedy:
    return by_hand(
        "have the owners of the maintenance records say which outcomes are right, by the versions that the platform keeps "
        "(`GET /api/v1/ml/predictions/ID/outcomes`); revoke the token if they were not theirs to change; report the right ones again, "
        "and change no model before"
    )


def rewritten_whys(file: CaseFile) -> tuple[str, ...]:
    found = file.facts.rewritten
    return (f"Why can the figures not be relied on? Because {found.sentence if found else 'nobody knows who reported outcomes'}",)


OUTCOMES_REWRITTEN = CauseDefinition(
    Cause.OUTCOMES_REWRITTEN,
    "outcomes were rewritten after they had been reported",
    rewritten_evidence,
    rewritten_remedy,
    rewritten_whys,
    Prevention(
        (
            FollowUp("Find out who rewrote the outcomes, with whose token, and why", Role.ONCALL_ML_ENGINEER, 2),
            FollowUp("Give the scope `outcomes` only to the systems that own the maintenance records", Role.ML_TEAM_LEAD, 7),
        ),
        "Metrics are only as true as the outcomes they are counted from",
        "Corrections of outcomes need an owner who announces them",
        "Watch who corrects outcomes, and how many",
    ),
)


# --- an attack


def attack_evidence(file: CaseFile) -> list[Line]:
    probing = file.facts.probing
    return [
        Line(0.6, probing.suspicious if probing else None, probing.sentence if probing else "the log was not read", required=True),
        Line(0.2, probing.alike > 0 if probing else None, "readings that hardly differ, one after the other"),
        Line(0.1, probing.impossible > 0 if probing else None, "readings that no machine can have"),
        file.not_degraded(0.1),
    ]


def attack_remedy(file: CaseFile) -> Remedy:
    assets = ", ".join(file.facts.probing.assets[:3] if file.facts.probing else ()) or "the assets asked about"
    stop = "have security find who sends these requests and take their token away"
    return retrain_or(file, Cause.ATTACK, f"{stop}; keep the prediction log, and look at the work orders of {assets}")


def attack_whys(file: CaseFile) -> tuple[str, ...]:
    probing = file.facts.probing
    return (f"Why is it an attack? Because of {probing.sentence if probing else 'what the log shows'}",)


ATTACK = CauseDefinition(
    Cause.ATTACK,
    "somebody probes the model",
    attack_evidence,
    attack_remedy,
    attack_whys,
    Prevention(
        (
            FollowUp("Find out who probed the model and with whose token", Role.ONCALL_ML_ENGINEER, 2),
            FollowUp("Limit requests a caller and an asset, and refuse readings that no machine can have", Role.ML_TEAM_LEAD, 14),
            FollowUp("Judge with security what the caller has learnt, and whether to tell the compliance officer", Role.ML_TEAM_LEAD, 7),
        ),
        "A model answers whoever may ask, and every answer tells something about its boundary",
        "Tokens for predictions need an owner and an end date",
        "Alert on near-duplicate and impossible requests in the prediction log",
    ),
)
