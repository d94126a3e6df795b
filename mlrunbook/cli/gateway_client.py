"""The gateway's REST API as the command line needs it; its errors become those of `domain.errors`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from mlrunbook.cli import target
from mlrunbook.domain.errors import Invalid, NotApproved, NotFound, Refused, Transient

TIMEOUT_S = 15.0
MOST_A_PAGE, MOST_MESSAGES = 1_000, 100
LAST_ENTRY = 2**31 - 1
OF_ALL = "/api/v1/incidents"
QUARANTINE = "/api/v1/quarantine"
ACTIONS = "/api/v1/actions"
HOW_TO = {
    "approve": '`mlrunbook token create "Your Name" --scope approve --scope read --role ml_team_lead`',
    "operate": '`mlrunbook token create "Your Name" --scope operate --scope read`',
    "alerts": '`mlrunbook token create "Your Name" --scope alerts`',
    "report": '`mlrunbook token create "Your Name" --scope report`',
    "read": '`mlrunbook token create "Your Name" --scope read`',
}


class Page(NamedTuple):
    """`goes_on`: where the next one begins; None: there is none."""

    rows: list[dict[str, Any]]
    goes_on: int | str | None


class Gateway:
    """Ask the running gateway. Use as a context manager."""

    def __init__(self, token_file: Path | None = None) -> None:
        self.url, token = target.gateway(token_file)
        try:
            # No proxy from the environment: it would see the token.
            self._http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S, trust_env=False)
        except httpx.InvalidURL as error:
            raise Invalid(f"MLRUNBOOK_GATEWAY_URL is not a URL: {error}") from error

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def sign_in_link(self, next: str) -> dict[str, Any]:
        return self._json("POST", "/api/v1/console/links", json={"next": next})

    def report(self, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._json("POST", f"{_of_model(model)}", json=body)

    def incidents(self, model: str | None, *, limit: int, **query: Any) -> Page:
        return self._paged(_of_model(model) if model else OF_ALL, "incidents", "before", limit=limit, **query)

    def incident(self, incident_id: str) -> dict[str, Any]:
        return self._json("GET", _one(incident_id))

    def timeline(self, incident_id: str, after: int = 0) -> list[dict[str, Any]]:
        """All of it, or what came after that number."""
        return self._pages(f"{_one(incident_id)}/timeline", "entries", "after", after=after)

    def messages(self, incident_id: str) -> list[dict[str, Any]]:
        return self._pages(f"{_one(incident_id)}/messages", "messages", "after", most=MOST_MESSAGES)

    def end_of_timeline(self, incident_id: str, *, before: int | None, limit: int) -> Page:
        """The newest entries, or the newest below that number; oldest first."""
        asked = {"before": before or LAST_ENTRY, "limit": min(limit, MOST_A_PAGE)}
        page = self._json("GET", f"{_one(incident_id)}/timeline", params=asked)
        return Page(page["entries"], page.get("before"))

    def verify(self, incident_id: str, head: str = "") -> Iterator[dict[str, Any]]:
        """Page by page: a chain may be long."""
        asked = {"head": head} if head else {}
        while True:
            page = self._json("GET", f"{_one(incident_id)}/verify", params=asked)
            yield page
            if page.get("after") is None:  # a gateway of before pages reads all of it
                return
            asked = {"after": str(page["after"])}

    def chains(self, after: int = 0) -> dict[str, Any]:
        return self._json("GET", "/api/v1/chains", params={"after": after})

    def head(self, incident_id: str) -> str:
        return str(self._json("GET", f"{_one(incident_id)}/head")["head"])

    def review(self, incident_id: str) -> str:
        return self._ask("GET", f"{_one(incident_id)}/review").text

    def edit_review(self, incident_id: str, markdown: str) -> str:
        return self._ask("POST", f"{_one(incident_id)}/review", json={"markdown": markdown}).text

    def sign_review(self, incident_id: str, part: str) -> str:
        return self._ask("POST", f"{_one(incident_id)}/review/signatures", json={"part": part}).text

    def action_items(self, **query: bool) -> list[dict[str, Any]]:
        return self._pages(ACTIONS, "items", "after", **query)

    def add_action_item(self, incident_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._json("POST", f"{_one(incident_id)}/actions", json=body)

    def move_action_item(self, item: int, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._json("POST", f"{ACTIONS}/{item}", json=body)

    def observations(self, **query: str) -> dict[str, Any]:
        return self._json("GET", "/api/v1/observations", params=query)

    def modes(self, **query: str) -> dict[str, Any]:
        return self._json("GET", "/api/v1/modes", params=query)

    def say_why(self, model: str, reason: str) -> dict[str, Any]:
        return self._json("POST", f"/api/v1/modes/{quote(model, safe='')}/reason", json={"reason": reason})

    def evidence(self, incident_id: str, name: str) -> bytes:
        return self._ask("GET", f"{_one(incident_id)}/evidence/{quote(name)}").content

    def state_case(self, incident_id: str, clock: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._json("POST", f"{_one(incident_id)}/clocks/{clock}", json=body)

    def notified(self, incident_id: str, clock: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._json("POST", f"{_one(incident_id)}/clocks/{clock}/notification", json=body)

    def acknowledge(self, incident_id: str) -> dict[str, Any]:
        return self._json("POST", f"{_one(incident_id)}/acknowledge")

    def decide(self, incident_id: str, digest: str, decision: str, reason: str) -> dict[str, Any]:
        body = {"decision": decision, "planDigest": digest, "reason": reason, "door": "cli"}
        return self._json("POST", f"{_one(incident_id)}/approvals", json=body)

    def resolve(self, incident_id: str, what: str, root_cause: str) -> dict[str, Any]:
        return self._json("POST", f"{_one(incident_id)}/resolve", json={"what": what, "rootCause": root_cause})

    def set_severity(self, incident_id: str, severity: str, reason: str) -> dict[str, Any]:
        return self._json("POST", f"{_one(incident_id)}/severity", json={"severity": severity, "reason": reason})

    def order(self, incident_id: str, order: str, version: str | None, reason: str) -> dict[str, Any]:
        body = {"order": order, "version": version, "reason": reason, "door": "cli"}
        return self._json("POST", f"{_one(incident_id)}/containment", json=body)

    def hand_over(self, incident_id: str, role: str, to: str, note: str) -> dict[str, Any]:
        return self._json("POST", f"{_one(incident_id)}/handover", json={"role": role, "to": to, "note": note})

    def resume_automation(self, incident_id: str, note: str) -> dict[str, Any]:
        return self._json("POST", f"{_one(incident_id)}/go-on", json={"note": note})

    def silenced(self, *, limit: int, before: int | None) -> Page:
        return self._paged("/api/v1/alerts/silenced", "alerts", "before", limit=limit, before=before)

    def close(self, incident_id: str, reason: str, *, keep_containment: bool, false_alarm: bool) -> dict[str, Any]:
        body = {"reason": reason, "keepContainment": keep_containment, "falseAlarm": false_alarm}
        return self._json("POST", f"{_one(incident_id)}/close", json=body)

    def quarantine(self, **query: Any) -> dict[str, Any]:
        """A page of it, with how many wait in all."""
        return self._json("GET", QUARANTINE, params={key: value for key, value in query.items() if value is not None})

    def quarantined(self, number: int) -> dict[str, Any]:
        return self._json("GET", f"{QUARANTINE}/{number}")

    def replay(self, number: int) -> dict[str, Any]:
        return self._json("POST", f"{QUARANTINE}/{number}/replay")

    def discard(self, number: int, reason: str) -> dict[str, Any]:
        return self._json("POST", f"{QUARANTINE}/{number}/discard", json={"reason": reason})

    def webhook(self, form: str, body: bytes, headers: Mapping[str, str], *, signed: bool) -> dict[str, Any]:
        """Post as a sender would; `signed`: by `headers` alone, without the token."""
        without_token = {"Authorization": ""} if signed else {}
        return self._json("POST", f"/webhooks/{form}", content=body, headers=without_token | dict(headers))

    def _pages(
        self, path: str, rows: str, cursor: str, *, limit: int | None = None, most: int = MOST_A_PAGE, **query: Any
    ) -> list[dict[str, Any]]:
        """The rows of as many pages as it takes; `limit` None: of all."""
        return self._paged(path, rows, cursor, limit=limit, most=most, **query).rows

    def _paged(self, path: str, rows: str, cursor: str, *, limit: int | None = None, most: int = MOST_A_PAGE, **query: Any) -> Page:
        """The same, and where the list goes on."""
        asked = {key: value for key, value in query.items() if value is not None}
        found: list[dict[str, Any]] = []
        while limit is None or len(found) < limit:
            at_most = most if limit is None else min(most, limit - len(found))
            page = self._json("GET", path, params=asked | {"limit": at_most})
            found += page[rows]
            if (goes_on := page.get(cursor)) is None:
                return Page(found, None)
            asked[cursor] = goes_on
        return Page(found, asked.get(cursor))

    def _json(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        try:
            return dict(self._ask(method, path, **how).json())
        except ValueError as error:
            raise Invalid(f"what answers at {self.url} is no mlrunbook gateway: check MLRUNBOOK_GATEWAY_URL") from error

    def _ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **how)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Invalid(f"MLRUNBOOK_GATEWAY_URL must look like http://host:8090, not {self.url}") from error
        except httpx.TimeoutException as error:
            sent = "; look at the incident before you repeat it" if method == "POST" else ""
            raise Transient(f"the gateway at {self.url} did not answer within {TIMEOUT_S:.0f} s{sent}") from error
        except httpx.HTTPError as error:
            raise Transient(
                f"the gateway at {self.url} does not answer ({type(error).__name__}): start it with `mlrunbook up`, "
                "or correct MLRUNBOOK_GATEWAY_URL"
            ) from error
        if answer.is_success:
            return answer
        raise _error(answer)


def _error(answer: httpx.Response) -> Exception:
    said = _detail(answer)
    scope = re.search(r'scope="(\w+)"', answer.headers.get("www-authenticate", ""))
    match answer.status_code:
        case 401 | 403 if scope:
            head = said.partition(": ")[0]
            how = HOW_TO.get(scope[1], "`mlrunbook token create`")
            return NotApproved(f"{head}: create one with {how}, then set MLRUNBOOK_GATEWAY_TOKEN to it or pass --token-file")
        case 401 | 403:
            return NotApproved(said)
        case 404:
            return NotFound(said)
        case 400 | 413 | 422:
            return Invalid(said)
        case status if status == 429 or status >= 500:
            return Transient(said)
        case _:
            return Refused(said)


def _detail(answer: httpx.Response) -> str:
    try:
        body = answer.json()
        said = body.get("detail") or body.get("title")
    except (ValueError, AttributeError):
        said = None
    return str(said) if said else f"the gateway answered {answer.status_code} {answer.reason_phrase}"


def _of_model(model: str) -> str:
    return f"/api/v1/model-governance/{quote(model, safe='')}/incidents"


def _one(incident_id: str) -> str:
    return f"{OF_ALL}/{quote(incident_id, safe='')}"
