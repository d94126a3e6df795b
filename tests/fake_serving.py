"""What can ail the model server of the fakes: it hangs, it is slow, requests fail, or a release cannot be loaded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

START: dict[str, Any] = {
    "hung": False,
    "latency_ms": 20.0,
    "errors": {},  # failed requests by kind, of 3,000 asked
    "errors_until": None,  # in windows that begin before
    "unloadable": None,  # a version that the server cannot load
    "incurable": False,  # a restart does not help
}
CURED = {key: START[key] for key in ("hung", "latency_ms")}
ASKED = 3000


def serves(s: dict[str, Any]) -> str:
    """The version that answers: what is wanted, or what served before when that cannot be loaded."""
    wanted: str = s["route"] or s["serving"]
    if _loads(s, wanted):
        return wanted
    return str(s["serving"] if wanted != s["serving"] and _loads(s, s["serving"]) else s["previous"])


def _loads(s: dict[str, Any], version: str) -> bool:
    return version != s["unloadable"] and version in s["versions"]


def unloadable_route(s: dict[str, Any]) -> str | None:
    route = s["route"]
    return None if route in (None, s["serving"]) or _loads(s, route) else f"{route}: there is no version {route}"


def restarted(s: dict[str, Any]) -> dict[str, Any]:
    return {} if s["incurable"] else CURED


def not_loaded(s: dict[str, Any]) -> str | None:
    return f"{s['serving']} cannot score" if s["serving"] == s["unloadable"] else None


def errors(s: dict[str, Any], since: datetime) -> dict[str, int]:
    until = s["errors_until"]
    return dict(s["errors"]) if until is None or since < datetime.fromisoformat(until) else {}
