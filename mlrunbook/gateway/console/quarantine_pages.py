"""`/quarantine`: messages that came in and could not be used, why not, and how a replay would read each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup

from mlrunbook.domain.blackout import shown, without_secrets
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.api.dependencies import named
from mlrunbook.gateway.console import rendering, words
from mlrunbook.gateway.console.visitor import Operator, Reader
from mlrunbook.gateway.text import clean
from mlrunbook.gateway.webhooks import explaining, proofs, registry
from mlrunbook.gateway.webhooks.explaining import Explained
from mlrunbook.gateway.webhooks.ingest import discard, replay
from mlrunbook.response.world import World
from mlrunbook.store import quarantine
from mlrunbook.store.quarantine import Listed, Quarantined

ON_A_PAGE = 50
MOST_LINES, MOST_BYTES = 400, 40_000
MOST_PARTS = 50
MAX_REASON = 1_000

Number = Annotated[int, Path(ge=1, lt=2**63)]
Before = Annotated[int | None, Query(ge=1, lt=2**63)]
Asked = Annotated[str, Query(max_length=50)]
Reason = Annotated[str, Form(max_length=MAX_REASON)]


def became(kept: Listed) -> str:
    """What became of it; "" while it waits."""
    if gone := kept.discarded:
        return f"Discarded by {gone.by}, {words.clock(gone.at)}: {gone.reason}"
    if kept.replayed_at is None:
        return ""
    return (
        f"Replayed {words.clock(kept.replayed_at)}: {', '.join((kept.replayed_into or {}).get('incidents', ())) or 'it opened no incident'}"
    )


def body(kept: Quarantined) -> tuple[Markup, bool]:
    """The message as it came, without what looks like a secret, and whether it is longer than what is shown."""
    text = without_secrets(kept.body[: 2 * MOST_BYTES])[0].decode(errors="replace")
    rows = text[:MOST_BYTES].splitlines()
    return words.preformatted("\n".join(rows[:MOST_LINES])), len(rows) > MOST_LINES or len(kept.body) > MOST_BYTES


def read_now(world: World, kept: Quarantined) -> tuple[list[Explained], str]:
    """How a replay would read it, or why it cannot even be read."""
    try:
        return explaining.of_quarantined(world, registry.of(kept.source), kept)[:MOST_PARTS], ""
    except RunbookError as error:
        return [], str(error)


def add(routes: APIRouter, world: World, policy_now: Callable[[], Policy]) -> None:
    @routes.get("/quarantine")
    def list_quarantine(request: Request, visitor: Reader, source: Asked = "", all: bool = False, before: Before = None) -> Response:
        with world.transaction() as conn:
            found = quarantine.find(conn, replayed=all, source=source.strip() or None, before=before, limit=ON_A_PAGE + 1)
            waiting = quarantine.waiting_by_source(conn)
        rest = found[:ON_A_PAGE]
        older = urlencode({"source": source, "all": all, "before": rest[-1].id}) if len(found) > ON_A_PAGE else ""
        values: dict[str, Any] = {"source": source, "all": all, "older": older, "waiting": waiting, "became": became, "now": world.now()}
        return rendering.page(request, visitor, "quarantine.html.j2", found=rest, ago=words.ago, clock=words.clock, **values)

    @routes.get("/quarantine/{number}")
    def show_quarantined(request: Request, visitor: Reader, number: Number, read: bool = False) -> Response:
        with world.transaction() as conn:
            kept = quarantine.get(conn, number)
        parts, wrong = read_now(replace(world, policy=policy_now()), kept) if read else (None, "")
        text, is_cut = body(kept)
        return rendering.page(
            request,
            visitor,
            "quarantined.html.j2",
            kept=kept,
            became=became(kept),
            proof=proofs.sentence(kept.proof),
            sent_headers=shown(dict(kept.headers)),
            text=text,
            is_cut=is_cut,
            parts=parts,
            wrong=wrong,
            safe=shown,
            clock=words.clock,
        )

    @routes.get("/quarantine/{number}/replay")
    def look_before_replay(request: Request, visitor: Operator, number: Number) -> Response:
        return _second_look(request, visitor, number, replays=True)

    @routes.get("/quarantine/{number}/discard")
    def look_before_discard(request: Request, visitor: Operator, number: Number) -> Response:
        return _second_look(request, visitor, number, replays=False)

    @routes.post("/quarantine/{number}/replay")
    def replay_quarantined(request: Request, visitor: Operator, number: Number) -> Response:
        with world.transaction() as conn:
            source = quarantine.get(conn, number).source
        receipt = replay(replace(world, policy=policy_now()), registry.of(source), number)
        opened = receipt.incidents
        return RedirectResponse(f"/incidents/{opened[0]}" if len(opened) == 1 else f"/quarantine/{number}", 303)

    @routes.post("/quarantine/{number}/discard")
    def discard_quarantined(request: Request, visitor: Operator, number: Number, reason: Reason = "") -> Response:
        if not (said := clean(reason, MAX_REASON)):
            return _second_look(request, visitor, number, replays=False, wrong="Say why nobody needs it.")
        discard(world, number, by=clean(named(visitor.who), 200), reason=said)
        return RedirectResponse(f"/quarantine/{number}", 303)

    def _second_look(request: Request, visitor: Operator, number: int, *, replays: bool, wrong: str = "") -> Response:
        with world.transaction() as conn:
            kept = quarantine.get(conn, number)
        parts, unreadable = read_now(replace(world, policy=policy_now()), kept) if replays else ([], "")
        return rendering.page(
            request,
            visitor,
            "quarantine_act.html.j2",
            status=422 if wrong else 200,
            replays=replays,
            kept=kept,
            became=became(kept),
            parts=parts,
            unreadable=unreadable,
            wrong=wrong,
            safe=shown,
        )
