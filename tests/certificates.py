"""Certificates of a local authority, as a team's own CA would issue them."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM, PKCS8, PLAIN = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


BORN = datetime(2020, 1, 1, tzinfo=UTC)


class Authority:
    """`root` is what a client trusts."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A team's own authority")])
        self.root = folder / "ca.pem"
        bare = x509.BasicConstraints(ca=True, path_length=None)
        self.root.write_bytes(self._signed(self._name, self._key.public_key(), bare, BORN, 36500))

    def issue(self, host: str, *, now: datetime, days: int = 90) -> tuple[Path, Path]:
        """A certificate for `host` and 127.0.0.1, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        cert_file, key_file = self._folder / f"{host}.pem", self._folder / f"{host}.key"
        cert_file.write_bytes(self._signed(subject, key.public_key(), names, now - timedelta(days=1), days + 1))
        key_file.write_bytes(key.private_bytes(PEM, PKCS8, PLAIN))
        return cert_file, key_file

    def locked(self, key_file: Path) -> Path:
        """The same key behind a password."""
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        file = key_file.with_suffix(".locked")
        file.write_bytes(key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret")))
        return file

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, more: x509.ExtensionType, begins: datetime, days: int) -> bytes:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(begins + timedelta(days=days))
        return made.add_extension(more, critical=False).sign(self._key, hashes.SHA256()).public_bytes(PEM)
