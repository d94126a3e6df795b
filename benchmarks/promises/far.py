"""The far side: everything outside the product, in a process of its own that no kill reaches. It answers, counts, and does the damage.

Each request is a *call* with a name ("platform:POST rollback"); the third of its name is `name#3`. A plan names one call and what befalls
it: the caller is killed before it is carried out or after, the answer is lost after it was carried out, or the part is away from there on.
"""

from __future__ import annotations

import contextlib
import email
import json
import os
import pickle
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.promises import wire
from benchmarks.promises.cluster import Cluster
from mlrunbook.base import json_file
from mlrunbook.domain.errors import RunbookError
from mlrunbook.local.addresses import Ports
from tests import fake_features
from tests.fake_kubernetes import PATH, Answer, FakeKubernetes
from tests.fakes import Clock, FileFeatures, FileTrainer, FileWorld

BEFORE, AFTER, LOST, AWAY = "before", "after", "lost", "away"
KEY = "\nkey of the outbox: "  # the last line of each message, so that the far side knows which one came


class Dropped(Exception):
    """The connection ends without an answer."""


@dataclass(frozen=True)
class Plan:
    """What befalls the call `name#nth`; `part` and `seconds`: who is away from then on, and how long by the world's clock."""

    name: str = ""
    nth: int = 0
    what: str = ""
    part: str = ""
    seconds: float = 0.0

    @property
    def text(self) -> str:
        away = f":{self.part}:{self.seconds:g}s" if self.part else ""
        return f"{self.name}#{self.nth}:{self.what}{away}"

    @classmethod
    def parsed(cls, text: str) -> Plan:
        """Of `text`. ValueError when it is none."""
        name, _, rest = text.rpartition("#")
        nth, what, *away = rest.split(":")
        return cls(name, int(nth), what, *([away[0], float(away[1].removesuffix("s"))] if away else []))


class HeldWorld(FileWorld):
    """A `FileWorld` whose file is this process's memory."""

    def __init__(self, path: Path, now: Callable[[], datetime], *, forgetful: bool = False) -> None:
        self._held: dict[str, Any] = {}
        self._forgetful = forgetful
        super().__init__(path, now)
        self._held = json_file.read(path)

    @property
    def state(self) -> dict[str, Any]:
        return self._held

    def set(self, **changes: Any) -> None:
        self._held = self._held | changes

    def rollback(self, model: str, **given: Any) -> Any:
        """A planted defect of a platform: it knows no keys, and counts each request as a deployment of its own."""
        if self._forgetful and self.state["serving"] == given["target_version"]:
            self._apply("rollback", {})
        return super().rollback(model, **given)


@dataclass
class Prefect:
    """Runs by id; what a worker would take up is SCHEDULED."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match path.strip("/").split("/"):
            case ["deployments", "name", name, _]:
                return 200, {"id": name}
            case ["deployments", name, "create_flow_run"]:
                run_id = self.keys.setdefault(body["idempotency_key"], f"run-{len(self.keys) + 1}")
                self.runs.setdefault(run_id, {"id": run_id, "state_type": "SCHEDULED", "deployment": name, **body["parameters"]})
                return 201, self.runs[run_id]
            case ["flow_runs", run_id, "resume"] if run_id in self.runs:
                run = self.runs[run_id]
                if run["state_type"] != "PAUSED":
                    return 200, {"status": "REJECT", "details": {"reason": "it is not paused"}}
                run["state_type"] = "SCHEDULED"
                return 201, {"status": "ACCEPT"}
            case ["flow_runs", run_id] if run_id in self.runs:
                return 200, self.runs[run_id]
        return 404, {"detail": "not found"}

    def take(self, incident_id: str | None = None) -> dict[str, Any] | None:
        waiting = (r for r in self.runs.values() if r["state_type"] == "SCHEDULED")
        run = next((r for r in waiting if incident_id in (None, r["incident_id"])), None)
        if run:
            run["state_type"] = "RUNNING"
        return run


class MachineClock(Clock):
    """Moves by itself; nobody sets it."""

    at = property(lambda self: datetime.now(UTC), lambda self, value: None)  # type: ignore[assignment]


class FarSide:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.cluster = Cluster(FakeKubernetes(), lambda: self.world)
        self.world: FileWorld = None  # type: ignore[assignment] # from the first reset on
        self.clear()

    def clear(self) -> None:
        self.clock, self.plan, self.client, self.done, self.repaired = Clock(), Plan(), 0, False, False
        self.prefect, self.counts = Prefect(), Counter[str]()
        self.calls: list[tuple[str, int, bool]] = []
        self.received: list[dict[str, Any]] = []
        self.away: dict[str, datetime] = {}
        self.accepted: list[str] = []
        self.broken = ""

    # -- calls

    def call(self, name: str, act: Callable[[], Any], *, writes: bool) -> Any:
        """Carry it out, and do what the plan says to the caller."""
        with self.lock:
            if self._is_away(name):
                raise Dropped
            self.counts[name] += 1
            self.calls.append((name, self.counts[name], writes))
            hit = (name, self.counts[name]) == (self.plan.name, self.plan.nth) and not self.done
            self.done = self.done or hit
            if hit and self.plan.what == AWAY:
                self._go_away()
                if self._is_away(name):
                    raise Dropped
            if hit and self.plan.what == BEFORE:
                self._kill()
            answer = act()
            if hit and self.plan.what == AFTER:
                self._kill()
            if hit and self.plan.what == LOST:
                raise Dropped
            return answer

    def point(self, name: str, phase: str) -> bool:
        """A transaction of the store, told by the caller: whether the store answers."""
        with self.lock:
            if phase == BEFORE:
                self.counts[name] += 1
                self.calls.append((name, self.counts[name], True))
            hit = (name, self.counts[name], phase) == (self.plan.name, self.plan.nth, self.plan.what)
            if hit:
                self.done = True
                self._kill()
            return True

    def _kill(self) -> None:
        os.kill(self.client, signal.SIGKILL)
        raise Dropped

    def _is_away(self, name: str) -> bool:
        return any(name.startswith(part) and self.clock.at < until for part, until in self.away.items())

    def _go_away(self) -> None:
        self.away[self.plan.part] = self.clock.at + timedelta(seconds=self.plan.seconds)
        if self.plan.part == "model server":
            self.world.set(hung=True)

    def pass_time(self, at: str) -> None:
        self.clock.at = max(self.clock.at, datetime.fromisoformat(at))
        until = self.away.get("model server")
        if until is not None and self.clock.at >= until:
            del self.away["model server"]
            self.world.set(hung=False)

    # -- the parts

    def http(self, method: str, path: str, headers: Any, raw: bytes) -> tuple[int, Any]:
        part, _, rest = path.lstrip("/").partition("/")
        rest = f"/{rest}"
        if part == "_":
            return 200, self._control(rest.strip("/"), json.loads(raw) if raw else {})
        if part == "rpc":
            return 200, self._rpc(rest, raw)
        if part == "hook":
            return 200, self._message(rest.strip("/"), raw.decode())
        if part == "v2":
            return 202, self._event(json.loads(raw))
        return self._part(part, method, rest, headers, json.loads(raw) if raw else None)

    def _part(self, part: str, method: str, rest: str, headers: Any, body: Any) -> tuple[int, Any]:
        if part == "platform":
            name = f"platform:{wire.operation(method, rest)}"
            return self.call(name, lambda: wire.answer(self.world, method, rest, headers, body), writes=method != "GET")
        if part == "prefect":
            at = urlsplit(rest).path
            name = f"prefect:{method} {at.rsplit('/', 1)[-1] if method == 'POST' else at.strip('/').split('/')[0]}"
            return self.call(name, lambda: self.prefect.answer(method, at, body), writes=method != "GET")
        if part != "cluster":
            return 404, {"detail": "there is no such part"}
        if headers.get("Authorization") == "Bearer admin":
            return self._cluster(method, rest, headers, body)
        resource = _resource(rest)
        dry = "dry run of " if "dryRun" in rest else ""
        act = lambda: self._cluster(method, rest, headers, body)  # noqa: E731
        return self.call(f"cluster:{dry}{method} {resource}", act, writes=method != "GET" and not dry)

    def _cluster(self, method: str, rest: str, headers: Any, body: Any) -> tuple[int, Any]:
        with self.lock:
            try:
                return 200, (self.cluster.fake if self.world is None else self.cluster).handle(method, rest, headers, body)
            except Answer as error:
                status = {"kind": "Status", "status": "Failure", "reason": error.reason, "message": error.message, "code": error.code}
                return error.code, status

    def _rpc(self, where: str, raw: bytes) -> bytes:
        """A port whose adapter is a library, not a protocol: its method is called here."""
        _, port, method = where.split("/")
        args, kwargs = pickle.loads(raw)  # noqa: S301 - of our own child

        def act() -> bytes:
            target: Any = FileFeatures(self.world) if port == "features" else FileTrainer(self.world)
            extra: dict[str, Any] = {}
            if method == "materialize":
                extra = {"progress": lambda *_: None}
            elif method == "train":
                extra = {"log": lambda _: None, "alive": lambda: True}
            try:
                return pickle.dumps((True, getattr(target, method)(*args, **kwargs, **extra)))
            except RunbookError as error:
                return pickle.dumps((False, error))

        return bytes(self.call(f"{port}:{method}", act, writes=method in ("materialize", "train")))

    def _event(self, event: Any) -> Any:
        channel = str(event["routing_key"]).rstrip("0")
        text = event.get("payload", {}).get("custom_details", {}).get("message", "")
        return self._message(channel, text, action=event["event_action"])

    def _message(self, channel: str, text: str, action: str = "trigger") -> Any:
        key = text.rpartition(KEY.strip())[2].strip().split("\\n")[0].split('"')[0].strip()

        def act() -> Any:
            if action == "trigger":
                self.received.append({"channel": channel, "key": key})
            return {"status": "success", "message": "Event processed"}

        return self.call(f"channel {channel}:{action}", act, writes=True)

    # -- the test's hand

    def _control(self, what: str, given: dict[str, Any]) -> Any:
        with self.lock:
            return getattr(self, f"do_{what}")(**given)

    def do_seeding(self, now: str) -> None:
        self.cluster.fake.now = now

    def do_seeded(self) -> None:
        self.cluster.keep_as_seed()

    def do_reset(self, path: str, now: str, plan: dict[str, Any], *, bad_rollout: bool, forgetful: bool, real_time: bool) -> None:
        self.clear()
        self.clock = MachineClock() if real_time else self.clock
        self.clock.at, self.plan = datetime.fromisoformat(now), Plan(**plan)
        self.world = HeldWorld(Path(path), self.clock, forgetful=forgetful)
        self.cluster.reset(bad_rollout=bad_rollout)

    def do_client(self, pid: int, now: str) -> None:
        """A new process: what the one before had under way, Prefect finds crashed only when somebody asks."""
        self.client = pid
        self.pass_time(now)

    def do_now(self, at: str) -> None:
        self.pass_time(at)

    def do_point(self, name: str, phase: str) -> bool:
        try:
            return self.point(name, phase)
        except Dropped:
            return False

    def do_transaction(self) -> bool:
        """For outages of the store: a call of its own, that may be the one from which it is away."""
        try:
            return bool(self.call("store:transaction", lambda: True, writes=False))
        except Dropped:
            return False

    def do_take(self, incident_id: str | None = None) -> dict[str, Any] | None:
        return None if self._is_away("prefect") else self.prefect.take(incident_id)

    def do_repair(self) -> None:
        """As people do it, past the runbook: not counted."""
        config = self.world.state["config"] | {"threshold": 0.5}
        self.world.set(bad_versions={}, hung=False, features=fake_features.START, config=config, loaded_threshold=0.5, slipped_until=None)
        self.repaired = True

    def do_registered(self, models: list[str]) -> None:
        self.world.registered = models

    def do_state(self, run_id: str, state: str) -> None:
        self.prefect.runs[run_id]["state_type"] = state

    def do_accepted(self, incident: str) -> None:
        self.accepted.append(incident)

    def do_seen(self) -> dict[str, Any]:
        return {
            "applied": self.world.applied,
            "received": self.received,
            "calls": self.calls,
            "accepted": self.accepted,
            "done": self.done,
            "repaired": self.repaired,
            "state": {k: self.world.state[k] for k in ("serving", "route", "replicas", "isolated", "config", "hung")},
            "now": self.clock.at.isoformat(),
            "broken": self.broken,
        }


def _resource(url: str) -> str:
    """What of a cluster is asked for; a subresource stands for itself: "pods", "log"."""
    found = PATH.fullmatch(urlsplit(url).path)
    return (found["sub"] or found["res"]) if found else "discovery"


def _serve(far: FarSide, ready: Any) -> None:
    from aiosmtpd.controller import Controller

    class Handler(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            if len(raw) < length:  # its sender was killed in the middle of the request: nothing has arrived
                self.close_connection = True
                return
            try:
                code, content = far.http(self.command, self.path, self.headers, raw)
            except Dropped:
                self.close_connection = True
                return
            except Exception:
                far.broken = traceback.format_exc()  # the harness itself is wrong: what follows says nothing of the product
                code, content = 500, {"detail": "the far side failed"}
            body = content if isinstance(content, bytes) else (content if isinstance(content, str) else wire.as_json(content)).encode()
            kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
            head = f"HTTP/1.1 {code} -\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            with contextlib.suppress(OSError):
                self.wfile.write(head.encode() + body)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _answer

        def log_message(self, *args: Any) -> None:
            return

    class Mail:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            mail = email.message_from_bytes(envelope.content)
            text = str(mail.get_payload(decode=True).decode())  # type: ignore[union-attr]
            try:
                far._message(str(envelope.rcpt_tos[0]).partition("@")[0], text)
            except Dropped:
                server.transport.abort()
                return ""
            return "250 OK"

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), OSError):
                super().handle_error(request, client_address)

    server = Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    mailbox = Controller(Mail(), hostname="127.0.0.1", port=Ports.free().gateway)  # it cannot find its own port when that is 0
    mailbox.start()
    ready.send((server.server_address[1], mailbox.server.sockets[0].getsockname()[1]))
    server.serve_forever(poll_interval=0.05)


def _main(ready: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(FarSide(), ready)


@dataclass
class Far:
    """The far side as the test and its children reach it. Threads have a connection each."""

    port: int
    mail_port: int
    _local: threading.local = field(default_factory=threading.local, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> None:
        """Anew, after a fork: two processes must not share a connection."""
        self._local = threading.local()

    def ask(self, what: str, **given: Any) -> Any:
        if (http := getattr(self._local, "http", None)) is None:
            http = self._local.http = HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        http.request("POST", f"/_/{what}", json.dumps(given))
        answer = http.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return json.loads(body)

    def reset(self, path: Path, now: datetime, plan: Plan, *, bad_rollout: bool, forgetful: bool = False, real_time: bool = False) -> None:
        """`real_time`: the far side's clock is the machine's from here on, as a served gateway's is."""
        about = {"bad_rollout": bad_rollout, "forgetful": forgetful, "real_time": real_time}
        self.ask("reset", path=str(path), now=now.isoformat(), plan=asdict(plan), **about)

    def seen(self) -> dict[str, Any]:
        return dict(self.ask("seen"))


@contextmanager
def far_side() -> Iterator[Far]:
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Far(*ours.recv())
    finally:
        process.kill()
        process.join()
