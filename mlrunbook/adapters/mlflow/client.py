"""MLflow's registry and runs over REST, read alone, with failures translated once.

Requests carry no Origin: MLflow answers one of another site with 403. Versions come as numbers or as text; here they are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from mlrunbook.adapters.fields import WRONG_SHAPE, Fields, in_words, parsed
from mlrunbook.adapters.http_address import certificates, without_login
from mlrunbook.domain.errors import Invalid, NotFound, Refused, RunbookError, Transient, Unknown
from mlrunbook.domain.policy.connections import connection_variable

T = TypeVar("T")
API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0"
EXAMPLE = "https://mlflow.example.com, with user:password@ in it where MLflow asks for them"
PAGE = 200
MOST_PAGES = 100
MOST_ML_MODEL_BYTES = 2_000_000
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL)
_LOST_ANSWER = (502, 504)  # a proxy lost the answer: MLflow may have acted
_NO_SUCH_ALIAS = re.compile(r"alias .* not found", re.IGNORECASE)


@dataclass(frozen=True)
class Version:
    """A version of a registered model, as the registry keeps it."""

    version: str
    created_at: datetime
    source: str = ""
    run_id: str | None = None
    status: str = "READY"
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Registered:
    name: str
    aliases: Mapping[str, str]  # alias -> version


@dataclass(frozen=True)
class Run:
    run_id: str
    ended_at: datetime | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class MlflowClient:
    """Thread-safe. `connection` is the name that policy gives it; every error names the variable to look at.

    Raises Transient (MLflow is away), Refused (credentials, certificate, no MLflow there) and NotFound (no such model).
    """

    def __init__(
        self,
        connection: str,
        address: str | None,
        token: str | None = None,
        *,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
        page: int = PAGE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._page, self.variable = page, connection_variable(connection)
        if not address:
            raise Invalid(f"{self.variable} is not set: give it the address of the MLflow server, as https://mlflow.example.com")
        self.url, auth = without_login(self.variable, address, EXAMPLE)
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

    def server_version(self) -> str:
        """As MLflow says it; Transient or Refused where something else answers."""
        response = self._sent("GET", "/version")
        said = response.text.strip()
        if not response.is_success or not re.fullmatch(r"\d+\.\d+[\w.]*", said):
            raise self._refusal("GET /version", response) if not response.is_success else self._not_mlflow("GET /version", said)
        return said

    def registered_models(self) -> list[Registered]:
        """Every one, by name."""
        pages = self._pages("/registered-models/search", "registered_models", _registered, {"max_results": self._page})
        return sorted(pages, key=lambda one: one.name)

    def registered(self, name: str) -> Registered:
        """NotFound where no such model is registered."""
        return self.read("/registered-models/get", lambda b: _registered(b.part("registered_model")), {"name": name})

    def aliases(self, name: str) -> Mapping[str, str]:
        return self.registered(name).aliases

    def versions(self, name: str) -> list[Version]:
        """Every version, oldest first; empty where there are none, or no such model."""
        quoted = name.replace("'", "''") if "'" in name else name
        params = {"filter": f"name='{quoted}'", "max_results": self._page, "order_by": "version_number DESC"}
        found = {one.version: one for one in self._pages("/model-versions/search", "model_versions", _version, params)}
        return sorted(found.values(), key=lambda one: (one.created_at, len(one.version), one.version))

    def version(self, name: str, version: str) -> Version:
        """NotFound where there is none such."""
        return self.read("/model-versions/get", lambda b: _version(b.part("model_version")), {"name": name, "version": version})

    def run(self, run_id: str) -> Run:
        return self.read("/runs/get", lambda b: _run(b.part("run")), {"run_id": run_id})

    def features(self, name: str, version: str) -> tuple[str, ...] | None:
        """The names of the inputs in the version's signature; None where it was logged without one, or its MLmodel cannot be read."""
        params = {"name": name, "version": version, "path": "MLmodel"}
        response = self._sent("GET", "/model-versions/get-artifact", params)
        if response.status_code in (400, 404, 500) or len(response.content) > MOST_ML_MODEL_BYTES:
            return None  # the artefacts are elsewhere, or gone
        if not response.is_success:
            raise self._refusal("GET /model-versions/get-artifact", response)
        return inputs_of(response.text)

    def artifacts(self, path: str, folder: str) -> list[tuple[str, bool]]:
        """What a folder of the artefacts that MLflow hands out holds: each path, and whether it is a folder."""
        where = f"{ARTIFACTS}{path}"
        response = self._sent("GET", where, {"path": folder})
        return self._parsed(f"GET {where}", response, lambda b: _listed(b), Refused)

    def download(self, path: str, into: Path, most_bytes: int) -> int:
        """Its length. Refused beyond `most_bytes`: nothing larger is kept."""
        where, length = f"{ARTIFACTS}{path}", 0
        try:
            with self._http.stream("GET", where) as response, into.open("xb") as file:
                if not response.is_success:
                    response.read()
                    raise self._refusal(f"GET {where}", response)
                for block in response.iter_bytes():
                    length += len(block)
                    if length > most_bytes:
                        raise Refused("the artefact is larger than replay.most_size_mb")
                    file.write(block)
        except (*_NOT_SENT, httpx.HTTPError) as error:
            raise Transient(f"{self.url} does not hand out {path} ({error or type(error).__name__})") from error
        return length

    # ---

    def read(self, path: str, parse: Callable[[Fields], T], params: Mapping[str, Any] | None = None) -> T:
        return self._parsed(f"GET {API}{path}", self._sent("GET", API + path, params), parse, Refused)

    def write(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        """Unknown where it was sent and nobody knows whether it was done."""
        response = self._sent(method, API + path, body=body)
        where = f"{method} {API}{path}"
        if response.status_code in _LOST_ANSWER:
            raise Unknown(f"{where} was answered {response.status_code} on the way: read back whether it happened")
        self._parsed(where, response, lambda b: None, Unknown)

    def _sent(
        self, method: str, path: str, params: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        try:
            return self._http.request(method, path, params=params, json=None if body is None else dict(body))
        except (*_NOT_SENT, httpx.HTTPError) as error:
            words = str(error) or type(error).__name__
            if "CERTIFICATE" in words.upper():
                said = f"{self.url} shows a certificate that is not trusted ({words}); name its authority: ca_file of the connection"
                raise Refused(said) from error
            if body is not None and not isinstance(error, _NOT_SENT):
                raise Unknown(f"{method} {path} was sent and got no answer ({words}): read back whether it happened") from error
            raise Transient(f"{self.url} does not answer ({words}): is MLflow up, and is {self.variable} its address?") from error

    def _pages(self, path: str, key: str, parse: Callable[[Fields], T], params: Mapping[str, Any]) -> Iterator[T]:
        """MLflow leaves the list out where it is empty."""
        token: str | None = None
        for _ in range(MOST_PAGES):
            page, token = self.read(
                path,
                lambda b: ([parse(one) for one in b.parts(key)] if b.has(key) else [], b.maybe("next_page_token", b.text)),
                {**params, **({"page_token": token} if token else {})},
            )
            yield from page
            if not token:
                return
        raise Refused(f"{self.url}{API}{path} has more than {MOST_PAGES * self._page} entries: that is more than this can look through")

    def _parsed(self, where: str, response: httpx.Response, parse: Callable[[Fields], T], misread: type[RunbookError]) -> T:
        if not response.is_success:
            raise self._refusal(where, response)
        try:
            return parse(Fields(parsed(response.content)))
        except WRONG_SHAPE as error:
            raise self._not_mlflow(where, in_words(error), misread) from error

    def _not_mlflow(self, where: str, came: str, kind: type[RunbookError] = Refused) -> RunbookError:
        return kind(f"{where} answered something that MLflow does not say ({came[:200]}); is {self.variable} the address of MLflow itself?")

    def _refusal(self, where: str, response: httpx.Response) -> RunbookError:
        status, (code, detail) = response.status_code, _problem(response)
        if status >= 500 or status == 429:
            return Transient(f"{where} answered {status}: {detail}; trying again may help")
        if status in (401, 403):
            return Refused(
                f"{where} answered {status}: {detail}; {self.variable} needs a user and password (https://user:password@...) "
                f"or {self.variable}_TOKEN a token that may do this"
            )
        if code == "RESOURCE_DOES_NOT_EXIST" or (status == 400 and _NO_SUCH_ALIAS.search(detail)):
            return NotFound(f"{where}: {detail}")
        if status in (301, 302, 307, 308, 404, 405) and not code:  # a proxy, a login page, another program
            return Refused(f"{where} answered {status} without MLflow's words: is {self.variable} the address of MLflow itself?")
        return Refused(f"{where} answered {status}: {detail}")


def inputs_of(ml_model: str) -> tuple[str, ...] | None:
    """The names of the inputs in an MLmodel file; None without a signature that names them.

    >>> inputs_of('signature:\\n  inputs: \\'[{"type": "double", "name": "age"}]\\'')
    ('age',)
    """
    try:
        described = yaml.load(ml_model, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader, either way
        inputs = parsed(described["signature"]["inputs"])
        names = tuple(str(one["name"]) for one in inputs)
    except (yaml.YAMLError, *WRONG_SHAPE):
        return None
    return names or None


def _problem(response: httpx.Response) -> tuple[str, str]:
    """MLflow's code and words; else nothing and the start of whatever came."""
    try:
        body = response.json()
        return str(body["error_code"]), str(body.get("message") or body["error_code"])[:500]
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", response.text[:200].strip() or response.reason_phrase


def _listed(b: Fields) -> list[tuple[str, bool]]:
    return [(one.text("path"), one.flag("is_dir") if one.has("is_dir") else False) for one in b.parts("files")] if b.has("files") else []


def _registered(b: Fields) -> Registered:
    aliases = {one.text("alias"): one.id("version") for one in b.parts("aliases")} if b.has("aliases") else {}
    return Registered(b.text("name"), aliases)


def _version(b: Fields) -> Version:
    return Version(
        version=b.id("version"),
        created_at=moment(b, "creation_timestamp"),
        source=b.maybe("source", b.text) or "",
        run_id=b.maybe("run_id", b.text) or None,
        status=b.maybe("status", b.text) or "READY",
        tags=_pairs(b, "tags"),
    )


def _run(b: Fields) -> Run:
    info, data = b.part("info"), b.part_if_any("data")
    metrics = {one.text("key"): one.figure("value", 1e15) for one in data.parts("metrics")} if data.has("metrics") else {}
    return Run(
        info.text("run_id"),
        moment(info, "end_time") if info.has("end_time") else None,
        _pairs(data, "params"),
        {name: value for name, value in metrics.items() if value is not None},
        _pairs(data, "tags"),
    )


def _pairs(b: Fields, name: str) -> dict[str, str]:
    return {one.text("key"): one.text("value") if one.has("value") else "" for one in b.parts(name)} if b.has(name) else {}


def moment(b: Fields, name: str) -> datetime:
    """Milliseconds since 1970."""
    return datetime.fromtimestamp(b.number(name, 0, 7.2e12) / 1000, UTC)
