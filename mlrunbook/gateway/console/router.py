"""The pages, put together."""

from __future__ import annotations

from fastapi import FastAPI

from mlrunbook.gateway.console import rendering, sign_in
from mlrunbook.gateway.console.visitor import Console
from mlrunbook.response.world import World


def expose(app: FastAPI, world: World, *, public_url: str = "") -> None:
    """`public_url`: where browsers reach the gateway; empty where nobody has said."""
    app.mount(rendering.STATIC, rendering.Static(), name="static")
    app.state.console = Console(world, public_url.rstrip("/"))
    app.include_router(sign_in.router())
