"""How `mlrunbook incidents show --messages` shows the messages that an incident's alerts came in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from mlrunbook.cli import render

MAX_SHOWN, MAX_CHARS = 20, 1_000  # --json has more of both


def page(messages: Sequence[Mapping[str, Any]], now: datetime) -> Iterable[Any]:
    """A block an alert: how it was read, then what it said."""
    yield ""
    yield render.styled("Messages, as they came and how each was read", "bold underline")
    if not messages:
        yield "  no alert belongs to it: a person or an audit reported it"
    for one in messages[:MAX_SHOWN]:
        yield ""
        yield render.styled(f"  {one['number']}. {one['alert'] or 'an alert'}: {one['status']}", "bold")
        table = render.grid(13, None)
        for label, value in _rows(one, now):
            table.add_row(f"  {label}", render.styled(value))
        yield table
    if len(messages) > MAX_SHOWN:
        yield f"\n  and {len(messages) - MAX_SHOWN} more: --json has all of them"


def _rows(one: Mapping[str, Any], now: datetime) -> Iterable[tuple[str, str]]:
    proof = f"proven as {one['provenAs']}" if one["provenAs"] else "not proven"
    times = f", {one['times']} times, last {render.clock(one['lastSeenAt'], now)}" if one["times"] > 1 else ""
    yield "From", f"{one['source']}, {one['sender'] or 'mlrunbook itself'} ({proof}); {render.clock(one['receivedAt'], now)}{times}"
    read = {**one["read"], "identity": ": ".join(filter(None, (one["identity"], one["read"].get("identity"))))}
    for step, because in read.items():
        yield step.capitalize(), because
    for title in ("labels", "annotations"):
        if one[title]:
            yield title.capitalize(), ", ".join(f"{name}={value}" for name, value in one[title].items())
    if one["message"] is not None:
        cut = one["message"][:MAX_CHARS]
        yield "As it came", cut + ("... (--json shows more)" if len(cut) < len(one["message"]) else "")
