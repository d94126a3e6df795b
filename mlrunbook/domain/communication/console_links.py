"""Where the console shows what a message is about. A message keeps the path; the address before it is known when it goes out."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

LABEL = "Console: "
ACTIONS = "/actions"
QUARANTINE = "/quarantine"
SHOWN_DIGEST = 12  # characters of a plan's SHA-256, as on the command line: a link that fits into a text message


def of_incident(incident_id: str) -> str:
    """
    >>> of_incident("incident_5")
    '/incidents/incident_5'
    """
    return f"/incidents/{quote(incident_id, safe='')}"


def of_decision(incident_id: str, digest: str) -> str:
    """Where exactly this plan is approved or rejected. Opening it decides nothing."""
    return f"{of_incident(incident_id)}/approve?plan={quote(digest[:SHOWN_DIGEST], safe='')}"


def of_review(incident_id: str) -> str:
    return f"{of_incident(incident_id)}/review"


def link(address: str | None, path: str) -> str | None:
    """
    >>> link("https://mlrunbook.example.com", "/actions")
    'https://mlrunbook.example.com/actions'
    """
    return f"{address}{path}" if address else None


def with_link(body: str, link: str | None) -> str:
    """At the end of the first paragraph, where a long text cannot push it out of sight."""
    if link is None:
        return body
    first, blank, rest = body.partition("\n\n")
    return f"{first}\n{LABEL}{link}{blank}{rest}"


def address(given: str) -> str:
    """What stands before a path. ValueError, with what is wrong, for anything but http(s)://HOST[:PORT].

    >>> address("https://mlrunbook.example.com/")
    'https://mlrunbook.example.com'
    """
    if not given.isascii() or not given.isprintable() or " " in given:
        raise ValueError("must be plain ASCII without spaces; write another script's host name as xn--...")
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("must be https:// (or http://) and a host, perhaps with a port, as in https://mlrunbook.example.com")
    if "@" in parts.netloc:
        raise ValueError("must hold no user name or password: it stands in every message")
    if given.rstrip("/") != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("must end with its host or port: the console has no path of its own, give it a host name")
    return given.rstrip("/")
