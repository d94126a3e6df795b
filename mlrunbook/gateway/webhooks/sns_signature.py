"""The signature of Amazon SNS, checked with a certificate of Amazon's (SNS developer guide, "Verifying the signatures of messages").

The certificates are files of ours: none is fetched from the address that a message gives. That address is only shown to a person, and
only where it is one of Amazon SNS.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from mlrunbook.domain.policy.patterns import fits

RETRIED_FOR_S = 3_600.0  # SNS delivers again for up to an hour, with the time of the first try; what comes twice is known by its number
_HOST = re.compile(r"sns\.[a-z0-9-]{2,30}\.amazonaws\.com(\.cn)?")
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
_SIGNED["UnsubscribeConfirmation"] = _SIGNED["SubscriptionConfirmation"]
_HASHES: Mapping[str, hashes.HashAlgorithm] = {"1": hashes.SHA1(), "2": hashes.SHA256()}  # noqa: S303  version 1 is what SNS signs by default


def is_amazon(url: str) -> bool:
    """
    >>> is_amazon("https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription"), is_amazon("https://sns.eu.amazonaws.com@example.com/")
    (True, False)
    """
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and _HOST.fullmatch(parts.netloc) is not None
    except ValueError:
        return False


def check(body: bytes, certificates: Sequence[str], topics: Sequence[str], now: datetime, window_s: float) -> str | None:
    """None when one of the certificates made the signature, for a topic that is heard, and not long ago; else why it proves nothing."""
    message = _message(body)
    if message is None:
        return "it is no message of Amazon SNS"
    if not any(fits(message["TopicArn"], topic) for topic in topics):
        return f"the topic {message['TopicArn'][:200]} is not among intake.sns_topics of the policy"
    if not is_amazon(message["SigningCertURL"]):
        return "its SigningCertURL is no https address of Amazon SNS"
    if late := _late(message["Timestamp"], now, max(window_s, RETRIED_FOR_S)):
        return late
    reasons = [_by(certificate, message, now) for certificate in certificates]
    if None in reasons:
        return None
    return f"{reasons[-1]}; if you trust {message['SigningCertURL'][:300]}, put that certificate beside the others"


def _message(body: bytes) -> dict[str, str] | None:
    """Its texts; all that must be there is."""
    try:
        read: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, dict) or (signed := _SIGNED.get(str(read.get("Type")))) is None:
        return None
    needed = {*signed, "Signature", "SignatureVersion", "SigningCertURL"} - {"Subject"}
    if not all(isinstance(read.get(name), str) for name in needed):
        return None
    return {name: value for name, value in read.items() if isinstance(value, str)}


def _late(stamp: str, now: datetime, window_s: float) -> str | None:
    try:
        sent = datetime.fromisoformat(stamp)
    except ValueError:
        return "its Timestamp cannot be read"
    sent = sent if sent.tzinfo else sent.replace(tzinfo=UTC)
    if abs((now - sent).total_seconds()) > window_s:
        return f"its Timestamp is more than {window_s:g} s away from now: a copy, or a clock that is wrong"
    return None


def _by(certificate: str, message: Mapping[str, str], now: datetime) -> str | None:
    hash_ = _HASHES.get(message["SignatureVersion"])
    if hash_ is None:
        return f"its SignatureVersion {message['SignatureVersion'][:10]!r} is not known"
    try:
        cert = x509.load_pem_x509_certificate(certificate.encode())
        key, signature = cert.public_key(), base64.b64decode(message["Signature"], validate=True)
    except ValueError:
        return "a certificate in MLRUNBOOK_SNS_CERTIFICATES, or the signature, cannot be read"
    if not isinstance(key, rsa.RSAPublicKey):
        return "a certificate in MLRUNBOOK_SNS_CERTIFICATES is not for RSA, which SNS signs with"
    if not cert.not_valid_before_utc <= now <= cert.not_valid_after_utc:
        return f"the certificate in MLRUNBOOK_SNS_CERTIFICATES was valid until {cert.not_valid_after_utc:%Y-%m-%d}"
    try:
        key.verify(signature, text_to_sign(message), padding.PKCS1v15(), hash_)
    except InvalidSignature:
        return "none of the certificates in MLRUNBOOK_SNS_CERTIFICATES made this signature"
    return None


def text_to_sign(message: Mapping[str, str]) -> bytes:
    names = [name for name in _SIGNED[message["Type"]] if name in message]
    return "".join(f"{name}\n{message[name]}\n" for name in names).encode(errors="surrogatepass")
