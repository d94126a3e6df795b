"""A channel in any kind of trouble ends by its deadline and holds up no other; a disk in trouble keeps no page from its address."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlrunbook.adapters.channels import channel_test
from mlrunbook.adapters.channels import notifier as notifier_module
from mlrunbook.adapters.channels.delivery_process import DeliveryProcesses
from mlrunbook.adapters.channels.notifier import LEDGER, ChannelNotifier
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.ports import Message
from tests.waiting import gone, until

KEY = "R0UT1NGKEY0000000000000000000001"
DEADLINE_S = 9.0  # a new delivery process imports for seconds on a busy machine; less than the time-out of a request
PAGE = Message("page:inc-7:lead:page", "inc-7", "page", "[HIGH] F1 fell", "act now", page=True, severity="high")
OK = b'HTTP/1.1 202 Accepted\r\nContent-Length: 20\r\nConnection: close\r\n\r\n{"status":"success"}'


class Service:
    """Answers each connection with `behave(connection, its request)`, and counts the requests it has seen."""

    def __init__(self, behave: Callable[[socket.socket, bytes], None]) -> None:
        self.requests: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        self.behave = behave
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._held.append(connection)
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            request = connection.recv(65536)
            self.requests.append(request)
            self.behave(connection, request)
            connection.close()

    def address(self, scheme: str) -> str:
        match scheme:
            case "pagerduty-events":
                return f"{scheme}://{KEY}?host=127.0.0.1:{self.port}&tls=no"
            case "smtp":
                return f"smtp://127.0.0.1:{self.port}/?to=team@example.com"
            case _:
                return f"json://127.0.0.1:{self.port}/hook"

    def stop(self) -> None:
        self._server.close()
        for connection in self._held:
            connection.close()


def takes(connection: socket.socket, _: bytes) -> None:
    connection.sendall(OK)


DRIP_S = 0.2  # the pace of a channel that would need hours


def never_answers(connection: socket.socket, _: bytes) -> None:
    while connection.recv(4096):  # until the other side goes
        pass


def drips_headers(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 Accepted\r\nX-A: ")
    while True:
        time.sleep(DRIP_S)
        connection.sendall(b"a")


def drips_a_body(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 100000\r\n\r\n")
    while True:
        time.sleep(DRIP_S)
        connection.sendall(b"a")


def answers_without_end(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 202 Accepted\r\n\r\n")
    while True:
        connection.sendall(b"a" * 65536)


def fails(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def hangs_up(connection: socket.socket, _: bytes) -> None:
    connection.close()


def redirects_to_a_sign_in_page(connection: socket.socket, request: bytes) -> None:
    if b"/sign-in" in request.split(b"\r\n")[0]:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
    else:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /sign-in\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start(behave: Callable[[socket.socket, bytes], None]) -> Service:
        services.append(Service(behave))
        return services[-1]

    yield start
    for service in services:
        service.stop()


@pytest.fixture
def processes() -> Iterator[DeliveryProcesses]:
    processes = DeliveryProcesses(page_deadline_s=DEADLINE_S, deadline_s=DEADLINE_S)
    processes.warm()
    yield processes
    processes.close()


TROUBLE = [never_answers, drips_headers, drips_a_body, answers_without_end, fails, hangs_up, redirects_to_a_sign_in_page]


@pytest.mark.parametrize("scheme", ["pagerduty-events", "json"])
def test_a_channel_in_trouble_is_worth_another_try_by_its_deadline_and_another_channel_goes_out_meanwhile(
    tmp_path: Path, serve: Callable[..., Service], processes: DeliveryProcesses, scheme: str
) -> None:
    good = serve(takes)
    addresses = {t.__name__: serve(t).address(scheme) for t in TROUBLE} | {"page": good.address(scheme)}
    notifier = ChannelNotifier(tmp_path, addresses.get, processes)

    def one(channel: str) -> tuple[str, float]:
        began_s = time.monotonic()
        try:
            notifier.send(Message(f"k:{channel}", "inc-7", channel, "s", "b", page=True, severity="high"))
        except Transient:
            return "again", time.monotonic() - began_s
        return "sent", time.monotonic() - began_s

    with ThreadPoolExecutor(len(addresses)) as pool:
        ended = dict(zip(addresses, pool.map(one, addresses), strict=True))
    assert {channel for channel, (how, _) in ended.items() if how == "sent"} == {"page"}
    assert len(good.requests) == 1
    assert max(seconds for _, seconds in ended.values()) < DEADLINE_S + 6


def test_a_mail_server_that_drips_its_greeting_ends_by_the_deadline(
    tmp_path: Path, serve: Callable[..., Service], processes: DeliveryProcesses
) -> None:
    def drips(connection: socket.socket, _: bytes) -> None:
        while True:
            connection.sendall(b"2")
            time.sleep(DRIP_S)

    service = serve(drips)
    with pytest.raises(Transient, match="channel email"):
        ChannelNotifier(tmp_path, lambda _: service.address("smtp"), processes).send(
            Message("k", "inc-7", "email", "s", "b", page=True, severity="high")
        )


def test_acknowledging_at_a_service_that_drips_ends_by_the_deadline(
    tmp_path: Path, serve: Callable[..., Service], processes: DeliveryProcesses
) -> None:
    service = serve(drips_headers)
    with pytest.raises(Transient, match="channel page"):
        ChannelNotifier(tmp_path, lambda _: service.address("pagerduty-events"), processes).settle(PAGE, "resolve")


@pytest.mark.parametrize("scheme", ["pagerduty-events", "json"])
def test_a_test_message_meets_the_deadline_that_a_page_meets(serve: Callable[..., Service], scheme: str) -> None:
    addresses = [serve(behave).address(scheme) for behave in (never_answers, drips_headers, answers_without_end, takes)]
    with channel_test.ChannelTest(deadline_s=DEADLINE_S) as through, ThreadPoolExecutor(len(addresses)) as pool:

        def tried(address: str) -> str:
            try:
                return through.send(channel_test.message("page", asked_by="lee", at=datetime.now(UTC)), address)
            except Refused as error:
                return str(error)

        began_s = time.monotonic()
        *failed, taken = pool.map(tried, addresses)
        assert time.monotonic() - began_s < DEADLINE_S + 6
    assert all(said.startswith("not delivered: ") for said in failed), failed
    assert scheme == "json" or "did not answer in" in failed[0]  # the other's own time-out is shorter than this deadline
    assert not taken.startswith("not delivered")


def test_a_delivery_process_that_is_killed_is_replaced(tmp_path: Path, serve: Callable[..., Service], processes: DeliveryProcesses) -> None:
    good = serve(takes)
    notifier = ChannelNotifier(tmp_path, lambda _: good.address("json"), processes)
    notifier.send(PAGE)
    for process in processes._idle:
        os.kill(process._child.pid, signal.SIGKILL)
        process._child.wait()
    notifier.send(PAGE)
    assert len(good.requests) == 2


def _full(messages: Path) -> Any:
    messages.mkdir()
    (messages / LEDGER).symlink_to("/dev/full")


def _is_a_file(messages: Path) -> Any:
    messages.write_text("")


def _incident_folder_is_a_file(messages: Path) -> Any:
    messages.mkdir()
    (messages / "inc-7").write_text("")


def _is_gone(messages: Path) -> Any:
    messages.symlink_to(messages.parent / "unmounted" / "messages")


def _is_locked_by_another(messages: Path) -> Any:
    messages.mkdir()
    lock = open(messages / ".lock", "w")  # noqa: SIM115
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


@pytest.mark.parametrize("trouble", [_full, _is_a_file, _incident_folder_is_a_file, _is_gone, _is_locked_by_another])
@pytest.mark.parametrize("scheme", ["pagerduty-events", "json"])
def test_a_page_goes_out_once_although_its_file_cannot_be_written(
    tmp_path: Path,
    serve: Callable[..., Service],
    processes: DeliveryProcesses,
    trouble: Callable[[Path], Any],
    scheme: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    held, good = trouble(tmp_path / "messages"), serve(takes)
    ChannelNotifier(tmp_path / "messages", lambda _: good.address(scheme), processes).send(PAGE)
    assert len(good.requests) == 1
    assert "without its file" in caplog.text
    if held:
        held.close()


def test_without_an_address_the_file_is_the_only_way_and_is_tried_again(tmp_path: Path, processes: DeliveryProcesses) -> None:
    messages = tmp_path / "messages"
    messages.write_text("")
    notifier = ChannelNotifier(messages, lambda _: None, processes)
    with pytest.raises(Transient, match="cannot be written"):
        notifier.send(PAGE)
    messages.unlink()
    notifier.send(PAGE)
    assert (messages / LEDGER).exists()


def test_a_folder_that_hangs_holds_each_page_for_seconds_and_no_thread_heaps_up(tmp_path: Path) -> None:
    let_go = threading.Event()
    notifier = ChannelNotifier(tmp_path, lambda _: None)
    began_s = time.monotonic()
    try:
        for _ in range(2):
            assert notifier._beside(lambda: let_go.wait(120)) is None
        assert time.monotonic() - began_s < 2 * notifier_module.DISK_S + 5
        notifier._at_the_disk |= {threading.Thread(target=let_go.wait, args=(60,), daemon=True) for _ in range(2)}
        for thread in notifier._at_the_disk:
            if not thread.ident:
                thread.start()
        began_s = time.monotonic()
        assert notifier._beside(lambda: let_go.wait(120)) is None
        assert time.monotonic() - began_s < 1
    finally:
        let_go.set()


SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202), self.end_headers(), print("taken", flush=True)
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_page_goes_out_when_no_descriptor_is_left(tmp_path: Path, processes: DeliveryProcesses) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout
        port = int(service.stdout.readline())
        notifier = ChannelNotifier(tmp_path, lambda _: f"pagerduty-events://{KEY}?host=127.0.0.1:{port}&tls=no", processes)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            notifier.send(PAGE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert service.stdout.readline() == "taken\n"
        notifier.send(PAGE)
        service.kill()
    assert (tmp_path / LEDGER).read_text().count("\n") == 1, "the file of the second is there again"


def test_a_process_under_way_does_not_outlive_a_gateway_that_was_killed(serve: Callable[..., Service]) -> None:
    service = serve(never_answers)
    code = f"""
import sys
from mlrunbook.adapters.channels.delivery_process import DeliveryProcesses
from mlrunbook.ports import Message
processes = DeliveryProcesses(page_deadline_s=60)
processes.warm()
print(*(p._child.pid for p in processes._idle), flush=True)
processes.deliver(Message("k", "i", "page", "s", "b", page=True), "{service.address("pagerduty-events")}")
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout
        pids = [int(pid) for pid in gateway.stdout.readline().split()]
        until(lambda: bool(service.requests))
        gateway.kill()
    until(lambda: all(gone(pid) for pid in pids))
