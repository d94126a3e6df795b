"""The embedded stack: every part of the product on one machine, started by `mlrunbook up`, the demo and the tests.

    with stop_on_signals(), Stack(data_dir) as stack:
        stack.wait()

One stack a data folder. What a killed one left behind is found and ended by the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple, TextIO

import psutil

from mlrunbook.adapters.local.serving_state import claim
from mlrunbook.adapters.prefect import deployments
from mlrunbook.base import run_environment, secret_file
from mlrunbook.base.listen import Listen, gateway_options
from mlrunbook.base.processes import Service, Supervisor, end_marked, uninterrupted
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Limits, Scope
from mlrunbook.domain.errors import Invalid, Refused, RunbookError
from mlrunbook.local.addresses import HOST, Ports, answers, check_ports
from mlrunbook.local.features.repository import readings_folder, write_config
from mlrunbook.local.postgres import EmbeddedPostgres

RECONCILE_S = 0.1
RESTORING = "restoring"  # where `mlrunbook restore` works until all of it is there
MODEL_SERVER = "model-server"
FEATURE_SERVER, FEATURE_URL = "feature-server", "MLRUNBOOK_FEATURE_SERVER_URL"
ALL_PARTS = frozenset({"prefect", "deployments", "worker", "platform", MODEL_SERVER, FEATURE_SERVER, "gateway"})


class Key(NamedTuple):
    """A token that the stack makes itself, with what its holder needs and no more."""

    scopes: frozenset[Scope]
    role: str | None = None
    limits: Limits = Limits()


TOKENS = {
    "platform": Key(frozenset({Scope.OPERATE, Scope.READ})),  # the flows and the gateway on the model platform
    "gateway-intake": Key(frozenset({Scope.ALERTS}), limits=Limits(senders=("alertmanager",))),  # the platform's alerts on the gateway
    "simulator": Key(frozenset({Scope.PREDICT, Scope.OUTCOMES, Scope.OPERATE, Scope.READ})),  # the fleet's traffic, outcomes, releases
    "operator": Key(frozenset({Scope.READ, Scope.OPERATE, Scope.REPORT, Scope.ALERTS})),  # the CLI
}
APPROVER = {
    "approver": Key(frozenset({Scope.APPROVE, Scope.READ}), "ml_team_lead"),
    "security-officer": Key(frozenset({Scope.APPROVE, Scope.READ}), "security_officer"),
}


class Stack:
    """Start with `start()` or as a context manager; both return when every part is healthy.

    `parts` names what to run besides PostgreSQL (tests and benchmarks leave some out); with `durable=False` a power cut may lose data.
    MLRUNBOOK_DATABASE_URL, PREFECT_API_URL, MLRUNBOOK_PLATFORM_URL and MLRUNBOOK_FEATURE_REPO in the environment replace the embedded
    parts; the feature store in the box needs the database and the platform in the box. It takes seconds to import and is not waited for.
    `public` is where the gateway, and nothing else, listens besides loopback; `proxies`: the networks of those in front of it.
    `meanwhile` is done once the database has its schema, while the rest starts. `timings` holds seconds by part.
    """

    def __init__(  # noqa: PLR0913 - what a test, a demo or a benchmark runs otherwise
        self,
        data_dir: Path,
        *,
        ports: Ports | None = None,
        home: Path | None = None,
        parts: frozenset[str] = ALL_PARTS,
        with_approver: bool = False,
        durable: bool = True,
        report: Callable[[str], None] = print,
        meanwhile: Callable[[Stack], None] | None = None,
        public: Listen | None = None,
        proxies: Sequence[str] = (),
    ) -> None:
        self.data = data_dir.expanduser().resolve()
        self.ports = ports or Ports()
        self.home = (home or Settings().home).resolve()
        self.timings: dict[str, float] = {}
        self._own_platform = _given("MLRUNBOOK_PLATFORM_URL")
        replaced = {"prefect"} if _given("PREFECT_API_URL") else set()
        replaced |= {"platform", MODEL_SERVER} if self._own_platform else set()
        self._own_features = _given("MLRUNBOOK_FEATURE_REPO")
        if self._own_features or self._own_platform or _given("MLRUNBOOK_DATABASE_URL"):
            replaced |= {FEATURE_SERVER}
        self._parts = parts - replaced
        self._tokens = TOKENS | (APPROVER if with_approver else {})
        self._durable = durable
        self._report = report
        self._meanwhile = meanwhile
        self._public, self._proxies = public, proxies
        if FEATURE_SERVER in parts & replaced and not self._own_features:
            report("no feature store: set MLRUNBOOK_FEATURE_REPO to yours (ours needs the embedded database and platform)")
        self._lock: TextIO | None = None
        self._postgres: EmbeddedPostgres | None = None
        self._supervisor: Supervisor | None = None
        self._keeper: threading.Thread | None = None
        self._stop = threading.Event()
        self._serving_restart_id: str | None = None

    @property
    def supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise ValueError("the stack is not started")
        return self._supervisor

    @property
    def database_url(self) -> str:
        if given := _given("MLRUNBOOK_DATABASE_URL"):
            return given
        if self._postgres is None:
            raise ValueError("the stack is not started")
        return self._postgres.url("mlrunbook")

    @property
    def prefect_api_url(self) -> str:
        return _given("PREFECT_API_URL") or f"http://{HOST}:{self.ports.prefect}/api"

    @property
    def prefect_auth(self) -> str | None:
        """ "user:password" of the Prefect server."""
        if _given("PREFECT_API_URL"):
            return os.environ.get("PREFECT_API_AUTH_STRING")
        return secret_file.kept(self.data / "secrets" / "prefect-auth", lambda: f"mlrunbook:{secrets.token_urlsafe(18)}")

    @property
    def chain_key(self) -> str:
        """For the gateway alone: runs write the chains, and could rewrite what they can sign."""
        return _given("MLRUNBOOK_CHAIN_KEY") or secret_file.kept(self.data / "secrets" / "chain-key", lambda: secrets.token_urlsafe(32))

    def token(self, name: str) -> str:
        return (self.data / "secrets" / f"{name}.token").read_text().strip()

    @property
    def lake(self) -> Path | None:
        """Where the readings of the feature store in the box land."""
        return readings_folder(self._feature_repo) if FEATURE_SERVER in self._parts else None

    @property
    def _feature_repo(self) -> Path:
        return self.data / "features"

    def env(self) -> dict[str, str]:
        """What a CLI command needs to find this stack; also written to `<data>/env`."""
        given, ours = Settings(), FEATURE_SERVER in self._parts
        return {
            "MLRUNBOOK_STACK": str(self.data),
            "MLRUNBOOK_DATA_DIR": str(self.data),
            "MLRUNBOOK_HOME": str(self.home),
            "MLRUNBOOK_DATABASE_URL": self.database_url,
            "MLRUNBOOK_PLATFORM_URL": self._own_platform or f"http://{HOST}:{self.ports.platform}",
            "MLRUNBOOK_MODEL_SERVER_URL": given.model_server_url if self._own_platform else f"http://{HOST}:{self.ports.model_server}",
            "MLRUNBOOK_GATEWAY_URL": f"http://{HOST}:{self.ports.gateway}",
            "MLRUNBOOK_PUBLIC_URL": given.public_url or (self._public and self._public.url) or "",
            # Empty counts as not set, and hides what a shell inherited from another stack.
            "MLRUNBOOK_FEATURE_REPO": str(self._feature_repo) if ours else self._own_features or "",
            "MLRUNBOOK_FEATURE_SERVER_URL": f"http://{HOST}:{self.ports.feature_server}" if ours else _given(FEATURE_URL) or "",
            "MLRUNBOOK_PLATFORM_TOKEN": given.platform_token.get_secret_value()
            if self._own_platform and given.platform_token
            else self.token("platform"),
            "MLRUNBOOK_GATEWAY_TOKEN": self.token("operator"),
            "PREFECT_API_URL": self.prefect_api_url,
        } | ({"PREFECT_API_AUTH_STRING": self.prefect_auth} if self.prefect_auth else {})

    def start(self) -> None:
        """Start everything; on any failure, Ctrl-C included, stop what was started and raise."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Block until interrupted or stopped."""
        while not self._stop.wait(0.5):
            _interrupt_again()

    def stop(self) -> None:
        """Stop everything in reverse order and leave no process, port or temporary folder."""
        self._stop.set()
        with uninterrupted(), contextlib.ExitStack() as rest:  # runs all of them, last one first, even if one fails
            if self._lock:
                rest.callback(self._release)
            if self._postgres:
                rest.callback(self._postgres.stop)
            if self._supervisor:
                rest.callback(self._supervisor.stop_all)
            if self._keeper and self._keeper.is_alive():
                rest.callback(self._keeper.join)
        self._supervisor = self._postgres = self._keeper = None

    def _release(self) -> None:
        assert self._lock is not None
        for name in ("env", "run/stack.json"):
            (self.data / name).unlink(missing_ok=True)
        self._lock.close()
        self._lock = None

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _start(self) -> None:
        begun = time.monotonic()
        self._stop.clear()
        if "deployments" in self._parts:
            deployments.deploy_command(self.home)  # complains now, not in ten seconds
        self._lock = lock_home(self.data)
        if (self.data / RESTORING).exists():
            raise Invalid(f"a restore into {self.data} was broken off: delete the folder and restore again", field="data_dir")
        self._end_orphans()
        check_ports(self.ports, self._parts)
        self._supervisor = Supervisor(self.data / "logs", report=self._report)
        secret_file.write(
            self.data / "run" / "stack.json",
            json.dumps({"stack_id": self._supervisor.stack_id, "pid": os.getpid(), "started_at": psutil.Process().create_time()}),
        )
        embedded_store = _given("MLRUNBOOK_DATABASE_URL") is None
        if embedded_store or "prefect" in self._parts:
            self._postgres = EmbeddedPostgres(self.data, durable=self._durable)
            with self._timed("PostgreSQL"):
                self._postgres.start()
        if "prefect" in self._parts:  # takes longest, and needs nothing but its database
            prefect = self._prefect_server()
            self._supervisor.start(prefect)
        with self._timed("schema and tokens"):
            self._migrate()
        if FEATURE_SERVER in self._parts:
            assert self._postgres is not None
            write_config(self._feature_repo, database_url=self._postgres.url("feast"))
            self._start_feature_server()
        secret_file.write(self.data / "env", "".join(f"{key}={shlex.quote(value)}\n" for key, value in self.env().items()))
        services = self._own_services()
        for service in services:
            _interrupt_again()
            self._supervisor.start(service)
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()
        with futures.ThreadPoolExecutor(max_workers=4, thread_name_prefix="start") as pool:
            waits = [pool.submit(self._await, service) for service in services]
            waits.append(pool.submit(self._start_flows, prefect if "prefect" in self._parts else None))
            if self._meanwhile:
                waits.append(pool.submit(self._meanwhile, self))
            try:
                _interrupt_again()
                done, _ = futures.wait(waits, return_when=futures.FIRST_EXCEPTION)
                for wait in done:
                    wait.result()
            except BaseException:
                with uninterrupted():
                    self._supervisor.stop_all()  # the waiting threads see their service gone and end
                raise
        _interrupt_again()
        self.timings["all"] = time.monotonic() - begun
        self._report(f"ready in {self.timings['all']:.1f} s")

    def _start_flows(self, prefect: Service | None) -> None:
        """What runs flows, once the Prefect server answers: work pool, worker, deployments."""
        if prefect:
            self._await(prefect)
        if self._parts & {"worker", "deployments"}:
            with deployments.prefect_client(self.prefect_api_url, self.prefect_auth) as http:
                deployments.ensure_pool(http, Settings().runs_at_once)
        if "worker" in self._parts:
            worker = self._worker()
            self.supervisor.start(worker)
        if "deployments" in self._parts:
            with self._timed("deployments"):
                self.supervisor.run(Service("deploy", deployments.deploy_command(self.home), self._child_env(), cwd=self.home))
        if "worker" in self._parts:
            self._await(worker)

    def _start_feature_server(self) -> None:
        """Start it and tell when it answers, in a thread: nobody waits for it."""
        port = self.ports.feature_server
        service = Service(
            FEATURE_SERVER,
            [sys.executable, "-m", "mlrunbook.local.features.feature_service", "--port", str(port)],
            self._child_env(),
            answers(f"http://{HOST}:{port}/health"),
            cwd=self.home,
        )
        self.supervisor.start(service)

        def tell() -> None:
            try:
                self._await(service)
            except Refused as error:
                if not self._stop.is_set():
                    self._report(str(error))

        threading.Thread(target=tell, name=FEATURE_SERVER, daemon=True).start()

    def _await(self, service: Service) -> None:
        with self._timed(service.name):
            self.supervisor.wait_ready(service)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.timings[name] = time.monotonic() - begun
        self._report(f"{name}: {self.timings[name]:.1f} s")

    def _migrate(self) -> None:
        from sqlalchemy import NullPool, create_engine

        from mlrunbook.base import db, tokens

        engine = create_engine(db.normalise_url(self.database_url), poolclass=NullPool)
        db.upgrade(engine)
        for name, key in self._tokens.items():
            path = self.data / "secrets" / f"{name}.token"
            with db.transaction(engine) as conn:
                held = tokens.verify(conn, path.read_text().strip()) if path.exists() else None
                if held is None or (held.scopes, held.limits) != (key.scopes, key.limits):
                    secret_file.write(path, tokens.create(conn, name=name, scopes=key.scopes, role=key.role, limits=key.limits))
                    if held is not None:  # of a release that gave it other rights
                        tokens.revoke(conn, held.token_id)

    def _own_services(self) -> list[Service]:
        python = [sys.executable, "-m"]
        at = self.ports
        env = self._child_env()
        services = {
            "platform": Service(
                "platform",
                [*python, "mlrunbook.local.platform.api", "--port", str(at.platform)],
                env | {"MLRUNBOOK_GATEWAY_TOKEN": self.token("gateway-intake")},
                answers(f"http://{HOST}:{at.platform}/health"),
                cwd=self.home,
            ),
            "gateway": Service(
                "gateway",
                [*python, "mlrunbook.gateway", "--port", str(at.gateway), *gateway_options(self._public, self._proxies)],
                env | {"MLRUNBOOK_CHAIN_KEY": self.chain_key},
                answers(f"http://{HOST}:{at.gateway}/ready"),
                cwd=self.home,
            ),
        }
        if MODEL_SERVER in self._parts and claim(self._desired_file)["replicas"]:
            services[MODEL_SERVER] = self._model_server()
        return [service for name, service in services.items() if name in self._parts]

    @property
    def _desired_file(self) -> Path:
        return Settings(data_dir=self.data).serving_state_file

    def _model_server(self) -> Service:
        desired = claim(self._desired_file)
        restart_id = self._serving_restart_id = desired["restart_id"]
        port = self.ports.model_server
        return Service(
            MODEL_SERVER,
            [sys.executable, "-m", "mlrunbook.local.serving.model_server", "--port", str(port), "--model", desired["model"]],
            self._child_env() | ({"MLRUNBOOK_RESTART_ID": restart_id} if restart_id else {}),
            answers(f"http://{HOST}:{port}/health"),
            cwd=self.home,
        )

    def _prefect_server(self) -> Service:
        assert self._postgres is not None
        port = self.ports.prefect
        origins = f"http://{HOST}:{port},http://localhost:{port}"
        env = self._child_env(with_tokens=False) | {
            "PREFECT_API_DATABASE_CONNECTION_URL": self._postgres.url("prefect", driver="postgresql+asyncpg"),
            "PREFECT_SERVER_API_AUTH_STRING": self.prefect_auth or "",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origins,
            "PREFECT_SERVER_UI_API_URL": self.prefect_api_url,  # else the UI asks port 4200, whatever the port is
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        argv = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
        healthy = answers(f"{self.prefect_api_url}/health", auth=deployments.basic(self.prefect_auth))
        return Service("prefect", argv, env, healthy)

    def _worker(self) -> Service:
        argv = [sys.executable, "-m", "mlrunbook.adapters.prefect.worker"]
        argv += ["--name", "local"] if _given("PREFECT_API_URL") is None else []  # a server of several machines tells workers apart
        http, since = deployments.prefect_client(self.prefect_api_url, self.prefect_auth), datetime.now(UTC)
        env = run_environment.kept(self._child_env()) | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
        return Service("worker", argv, env, lambda: deployments.worker_online(http, since=since), cwd=self.home)

    def _child_env(self, *, with_tokens: bool = True) -> dict[str, str]:
        """The caller's environment, without its Prefect settings when the Prefect server is ours."""
        embedded = _given("PREFECT_API_URL") is None
        env = {key: value for key, value in os.environ.items() if not (embedded and key.startswith("PREFECT_"))}
        env.pop("MLRUNBOOK_CHAIN_KEY", None)
        env |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '/usr/bin:/bin')}",
            "PREFECT_HOME": str(self.data / "prefect"),
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "TZ": "UTC",
            "PYTHONUNBUFFERED": "1",
        }
        return env | (self.env() if with_tokens else {})

    def _keep(self) -> None:
        """Until stopped: PostgreSQL runs, and the model server is what the desired state says."""
        complaint = ""
        while not self._stop.wait(RECONCILE_S):
            try:
                if self._postgres and not self._postgres.alive():
                    self._report("PostgreSQL died; starting it again")
                    self._postgres.start()
                if MODEL_SERVER in self._parts:
                    self.reconcile_serving()
                complaint = ""
            except Exception as error:  # whatever it is, the next round may go better, and nobody else reconciles
                if repr(error) != complaint:
                    complaint = repr(error)
                    self._report(str(error) if isinstance(error, RunbookError) else complaint)

    def reconcile_serving(self) -> None:
        """Make the model server what the desired state says."""
        desired = claim(self._desired_file)
        runs = self.supervisor.has(MODEL_SERVER)
        if runs and desired["isolated"]:
            return  # what it has in memory is evidence: it is not ended until a person lifts the isolation
        if runs and (not desired["replicas"] or desired["restart_id"] != self._serving_restart_id):
            self.supervisor.stop(MODEL_SERVER)
            runs = False
        if desired["replicas"] and not runs:
            self.supervisor.start(self._model_server())

    def _end_orphans(self) -> None:
        noted = self.data / "run" / "stack.json"
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            for ended in end_marked(f"{json.loads(noted.read_text())['stack_id']}/"):
                self._report(f"ended {ended}, left over by a killed run")


_interrupted = threading.Event()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does: with KeyboardInterrupt, so that everything is stopped in order.

    Python drops what is raised inside a destructor or a weak reference's callback, so the interrupt is remembered and a
    stack that starts or waits meanwhile raises it again.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it: so do we
        numbers.append(signal.SIGINT)
    _interrupted.clear()
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _interrupted.clear()


def _interrupt_again() -> None:
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _given(name: str) -> str | None:
    """A part of the caller's own. In a shell that has read a stack's `env` file the addresses are that stack's: none is given."""
    return None if "MLRUNBOOK_STACK" in os.environ else os.environ.get(name) or None


def lock_home(data: Path) -> TextIO:
    """Hold the data folder for one stack; the kernel lets go when we die."""
    (data / "run").mkdir(parents=True, exist_ok=True)
    lock = open(data / "run" / "lock", "a+")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise Invalid(f"a stack already runs on {data}; stop it, or pass another --home", field="data_dir") from error
    return lock
