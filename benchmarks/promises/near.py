"""The product in a process that may be killed: the shipped flows on the plain engine and the shipped dispatcher, over the shipped adapters.

The platform, the cluster, Prefect and the channels are spoken to over HTTP and SMTP; Feast and the training command are libraries and
processes of one machine, so there the port's own methods go to the far side.
"""

from __future__ import annotations

import pickle
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection, Engine, create_engine, event

from benchmarks.promises.far import AFTER, BEFORE, KEY, Far
from benchmarks.promises.stories import Story
from flows.incident import respond
from mlrunbook import bootstrap
from mlrunbook.adapters.channels import pagerduty
from mlrunbook.adapters.channels.delivery import Delivery, deliver
from mlrunbook.adapters.channels.notifier import ChannelNotifier
from mlrunbook.adapters.kubernetes.cluster import Cluster, login
from mlrunbook.adapters.kubernetes.runtime import KubernetesRuntime
from mlrunbook.adapters.model_platform import HttpPlatform
from mlrunbook.adapters.prefect.api import PrefectApi
from mlrunbook.base import db
from mlrunbook.domain.errors import RunbookError, Transient
from mlrunbook.domain.policy.cluster import ClusterPolicy
from mlrunbook.domain.policy.policy import Policy, Retraining
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.ports import Message
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, outbox
from tests.fakes import MODEL, Clock
from tests.kubernetes_kit import NAMES
from tests.plain_engine import PlainEngine, Suspended

TURN_S, TURNS = 15, 240  # an hour of the world's time
POLICY = Policy(retraining=Retraining(watch_s=0))  # else a promotion is watched for half an hour
WRITTEN = re.compile(r'(?:INSERT INTO|UPDATE|DELETE FROM) "?(\w+)')


@dataclass(frozen=True)
class Base:
    """What a child needs to begin: where things are, and the defect that a self-test plants ("" for none)."""

    database_url: str
    kubeconfig: Path
    folder: Path
    plant: str = ""
    by_people: bool = False  # where the runbook hands the incident over, somebody puts the model right by hand
    store_away: bool = False  # every transaction asks the far side whether the store answers


class FarClock(Clock):
    """The world's clock: the far side moves with it."""

    def __init__(self, at: datetime, far: Far) -> None:
        super().__init__(at)
        self._far = far

    def advance(self, **span: float) -> None:
        super().advance(**span)
        self._far.ask("now", at=self.at.isoformat())


class TappedWorld(World):
    """Every transaction that writes is a call of the far side's: before it commits, and after."""

    def transaction(self) -> AbstractContextManager[Connection]:
        return self._tapped()

    @contextmanager
    def _tapped(self) -> Iterator[Connection]:
        far, ask_first = self.__dict__["far"], self.__dict__["ask_first"]
        if ask_first and not far.ask("transaction"):
            raise Transient("the incident store is not reachable: away")
        written: set[str] = set()

        def note(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
            if found := WRITTEN.match(statement):
                written.add(found[1])

        with db.transaction(self.engine) as conn:
            event.listen(conn, "after_cursor_execute", note)
            yield conn
            name = f"store:{'+'.join(sorted(written))}"
            if written:
                far.ask("point", name=name, phase=BEFORE)
        if written:
            far.ask("point", name=name, phase=AFTER)


class Rpc:
    """A port whose methods are those of the far side's; what the connection loses is Transient, as the library's adapter says."""

    def __init__(self, url: str, port: str) -> None:
        self._url, self._port = url, port
        self._http = httpx.Client(timeout=30.0, trust_env=False)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = {k: v for k, v in kwargs.items() if not callable(v)}
            try:
                answer = self._http.post(f"{self._url}/rpc/{self._port}/{method}", content=pickle.dumps((args, given)))
            except httpx.HTTPError as error:
                raise Transient(f"{self._port} does not answer ({type(error).__name__})") from error
            fine, result = pickle.loads(answer.content)  # noqa: S301 - of our own far side
            if not fine:
                raise result
            return result

        return call


class Features(Rpc):
    def inspect(self, **given: Any) -> Any:
        """The adapter says what is broken instead of raising."""
        from mlrunbook.domain.observed import FeatureFault, FeatureProblem, FeatureStoreState

        try:
            return Rpc.__getattr__(self, "inspect")(**given)
        except Transient as error:
            problem = FeatureProblem(FeatureFault.ONLINE_LOCKED, f"the online store cannot be read: {error}")
            return FeatureStoreState((), (problem,), read_ok=False)


class InThisProcess:
    """Delivers by the shipped senders, here: the kill must hit the one who sends. The key of the row goes with the message."""

    def __init__(self, plant: str) -> None:
        self._plant = plant

    def warm(self) -> None:
        return

    def deliver(self, message: Message, address: str, *, first_key: str | None = None, action: str = "trigger") -> Delivery:
        if action != "trigger":
            return Delivery(pagerduty.SCHEME, pagerduty.send(message, address, action))  # type: ignore[arg-type]
        if self._plant == "drops a page" and message.page:
            return Delivery("nobody", "taken, and thrown away")
        return deliver(replace(message, body=f"{message.body}{KEY}{message.key}"), address, first_key=first_key)


class SendsAgain(HttpPlatform):
    """A planted defect: a change that got no answer is sent again under another key, as a careless client does."""

    def rollback(self, model: str, **given: Any) -> Any:
        super().rollback(model, **given)
        return super().rollback(model, **given | {"idempotency_key": f"{given['idempotency_key']}-again"})


def address_of(far: Far) -> Callable[[str], str | None]:
    """Each channel by one of the ways that messages go: PagerDuty, SMTP, a webhook through apprise."""
    ways = {
        "page": "pagerduty",
        "security": "pagerduty",
        "email": "smtp",
        "compliance": "smtp",
        "supervisors": "smtp",
    }

    def of(channel: str) -> str:
        plain = channel.replace("-", "").replace("_", "")
        match ways.get(channel):
            case "pagerduty":
                return f"pagerduty-events://{plain:0<32}?host=127.0.0.1:{far.port}&tls=no"
            case "smtp":
                return f"smtp://127.0.0.1:{far.mail_port}/?to={plain}@example.com&from=runbook@example.com"
        return f"json://127.0.0.1:{far.port}/hook/{plain}"

    return of


def world_of(base: Base, far: Far, engine: Engine, clock: FarClock) -> World:
    def cluster() -> Any:
        return login(None, None, config_file=str(base.kubeconfig))

    made = TappedWorld(
        engine=engine,
        platform=(SendsAgain if base.plant == "sends again" else HttpPlatform)(f"{far.url}/platform"),
        runtime=KubernetesRuntime(Cluster(cluster, timeout_s=10, sleep=lambda s: clock.advance(seconds=s)), ClusterPolicy(MODEL, NAMES)),
        features=Features(far.url, "features"),  # type: ignore[arg-type]
        trainer=Rpc(far.url, "trainer"),  # type: ignore[arg-type]
        notifier=ChannelNotifier(base.folder / "messages", address_of(far), InThisProcess(base.plant)),  # type: ignore[arg-type]
        orchestrator=PrefectApi(f"{far.url}/prefect"),
        policy=POLICY,
        lease_s=30.0,
        now=clock,
        elapsed=clock.elapsed,
        settle_s=0.06,
        patience_s=0.0,
        sleep=lambda s: clock.advance(seconds=s),
        draw_drift_page=lambda *_: b"<html>the inputs before and during the incident</html>",
    )
    made.__dict__.update(far=far, ask_first=base.store_away)
    return made


@dataclass
class Life:
    """One process: alerts in, pages and runs out, runs carried, people answering, until nothing is left to do."""

    base: Base
    far: Far
    story: Story
    world: World
    clock: FarClock
    people: World  # the same store, without the taps: people are elsewhere

    def go(self) -> bool:
        """Whether the incident ended and nothing that is due is left."""
        incident_id = self._opened()
        dispatcher = Dispatcher(self.world, monotonic=lambda: self.clock.at.timestamp())
        for _ in range(TURNS):
            self._trying(dispatcher.turn)
            if self.step(incident_id):
                return True
            self.clock.advance(seconds=TURN_S)
        return False

    def step(self, incident_id: str) -> bool:
        """What the worker and people do next; whether the incident has ended and nothing that is due is left."""
        self._trying(lambda: self._carry(incident_id))
        if self._is_over(incident_id):
            return True
        repair = (lambda: self.far.ask("repair")) if self.base.by_people else None
        self._trying(lambda: self.story.people(self.people, incident_id, repair))
        return False

    def _opened(self) -> str:
        """The sender sends until it is told that the alert was taken in."""
        if accepted := self.far.seen()["accepted"]:
            return str(accepted[0])
        for _ in range(TURNS):
            try:
                if self.base.plant == "answers before it stores":
                    self.far.ask("accepted", incident="incident_1")
                incident_id = self.story.send(self.world)
                self.far.ask("accepted", incident=incident_id)
                self.story.opened(self.people, incident_id)
                self.clock.advance(seconds=TURN_S)
                return incident_id
            except Transient:
                self.clock.advance(seconds=TURN_S)
        raise RuntimeError("the alert was never taken in")

    def _carry(self, incident_id: str) -> None:
        """As the worker: take up what Prefect has scheduled."""
        while run := self.far.ask("take", incident_id=incident_id):
            engine = PlainEngine(sleep=self._sleep)
            state = "FAILED"
            try:
                with bootstrap.using(self.world):
                    engine.run(respond, run["id"], incident_id=run["incident_id"])
                state = "COMPLETED"
            except Suspended:
                state = "PAUSED"
            finally:
                self.far.ask("state", run_id=run["id"], state=state)

    async def _sleep(self, s: float) -> None:
        self.clock.advance(seconds=s)

    def _trying(self, act: Callable[[], object]) -> None:
        try:
            act()
        except RunbookError:  # a failed run or turn: the dispatcher's next turn is what goes on
            return

    def _is_over(self, incident_id: str) -> bool:
        with db.transaction(self.people.engine) as conn:
            over = not incidents.get(conn, incident_id).status.is_open and leases.get(conn, incident_id).state == "done"
            return over and not outbox.waiting(conn, now=self.clock())


def live(base: Base, far: Far, story: Story, now: datetime, pid: int) -> bool:
    far.connect()
    clock = FarClock(now, far)
    far.ask("client", pid=pid, now=now.isoformat())
    engine = create_engine(db.normalise_url(base.database_url), connect_args={"options": "-c timezone=UTC"}, pool_size=10)
    world = world_of(base, far, engine, clock)
    people = World(**{k: v for k, v in world.__dict__.items() if k not in ("far", "ask_first")})
    try:
        return Life(base, far, story, world, clock, people).go()
    except BaseException:
        (base.folder / "error.txt").write_text(traceback.format_exc())
        return False
