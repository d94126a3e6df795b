"""The team's MLflow: a real `mlflow server` with its registry in SQLite, and how often its aliases moved, counted in its own database."""

from __future__ import annotations

import os
import secrets
import socket
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from mlrunbook.adapters.mlflow.client import MlflowClient
from mlrunbook.base.processes import Service
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.connections import connection_variable
from mlrunbook.local.addresses import HOST, answers

NAME, CONNECTION = "mlflow", "mlflow"
# What it is called when imported, what it is, how it is installed.
NEEDED = (
    ("mlflow", "MLflow", 'pip install "mlflow>=3.17,<4"'),
    ("ibis", "what reads the prediction log", 'pip install "mlrunbook[warehouse]"'),
)
SERVING, CANDIDATE = "champion", "challenger"
SECRET = "MLRUNBOOK_WEBHOOK_SECRET_MLFLOW"  # noqa: S105 - the name of the setting
# One worker: several are ended while they still import, on a busy machine. Its webhooks may reach a gateway on this machine.
SETTINGS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_CACHE_TTL": "1",
}
# MLflow keeps no history of an alias: triggers of its own database do, whoever moves it and by whatever way.
COUNTING = """
CREATE TABLE drill_alias_moves (id INTEGER PRIMARY KEY, name TEXT, alias TEXT, before TEXT, after TEXT);
CREATE TRIGGER drill_alias_set AFTER INSERT ON registered_model_aliases BEGIN
  INSERT INTO drill_alias_moves (name, alias, after) VALUES (NEW.name, NEW.alias, NEW.version);
END;
CREATE TRIGGER drill_alias_moved AFTER UPDATE OF version ON registered_model_aliases WHEN OLD.version <> NEW.version BEGIN
  INSERT INTO drill_alias_moves (name, alias, before, after) VALUES (NEW.name, NEW.alias, OLD.version, NEW.version);
END;
CREATE TRIGGER drill_alias_removed AFTER DELETE ON registered_model_aliases WHEN OLD.alias <> 'champion' BEGIN
  INSERT INTO drill_alias_moves (name, alias, before) VALUES (OLD.name, OLD.alias, OLD.version);
END;
"""


def check_installed() -> None:
    """Refused, with the command that installs it, where there is no MLflow to start, or nothing to read the prediction log with."""
    missing = [(what, how) for name, what, how in NEEDED if find_spec(name) is None]
    if missing:
        what, commands = " and ".join(what for what, _ in missing), " && ".join(how for _, how in missing)
        raise Refused(f"--platform mlflow needs {what}, not installed here; run: {commands}")


@dataclass(frozen=True)
class AliasMove:
    alias: str
    before: str | None
    after: str | None


@dataclass
class MlflowServer:
    """`folder` holds its database, artifacts and log of requests."""

    folder: Path
    port: int = 0
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def __post_init__(self) -> None:
        if not self.port:
            with socket.create_server((HOST, 0)) as free:
                self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """What the runbook needs to find it, and to believe its webhooks."""
        return {connection_variable(CONNECTION): self.url, SECRET: self.secret}

    @property
    def service(self) -> Service:
        self.folder.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self.port), "--workers", "1"]
        argv += ["--backend-store-uri", f"sqlite:///{self._database}", "--artifacts-destination", str(self.folder / "artifacts")]
        own = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "MLFLOW_"))}
        return Service(NAME, argv, own | SETTINGS, answers(f"{self.url}/health"), cwd=self.folder)

    @cached_property
    def client(self) -> MlflowClient:
        return MlflowClient(CONNECTION, self.url)

    # --- as people and pipelines use it

    def set_alias(self, model: str, alias: str, version: str | None) -> None:
        if version is None:
            self.client.write("DELETE", "/registered-models/alias", {"name": model, "alias": alias})
        else:
            self.client.write("POST", "/registered-models/alias", {"name": model, "alias": alias, "version": version})

    def tell(self, gateway_url: str) -> None:
        """Have it send the gateway what happens to aliases and versions."""
        events = [("MODEL_VERSION_ALIAS", "CREATED"), ("MODEL_VERSION_ALIAS", "DELETED"), ("MODEL_VERSION", "CREATED")]
        body = {"name": "mlrunbook", "url": f"{gateway_url}/webhooks/mlflow", "secret": self.secret}
        self.client.write("POST", "/webhooks", body | {"events": [{"entity": entity, "action": action} for entity, action in events]})

    def artifact(self, run_id: str, path: str) -> bytes:
        answer = httpx.get(f"{self.url}/get-artifact", params={"run_uuid": run_id, "path": path}, timeout=30, trust_env=False)
        if not answer.is_success:
            raise Refused(f"MLflow does not give {path} of run {run_id}: {answer.status_code} {answer.text[:200]}")
        return answer.content

    # --- its database

    @property
    def _database(self) -> Path:
        return self.folder / "mlflow.db"

    def count_moves(self) -> None:
        """From now on."""
        with closing(sqlite3.connect(self._database, timeout=30)) as db:
            db.executescript(COUNTING)

    def moves(self, model: str) -> list[AliasMove]:
        """Oldest first, since `count_moves`."""
        rows = self._rows("SELECT alias, before, after FROM drill_alias_moves WHERE name = ? ORDER BY id", model)
        return [AliasMove(*row) for row in rows]

    def applied(self, model: str) -> dict[str, int]:
        """Changes by kind, as a model platform counts them: back to an earlier version is a rollback."""
        counted = dict.fromkeys(("rollback", "promote", "staging"), 0)
        for move in self.moves(model):
            if move.alias == CANDIDATE:
                counted["staging"] += move.after is not None
            elif move.alias == SERVING and move.after is not None:
                counted["rollback" if move.before and int(move.after) < int(move.before) else "promote"] += 1
        registered = self._rows("SELECT count(*) FROM model_versions WHERE name = ?", model)
        return counted | {"register": registered[0][0]}

    def made_at(self, model: str, version: str, at: datetime) -> None:
        """A version of the past: MLflow itself dates each at the moment of its registration."""
        ms = int(at.timestamp() * 1000)
        with closing(sqlite3.connect(self._database, timeout=30)) as db, db:
            of = "WHERE name = ? AND version = ?"
            db.execute(f"UPDATE model_versions SET creation_time = ?, last_updated_time = ? {of}", (ms, ms, model, int(version)))  # noqa: S608

    def _rows(self, query: str, *values: Any) -> Sequence[Any]:
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=30)) as db:
            return db.execute(query, values).fetchall()
