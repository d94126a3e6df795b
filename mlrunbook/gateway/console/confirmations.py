"""What a person reads after they have done something. The address names the act alone, so that nobody can put words into our mouth."""

from __future__ import annotations

DONE = {
    "acknowledge": "You have it. Paging of your role stops; escalation to the other roles goes on until it is resolved.",
    "approve": "You approved the plan. Once enough people have, the run carries it out and checks the result.",
    "reject": "You rejected the plan. It is not carried out.",
    "contain": "Ordered. The next run carries it out first. Pages go on until it is in force.",
    "reverse": "Ordered. The next run puts back what containment changed. Pages go on until it has.",
    "resolve": "Noted. The run measures the recovery next, and resolves the incident once it shows.",
    "close": "Closed. Paging has stopped.",
    "handover": "Handed over. Pages and notices name that person from now on.",
    "severity": "Severity changed. Stakeholders get a notice.",
    "go-on": "Automation is on again.",
    "clock": "The clock is set. Reminders follow its deadline.",
    "notified": "Recorded. The reminders of this clock have ended.",
    "opened": "Reported: a new incident is open, and on-call is paged.",
    "joined": "An incident of this kind was open already: your report joined it.",
    "unknown-model": "Reported. Nobody knows this model, so nothing is planned or changed for it until somebody names it.",
    "edited": "Saved. Signatures given before are void.",
    "unchanged": "Nothing was different, so nothing was saved.",
    "signed": "Signed.",
    "item-added": "Added. Its owner is reminded before it is due.",
    "item-moved": "Noted.",
}


def sentence(did: str) -> str:
    """Empty where nothing was done that we know."""
    return DONE.get(did, "")
