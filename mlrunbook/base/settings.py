"""Addresses and secrets, from the environment (`MLRUNBOOK_*`); policy is `runbook.yaml`, not here.

`mlrunbook up` writes these for its own parts into `<data_dir>/env` (mode 0600). PREFECT_API_URL and
PREFECT_API_AUTH_STRING are read under Prefect's own names.
"""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mlrunbook.domain.communication import console_links
from mlrunbook.domain.policy.connections import connection_variable


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="MLRUNBOOK_", env_ignore_empty=True, extra="ignore", populate_by_name=True)

    home: Path = Field(default_factory=Path.cwd, description="The checkout: flows, tasks, prefect.yaml, runbook.yaml")
    data_dir: Path = Field(default=Path("~/.local/share/mlrunbook"), description="Database, keys, models, messages, evidence")
    policy: Path | None = Field(default=None, description="Policy file; default <home>/runbook.yaml, else built-in defaults")
    database_url: SecretStr | None = Field(default=None, description="postgresql://... of the incident store")

    platform_url: str = "http://127.0.0.1:8070"
    model_server_url: str = "http://127.0.0.1:8080"
    gateway_url: str = "http://127.0.0.1:8090"
    public_url: str | None = Field(default=None, description="Where people's browsers reach the console; every message links to it")
    oidc_issuer: str | None = Field(
        default=None, description="OpenID Connect provider that people sign in at, e.g. https://login.example.com"
    )
    oidc_client_id: str | None = Field(default=None, description="What the provider calls the console")
    oidc_client_secret: SecretStr | None = Field(default=None, description="What the console proves itself with to the provider")
    feature_server_url: str | None = Field(default=None, description="Feast feature server, e.g. http://feast-server:6566")
    feature_repo: Path | None = Field(default=None, description="Folder of the Feast repository's feature_store.yaml")
    platform_token: SecretStr | None = Field(default=None, description="Token the flows use on the model platform")
    gateway_token: SecretStr | None = Field(default=None, description="Token the CLI uses on the gateway")

    prefect_api_url: str | None = Field(default=None, validation_alias="PREFECT_API_URL")
    prefect_auth: SecretStr | None = Field(default=None, validation_alias="PREFECT_API_AUTH_STRING")
    prefect_ui_url: str | None = Field(default=None, validation_alias="PREFECT_UI_URL", description="Where browsers reach Prefect's UI")

    smtp_port: int | None = Field(default=None, ge=0, le=65535, description="Port the gateway takes alerts by mail on; none: it takes none")
    smtp_host: str = Field(default="127.0.0.1", description="Address the gateway takes mail on")

    sns_certificates: Path | None = Field(default=None, description="PEM file, or folder of them, that Amazon SNS signs with")

    chain_key: SecretStr | None = Field(default=None, description="Key(s) the gateway alone signs heads of incidents' chains with")

    heartbeat_url: SecretStr | None = Field(default=None, description="Outside watch that the gateway pings while pages go out")
    heartbeat_every_s: float = Field(default=60.0, gt=0, description="How often it is pinged")

    runtime: Literal["local", "kubernetes"] = Field(default="local", description="Where the model server runs")
    kube_context: str | None = Field(default=None, description="Context of the kubeconfig; default its current one, or the pod's account")
    kube_namespace: str | None = Field(default=None, description="Namespace of the model's objects; default the context's, or the pod's")
    runs_at_once: int = Field(default=4, ge=3, description="Flow runs at once, all workers together; one place is for critical incidents")
    lease_s: float = Field(default=30.0, gt=0, description="A flow silent for this long is taken to be dead")
    dispatch_every_s: float = Field(default=1.0, gt=0)
    http_timeout_s: float = Field(default=10.0, gt=0)

    requests_per_min_token: int = Field(default=6_000, ge=1, description="Requests a minute with one token, or by one format's secret")
    requests_per_min_address: int = Field(default=12_000, ge=1, description="Requests a minute from one address, with or without a token")
    failed_logins_per_min_address: int = Field(default=300, ge=1, description="Requests a minute without a valid token from one address")

    @field_validator("public_url")
    @classmethod
    def _an_address(cls, given: str | None) -> str | None:
        return console_links.address(given) if given else None

    @property
    def data(self) -> Path:
        return self.data_dir.expanduser()

    @property
    def prefect_ui(self) -> str | None:
        """Where people's browsers find Prefect's UI, as far as it is known."""
        given = self.prefect_ui_url or (self.prefect_api_url or "").rstrip("/").removesuffix("/api")
        return given.rstrip("/") or None

    @property
    def serving_state_file(self) -> Path:
        """Desired state of the local model server: written by LocalRuntime, reconciled by `mlrunbook up` alone."""
        return self.data / "serving" / "desired.json"

    @property
    def serving_config_file(self) -> Path:
        """The model server's config file: threshold and switches."""
        return self.data / "serving" / "model-config.json"

    @property
    def serving_log_file(self) -> Path:
        return self.data / "logs" / "model-server.log"

    @property
    def models_dir(self) -> Path:
        """Model artefacts, one folder a model and version."""
        return self.data / "models"

    @property
    def messages_dir(self) -> Path:
        """Where the file channel writes."""
        return self.data / "messages"

    @property
    def chain_keys(self) -> tuple[str, ...]:
        """The first signs; the others still prove what they have signed."""
        given = self.chain_key.get_secret_value() if self.chain_key else ""
        return tuple(key.strip() for key in given.split(",") if key.strip())

    @property
    def anchors_dir(self) -> Path:
        """Where the gateway keeps heads of the incidents' chains, outside of the database."""
        return self.data / "anchors"


def channel_address(name: str) -> str | None:
    """The address (an apprise URL) of a channel named in policy: environment MLRUNBOOK_CHANNEL_<NAME>."""
    return os.environ.get("MLRUNBOOK_CHANNEL_" + name.upper().replace("-", "_")) or None


def connection_address(name: str) -> str | None:
    """The address of a connection named in policy: environment MLRUNBOOK_CONNECTION_<NAME>."""
    return os.environ.get(connection_variable(name)) or None


def connection_token(name: str) -> str | None:
    """The connection's own secret, where its address holds none: environment MLRUNBOOK_CONNECTION_<NAME>_TOKEN."""
    return os.environ.get(connection_variable(name) + "_TOKEN") or None


def webhook_secrets(source: str) -> tuple[str, ...]:
    """What senders of an alert format prove themselves with: environment MLRUNBOOK_WEBHOOK_SECRET_<FORMAT>, several by commas while
    one replaces another. A secret itself holds no comma. A mapping, as in `generic/sentry`, may have its own."""
    given = os.environ.get(webhook_secret_name(source), "")
    if not given.strip() and "/" in source:
        return webhook_secrets(source.partition("/")[0])
    return tuple(secret.strip() for secret in given.split(",") if secret.strip())


def webhook_secret_name(source: str) -> str:
    """
    >>> webhook_secret_name("generic/azure-monitor")
    'MLRUNBOOK_WEBHOOK_SECRET_GENERIC_AZURE_MONITOR'
    """
    return "MLRUNBOOK_WEBHOOK_SECRET_" + source.upper().replace("/", "_").replace("-", "_")


def sns_certificates() -> tuple[str, ...]:
    """The certificates that Amazon SNS signs with, as PEM texts; read anew each time, for Amazon renews them."""
    path = settings().sns_certificates
    return pem_texts(path) if path else ()


def pem_texts(path: Path) -> tuple[str, ...]:
    """Of the file, or of the files *.pem of the folder; what cannot be read is left out."""
    path = path.expanduser()
    texts = []
    for file in sorted(path.glob("*.pem")) if path.is_dir() else [path]:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            texts.append(file.read_text(encoding="ascii"))
    return tuple(texts)


@cache
def settings() -> Settings:
    return Settings()
