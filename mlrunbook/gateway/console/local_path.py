"""Where a person goes after signing in: always a page of ours."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

MAX_CHARS = 2000
_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")  # printable ASCII without spaces and backslashes: browsers read `\` as `/`, and drop tabs
HOME = "/incidents"


def parts_of(address: str) -> SplitResult:
    """Of an address that a request brings along; all empty where it is none.

    >>> parts_of("https://[").netloc, parts_of("https://a.example/b").netloc
    ('', 'a.example')
    """
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def local_path(asked: str) -> str:
    """The path, with its query, when it is one on this host; else the front page.

    >>> local_path("/incidents/incident_5?open=1"), local_path("//evil.example"), local_path("https://evil.example/"), local_path("/login")
    ('/incidents/incident_5?open=1', '/incidents', '/incidents', '/incidents')
    """
    if len(asked) > MAX_CHARS or not _PATH.fullmatch(asked):
        return HOME
    parts = parts_of(asked)
    is_a_door = parts.path in ("/", "/login", "/logout") or parts.path.startswith(("/login/", "/logout/"))
    return HOME if parts.scheme or parts.netloc or is_a_door else asked
