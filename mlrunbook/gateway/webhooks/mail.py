"""Alerts by mail: a small SMTP server beside the gateway, off unless MLRUNBOOK_SMTP_PORT is set.

A token of scope alerts proves the sender: in the recipient (`alerts+mlrb_...@host`) or in the subject (`[mlrb_...]`). The message says
what it is about in lines such as `Model: predictive_maintenance`. 250 is answered when all of it is stored, 451 when the store is away.
Nothing of a mail is parsed before its sender is proven, and then in a process of its own (`mail_parsing`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Mapping
from email.header import decode_header, make_header
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from mlrunbook.base import tokens
from mlrunbook.base.edge import Edge, Limits, address_of
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.errors import Invalid, NotApproved, RunbookError
from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.intake.level import LABELS
from mlrunbook.domain.intake.words import meaning, plain, state_in
from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.gateway.webhooks import mail_parsing
from mlrunbook.gateway.webhooks.explaining import TEST_HEADER, is_test, try_out
from mlrunbook.gateway.webhooks.ingest import ingest, received
from mlrunbook.gateway.webhooks.parsing import Format, Reading, Received, nothing_of, text, time, within, words_of_state
from mlrunbook.response.world import World

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 20
MAX_UNPROVEN_BYTES = 256 << 10  # where the recipient proves nothing
MAX_HEADER_BYTES = 64 << 10
MAX_SUBJECT_BYTES = 2_000
MAX_RECIPIENTS = 20
MAX_TOKENS = 5
MAX_CONNECTIONS = 50
MAX_SESSION_S = 120.0
STORE_AWAY = "451 4.3.0 the incident store does not answer, send it again"
MAX_LINES = 200
MAX_ANSWER = 500  # RFC 5321: 512 with its end
END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
SUBJECT = re.compile(rb"^subject:(.*(?:\n[ \t].*)*)", re.IGNORECASE | re.MULTILINE)
TOKEN = mail_parsing.TOKEN
FIELD = re.compile(r"^\s*([A-Za-z][A-Za-z _-]{0,30}?)\s*[:=]\s*(\S.*)$")
_WORDS = r"(?P<word>[A-Za-z]+(?:[ _-][A-Za-z]+)?)"
# Where a subject says how the alert stands, the most telling first.
SEV = re.compile(r"\bSev[ -]?\d\b|(?<=[\[( ])P\d(?=[\]):])", re.IGNORECASE)
NO_LEVEL = ("alert", "alarm", "problem", "high", "highest", "average", "medium", "down", "outage", "important")  # of any alert, or measure
# In the middle of a sentence other words end nothing: "Error rate is up 40 %", "the topic is closed".
SURELY_OVER = frozenset({"resolved", "recovered", "ok", "okay", "healthy", "restored", "cleared", "fixed", "solved"})
WHAT_ENDS = frozenset(
    {"alert", "alarm", "issue", "incident", "problem", "monitor", "check", "service", "host", "website", "ticket", "event"}
)
IN_A_SENTENCE = (
    re.compile(rf"\(\s*{_WORDS}(?::\d+)?\s*\)"),  # "(resolved)"
    re.compile(r"\b(?:is|are|now)\s+(?P<word>[A-Za-z]+)\b"),  # "Monitor is DOWN: ..."
)
STATUS_PLACES = (
    re.compile(r"\b[A-Z]+\s*(?:->|=>|\u2192)\s*(?P<word>[A-Z]+)\b"),  # "OK -> CRIT"
    # "ALARM: ...", "Resolved in 5m: ...", "Fired:Sev1 ...", "[Monitor Alert] Recovered: ..."
    re.compile(rf"^(?:\W*(?:re|fwd?|aw|wg)\s*:)*\s*(?:\[[^\]]*\]\s*)*\W*{_WORDS}(?: in [\dhms ]+)?\s*(?::\d*|\s-\s|\|)", re.IGNORECASE),
    re.compile(rf"\[\s*{_WORDS}(?::\d+)?\s*\]"),  # "[FIRING:1] ..."
    # Nagios: "** RECOVERY Service Alert: ...", Dynatrace: "RESOLVED Problem P-1: ..."
    re.compile(r"^\W*(?P<word>PROBLEM|RECOVERY|OPEN|FIRING|TRIGGERED|RESOLVED|RECOVERED)\b"),
    re.compile(r"\s[-|]\s(?P<word>Active|ACTIVE|Resolved|RESOLVED|Recovered|RECOVERED|OK)$"),  # "latency - Recovered"
    *IN_A_SENTENCE,
    re.compile(r"^\[.*\)\s(?P<word>Up|Down|Warning|Error)\s+\([^)]*\)"),  # PRTG: "[Probe] ... (HTTP) Down (timeout)"
)


def read(received: Received) -> list[Reading]:
    """`payload` is what `as_json` makes of a mail."""
    payload = received.payload
    if not isinstance(payload, dict) or not isinstance(payload.get("text"), str):
        return nothing_of(received, "not a mail")
    if text(payload.get("auto_submitted")).casefold().startswith("auto-replied"):
        return [Reading(passed_over="an automatic reply")]  # RFC 3834: somebody is on holiday
    subject, fields = text(payload.get("subject")), _fields(payload["text"])
    origin = {"subject": subject, "from": text(payload.get("from"))}
    title, state, because, words = titled(subject, received.policy)
    if (word := fields.get("status")) and (told := state_in(word, words_of_state(received.policy), over=State.RESOLVED)):
        state, because = told, f"its line Status is {word[:50]!r}, which intake.states.{told} lists"
    title = fields.get("alertname") or fields.get("alert") or re.sub(r"\W+", " ", title).strip() or "alert"
    facts = Facts(
        identity="",
        state=State(state),
        state_because=because,
        title=title,
        about="" if fields.get("alertname") or fields.get("alert") else _without(subject, received.policy),
        levels=_levels(words, fields, received.policy),
        said=origin | fields,
        summary=fields.get("summary") or subject,
        model_version=fields.get("model_version") or fields.get("version") or "",
        seen_at=time(fields.get("started_at")),
        kept={"annotations": origin},
    )
    delivery = text(payload.get("message_id")) or None
    return [Reading([facts], delivery_id=delivery)]


def titled(subject: str, policy: IntakePolicy) -> tuple[str, str, str, tuple[str, ...]]:
    """(the subject without the word that says how it stands, firing or resolved, what decided that, the words that say how bad it is).
    Only a word in its place counts, in brackets, at the beginning or after "is": "check of pumps NOT OK" is no end."""
    table, found = words_of_state(policy), _found(subject)
    levels = tuple(word for word in (*(match["word"] for match in found), *SEV.findall(subject)) if _is_level(word, policy))
    for match in found:
        if (state := _state(match, table)) is not None:
            because = f"its subject says {match['word']!r}, which intake.states.{state} lists"
            return f"{subject[: match.start()]} {subject[match.end() :]}", state, because, levels
    return subject, State.FIRING, "nothing in its subject says that it is over", levels


def _state(match: re.Match[str], table: Mapping[str, tuple[str, ...]]) -> str | None:
    """None too where it might only be spoken of: an alert that was taken for its end would be lost."""
    state, word = state_in(match["word"], table, over=State.RESOLVED), match["word"]
    parts = {part.casefold() for part in re.split(r"[\s_-]", word)}
    if state != State.RESOLVED or parts & SURELY_OVER:
        return state
    is_other_phrase = len(parts) > 1 and not parts & WHAT_ENDS  # "Follow-up: ...", "Clear drop: ..."
    return None if is_other_phrase or (match.re in IN_A_SENTENCE and not word.isupper()) else state


def _is_level(word: str, policy: IntakePolicy) -> bool:
    """Whether it surely says how bad it is. "F1 is low" does not: nobody's page is left out because of an adjective."""
    return plain(word) not in NO_LEVEL and meaning(word, policy.levels) in ("critical", "warning")


def _levels(words: tuple[str, ...], fields: Mapping[str, str], policy: IntakePolicy) -> tuple[str, ...]:
    """Of the subject, then of a line `State:`; where a line says the severity, that counts."""
    if any(fields.get(name) for name in LABELS):
        return ()
    return (*words, fields["state"]) if _is_level(fields.get("state", ""), policy) else words


def _found(subject: str) -> list[re.Match[str]]:
    return [match for place in STATUS_PLACES for match in place.finditer(subject)]


def _without(subject: str, policy: IntakePolicy) -> str:
    """What stays the same from the first mail to the last: all but the words that say how it stands and how bad it is."""
    table, kept = words_of_state(policy), list(subject)
    for match in _found(subject):
        if _state(match, table) or _is_level(match["word"], policy):
            kept[match.start() : match.end()] = " " * (match.end() - match.start())
    return re.sub(r"\W+", " ", "".join(kept)).strip()


def _fields(lines: str) -> dict[str, str]:
    """`Model name: x` as {"model_name": "x"}; the first line of a name counts, because a quoted mail stands below."""
    found: dict[str, str] = {}
    for line in lines.splitlines()[:MAX_LINES]:
        if match := FIELD.match(line):
            name = "_".join(match[1].split()).replace("-", "_")
            found.setdefault("modelId" if name == "modelId" else name.lower(), text(match[2]))
    return found


FORMAT = Format("email", read)


class Inbox:
    """What aiosmtpd asks for each mail. Its sender is proven by the recipient if it can be, else by the subject; only then is it read."""

    def __init__(self, world: World, edge: Edge | None = None) -> None:
        self._world, self._edge = world, edge or Edge(Limits())

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, _options: list[str]) -> str:
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return f"452 4.5.3 at most {MAX_RECIPIENTS} recipients"
        if presented := TOKEN.findall(address):
            try:
                sender = await asyncio.to_thread(self._owner, presented)
            except RunbookError:
                return STORE_AWAY
            if sender is None:
                return self._refuse(_host(session))
            server.is_proven = True  # type: ignore[attr-defined]
        server.data_size_limit = MAX_BYTES if getattr(server, "is_proven", False) else MAX_UNPROVEN_BYTES
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        server.data_size_limit, server.received = MAX_BYTES, 0  # type: ignore[attr-defined]
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        return await asyncio.to_thread(self.deliver, content, [str(to) for to in envelope.rcpt_tos], host=_host(session))

    def deliver(self, content: bytes, recipients: list[str], *, host: str = "unknown") -> str:
        """The SMTP answer."""
        header = END_OF_HEADER.split(content[: MAX_HEADER_BYTES + 4], maxsplit=1)[0]
        if len(header) > MAX_HEADER_BYTES:
            return f"552 5.3.4 the header is larger than {MAX_HEADER_BYTES} bytes"
        try:
            sender = self._owner(TOKEN.findall(" ".join([*recipients, _subject(header)])))
            if sender is None:
                return self._refuse(host)
            if self._edge.of_token.wait_s(sender.token_id) is not None:
                self._edge.refused.labels("rate").inc()
                return "451 4.7.1 too many mails a minute with this token, send it again later"
            return _answer(self._taken_in(content, sender))
        except NotApproved as error:
            return _answer(f"550 5.7.1 {error}")
        except RunbookError as error:
            log.warning("a mail waits at its sender: %s", error)
            return STORE_AWAY
        except Exception:
            log.exception("a mail could not be stored")
            return "451 4.3.0 it could not be stored, send it again"

    def _taken_in(self, content: bytes, sender: Identity) -> str:
        kept = mail_parsing.limited(content)
        message = received(kept, {}, self._world)
        marked = {TEST_HEADER: text(within(message.payload, "test"))}
        if is_test(marked, message.at, self._world.policy.intake.replay_window_s):
            tried = try_out(self._world, FORMAT, message, sender=sender).test or []
            return "250 2.0.0 test, nothing is stored: " + "; ".join(
                one.outcome + f": it {one.happens}" * bool(one.happens) for one in tried
            )
        receipt = ingest(self._world, FORMAT, message, kept, sender=sender)
        return f"250 2.0.0 stored: {receipt.accepted} taken in, {receipt.quarantined} quarantined"

    def _refuse(self, host: str) -> str:
        self._edge.note_failure(host, "mail", "no valid token")
        if self._edge.failures.wait_s(host) is not None:
            return "421 4.7.0 too many mails without a valid token from this address"
        return "550 5.7.1 no valid token of scope alerts in the recipient or the subject"

    def _owner(self, presented: list[str]) -> Identity | None:
        if not presented:
            return None
        with self._world.transaction() as conn:
            owners = [tokens.verify(conn, one) for one in presented[:MAX_TOKENS]]
        return next((owner for owner in owners if owner and Scope.ALERTS in owner.scopes and owner.may_post_as(FORMAT.name)), None)


def _answer(words: str) -> str:
    """One line of plain letters, as SMTP has it."""
    return " ".join(words.split()).encode("ascii", "replace").decode()[:MAX_ANSWER]


def _host(session: Session) -> str:
    return address_of({"client": session.peer if isinstance(session.peer, tuple) else None})


def _subject(header: bytes) -> str:
    """Enough of it to find a token, and short enough to be decoded for anybody."""
    found = SUBJECT.search(header)
    raw = re.sub(rb"\r?\n(?=[ \t])", b"", found[1])[:MAX_SUBJECT_BYTES].decode("latin-1") if found else ""
    with contextlib.suppress(ValueError, LookupError):
        raw = str(make_header(decode_header(raw)))
    return raw


class _Connection(SMTP):
    """With an end, and with room for newcomers: of those that have proven nothing, the one that came first makes place."""

    def __init__(self, handler: Inbox, others: dict[_Connection, None], **how: Any) -> None:
        super().__init__(handler, **how)
        self.is_proven, self.received, self._others = False, 0, others
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._others[self] = None
        self._end = self.loop.call_later(MAX_SESSION_S, transport.close)
        if len(self._others) > MAX_CONNECTIONS:
            first = next((one for one in self._others if not one.is_proven), self)
            if isinstance(first.transport, asyncio.Transport):
                first.transport.abort()

    def data_received(self, data: bytes) -> None:
        """aiosmtpd answers 552 at the end of a mail, and holds a line without an end for as long as it grows."""
        self.received += len(data)
        if self.received > 2 * (self.data_size_limit or 0) and isinstance(self.transport, asyncio.Transport):
            self.transport.abort()
        else:
            super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._others.pop(self, None)
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(error)


class _Controller(Controller):
    def factory(self) -> SMTP:
        return _Connection(self.handler, self.__dict__.setdefault("open", {}), **self.SMTP_kwargs)


class Mailbox:
    """The SMTP server in a thread of its own."""

    def __init__(self, world: World, host: str, port: int, edge: Edge | None = None) -> None:
        logging.getLogger("mail.log").setLevel(logging.WARNING)  # it would write recipients, and with them tokens
        self.port = port
        self._controller = _Controller(
            Inbox(world, edge), hostname=host, port=port, data_size_limit=MAX_BYTES, ident="mlrunbook", timeout=60
        )

    def start(self) -> None:
        """Invalid when the port is taken."""
        try:
            self._controller.start()
        except (OSError, TimeoutError) as error:
            where = f"{self._controller.hostname}:{self._controller.port}"
            raise Invalid(f"cannot take mail on {where} ({error}): choose another MLRUNBOOK_SMTP_PORT", field="smtp_port") from error

    def stop(self) -> None:
        self._controller.stop(no_assert=True)
