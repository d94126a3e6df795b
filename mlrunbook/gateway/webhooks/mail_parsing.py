"""Reads a mail, in a process of its own with little time and memory: a mail can be made to keep a parser busy for minutes.

`python -m mlrunbook.gateway.webhooks.mail_parsing < mail` writes what is kept of it, as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import subprocess
import sys
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

from mlrunbook.domain.errors import Transient
from mlrunbook.gateway.text import clean

log = logging.getLogger(__name__)

MODULE = "mlrunbook.gateway.webhooks.mail_parsing"
CPU_S = 2
WALL_S = 10.0
MEMORY_BYTES = 512 << 20
SHOWN_CHARS = 20_000
KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "TZ")  # and so none of our secrets
TOKEN = re.compile(r"mlrb_[0-9a-f]{8}_[A-Za-z0-9_-]{30,60}")
_at_once = threading.BoundedSemaphore(2)


def limited(mail: bytes) -> bytes:
    """What is kept of the mail, as JSON. One that cannot be read within the limits is kept by its beginning, without `text`, so that it is
    quarantined. Transient while others are being read."""
    if not _at_once.acquire(timeout=WALL_S):
        raise Transient("too many mails are being read")
    argv, env = [sys.executable, "-m", MODULE], {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    try:
        done = subprocess.run(argv, input=mail, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, timeout=WALL_S, check=True)
        return done.stdout
    except (subprocess.SubprocessError, OSError) as error:
        log.warning("a mail could not be read in %d s of CPU and %d MiB: %s", CPU_S, MEMORY_BYTES >> 20, type(error).__name__)
        return json.dumps({"unreadable": _shown(mail[:SHOWN_CHARS].decode("latin-1"))}).encode()
    finally:
        _at_once.release()


def as_json(mail: EmailMessage) -> bytes:
    """What is kept of a mail: its text, and no token."""
    content = next((words for kind in ("plain", "html") if (words := _words(mail.get_body((kind,)))).strip()), "")
    fields = {"subject": mail.get("Subject", ""), "from": mail.get("From", ""), "message_id": mail.get("Message-ID", ""), "text": content}
    fields |= {"auto_submitted": mail.get("Auto-Submitted", ""), "test": mail.get("X-Mlrunbook-Test", "")}
    return json.dumps({name: _shown(str(value)) for name, value in fields.items()}).encode()


def _words(part: Any) -> str:
    """Of a body; "" where there is none."""
    if part is None:
        return ""
    try:
        content = part.get_content()
    except (LookupError, ValueError):  # a charset that nobody knows, or that is none
        content = part.get_payload(decode=True).decode("utf-8", "replace")
    if not isinstance(content, str):
        return ""
    return _Text.of(content) if part.get_content_subtype() == "html" else content


def _shown(text: str) -> str:
    return clean(TOKEN.sub("", text).replace("[]", ""), SHOWN_CHARS)


class _Text(HTMLParser):
    """The words of an HTML mail, a line a block."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self._hidden = 0

    @classmethod
    def of(cls, html: str) -> str:
        reader = cls()
        reader.feed(html)
        return "".join(reader.words)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._hidden += tag in ("script", "style")
        if tag in ("br", "p", "div", "tr", "li", "dt", "h1", "h2", "h3"):
            self.words.append("\n")
        begins_line = "".join(self.words[-3:]).strip(" \t\r").endswith("\n")
        if tag in ("td", "th", "dd") and not begins_line:
            self.words.append(": ")  # a label and its value in two columns

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style") and self._hidden > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    os.nice(10)
    mail = message_from_bytes(sys.stdin.buffer.read(), policy=policy.default)
    sys.stdout.buffer.write(as_json(mail))


if __name__ == "__main__":
    main()
