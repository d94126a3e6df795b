"""What a person reads after they have done something. The address names the act alone, so that nobody can put words into our mouth."""

from __future__ import annotations

DONE = {
    "acknowledge": "You have it. Your role is no longer paged; the escalation to the others goes on until it is resolved.",
    "approve": "You approved the plan. Once enough people have, the run carries it out and reads it back.",
    "reject": "You rejected the plan. It is not carried out.",
    "contain": "Ordered. The next run carries it out before anything else; people are paged until it is in force.",
    "reverse": "Ordered: what containment changed is taken back. People are paged until it is.",
    "resolve": "Noted. The recovery is measured next; the incident is resolved once the measurement shows it.",
    "close": "It is over. Paging has stopped.",
    "handover": "Handed over. Pages and notices name that person from now on.",
    "severity": "The severity is set, and stakeholders are told.",
    "go-on": "Automation goes on.",
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
