"""`ports.LiveFigures` over PromQL: one number a figure, or why there is none. Never a number that is old, or of something else."""

from __future__ import annotations

import math
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from mlrunbook.adapters.fields import DAY_MS, MOST
from mlrunbook.domain.errors import Invalid, Refused, Transient
from mlrunbook.domain.policy.connections import LivePart, connection_variable
from mlrunbook.ports import Live

TIMEOUT_S = 10.0
WINDOW = "{window}"
_REFUSES_QUERY = (400, 422)
_TOO_LONG = ("timeout", "canceled")


@dataclass(frozen=True)
class _Figure:
    """`most`: a larger one is of another unit, or wrong."""

    name: str
    query: str | None
    most: float
    unit: str


class PrometheusLive:
    """Of every model whose figures this Prometheus (Thanos, Mimir) holds. `part_of` gives a model's queries. Thread-safe."""

    def __init__(
        self,
        connection: str,
        address: str,
        part_of: Callable[[str], LivePart],
        *,
        token: str | None = None,
        ca_file: str | None = None,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection, self._part_of = connection, part_of
        url, auth = _without_login(address.rstrip("/"))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            verify: Any = ssl.create_default_context(cafile=ca_file) if ca_file else True
        except OSError as error:
            raise Refused(
                f"{connection}: the certificates in {ca_file} cannot be read ({error}); correct ca_file of the connection"
            ) from error
        try:
            self._http = httpx.Client(base_url=url, auth=auth, headers=headers, timeout=timeout_s, verify=verify, transport=transport)
        except (httpx.InvalidURL, ValueError):  # its words hold a part of the address
            raise Refused(f"{connection_variable(connection)} is no address: write it as https://prometheus.example.com") from None

    def close(self) -> None:
        self._http.close()

    def live(self, model: str, *, since: datetime, until: datetime) -> Live:
        """Of [since, until). Transient and Refused where Prometheus as a whole does not answer; what is wrong with one figure is in
        `missing`."""
        window_s = (until - since).total_seconds()
        if window_s <= 0:
            raise Invalid(f"since ({since.isoformat()}) must be before until ({until.isoformat()})", field="since")
        part = self._part_of(model)
        found: dict[str, float] = {}
        missing: dict[str, str] = {}
        for figure in (
            _Figure("latency_p95_ms", part.latency_p95_s, DAY_MS / 1000, "s"),
            _Figure("error_rate", part.error_rate, 1.0, ""),
            _Figure("requests", part.requests, float(MOST), ""),
            _Figure("null_rate", part.null_rate, 1.0, ""),
        ):
            value = self._figure(figure, window_s, until, part.stale_after_s)
            if isinstance(value, str):
                missing[figure.name] = value
            else:
                found[figure.name] = value
        return Live(
            latency_p95_ms=1000 * found["latency_p95_ms"] if "latency_p95_ms" in found else None,
            error_rate=found.get("error_rate"),
            requests=round(found["requests"]) if "requests" in found else None,
            null_rate=found.get("null_rate"),
            missing=missing,
        )

    def _figure(self, figure: _Figure, window_s: float, until: datetime, stale_after_s: float) -> float | str:
        if figure.query is None:
            return "no query in policy"
        said = self._asked(figure.query, window_s, until)
        value = said if isinstance(said, str) else _number(said, figure)
        if isinstance(value, float) and WINDOW in figure.query and window_s > stale_after_s:
            lately = self._asked(figure.query, stale_after_s, until)
            if isinstance(lately, str):
                return lately
            if not lately:
                return f"nothing was scraped in the last {stale_after_s:g} s before {until:%H:%M:%S} UTC: older figures say nothing of now"
        return value

    def _asked(self, query: str, window_s: float, until: datetime) -> list[float] | str:
        """The values of all series, or why there are none to be had of this query."""
        filled = query.replace(WINDOW, f"{max(round(window_s), 1)}s")
        try:
            response = self._http.get("/api/v1/query", params={"query": filled, "time": f"{until.timestamp():.3f}"})
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        body = _body(response)
        if response.status_code in _REFUSES_QUERY and body.get("errorType") not in _TOO_LONG:
            return f"the query is refused: {str(body.get('error') or 'no reason given')[:200]}; correct it in policy"
        if not response.is_success:
            raise self._refusal(response, body)
        if body.get("status") != "success":
            variable = connection_variable(self._connection)
            raise Refused(f"{self._connection} gives no answer of Prometheus: does {variable} name its root, without /api/v1?")
        if warnings := body.get("warnings"):
            return f"the answer may be incomplete: {str(warnings[0])[:200]}"
        return _values(body.get("data"))

    def _unreachable(self, error: httpx.HTTPError) -> Exception:
        said, variable = str(error) or type(error).__name__, connection_variable(self._connection)
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return Refused(f"{self._connection}: its certificate is not trusted ({said}); name the issuer's in ca_file of the connection")
        if isinstance(error, httpx.UnsupportedProtocol):
            return Refused(f"{variable} is no address: write it as https://prometheus.example.com")
        return Transient(f"{self._connection} does not answer ({said}): is it up, and is {variable} right?")

    def _refusal(self, response: httpx.Response, body: Mapping[str, Any]) -> Exception:
        status, variable = response.status_code, connection_variable(self._connection)
        said = str(body.get("error") or response.reason_phrase)[:200]
        if status in (401, 403):
            return Refused(f"{self._connection} answered {status} ({said}): give {variable}_TOKEN a token that may query it")
        if status in (408, 429) or status >= 500 or body.get("errorType") in _TOO_LONG:
            return Transient(f"{self._connection} answered {status} ({said}); trying again may help")
        if response.is_redirect:
            return Refused(f"{self._connection} sends us elsewhere ({status}): correct {variable}, or sign-in stands before it")
        return Refused(f"{self._connection} answered {status} ({said}): does {variable} name the root of Prometheus?")


def _number(values: list[float], figure: _Figure) -> float | str:
    if not values:
        return "the query finds nothing: no such series, or none in this time"
    if len(values) > 1:
        return f"the query finds {len(values)} series and one is needed: aggregate them with sum() or max()"
    (value,) = values
    if math.isnan(value):
        return "not a number: nothing to divide by, such as no requests in this time"
    if math.isinf(value):
        return "infinite: divided by zero, or above the last bucket of the histogram"
    if not 0 <= value <= figure.most:
        return f"{value:g}{figure.unit} is outside of 0 to {figure.most:g}{figure.unit}: is it of another unit?"
    return value


def _values(data: Any) -> list[float] | str:
    try:
        kind, result = data["resultType"], data["result"]
        if kind == "scalar":
            return [float(result[1])]
        if kind == "vector":
            return [float(series["value"][1]) for series in result]
    except (KeyError, TypeError, ValueError, IndexError):
        return "the answer is no number: the query gives histograms, or this is no Prometheus"
    return f"the query gives a {kind}, no single number: leave out the range outside of functions"


def _body(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, Mapping) else {}


def _without_login(address: str) -> tuple[str, tuple[str, str] | None]:
    """User and password apart from the address: messages name the address."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address, None
    if "@" not in parts.netloc:
        return address, None
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[1]))
    return plain, (unquote(parts.username or ""), unquote(parts.password or ""))
