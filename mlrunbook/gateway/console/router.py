"""The pages, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fastapi import APIRouter, FastAPI

from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.console import (
    acting,
    api_docs,
    audit_pages,
    clocks,
    containing,
    deciding,
    evidence_bundle,
    incident,
    incident_list,
    insight,
    item_pages,
    model_pages,
    quarantine_pages,
    rendering,
    reporting,
    review,
    route,
    sign_in,
    silenced_alerts,
)
from mlrunbook.gateway.console.live import Live
from mlrunbook.gateway.console.oidc import Provider
from mlrunbook.gateway.console.visitor import Console
from mlrunbook.response.world import World


def expose(
    app: FastAPI, world: World, *, policy_now: Callable[[], Policy], public_url: str = "", prefect_ui_url: str | None = None
) -> None:
    """`public_url`: where browsers reach the gateway; empty where nobody has said. `prefect_ui_url`: where they reach Prefect. `policy_now`
    reads the policy file anew."""
    app.mount(rendering.STATIC, rendering.Static(), name="static")
    api_docs.expose(app)
    app.state.console = Console(world, public_url.rstrip("/"))
    app.include_router(sign_in.router())
    app.include_router(sign_in.links())
    app.state.live = Live(world, incident.entry_html)
    app.include_router(incident.router(world, app.state.live, prefect_ui_url=prefect_ui_url))
    for pages in (acting, deciding, containing, clocks, reporting, review, evidence_bundle):
        app.include_router(pages.router(world))
    app.include_router(_pages(world, policy_now))


def _pages(world: World, policy_now: Callable[[], Policy]) -> APIRouter:
    routes = route.router()
    for pages in (incident_list, model_pages, audit_pages, item_pages, silenced_alerts):
        pages.add(routes, world)
    quarantine_pages.add(routes, world, policy_now)
    insight.add(routes, world, policy_now)
    return routes


def offer(app: FastAPI, provider: Provider) -> None:
    """People may sign in there too."""
    app.state.console = replace(app.state.console, provider=provider)
