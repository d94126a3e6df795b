"""How senders prove who they are, other than by a token of ours. All comparisons take constant time.

A check gets the header (names in small letters), the raw body, the secrets that are valid now (two while one is being replaced), the
time and the replay window. It returns None when the message is proven, else the sentence that says why not. It is asked only where its
header is there. Sources: the senders' own documents, named at each check; Slack's and GitHub's schemes are offered for a team's own sender.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from mlrunbook.gateway.webhooks import sns_signature

SNS_HEADER = "x-amz-sns-message-type"
TOKEN_HEADER = "x-mlir-token"  # noqa: S105  for senders that sign nothing but can set a header


@dataclass(frozen=True)
class Signed:
    """What a check looks at."""

    headers: Mapping[str, str]
    body: bytes
    secrets: Sequence[str]
    now: datetime
    window_s: float
    certificates: Sequence[str] = ()  # of Amazon SNS, as PEM
    sns_topics: Sequence[str] = ()  # patterns of those that are heard on its signature


Check = Callable[[Signed], str | None]


def pagerduty(m: Signed) -> str | None:
    """`v1=<hex>[,v1=<hex>]`, HMAC-SHA256 of the body (PagerDuty developer docs, "Verifying Webhook Signatures")."""
    given = [part.strip().removeprefix("v1=") for part in m.headers["x-pagerduty-signature"].split(",") if part.strip().startswith("v1=")]
    return _any(given, (_hex(secret, m.body) for secret in m.secrets))


def grafana(m: Signed) -> str | None:
    """Bare hex of the body, or of `time:body` where a timestamp header is configured (grafana/alerting http/hmac.go)."""
    stamp = m.headers.get("x-grafana-alerting-timestamp")
    if stamp is not None and (stale := _stale(stamp, m)):
        return stale
    signed = m.body if stamp is None else f"{stamp}:".encode() + m.body
    return _any([m.headers["x-grafana-alerting-signature"]], (_hex(secret, signed) for secret in m.secrets))


def github(m: Signed) -> str | None:
    """`sha256=<hex>` of the body (GitHub docs, "Validating webhook deliveries"). No protection against replay of its own."""
    return _any([m.headers["x-hub-signature-256"].removeprefix("sha256=")], (_hex(secret, m.body) for secret in m.secrets))


def sentry(m: Signed) -> str | None:
    """Bare hex of the body, by the integration's client secret (docs.sentry.io, integration platform webhooks)."""
    return _any([m.headers["sentry-hook-signature"]], (_hex(secret, m.body) for secret in m.secrets))


def slack(m: Signed) -> str | None:
    """`v0=<hex>` of `v0:time:body` (slack_sdk/signature): like GitHub's, but a copy is worth nothing after the replay window."""
    stamp = m.headers.get("x-slack-request-timestamp", "")
    if stale := _stale(stamp, m):
        return stale
    signed = f"v0:{stamp}:".encode() + m.body
    return _any([m.headers["x-slack-signature"].removeprefix("v0=")], (_hex(secret, signed) for secret in m.secrets))


def mlflow(m: Signed) -> str | None:
    """`v1,<base64>` of `delivery.time.body`; older versions sign `sha256=<hex>` of the body (mlflow/webhooks/delivery.py)."""
    given = m.headers["x-mlflow-signature"]
    if given.startswith("sha256="):
        return _any([given.removeprefix("sha256=")], (_hex(secret, m.body) for secret in m.secrets))
    stamp = m.headers.get("x-mlflow-timestamp", "")
    if stale := _stale(stamp, m):
        return stale
    signed = f"{m.headers.get('x-mlflow-delivery-id', '')}.{stamp}.".encode() + m.body
    made = (base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode() for secret in m.secrets)
    return _any([given.removeprefix("v1,")], made)


def shared_header(m: Signed) -> str | None:
    """The secret itself in `X-MLIR-Token`: for senders that sign nothing (Opsgenie, Datadog). Over TLS only."""
    return _any([m.headers[TOKEN_HEADER]], m.secrets)


def authorization(m: Signed) -> str | None:
    """The secret as a bearer token or, written `user:password`, as HTTP basic."""
    kind, _, given = m.headers["authorization"].partition(" ")
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given.strip(), validate=True).decode()
        except ValueError:
            return "the HTTP basic credentials cannot be read"
    return _any([given.strip()], m.secrets)


SIGNATURES: dict[str, Check] = {
    SNS_HEADER: lambda m: sns_signature.check(m.body, m.certificates, m.sns_topics, m.now, m.window_s),
    "x-pagerduty-signature": pagerduty,
    "x-grafana-alerting-signature": grafana,
    "x-hub-signature-256": github,
    "x-slack-signature": slack,
    "sentry-hook-signature": sentry,
    "x-mlflow-signature": mlflow,
    TOKEN_HEADER: shared_header,
    "authorization": authorization,
}
SPELLED = {
    "x-pagerduty-signature": "X-PagerDuty-Signature",
    "x-grafana-alerting-signature": "X-Grafana-Alerting-Signature",
    "x-hub-signature-256": "X-Hub-Signature-256",
    "x-slack-signature": "X-Slack-Signature",
    "x-mlflow-signature": "X-MLflow-Signature",
    "sentry-hook-signature": "Sentry-Hook-Signature",
    TOKEN_HEADER: "X-MLIR-Token",
}
IN_THE_CLEAR = (TOKEN_HEADER, "authorization")  # the others are made over the body
# Which proofs a format knows, by the header they are in. What signs is not let in by its secret in the clear.
OF_FORMAT = {
    "alertmanager": ("authorization",),
    "grafana": ("x-grafana-alerting-signature",),
    "pagerduty": ("x-pagerduty-signature",),
    "mlflow": ("x-mlflow-signature",),
    "generic": ("x-hub-signature-256", "x-slack-signature", "sentry-hook-signature", SNS_HEADER),
    "opsgenie": (TOKEN_HEADER, "authorization"),
    "datadog": (TOKEN_HEADER, "authorization"),
    "cloudevents": ("authorization",),
}


def takes(format_name: str, variable: str) -> str:
    """How its sender proves itself, for whoever could not. `variable` holds the secret."""
    known = OF_FORMAT.get(format_name, ())
    names = " or ".join(SPELLED[header] for header in known if header in SPELLED)
    ways = [f"{names} made with the secret {variable}"] * bool(names)
    ways += ["the signature of Amazon SNS (X-Amz-Sns-Message-Type, with MLRUNBOOK_SNS_CERTIFICATES)"] * (SNS_HEADER in known)
    return f"/webhooks/{format_name} takes {', or '.join([*ways, 'Authorization: Bearer <token of scope alerts>'])}"


def proofs_of(format_name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The format's proofs that the headers hold whole, and those that need the body too."""
    names = OF_FORMAT.get(format_name, ())
    return tuple(n for n in names if n in IN_THE_CLEAR), tuple(n for n in names if n not in IN_THE_CLEAR)


def prove(names: Sequence[str], m: Signed) -> str | None:
    """None when one of the proofs (by its header) proves that the message comes from who knows a secret; else why none does."""
    present = [header for header in names if header in m.headers]
    usable = [header for header in present if keys(header, m)]
    if not usable:
        if present == [SNS_HEADER]:
            return "MLRUNBOOK_SNS_CERTIFICATES names no certificate of Amazon SNS that can be read"
        return "it proves nothing" if m.secrets else "no secret is set for its format"
    said = [SIGNATURES[header](m) for header in usable]
    return None if None in said else said[0]


def proving(names: Sequence[str], m: Signed) -> str:
    """Which proof and which key: "x-pagerduty-signature#1f2e". The last part tells secrets of one format apart, and nothing of them."""
    for name in names:
        for key in keys(name, m) if name in m.headers else ():
            alone = replace(m, certificates=[key]) if name == SNS_HEADER else replace(m, secrets=[key])
            if SIGNATURES[name](alone) is None:
                return f"{name}#{mark_of(key)}"
    return ""


def keys(header: str, m: Signed) -> Sequence[str]:
    """What the proof in this header is checked with: a certificate is public, so it must never pass for a secret."""
    return m.certificates if header == SNS_HEADER else m.secrets


def needed(header: str, variable: str) -> str:
    """What the proof in this header takes: a part of a sentence for whoever sets up the sender."""
    if header == SNS_HEADER:
        return "MLRUNBOOK_SNS_CERTIFICATES must hold the certificate of Amazon SNS, and intake.sns_topics the topic"
    return f"{variable} must be the sender's secret"


def mark_of(secret: str) -> str:
    return hashlib.sha256(b"mlrunbook webhook secret" + secret.encode()).hexdigest()[:4]


def _hex(secret: str, message: bytes) -> str:
    return hmac.digest(secret.encode(), message, hashlib.sha256).hex()


def _any(given: Sequence[str], expected: Iterable[str]) -> str | None:
    """Compares all with all, so that the time says nothing about which one fitted."""
    wanted = [value.encode() for value in expected]
    fits = [hmac.compare_digest(one.encode(errors="replace"), other) for one in given for other in wanted]
    return None if any(fits) else "the signature or token fits none of the secrets"


def _stale(stamp: str, m: Signed) -> str | None:
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
        return "the signature needs a timestamp in seconds"
    if abs(m.now.timestamp() - int(stamp)) > m.window_s:
        return f"the timestamp is more than {m.window_s:g} s away from now: a copy, or a clock that is wrong"
    return None
