"""`/incidents`: what waits for whoever is signed in, then the incidents they look for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from enum import StrEnum
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.gateway.console import rendering, words
from mlrunbook.gateway.console.visitor import ListReader
from mlrunbook.gateway.console.waiting import waits_for
from mlrunbook.gateway.text import clean
from mlrunbook.response.world import World
from mlrunbook.store import incident_search, incidents
from mlrunbook.store.incident_search import Wanted

ON_A_PAGE = 50
OPEN, ALL = "open", "all"
MAX_WORDS = 200

E = TypeVar("E", bound=StrEnum)
Asked = Annotated[str, Query(max_length=MAX_WORDS)]
Before = Annotated[int | None, Query(ge=1, lt=2**63)]


@dataclass(frozen=True)
class Filters:
    """As the form has them; what is empty filters nothing."""

    status: str = OPEN
    severity: str = ""
    type: str = ""
    model: str = ""
    since: str = ""
    words: str = ""

    @property
    def is_default(self) -> bool:
        return self == Filters()

    def wanted(self, models: tuple[str, ...]) -> Wanted:
        """Invalid for a value that the form does not offer."""
        known = self.status not in (OPEN, ALL, "")
        return Wanted(
            only_open=self.status == OPEN,
            status=_one_of(Status, self.status, "status") if known else None,
            severity=_one_of(Severity, self.severity, "severity"),
            type=_one_of(IncidentType, self.type, "type"),
            model=self.model.strip(),
            since=_day(self.since),
            words=clean(self.words, MAX_WORDS),
            models=models,
        )

    def path(self, **more: object) -> str:
        """The address of the list with these filters, a part of it replaced."""
        said: Mapping[str, object] = vars(self) | {"q": self.words, **more}
        named = {name: value for name, value in said.items() if name != "words" and value not in ("", None)}
        return "/incidents" + (f"?{urlencode(named)}" if named else "")


def _filters(
    status: Asked = OPEN,
    severity: Asked = "",
    type_: Annotated[str, Query(alias="type", max_length=MAX_WORDS)] = "",
    model: Asked = "",
    since: Asked = "",
    q: Asked = "",
) -> Filters:
    return Filters(status, severity, type_, model, since, q)


def add(routes: APIRouter, world: World) -> None:
    @routes.get("/incidents")
    def list_incidents(
        request: Request,
        visitor: ListReader,
        filters: Annotated[Filters, Depends(_filters)],
        before: Before = None,
    ) -> Response:
        now, mine = world.now(), visitor.who.limits.models
        with world.transaction() as conn:
            waits = waits_for(conn, world.policy, visitor.who, now=now)
            found = incident_search.find(conn, filters.wanted(mine), before=before, limit=ON_A_PAGE + 1)
            models = [name for name in incidents.models(conn) if visitor.who.may_see(name)]
        older = found[ON_A_PAGE - 1][0] if len(found) > ON_A_PAGE else None
        return rendering.page(
            request,
            visitor,
            "incidents.html.j2",
            waits=waits,
            found=[incident for _, incident in found[:ON_A_PAGE]],
            filters=filters,
            models=models,
            choices={"severity": list(reversed(Severity)), "type": list(IncidentType), "status": list(Status)},
            here=filters.path(before=before),
            older=filters.path(before=older) if older else None,
            newest=filters.path() if before else None,
            everything=Filters(status=ALL).path(),
            now=now,
            ago=words.ago,
            clock=words.clock,
        )

    @routes.get("/waiting")
    def count_what_waits(request: Request, visitor: ListReader) -> Response:
        """The number beside "Incidents" in the navigation; nothing where nothing waits."""
        with world.transaction() as conn:
            waits = waits_for(conn, world.policy, visitor.who, now=world.now())
        return rendering.page(request, visitor, "waiting.html.j2", count=len(waits))


def _one_of(kind: type[E], value: str, field: str) -> E | None:
    if not value:
        return None
    if value not in set(kind):
        raise Invalid(f"{field}: there is no {clean(value, 40)!r}; choose one of {', '.join(kind)}", field=field)
    return kind(value)


def _day(value: str) -> datetime | None:
    try:
        return datetime.combine(date.fromisoformat(value.strip()), time(0), UTC) if value.strip() else None
    except ValueError as error:
        raise Invalid(f"since: {clean(value, 40)!r} is no day: write it as 2026-03-01", field="since") from error
