"""Messages reach a real HTTP receiver through apprise and, always, the disk."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlrunbook.adapters.channels.notifier import LEDGER, ChannelNotifier
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.ports import Message

PAGE = Message("page:inc-7:ml_team_lead:page", "inc-7", "page", "[HIGH] Model: F1 fell", "ML Team Lead: act\nnow", page=True)


class Receiver:
    """A chat service on a local port that keeps what it is sent, and can be told to fail."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if outer.status == 200:
                    outer.received.append(body)
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://user:s3cret@127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


def ledger(messages: Path) -> list[dict[str, Any]]:
    file = messages / LEDGER
    return [json.loads(row) for row in file.read_text().splitlines()] if file.exists() else []


def files(messages: Path) -> list[str]:
    return sorted(str(path.relative_to(messages)) for path in messages.rglob("*.md"))


def test_without_an_address_a_message_is_a_file_and_a_line_in_the_ledger(tmp_path: Path) -> None:
    ChannelNotifier(tmp_path, lambda _: None).send(PAGE)
    assert files(tmp_path) == ["inc-7/001-page.inc-7.ml_team_lead.page.md"]
    text = (tmp_path / files(tmp_path)[0]).read_text()
    assert text == "Page to: page\nSubject: [HIGH] Model: F1 fell\n\nML Team Lead: act\nnow\n"
    (row,) = ledger(tmp_path)
    assert row.pop("at").endswith("+00:00")
    assert row == {
        "key": PAGE.key,
        "incident_id": "inc-7",
        "channel": "page",
        "subject": "[HIGH] Model: F1 fell",
        "page": True,
        "delivered_by": "file",
    }


def test_with_an_address_the_receiver_gets_it_and_the_file_is_there_too(tmp_path: Path, receiver: Receiver) -> None:
    ChannelNotifier(tmp_path, {"page": receiver.address}.get).send(PAGE)
    assert [(r["title"], r["message"]) for r in receiver.received] == [("[HIGH] Model: F1 fell", "ML Team Lead: act\nnow")]
    assert len(files(tmp_path)) == 1
    assert [row["delivered_by"] for row in ledger(tmp_path)] == ["apprise"]


def test_a_channel_that_fails_is_worth_another_try_and_the_error_names_it_without_its_address(tmp_path: Path, receiver: Receiver) -> None:
    notifier = ChannelNotifier(tmp_path, {"page": receiver.address}.get)
    receiver.status = 503
    with pytest.raises(Transient, match="channel page did not take") as caught:
        notifier.send(PAGE)
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert len(files(tmp_path)) == 1
    assert ledger(tmp_path) == []

    receiver.status = 200
    notifier.send(PAGE)
    assert len(receiver.received) == len(files(tmp_path)) == len(ledger(tmp_path)) == 1


def test_a_receiver_that_is_gone_is_worth_another_try(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.stop()
    with pytest.raises(Transient, match="channel page"):
        ChannelNotifier(tmp_path, {"page": receiver.address}.get).send(PAGE)


@pytest.mark.parametrize("address", ["garbage s3cret", "nosuch://s3cret", "slack://s3cret"])
def test_an_address_that_is_none_is_refused_by_the_name_of_its_variable(tmp_path: Path, address: str) -> None:
    with pytest.raises(Refused, match="MLRUNBOOK_CHANNEL_PAGE is not an address") as caught:
        ChannelNotifier(tmp_path, lambda _: address).send(PAGE)
    assert "s3cret" not in str(caught.value)
    assert len(files(tmp_path)) == 1


def test_the_same_page_again_is_sent_again_but_filed_once(tmp_path: Path, receiver: Receiver) -> None:
    notifier = ChannelNotifier(tmp_path, {"page": receiver.address}.get)
    notifier.send(PAGE)
    notifier.send(PAGE)
    assert len(receiver.received) == len(ledger(tmp_path)) == 2
    assert len(files(tmp_path)) == 1
    for _ in range(2):
        notifier.send(replace(PAGE, key="update-1", channel="incidents"))
    assert len(ledger(tmp_path)) == 3
    assert len(files(tmp_path)) == 2


def test_a_list_too_long_for_one_message_is_split_and_not_cut(tmp_path: Path, receiver: Receiver) -> None:
    body = "\n".join(f"- WO {n}: asset asset-{n}, created 2026-03-02 09:30 UTC" for n in range(1500))
    ChannelNotifier(tmp_path, {"page": receiver.address}.get).send(replace(PAGE, body=body))
    got = "\n".join(r["message"] for r in receiver.received)
    assert len(receiver.received) > 1
    assert all(f"- WO {n}:" in got for n in range(1500))


def test_alert_text_cannot_ping_a_whole_channel(tmp_path: Path, receiver: Receiver) -> None:
    ChannelNotifier(tmp_path, {"page": receiver.address}.get).send(
        replace(PAGE, subject="x @here\ny", body="<!channel> @everyone a@b.example")
    )
    (got,) = receiver.received
    assert "@here" not in got["title"]
    assert "\n" not in got["title"]
    assert "<!channel>" not in got["message"]
    assert "@everyone" not in got["message"]
    assert "a@b.example" in got["message"]


def test_names_cannot_leave_the_folder_and_two_keys_never_share_a_file(tmp_path: Path) -> None:
    messages = tmp_path / "messages"
    notifier = ChannelNotifier(messages, lambda _: None)
    for key in ("../../x", "..", "a:b", "a.b", "a/b", "::", "", "é", "é\ud800", "k" * 300, "k" * 301):
        notifier.send(replace(PAGE, key=key, incident_id="../../etc"))
    notifier.send(replace(PAGE, incident_id=".."))
    assert len(files(messages)) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["messages"]
    assert len(ledger(messages)) == 12


def test_a_line_cut_short_by_a_crash_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text('{"at": "2026-0')
    ChannelNotifier(tmp_path, lambda _: None).send(PAGE)
    assert [json.loads(row)["key"] for row in (tmp_path / LEDGER).read_text().splitlines()[1:]] == [PAGE.key]


def test_a_crash_between_file_and_ledger_is_made_good_by_the_next_try(tmp_path: Path) -> None:
    notifier = ChannelNotifier(tmp_path, lambda _: None)
    notifier.send(PAGE)
    (tmp_path / LEDGER).unlink()
    notifier.send(PAGE)
    assert len(ledger(tmp_path)) == len(files(tmp_path)) == 1


def _send_many(messages: Path, worker: int) -> None:
    notifier = ChannelNotifier(messages, lambda _: None)
    for n in range(20):
        notifier.send(replace(PAGE, key=f"own-{worker}-{n}"))
        notifier.send(replace(PAGE, key=f"shared-{n}"))


def test_several_processes_write_at_once_without_losing_or_doubling_anything(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_send_many, args=(tmp_path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    keys = [row["key"] for row in ledger(tmp_path)]
    assert len(keys) == len(set(keys)) == len(files(tmp_path)) == 80
    assert sorted(int(name.split("/")[1][:3]) for name in files(tmp_path)) == list(range(1, 81))
    assert not list(tmp_path.rglob("*.new"))
