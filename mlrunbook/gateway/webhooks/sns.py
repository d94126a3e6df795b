"""Amazon SNS, the envelope that CloudWatch and others send in: its numbers, and its question whether it may send."""

from __future__ import annotations

from typing import Any

from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.domain.policy.patterns import fits
from mlrunbook.gateway.webhooks.parsing import text, within
from mlrunbook.gateway.webhooks.sns_signature import is_amazon

URL_CHARS = 1_000


def handshake(payload: Any, policy: IntakePolicy) -> str | None:
    """What a person has to look at: SNS asks to be let in, or tells that it no longer sends. We open no address that a message names."""
    kind, url, topic = (text(within(payload, name), URL_CHARS) for name in ("Type", "SubscribeURL", "TopicArn"))
    if kind not in ("SubscriptionConfirmation", "UnsubscribeConfirmation") or not url:
        return None
    if not is_amazon(url):
        return f"a message that looks like one of Amazon SNS asks to open {url}: that is no address of Amazon SNS, so do not"
    listed = any(fits(topic, one) for one in policy.sns_topics)
    unlisted = "" if listed else ", which intake.sns_topics does not list,"
    if kind == "SubscriptionConfirmation":
        return f"Amazon SNS asks to confirm that topic {topic}{unlisted} may send here. If it is yours, open {url}"
    return f"Amazon SNS ended the subscription of topic {topic}{unlisted}: its alerts no longer come. To subscribe again, open {url}"


def message_id(payload: Any) -> str | None:
    """The same when SNS delivers a message again."""
    if text(within(payload, "Type")) != "Notification" or not text(within(payload, "TopicArn")):
        return None
    return text(within(payload, "MessageId")) or None
