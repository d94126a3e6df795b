"""The certificate that a server shows to browsers, with its key. What is wrong with it is one line that says what to do."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from mlrunbook.domain.errors import Invalid

FIELD = "tls_cert"


class _Locked(Exception):
    """The key asks for a password."""


def context(cert: Path, key: Path, *, now: datetime) -> ssl.SSLContext:
    """TLS 1.2 or newer with this certificate. Invalid when a file cannot be read, the two are no pair, or it is not valid now."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    load(made, cert, key, now=now)
    return made


def load(into: ssl.SSLContext, cert: Path, key: Path, *, now: datetime) -> None:
    """Also of a server at work: connections from now on see it. Invalid as `context`; the server then keeps the one it has."""
    chain = _read(cert, "certificate")
    _read(key, "key")
    _check_dates(cert, chain, now)
    try:
        into.load_cert_chain(cert, key, password=_no_password)
    except _Locked:
        raise Invalid(f"the key {key} asks for a password: write one without, as in openssl pkey -in KEY -out NEW", field=FIELD) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            said = f"the key {key} does not belong to the certificate {cert}: take the pair that was made together"
            raise Invalid(said, field=FIELD) from None
        raise Invalid(f"{cert} and {key} are no certificate and key in PEM ({error.reason or error})", field=FIELD) from None


def _no_password() -> str:
    raise _Locked


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"the {what} {path} cannot be read ({error.strerror}): check the path and its permissions", field=FIELD) from None


def _check_dates(path: Path, chain: bytes, now: datetime) -> None:
    from cryptography import x509

    try:
        (first, *_) = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise Invalid(f"{path} holds no certificate in PEM: it begins with -----BEGIN CERTIFICATE-----", field=FIELD) from None
    if first.not_valid_after_utc <= now:
        raise Invalid(f"the certificate {path} expired on {_day(first.not_valid_after_utc)}: renew it", field=FIELD)
    if first.not_valid_before_utc > now:
        said = f"the certificate {path} is valid from {_day(first.not_valid_before_utc)} on: check the clock of this machine"
        raise Invalid(said, field=FIELD)


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
