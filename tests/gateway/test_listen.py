"""`--listen`: who can be reached there, and which certificates are taken."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlrunbook.base import certificate, listen
from mlrunbook.domain.errors import Invalid
from tests.certificates import Authority

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("10.0.0.5", "10.0.0.5", 8443),
        ("0.0.0.0:9443", "0.0.0.0", 9443),
        (":9443", "0.0.0.0", 9443),
        ("[::]:9443", "::", 9443),
        ("::1", "::1", 8443),
        ("[2001:db8::1]", "2001:db8::1", 8443),
    ],
)
def test_an_address_with_a_certificate_is_listened_on(address: str, host: str, port: int) -> None:
    made = listen.listen(address, Path("c"), Path("k"), ())
    assert made is not None
    assert (made.host, made.port) == (host, port)
    flag, told, *_ = listen.gateway_options(made, ())
    assert flag == "--listen"
    assert listen.listen(told, Path("c"), Path("k"), ()) == made, "the gateway's process reads it as `up` has"


@pytest.mark.parametrize("address", ["example.com", "10.0.0.5:0", "10.0.0.5:x", "10.0.0.5:99999", "10.0.0", "", "1:2:3"])
def test_what_is_no_address_of_a_machine_is_refused(address: str) -> None:
    with pytest.raises(Invalid, match="--listen"):
        listen.listen(address, Path("c"), Path("k"), ())


def test_other_machines_are_served_over_tls_or_by_a_proxy_and_not_otherwise() -> None:
    with pytest.raises(Invalid, match="--tls-cert and --tls-key, or --behind-proxy"):
        listen.listen("10.0.0.5", None, None, ())
    assert listen.listen("10.0.0.5", None, None, listen.networks("10.0.0.7")) is not None
    assert listen.listen("127.0.0.1", None, None, ()) is not None
    assert listen.listen(None, None, None, ()) is None
    for cert, key in ((Path("c"), None), (None, Path("k"))):
        with pytest.raises(Invalid, match="go together"):
            listen.listen("10.0.0.5", cert, key, ())
    with pytest.raises(Invalid, match="--listen"):
        listen.listen(None, Path("c"), Path("k"), ())
    with pytest.raises(Invalid, match="--behind-proxy"):
        listen.networks("nginx")


def test_a_certificate_with_its_key_is_taken(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("mlrunbook.example.com", now=NOW)
    certificate.context(cert, key, now=NOW)


def test_what_is_wrong_with_a_certificate_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("mlrunbook.example.com", now=NOW)
    other, other_key = authority.issue("other.example.com", now=NOW)
    locked = authority.locked(key)
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    later = NOW + timedelta(days=365)
    for given, given_key, now, said in (
        (tmp_path / "missing.pem", key, NOW, r"missing\.pem cannot be read \(No such file"),
        (cert, tmp_path / "missing.key", NOW, r"missing\.key cannot be read"),
        (cert, other_key, NOW, "does not belong to the certificate"),
        (cert, key, later, "expired on 2026-05-30"),
        (cert, key, NOW - timedelta(days=2), "valid from"),
        (text, key, NOW, "no certificate in PEM"),
        (cert, text, NOW, "no certificate and key in PEM"),
        (cert, locked, NOW, "asks for a password"),
    ):
        with pytest.raises(Invalid, match=said) as refused:
            certificate.context(given, given_key, now=now)
        assert "\n" not in str(refused.value)
    assert other.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_key_that_we_may_not_read_is_named(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).issue("mlrunbook.example.com", now=NOW)
    key.chmod(0)
    with pytest.raises(Invalid, match="Permission denied"):
        certificate.context(cert, key, now=NOW)
