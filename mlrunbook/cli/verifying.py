"""`mlrunbook incidents verify`: pages of a chain, what they say, and what to do about it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.chain import advice
from mlrunbook.domain.errors import NotFound, Refused
from mlrunbook.domain.plural import counted

if TYPE_CHECKING:
    from mlrunbook.cli.gateway_client import Gateway

MOST_SHOWN = 20


@dataclass
class _Sum:
    """Over all pages."""

    entries: int = 0
    events: int = 0
    heads: int = 0
    signed: int = 0
    has_evidence: bool = False
    faults: list[str] = field(default_factory=list)

    def add(self, page: dict[str, Any]) -> None:
        self.entries, self.events = page["entries"], page["events"]
        self.heads += page["heads"]
        self.signed += page["headsSigned"]
        self.has_evidence = page["evidenceFaults"] is not None
        self.faults += page["faults"] + (page["evidenceFaults"] or [])

    @property
    def words(self) -> str:
        kept = "the evidence fits its manifest" if self.has_evidence else "no evidence was preserved"
        sent = f"{self.heads} heads that were sent out or kept outside of the database fit, {self.signed} of them signed by our key"
        return f"intact: {self.entries} timeline entries and {self.events} row events, each fits the chain; {kept}; {sent}"


def one(gateway: Gateway, incident_id: str, head: str = "") -> str:
    """What to say when it is intact; else Refused."""
    found = _read(gateway, incident_id, head)
    if found.faults:
        raise Refused(f"{incident_id} is not what was written of it. {_listed(found.faults)}. {advice(incident_id)}")
    return found.words


def all_(gateway: Gateway) -> str:
    page = gateway.chains()
    key, faults, checked = page["keyId"], list(page["deleted"]), 0
    while True:
        for incident_id in page["incidents"]:
            faults += _faults(gateway, incident_id)
            checked += 1
        if page["after"] is None:
            break
        page = gateway.chains(page["after"])
    if faults:
        raise Refused(f"Not everything is what was written. {_listed(faults)}. {advice('ID')}")
    signed = f"heads are signed by key {key}" if key else "heads go out unsigned: set MLRUNBOOK_CHAIN_KEY"
    return f"intact: {counted(checked, 'incident')}, and none was deleted; {signed}"


def _faults(gateway: Gateway, incident_id: str) -> list[str]:
    try:
        return [f"{incident_id}: {fault}" for fault in _read(gateway, incident_id).faults]
    except NotFound as error:  # deleted since it was listed
        return [str(error)]


def _listed(faults: list[str]) -> str:
    more = f"; and {len(faults) - MOST_SHOWN} more" if len(faults) > MOST_SHOWN else ""
    return "; ".join(faults[:MOST_SHOWN]) + more


def _read(gateway: Gateway, incident_id: str, head: str = "") -> _Sum:
    found = _Sum()
    for page in gateway.verify(incident_id, head):
        found.add(page)
        if page["after"] is not None and sys.stderr.isatty():
            print(f"{incident_id}: {found.entries} timeline entries, {found.events} row events read", file=sys.stderr)
    return found
