"""What CloudEvents asks of an HTTP receiver beyond the POST: the handshake, and to be told to wait (cloudevents/spec, http-webhook.md)."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request, Response

from mlrunbook.gateway.text import clean


def handshake(path: str, allowed_per_min: int) -> APIRouter:
    """`OPTIONS`: any origin may ask; what it then sends still has to prove itself."""
    routes = APIRouter(tags=["webhooks"])

    @routes.options(path, include_in_schema=False)
    def validate(request: Request) -> Response:
        """Say that events may be sent here, and how many a minute."""
        origin = clean(request.headers.get("webhook-request-origin", ""), 300).replace("\n", "")
        if not origin or not origin.isascii():
            raise HTTPException(400, "the handshake needs the header WebHook-Request-Origin")
        asked = request.headers.get("webhook-request-rate", "")
        rate = min(int(asked), allowed_per_min) if asked.isascii() and asked.isdigit() and 0 < len(asked) < 10 else allowed_per_min
        return Response(headers={"Allow": "POST", "WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": str(max(rate, 1))})

    return routes
