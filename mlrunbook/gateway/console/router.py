"""The pages, put together."""

from __future__ import annotations

from dataclasses import replace

from fastapi import FastAPI

from mlrunbook.gateway.console import (
    acting,
    clocks,
    containing,
    deciding,
    evidence_bundle,
    incident,
    rendering,
    reporting,
    review,
    sign_in,
)
from mlrunbook.gateway.console.live import Live
from mlrunbook.gateway.console.oidc import Provider
from mlrunbook.gateway.console.visitor import Console
from mlrunbook.response.world import World


def expose(app: FastAPI, world: World, *, public_url: str = "", prefect_ui_url: str | None = None) -> None:
    """`public_url`: where browsers reach the gateway; empty where nobody has said. `prefect_ui_url`: where they reach Prefect."""
    app.mount(rendering.STATIC, rendering.Static(), name="static")
    app.state.console = Console(world, public_url.rstrip("/"))
    app.include_router(sign_in.router())
    app.include_router(sign_in.links())
    app.state.live = Live(world, incident.entry_html)
    app.include_router(incident.router(world, app.state.live, prefect_ui_url=prefect_ui_url))
    for pages in (acting, deciding, containing, clocks, reporting, review, evidence_bundle):
        app.include_router(pages.router(world))


def offer(app: FastAPI, provider: Provider) -> None:
    """People may sign in there too."""
    app.state.console = replace(app.state.console, provider=provider)
