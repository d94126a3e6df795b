"""The environment of a worker and of each flow run: what flows need, and nothing else.

A run imports the team's feature repository and may start its training command. What they can read from their environment must not include
the gateway's token, the channels' addresses, the webhook secrets or the Prefect server's own database.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlrunbook.base.processes import MARK

MORE = "MLRUNBOOK_RUN_ENV"
SETTINGS = frozenset(
    f"MLRUNBOOK_{name}"
    for name in (
        "HOME",
        "DATA_DIR",
        "STACK",
        "POLICY",
        "DATABASE_URL",
        "PLATFORM_URL",
        "PLATFORM_TOKEN",
        "MODEL_SERVER_URL",
        "GATEWAY_URL",
        "PUBLIC_URL",
        "FEATURE_SERVER_URL",
        "FEATURE_REPO",
        "RUNTIME",
        "KUBE_CONTEXT",
        "KUBE_NAMESPACE",
        "LEASE_S",
        "HTTP_TIMEOUT_S",
        "RUNS_AT_ONCE",
        "ENVIRONMENT",
        "DEBUG",
    )
)
SYSTEM = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DO_NOT_TRACK", "KUBECONFIG"}
    | {"PYTHONPATH", "PYTHONHOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONWARNINGS"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
    | {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "TQDM_DISABLE"}
    | {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBERNETES_SERVICE_PORT_HTTPS"}
)
# Prefect's client and worker. Of the server's settings only the one that keeps a client from starting a server of its own.
PREFECT = frozenset({"PREFECT_HOME", "PREFECT_SERVER_EPHEMERAL_ENABLED", "PREFECT_DEBUG_MODE"})
PREFIXES = (
    "LC_",
    "MLRUNBOOK_CONNECTION_",
    "PREFECT__",
    *(f"PREFECT_{part}_" for part in ("API", "CLIENT", "FLOWS", "LOGGING", "RUNNER", "TASKS", "WORKER")),
)
NEVER = ("PREFECT_API_DATABASE_",)  # the server's database, under its older name


def kept(environment: Mapping[str, str]) -> dict[str, str]:
    """What of `environment` a run gets. MLRUNBOOK_RUN_ENV names more, by commas."""
    names = SETTINGS | SYSTEM | PREFECT | {MARK, MORE} | {name.strip() for name in environment.get(MORE, "").split(",")}
    return {
        name: value for name, value in environment.items() if name in names or (name.startswith(PREFIXES) and not name.startswith(NEVER))
    }
