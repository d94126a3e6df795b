"""What every path of the API needs: who asks, the database, the clock, and the model server beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import Depends, Header, Query
from pydantic import SecretStr
from sqlalchemy import Engine

from mlrunbook.adapters.local.serving_state import desired_of
from mlrunbook.base import web
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.errors import RunbookError
from mlrunbook.local.platform import registry, schemas
from mlrunbook.local.platform.outcomes import SETTLES

HEALTH_TIMEOUT_S = 1.0
STATUS_TIMEOUT_S = 3.0  # for who asks once: a server that is slow is not one that is down

Operator = Annotated[Identity, Depends(web.require(Scope.OPERATE))]
# Who asks for figures learns what runs here and how it is wrong.
READER = Depends(web.require(Scope.READ))
Reader = Annotated[Identity, READER]
OutcomeSender = Annotated[Identity, Depends(web.require(Scope.OUTCOMES, model_in_body=True))]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]
When = Annotated[web.Moment | None, Query()]
Body = dict[str, Any]


class ModelServer:
    """What the model server says of itself: to whoever has no token of scope read no more than whether it serves."""

    def __init__(self, http: httpx.Client, url: str, token: SecretStr | None = None) -> None:
        self._http, self._url = http, url
        self._headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}

    def health(self, model: str) -> Body | None:
        """Its health, or None when it does not answer, or does not serve `model`."""
        said = self.says(model, timeout_s=HEALTH_TIMEOUT_S)
        return said if said and said.get("status") == "ok" else None

    def says(self, model: str, *, timeout_s: float) -> Body | None:
        """Its health also while it has nothing to serve."""
        try:
            answer = self._http.get(f"{self._url}/health", headers=self._headers, timeout=timeout_s)
            if answer.status_code in (401, 403):  # the token is of another platform
                answer = self._http.get(f"{self._url}/health", timeout=timeout_s)
            body = answer.json() if answer.is_success else None
        except (httpx.HTTPError, ValueError):
            return None
        return body if isinstance(body, dict) and body.get("model", model) == model else None


@dataclass(frozen=True)
class Site:
    config: Settings
    engine: Engine
    server: ModelServer
    clock: Callable[[], datetime]
    settles: timedelta = SETTLES  # how long who reported an outcome may correct it

    @property
    def models_dir(self) -> Path:
        return self.config.models_dir

    def stopped_on_purpose(self, model: str) -> bool:
        """Of a model that another machine serves, or nobody, that is not known here: its server counts as wanted."""
        with contextlib.suppress(RunbookError):
            return bool(desired_of(self.config.serving_state_file, model)["replicas"] == 0)
        return False

    def with_server(self, slots: registry.Slots) -> Body:
        """What is in production, and what the server says it serves."""
        seen = self.server.says(slots.model, timeout_s=STATUS_TIMEOUT_S)
        healthy = seen is not None and seen.get("status") == "ok"
        return schemas.slots(slots) | {
            "status": "healthy" if healthy else "unhealthy",
            "serverHealthy": healthy,
            "serverVersion": seen.get("version") if seen else None,
            "server": seen,
        }
