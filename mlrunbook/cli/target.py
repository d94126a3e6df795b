"""Where the running stack is: the environment first, else the `env` file that `mlrunbook up` keeps in the data folder."""

from __future__ import annotations

import os
from pathlib import Path

from mlrunbook.domain.errors import Invalid

DEFAULT_DATA_DIR = Path("~/.local/share/mlrunbook")
NO_STACK = "no running stack found: start one with `mlrunbook up`, or set "
# A secret of the local stack goes to the local stack alone: a URL from elsewhere brings its own.
SECRET_OF = {
    "MLRUNBOOK_GATEWAY_URL": "MLRUNBOOK_GATEWAY_TOKEN",
    "MLRUNBOOK_PLATFORM_URL": "MLRUNBOOK_PLATFORM_TOKEN",
    "PREFECT_API_URL": "PREFECT_API_AUTH_STRING",
}


def data_dir() -> Path:
    return Path(os.environ.get("MLRUNBOOK_DATA_DIR") or DEFAULT_DATA_DIR).expanduser()


def environment() -> dict[str, str]:
    """The environment laid over the settings of the running stack."""
    from mlrunbook.local.addresses import running_env

    given = {key: value for key, value in os.environ.items() if value}
    found = running_env(data_dir())
    for url, secret in SECRET_OF.items():
        if url in given and given[url] != found.get(url):
            found.pop(secret, None)
    return found | given


def gateway(token_file: Path | None = None) -> tuple[str, str]:
    """URL and token of the gateway."""
    env = environment()
    url = env.get("MLRUNBOOK_GATEWAY_URL")
    if not url:
        raise Invalid(f"{NO_STACK}MLRUNBOOK_GATEWAY_URL and MLRUNBOOK_GATEWAY_TOKEN")
    token = token_file.read_text().strip() if token_file else env.get("MLRUNBOOK_GATEWAY_TOKEN", "")
    if not token or not token.isascii() or not token.isprintable():
        source = str(token_file) if token_file else "MLRUNBOOK_GATEWAY_TOKEN"
        raise Invalid(f"{source} holds no token: create one with `mlrunbook token create` and put it there")
    return url, token


def database_url() -> str:
    url = environment().get("MLRUNBOOK_DATABASE_URL")
    if not url:
        raise Invalid(f"{NO_STACK}MLRUNBOOK_DATABASE_URL")
    return url


def checkout() -> Path:
    """Where flows, prefect.yaml and runbook.yaml lie."""
    return Path(environment().get("MLRUNBOOK_HOME") or Path.cwd())
