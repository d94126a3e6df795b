"""Whatever an alert says, every channel shows its characters and does nothing else: nobody is called, no link hides an address."""

from __future__ import annotations

import json
import re
import smtplib
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from email import message_from_bytes, policy
from html.parser import HTMLParser
from typing import Any, NamedTuple
from unittest import mock

import httpx
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mlrunbook.adapters.channels.delivery import deliver
from mlrunbook.adapters.channels.rendering import Format, rendered
from mlrunbook.domain.communication.messages import line
from mlrunbook.ports import Message

ATTACKS = (
    "<!everyone>", "<!here|x>", "<!subteam^S1>", "<@U024BE7LH>", "<#C024BE7LR>", "<@&123>", "<@!123>", "<#123>", "<at>Kim</at>",
    '<at user_id="all"></at>', "<users/all>", "@everyone", "@here", "@channel", "@all", "@room", "@kim", "a@everyone", "@**all**",
    "https://evil.example", "<https://evil.example|https://good.example>", "[click](https://evil.example)", "[good][1]",
    "[1]: https://evil.example", "![x](https://evil.example/p.png)", "<https://evil.example>", '<a href="https://evil.example">good</a>',
    "**b**", "__u__", "_i_", "~~s~~", "||spoiler||", "`c`", "```\ncode\n```", "# head", "- item", "1. one", "> quote", "===", "---",
    "| a |",
    "<b>bold</b>", "<script>x</script>", "<!-- x -->", "&lt;!here&gt;", "&#64;here", "&amp;", ":smile:", "\\", "\\[", "\\*", "$x$",
    "\u202egnp", "\u200b", "\u2066", "\x1b[31m", "\x00", "\x07", "\ufeff", "\nSubject: forged",
    "\r\nBcc: evil@example.com", "\rStatus: Closed",
    "\u2028", "\x85", "\n\n", " ", "    ", "\t", "kim@example.com", "incident_12", "a_b_c", "é", "Ж", "漢", "💥", "x" * 300,
)  # fmt: skip
HOSTILE = st.lists(st.sampled_from(ATTACKS) | st.text(max_size=8), min_size=1, max_size=12).map("".join)
HEADERS = {
    *("Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "X-Incident"),
    *("Content-Type", "Content-Transfer-Encoding", "MIME-Version"),
}
MENTION = re.compile(r"<[!@#/a-z]|@(?:everyone|here|channel|all|room)\b|(?<![\w.+-])@[\w*\"]", re.I)
MASKED = re.compile(r"\]\(|\]\[|\]:")


class Seen(NamedTuple):
    """What a reader sees, and what the service would have taken as something to act on."""

    text: str
    acted_on: list[str]


def _as_text(sent: str) -> Seen:
    return Seen(sent, [])


def _as_slack(sent: str) -> Seen:
    """mrkdwn's own rules of escaping: three entities, and everything in <> is a command."""
    text = sent.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return Seen(text, re.findall(r"<[^>]*>|:[\w+-]*[a-z][\w+-]*:", sent))


class _Telegram(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags = "", []  # type: ignore[var-annotated]

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.tags.append("declaration")


def _as_telegram(sent: str) -> Seen:
    parser = _Telegram()
    parser.feed(sent)
    parser.close()
    assert parser.tags[:1] == ["b"], "our own title stays bold"
    return Seen(parser.text, parser.tags[1:])


_MARKDOWN = MarkdownIt("js-default", {"html": False, "linkify": False, "breaks": True})


def _as_markdown(sent: str) -> Seen:
    """CommonMark with tables and strikethrough, and Discord's spoilers."""
    text, acted = "", re.findall(r"(?<!\\)\|\|", sent)
    for token in _MARKDOWN.parse(sent):
        if token.type == "inline":
            for child in token.children or []:
                text += "\n" if child.type in ("softbreak", "hardbreak") else child.content
                acted += [child.type] if child.type not in ("text", "text_special", "softbreak", "hardbreak") else []
            text += "\n"
        elif token.type == "code_block":  # an indented line: shown as it is, but for the indentation
            text += token.content
        elif token.type not in ("paragraph_open", "paragraph_close"):
            acted.append(token.type)
    return Seen(text, acted)


CHANNELS: dict[str, tuple[str, Callable[[Any], list[str]], Callable[[str], Seen]]] = {
    "slack": (
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#c?format=markdown",
        lambda sent: [sent["attachments"][0]["title"], sent["attachments"][0]["text"]],
        _as_slack,
    ),
    "discord": ("discord://1234567890/" + "a" * 68, lambda sent: [sent["content"]], _as_markdown),
    "discord embed": ("discord://1234567890/" + "a" * 68 + "?format=markdown", lambda sent: [sent["content"]], _as_markdown),
    "telegram": ("tgram://123456789:abcdefg_hijklmnop/12315544/", lambda sent: [sent["text"]], _as_telegram),
    "telegram markdown": ("tgram://123456789:abcdefg_hijklmnop/12315544/?format=markdown", lambda sent: [sent["text"]], _as_telegram),
    "teams": (
        "workflows://prod-1.x.logic.azure.com:443/643e69f83c8944438d68119179a10a64/KiK3rDnDwhUSsk5kz7lGGqAC6kjXrwCWmKmnWuO9rVQ/",
        lambda sent: [block["text"] for block in sent["attachments"][0]["content"]["body"] if block["type"] == "TextBlock"],
        _as_markdown,
    ),
    "mattermost": ("mmost://localhost/3ccdd113474722377935511fc85d3dd4", lambda sent: [sent["text"]], _as_markdown),
    "rocket chat": ("rocket://" + "a" * 24 + "/" + "b" * 24 + "@localhost", lambda sent: [sent["text"]], _as_markdown),
    "google chat": ("gchat://workspace/key/token", lambda sent: [sent["text"]], _as_text),
    "opsgenie": ("opsgenie://" + "a" * 36, lambda sent: [sent["description"]], _as_text),
    "webhook": ("json://localhost/", lambda sent: [sent["title"], sent["message"]], _as_text),
    "pagerduty": (
        "pagerduty-events://" + "a" * 32,
        lambda sent: [sent["payload"]["summary"], sent["payload"]["custom_details"]["message"]],
        _as_text,
    ),
}


class _Answer:
    is_success = True
    text, headers = "ok", {"Content-Type": "application/json"}

    def __init__(self, content: bytes, status: int = 200) -> None:
        self.content, self.status_code = content, status

    def json(self) -> Any:
        return {"message": "taken", "ok": True, "channel": "c"}


@contextmanager
def far_side() -> Iterator[list[Any]]:
    """The services: what the HTTP libraries are asked to send."""
    sent: list[Any] = []

    def post(*url: Any, **given: Any) -> _Answer:
        body = given.get("json") or given.get("data")
        sent.append(json.loads(body) if isinstance(body, str | bytes) else body)
        return _Answer(b'{"ok": true, "success": true, "requestId": "r"}', 202 if "opsgenie" in str(url) else 200)

    def slack(*_: Any, **given: Any) -> _Answer:
        post(**given)
        return _Answer(b"ok")

    with (
        mock.patch.object(requests, "post", post),
        mock.patch.object(requests, "request", slack),
        mock.patch.object(httpx, "post", post),
    ):
        yield sent


def shown(text: str) -> str:
    """Without white space, which formats fold, and what nobody sees."""
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))


def message(text: str) -> Message:
    return Message("k", "incident_1", "page", f"[HIGH] {line(text)}", f"{text}\nAcknowledge: mlrunbook incidents ack incident_1", page=True)


@pytest.mark.parametrize("channel", CHANNELS)
@given(hostile=HOSTILE)
@example(hostile="".join(ATTACKS))
@settings(max_examples=40, deadline=None)
def test_a_channel_shows_hostile_text_and_does_nothing_that_it_says(channel: str, hostile: str) -> None:
    address, texts_of, read = CHANNELS[channel]
    with far_side() as sent:
        deliver(message(hostile), address)
    assert sent, "it pages"
    seen = [read(text) for one in sent for text in texts_of(one)]
    assert [act for one in seen for act in one.acted_on] == []
    for one in seen:
        assert not MENTION.findall(one.text)
        assert not MASKED.findall(one.text)
        assert not {c for c in one.text if unicodedata.category(c) == "Cc"} - {"\n", "\r"}
        assert not {"\u202e", "\u200b", "\u2066"} & set(one.text)
    whole = "".join(shown(one.text) for one in seen)
    assert shown(hostile) in whole or len(sent) > 1, "no character is lost, none is added"
    if len(sent) > 1:
        assert set(shown(hostile)) <= set(whole)


def test_a_mail_gets_no_header_from_an_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[bytes] = []

    class Server:
        def __enter__(self) -> Server:
            return self

        def __exit__(self, *_: object) -> None: ...

        def ehlo(self) -> None: ...

        def has_extn(self, _: str) -> bool:
            return False

        def send_message(self, mail: Any) -> dict[str, Any]:
            handed.append(mail.as_bytes(policy=policy.SMTP))
            return {}

    monkeypatch.setattr(smtplib, "SMTP", lambda *_, **__: Server())
    for hostile in ("".join(ATTACKS), *ATTACKS):
        deliver(message(hostile), "smtp://127.0.0.1:2525/?to=oncall@example.com")
        mail = message_from_bytes(handed.pop(), policy=policy.default)
        assert set(mail.keys()) == HEADERS
        assert len(mail.keys()) == len(HEADERS)
        assert mail.get_content_type() == "text/plain"
        assert not set("\x00\x07\x1b\u202e") & set(mail.get_content() + mail["Subject"])


def test_a_mail_address_a_command_and_an_address_of_a_page_can_be_copied() -> None:
    kept = "Ask kim.lee@example.com: https://wiki.example.com/run_book/_search?q=a_b, mlrunbook incidents ack incident_12"
    for address, texts_of, _ in CHANNELS.values():
        with far_side() as sent:
            deliver(message(kept), address)
        assert any(kept in text for one in sent for text in texts_of(one)), address


LINK = f"https://mlrunbook.example.com/incidents/incident_12/approve?plan={'a1' * 6}"


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("told", ["F1 fell", "".join(ATTACKS)[:300]])
def test_the_link_to_the_console_arrives_whole_whatever_stands_around_it(channel: str, told: str) -> None:
    address, texts_of, read = CHANNELS[channel]
    linked = replace(message(told), body=f"{told}\nConsole: {LINK}\n\n{told}", link=LINK)
    with far_side() as sent:
        deliver(linked, address)
    assert any(LINK in read(text).text for one in sent for text in texts_of(one))


@pytest.mark.parametrize("most", [160, 130, 1000])
@pytest.mark.parametrize("told", ["F1 fell", "word " * 300, "a" * 900])
def test_a_text_message_holds_the_link_in_one_piece(most: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that takes so many characters, title included."""
    from apprise.plugins.custom_json import NotifyJSON

    monkeypatch.setattr(NotifyJSON, "body_maxlen", most)
    monkeypatch.setattr(NotifyJSON, "title_maxlen", 0)
    linked = replace(message(told), body=f"{told}\nConsole: {LINK}\n\n{told}", link=LINK)
    with far_side() as sent:
        deliver(linked, "json://127.0.0.1:9/")
    texts = [str(one["message"]) for one in sent]
    assert sum(LINK in text for text in texts) == 1
    assert all(len(text) <= most for text in texts)


@pytest.mark.parametrize("text", ["\n" * 40_000, ":" + "a" * 40_000, ":a " * 13_000, "a@" * 20_000, "&" + "a" * 40_000, "<" * 40_000])
def test_text_that_is_made_to_keep_the_rendering_busy_holds_up_no_page(text: str) -> None:
    begun_s = time.process_time()
    for form in Format:
        rendered(text, form)
    assert time.process_time() - begun_s < 5
