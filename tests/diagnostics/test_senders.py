"""What lets Amazon SNS in runs out one day, and the doctor says so before it does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from mlrunbook.base.settings import Settings
from mlrunbook.diagnostics.doctor import Ask
from mlrunbook.diagnostics.senders import sns
from mlrunbook.domain.policy.policy import Policy

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def certificate(days: int) -> str:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    dated = made.not_valid_before(NOW - timedelta(days=400)).not_valid_after(NOW + timedelta(days=days))
    return dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def levels(path: Path | None, *topics: str) -> list[str]:
    ask = Ask(Settings(sns_certificates=path), Policy.model_validate({"intake": {"sns_topics": topics}}), "pump")
    return [finding.level.value for finding in sns(ask, NOW)]


def test_who_does_not_use_it_hears_nothing() -> None:
    assert levels(None) == []


def test_half_of_what_it_takes_is_said(tmp_path: Path) -> None:
    (tmp_path / "sns.pem").write_text(certificate(300))
    assert levels(None, "arn:aws:sns:*") == ["warn"]
    assert levels(tmp_path) == ["warn"]


@pytest.mark.parametrize(("days", "level"), [([300], "ok"), ([20], "warn"), ([-1], "fail"), ([-1, 300], "ok"), ([], "fail")])
def test_the_certificate_that_is_valid_longest_counts(tmp_path: Path, days: list[int], level: str) -> None:
    for n, one in enumerate(days):
        (tmp_path / f"{n}.pem").write_text(certificate(one))
    (tmp_path / "other.pem").write_text("no certificate")
    assert levels(tmp_path, "arn:aws:sns:*") == [level]


def test_a_file_alone_will_do_and_one_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "one.crt").write_text(certificate(300))
    assert levels(tmp_path / "one.crt", "arn:aws:sns:*") == ["ok"]
    assert levels(tmp_path / "gone.pem", "arn:aws:sns:*") == ["fail"]
