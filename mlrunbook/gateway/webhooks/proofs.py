"""How the sender of a quarantined message was proven when it was received, and whether that still holds when it is replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from mlrunbook.base import tokens
from mlrunbook.base.settings import sns_certificates, webhook_secrets
from mlrunbook.base.tokens import Identity, Limits, Scope
from mlrunbook.gateway.webhooks.signatures import SNS_HEADER, mark_of
from mlrunbook.store.quarantine import Quarantined


def of(sender: Identity) -> dict[str, Any]:
    """To be kept with the message: nothing of it proves anything to anybody else."""
    return {
        "secret": sender.secret,
        "token": sender.token_id,
        "key": sender.key,
        "scopes": sorted(sender.scopes),
        "senders": list(sender.limits.senders),
        "models": list(sender.limits.models),
    }


def sentence(proof: Mapping[str, Any] | None) -> str:
    """For people: how the sender was proven."""
    if proof and str(proof.get("secret", "")).startswith(SNS_HEADER):
        return "by the signature of Amazon SNS"
    if proof and proof.get("secret"):
        return f"by the secret of its format ({str(proof['secret']).partition('#')[0]})"
    return f"by token {proof['token']}" if proof and proof.get("token") else "not known"


def sender_of(conn: Connection, kept: Quarantined, *, now: datetime, window_s: float) -> Identity:
    """Whose message it counts as. Past the replay window, or once the secret or the token is no longer valid, it is still read, and its
    word proves nothing: it ends no page and changes nothing by itself. Limits to models stay."""
    proof = kept.proof or {}
    limits = Limits(tuple(proof.get("senders", ())), tuple(proof.get("models", ())))
    key = str(proof.get("key", "")) or (kept.sender if proof.get("secret") else tokens.key_of_token(kept.sender))
    unproven = Identity("", kept.sender, None, frozenset(), limits=replace(limits, senders=()), key=key)
    if (now - kept.received_at).total_seconds() > window_s or not _is_valid(conn, kept.source, proof, now):
        return unproven
    scopes = frozenset(map(Scope, proof["scopes"]))
    return Identity(proof["token"], kept.sender, None, scopes, limits=limits, secret=proof["secret"], key=key)


def _is_valid(conn: Connection, source: str, proof: Mapping[str, Any], now: datetime) -> bool:
    if secret := str(proof.get("secret", "")):
        of_today = sns_certificates() if secret.startswith(SNS_HEADER) else webhook_secrets(source)
        return secret.rpartition("#")[2] in map(mark_of, of_today)
    return any(held.id == proof.get("token") for held in tokens.in_force(conn, now=now))
