"""The addresses of the embedded stack's parts: which ports, whether they are free, whether a part answers there, where it is written."""

from __future__ import annotations

import contextlib
import shlex
import socket
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import httpx
import psutil

from mlrunbook.domain.errors import Invalid

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    prefect: int = 4200
    platform: int = 8070
    model_server: int = 8080
    gateway: int = 8090
    feature_server: int = 6566

    @classmethod
    def free(cls) -> Ports:
        """Ports nobody uses now, for tests and benchmarks."""
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in fields(cls)]
            for one in sockets:
                one.bind((HOST, 0))
            return cls(*(one.getsockname()[1] for one in sockets))


def running_env(data_dir: Path) -> dict[str, str]:
    """The settings of the stack that runs on `data_dir`, from its `env` file; empty when none runs."""
    try:
        lines = (data_dir.expanduser() / "env").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {key: "".join(shlex.split(value)) for key, _, value in (line.partition("=") for line in lines)}


def answers(url: str, *, auth: tuple[str, str] | None = None) -> Callable[[], bool]:
    """A health check: does a GET of `url` answer 2xx?"""
    http = httpx.Client(auth=auth, timeout=2.0, trust_env=False)  # one for all polls: making one loads every CA certificate

    def ask() -> bool:
        try:
            return http.get(url).is_success
        except httpx.HTTPError:
            return False

    return ask


def check_ports(ports: Ports, parts: frozenset[str]) -> None:
    """Invalid, naming port, holder and option, unless every port that `parts` need is free."""
    seen: dict[int, str] = {}
    for field in fields(ports):
        name, port = field.name.replace("_", "-"), getattr(ports, field.name)
        if name not in parts:
            continue
        if port in seen:
            raise Invalid(f"port {port} is given to both {seen[port]} and {name}; pass another --{name}-port", field=field.name)
        seen[port] = name
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise Invalid(
                    f"port {port} ({name}) is taken by {_holder(port)}; stop it or pass --{name}-port", field=field.name
                ) from error


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "a process of another user"
