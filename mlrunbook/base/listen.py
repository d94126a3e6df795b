"""Where a server listens besides loopback, and who may be there: TLS of our own, or a proxy in front."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlrunbook.domain.errors import Invalid

TLS_PORT, PLAIN_PORT = 8443, 8091
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - asked for by name


@dataclass(frozen=True)
class Listen:
    """`cert` None: a proxy in front speaks TLS."""

    host: str
    port: int
    cert: Path | None = None
    key: Path | None = None

    @property
    def url(self) -> str | None:
        """Where a browser finds it; None where that depends on the machine's name, or is the proxy's."""
        if self.cert is None or self.host in EVERYWHERE:
            return None
        return f"https://{_joined(self.host, self.port)}"


def gateway_options(public: Listen | None, proxies: Sequence[str]) -> list[str]:
    """As the gateway's own command line takes them."""
    options = ["--behind-proxy", ",".join(proxies)] if proxies else []
    if public:
        options += ["--listen", _joined(public.host, public.port)]
        options += ["--tls-cert", str(public.cert), "--tls-key", str(public.key)] if public.cert else []
    return options


def listen(address: str | None, cert: Path | None, key: Path | None, proxies: Sequence[str]) -> Listen | None:
    """What the options say; None: loopback alone. Invalid, with the option to correct, where they do not fit together."""
    if bool(cert) != bool(key):
        raise Invalid("--tls-cert and --tls-key go together", field="tls_cert")
    if address is None:
        if cert:
            raise Invalid("--tls-cert needs --listen ADDRESS: on loopback the gateway speaks plain HTTP", field="listen")
        return None
    host, port = _parted(address, TLS_PORT if cert else PLAIN_PORT)
    if cert is None and not proxies and not ipaddress.ip_address(host).is_loopback:
        raise Invalid(
            f"{address} is reached from other machines, and tokens would cross the network readable: give --tls-cert and --tls-key, or "
            "--behind-proxy with the address of the proxy that speaks TLS in front",
            field="listen",
        )
    return Listen(host, port, cert, key)


def networks(given: str) -> tuple[str, ...]:
    """
    >>> networks("10.0.0.7, 10.1.0.0/16")
    ('10.0.0.7/32', '10.1.0.0/16')
    """
    named = [one.strip() for one in given.split(",") if one.strip()]
    try:
        return tuple(str(ipaddress.ip_network(one)) for one in named)
    except ValueError as error:
        said = f"--behind-proxy takes addresses or networks by commas, such as 10.0.0.7,10.1.0.0/16: {error}"
        raise Invalid(said, field="behind_proxy") from None


def bound(at: Listen) -> socket.socket:
    """A listening socket. Invalid when the address is not this machine's, or taken."""
    try:
        family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
        return socket.create_server((at.host, at.port), family=family, backlog=128)
    except OSError as error:
        where = _joined(at.host, at.port)
        raise Invalid(f"cannot listen on {where} ({error.strerror or error}): give --listen another address", field="listen") from None


def _parted(address: str, port: int) -> tuple[str, int]:
    """Host and port; colons within brackets belong to an IPv6 address."""
    host, given = address, ""
    if "]:" in address or address.count(":") == 1:
        host, _, given = address.rpartition(":")
        if not given.isdecimal() or not 1 <= int(given) <= 65_535:
            raise Invalid(f"--listen {address}: a port is 1 to 65535", field="listen")
        host, port = host or EVERYWHERE[0], int(given)
    host = host.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        said = f"--listen takes an address of this machine, as in 10.0.0.5, 0.0.0.0:8443 or [::]:8443, not {address}"
        raise Invalid(said, field="listen") from None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
