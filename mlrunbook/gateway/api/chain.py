"""Is an incident what was written of it? In pages, because a chain may be long."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from mlrunbook.base import web
from mlrunbook.domain.chain import Head, Length
from mlrunbook.gateway.api.dependencies import READER, IncidentId
from mlrunbook.response.audits import chain
from mlrunbook.response.communication.chain import sent
from mlrunbook.response.world import World
from mlrunbook.store import chain_heads, incidents

After = Annotated[str, Query(pattern=r"^\d{1,9}/\d{1,9}$", description="Where the page before ended")]
Pasted = Annotated[str, Query(max_length=200, description="A head that you have, such as the last line of a page; with the first page")]
AfterNumber = Annotated[int, Query(ge=0, lt=2**63, description="Where the page before ended")]
START = str(Length())
PAGE = 1000


class ChainOut(web.CamelModel):
    """Whether an incident is what was written of it: one page of its chain, with the last page also its rows and its evidence."""

    intact: bool = Field(description="Nothing is wrong in this page; ask for all pages")
    entries: int = Field(description="Entries of the timeline that are read so far")
    events: int = Field(description="Events of its other rows that are read so far")
    broken_at: int | None = Field(description="The first entry of the timeline that is not as it was written")
    faults: list[str] = Field(description="What was changed, in words; at most 100")
    evidence_faults: list[str] | None = Field(description="What no longer fits the manifest; null: no evidence was preserved")
    heads: int = Field(description="Heads that were sent out or kept outside of the database, and that this page was compared with")
    heads_signed: int = Field(description="How many of them have a signature by a key of this gateway")
    after: str | None = Field(description="Ask for the next page with `after` set to this; null: there is none")


class HeadOut(web.CamelModel):
    """Where an incident's chain stands now."""

    head: str = Field(description="Its length, a hash, and a signature or `unsigned`")


class ChainsOut(web.CamelModel):
    """What no single incident can say about the chains."""

    key_id: str | None = Field(description="The key this gateway signs heads with; null: they go out unsigned")
    deleted: list[str] = Field(description="Incidents that were deleted from the database, in words; the first page has them")
    incidents: list[str] = Field(description="Ids, the oldest first")
    after: int | None = Field(description="Ask for the next page with `after` set to this; null: there is none")


def of_all(routes: APIRouter, world: World) -> None:
    @routes.get("/api/v1/chains", dependencies=[READER])
    def show_chains(after: AfterNumber = 0) -> ChainsOut:
        """Which incidents there are to verify, which were deleted from the database, and what signs the heads of the others."""
        with world.transaction() as conn:
            found = chain_heads.incidents_after(conn, after, limit=PAGE)
        return ChainsOut(
            key_id=world.anchors.signs_with if world.anchors else None,
            deleted=[] if after else chain.deleted(world),
            incidents=[incident_id for _, incident_id in found],
            after=found[-1][0] if len(found) == PAGE else None,
        )


def of_incident(routes: APIRouter, world: World) -> None:
    @routes.get("/{id}/verify", dependencies=[READER])
    def verify_incident(incident_id: IncidentId, after: After = START, head: Pasted = "") -> ChainOut:
        """Whether nobody has changed the timeline, the rows, the evidence. A long chain goes on at `after`."""
        entries, _, events = after.partition("/")
        pasted = Head.parse(head) if head else None
        found = chain.check(world, incident_id, after=Length(int(entries), int(events)), pasted=pasted)
        return ChainOut(
            intact=not found.faults and not found.evidence_faults,
            entries=found.upto.entries,
            events=found.upto.events,
            broken_at=found.broken_at,
            faults=[fault.sentence for fault in found.faults],
            evidence_faults=None if found.evidence_faults is None else list(found.evidence_faults),
            heads=found.heads,
            heads_signed=found.heads_signed,
            after=str(found.upto) if found.more else None,
        )

    @routes.get("/{id}/head", dependencies=[READER])
    def show_head(incident_id: IncidentId) -> HeadOut:
        """Where its chain stands now, signed: keep it where the database is not, and verify against it later."""
        with world.transaction() as conn:
            incidents.get(conn, incident_id)
        return HeadOut(head=str(sent(world, incident_id) or ""))
