"""Where an HTTP connection of the policy leads, with the login that stands in its address taken out of it, and whom it trusts."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx

from mlrunbook.domain.errors import Invalid

Login = tuple[str, str] | None


def without_login(variable: str, given: str, example: str) -> tuple[str, Login]:
    """The address without user, password, query and fragment, and the login in it. Invalid, by the variable and without a part of the
    address, where it is none."""
    try:
        url = httpx.URL(given.strip())
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise Invalid(f"{variable} must be an address as {example}")
    login = (url.username, url.password) if url.username else None
    return str(url.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/"), login


def certificates(variable: str, ca_file: str | None) -> ssl.SSLContext | bool:
    """The system's without a `ca_file`. Invalid where that holds none that can be read."""
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(Path(ca_file).expanduser()))
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"ca_file {ca_file} of the connection behind {variable} holds no certificates that can be read: {error}") from error
