"""What lets senders of alerts in and runs out one day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509

from mlrunbook.base.settings import pem_texts
from mlrunbook.diagnostics.doctor import Ask, Finding, fail, ok, warn

NAME = "Amazon SNS"
SOON = timedelta(days=30)
FIX = "put Amazon's certificate of today into MLRUNBOOK_SNS_CERTIFICATES: docs/how-to/receive-alerts.md"


def sns(ask: Ask, now: datetime | None = None) -> Iterator[Finding]:
    """Whether messages of Amazon SNS are let in by their signature, where a team uses that."""
    path, topics = ask.settings.sns_certificates, ask.policy.intake.sns_topics
    if path is None and not topics:
        return
    if path is None:
        yield warn(NAME, "policy lists topics, and no certificate is set: only a token lets them in", FIX)
        return
    ends = [end for text in pem_texts(path) if (end := _end(text))]
    if not ends:
        yield fail(NAME, f"{path} holds no certificate that can be read: its messages are refused", FIX)
    elif not topics:
        yield warn(NAME, "a certificate is set, and policy lists no topic: its messages are refused", "list them in intake.sns_topics")
    elif (left := max(ends) - (now or datetime.now(UTC))) <= timedelta():
        yield fail(NAME, f"the certificate ran out on {max(ends):%Y-%m-%d}: its messages are refused", FIX)
    elif left < SOON:
        yield warn(NAME, f"the certificate runs out on {max(ends):%Y-%m-%d}", FIX)
    else:
        yield ok(NAME, f"the certificate is valid until {max(ends):%Y-%m-%d}")


def _end(text: str) -> datetime | None:
    try:
        return x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc
    except ValueError:
        return None
