"""What the API server answers, in the errors of the runbook: translated once, with what to do next."""

from __future__ import annotations

import json
from typing import Any

from mlrunbook.adapters.kubernetes.access import Access
from mlrunbook.domain.errors import Invalid, NotFound, Refused, RunbookError, Transient


class Conflict(Transient):
    """409: somebody changed the object since it was read. Read again, then decide again."""


class Unauthenticated(Refused):
    """401: the API server does not know who we are."""


def retry_after_s(error: Any) -> float | None:
    """What a 429 or 503 asks for; None when it names no time in seconds."""
    try:
        return max(float((getattr(error, "headers", None) or {})["Retry-After"]), 0.0)
    except (KeyError, TypeError, ValueError):
        return None


def translated(error: Any, access: Access, what: str, namespace: str) -> RunbookError:
    """`error`: an ApiException of the client, or what urllib3 raises. `what`: the object as kubectl names it (deployment/model-server)."""
    status = getattr(error, "status", None)
    where = f"{what} in namespace {namespace}"
    if not status:  # no answer, or one that broke off
        return Transient(f"the API server gives no answer about {where}: {_short(error)}")
    said = _said(error)
    match status:
        case 401:
            return Unauthenticated(
                f"the API server does not accept our credentials (401: {said}): the token has expired or was revoked. Log in again, or "
                "renew the token of the kubeconfig (KUBECONFIG, MLRUNBOOK_KUBE_CONTEXT); inside a cluster see that the pod's service "
                "account token is mounted"
            )
        case 403:
            return Refused(f"we may not {access.verb} {access.rule_resource} ({where}): the Role lacks {{{access.rule}}}. {said}")
        case 404:
            return NotFound(f"{where} does not exist: see the names under `cluster` in the policy and MLRUNBOOK_KUBE_NAMESPACE. {said}")
        case 409:
            return Conflict(f"{where} was changed by somebody else meanwhile: {said}")
        case 400 | 405 | 413 | 415 | 422:
            return Invalid(f"the API server refuses the change of {where} ({status}): {said}")
    after = retry_after_s(error)
    hint = f", to be tried again after {after:g} s" if after is not None else ""
    if status == 429 or status >= 500:
        return Transient(f"the API server cannot answer about {where} now ({status}{hint}): {said}")
    return Refused(f"the API server answers {status} about {where}: {said}")


def _said(error: Any) -> str:
    """The server's own words: the message of its Status object, and its causes."""
    body: Any = getattr(error, "body", None)
    try:
        status = json.loads(body)
        return str(status["message"])
    except (TypeError, ValueError, KeyError):
        return _short(body or getattr(error, "reason", None) or error)


def _short(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= 300 else text[:299] + "…"
