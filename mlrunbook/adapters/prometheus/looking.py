"""Which metrics a Prometheus has and what their labels say, for whoever sets it up. Reads alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import httpx

from mlrunbook.adapters.http_address import certificates, without_login
from mlrunbook.domain.connecting.seen import MetricsSeen
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.policy.connections import connection_variable

MOST_SERIES = 2_000
LATELY_S = 3_600  # a metric that nobody has written for so long is not looked at


class PrometheusLook:
    """Raises Transient (no answer), Refused (credentials, certificate, no Prometheus there); each names the variable to look at."""

    def __init__(
        self,
        connection: str,
        address: str,
        token: str | None = None,
        *,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.variable = connection_variable(connection)
        self.url, auth = without_login(self.variable, address, "https://prometheus.example.com")
        self._http = httpx.Client(
            base_url=self.url,
            auth=auth,
            headers={"Authorization": f"Bearer {token}"} if token and not auth else {},
            timeout=timeout_s,
            transport=transport,
            verify=certificates(self.variable, ca_file),
        )

    def close(self) -> None:
        self._http.close()

    def metrics(self, wanted: Sequence[str], now_s: float) -> MetricsSeen:
        """The names of all metrics, and the labels of those of `wanted` that are there."""
        names = frozenset(str(name) for name in self._read("/api/v1/label/__name__/values", {}))
        found = {}
        for name in wanted:
            if name in names:
                since = {"match[]": f'{{__name__="{name}"}}', "start": now_s - LATELY_S, "end": now_s, "limit": MOST_SERIES}
                series = self._read("/api/v1/series", since)[:MOST_SERIES]
                found[name] = tuple({str(k): str(v) for k, v in one.items() if k not in ("__name__", "le")} for one in series)
        return MetricsSeen(names, found)

    def answers(self, expression: str, window: str = "3600s") -> float | None:
        """What the expression says now, None where it says nothing. Refused where it is no PromQL."""
        result = self._read("/api/v1/query", {"query": expression.replace("{window}", window)})
        rows = result["result"] if isinstance(result, dict) else ()
        if isinstance(result, dict) and result.get("resultType") == "scalar":
            rows = [{"value": rows}]
        try:
            value = float(rows[0]["value"][1]) if rows else None
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        return value if value is not None and isfinite(value) else None

    def _read(self, path: str, params: dict[str, Any]) -> Any:
        try:
            response = self._http.get(path, params=params)
        except httpx.HTTPError as error:
            words = str(error) or type(error).__name__
            if "CERTIFICATE" in words.upper():
                said = f"{self.url} shows a certificate that is not trusted ({words}); name its authority: ca_file of the connection"
                raise Refused(said) from error
            raise Transient(f"{self.url} does not answer ({words}): is Prometheus up, and is {self.variable} its address?") from error
        if response.status_code in (401, 403):
            raise Refused(
                f"{self.url} answered {response.status_code}; {self.variable} needs a user and password (https://user:password@...), "
                f"or {self.variable}_TOKEN a token that may read"
            )
        try:
            body = response.json()
            if body["status"] == "success":
                return body["data"]
            said = str(body.get("error") or body["status"])[:300]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            said = f"{self.url}{path} answered {response.status_code} and not what Prometheus says: is {self.variable} its address?"
            raise Refused(said) from error
        if response.status_code >= 500:
            raise Transient(f"{self.url}{path} answered {response.status_code}: {said}")
        raise Refused(f"{self.url}{path}: {said}")
