"""The pages, put together."""

from __future__ import annotations

from fastapi import FastAPI

from mlrunbook.gateway.console import rendering
from mlrunbook.response.world import World


def expose(app: FastAPI, world: World) -> None:
    app.mount(rendering.STATIC, rendering.Static(), name="static")
