"""`/silenced`: alerts that came in a silence or a maintenance window, so that nobody was told."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from mlrunbook.gateway.console import rendering, words
from mlrunbook.gateway.console.visitor import ListReader
from mlrunbook.response.world import World
from mlrunbook.store import alerts

ON_A_PAGE = 50

Before = Annotated[int | None, Query(ge=1, lt=2**63)]


def add(routes: APIRouter, world: World) -> None:
    @routes.get("/silenced")
    def list_silenced(request: Request, visitor: ListReader, before: Before = None) -> Response:
        with world.transaction() as conn:
            rows = alerts.silenced(conn, before=before, models=visitor.who.limits.models, limit=ON_A_PAGE + 1)
        shown = [row | {"until": datetime.fromisoformat(row["body"]["until"])} for row in rows[:ON_A_PAGE]]
        older = f"/silenced?before={shown[-1]['id']}" if len(rows) > ON_A_PAGE else ""
        values: dict[str, Any] = {"older": older, "now": world.now(), "ago": words.ago, "clock": words.clock}
        return rendering.page(request, visitor, "silenced.html.j2", found=shown, **values)
