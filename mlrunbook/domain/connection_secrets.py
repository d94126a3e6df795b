"""What of a connection's address is secret, so that no message and no log shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, unquote, urlsplit

_SECRET_KEY = re.compile(r"pass|pwd|secret|token|key|credential|sig", re.IGNORECASE)


def secrets_of(address: str, token: str | None = None) -> Sequence[str]:
    """Longest first: one may hold another. As they are written and as they are meant.

    >>> secrets_of("postgresql://reader:hu%20sh@db/lake?sslpassword=quiet&sslmode=require")
    ['hu%20sh', 'hu sh', 'quiet']
    """
    given = address.rpartition("@")[0].partition("://")[2].partition(":")[2]  # also where it holds a / that nobody has written as %2F
    try:
        query = urlsplit(address).query
    except ValueError:
        query = address.partition("?")[2]
    values = [value for pair in query.split("&") if _SECRET_KEY.search(pair.partition("=")[0]) for value in [pair.partition("=")[2]]]
    values += [value for key, value in parse_qsl(query) if _SECRET_KEY.search(key)]
    found = {one for one in (token, given, unquote(given), *values) if one}
    return sorted(found, key=lambda one: (-len(one), one))


def hidden(address: str) -> str:
    """The address with *** for each of them.

    >>> hidden("postgresql://reader:hush@db.example.com/lake?sslpassword=quiet&sslmode=require")
    'postgresql://reader:***@db.example.com/lake?sslpassword=***&sslmode=require'
    >>> hidden("https://t0ken@mlflow.example.com"), hidden("http://mlflow:5000")
    ('https://***@mlflow.example.com', 'http://mlflow:5000')
    """
    head, at, tail = address.rpartition("@")
    scheme, slashes, login = head.partition("://")
    if at and slashes:
        user, colon, _ = login.partition(":")
        login = f"{user}:***" if colon else "***" if scheme in ("http", "https") else login
        address = f"{scheme}://{login}@{tail}"
    before, mark, query = address.partition("?")
    shown = [f"{pair.partition('=')[0]}=***" if _SECRET_KEY.search(pair.partition("=")[0]) else pair for pair in query.split("&")]
    return f"{before}{mark}{'&'.join(shown)}"
