"""The commands that run something: `up`, `gateway`, `platform`, `deploy`, `demo`."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrunbook.base.listen import Listen, gateway_options, networks
from mlrunbook.cli import target
from mlrunbook.domain.errors import Invalid, Refused

if TYPE_CHECKING:
    from mlrunbook.local.stack import Stack

Port = Annotated[int, typer.Option(min=1, max=65_535)]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]


ListenAt = Annotated[
    str | None,
    typer.Option("--listen", metavar="ADDRESS[:PORT]", help="Serve the console and the API there too: with TLS, or behind a proxy."),
]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", help="Certificate with its chain, PEM, for --listen.")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="The certificate's key, PEM, without a password.")]
BehindProxy = Annotated[
    str,
    typer.Option("--behind-proxy", metavar="ADDRESSES", help="The proxy that speaks TLS in front; X-Forwarded-* counts from it alone."),
]


class Approve(StrEnum):
    ASK = "ask"
    AUTO = "auto"
    UI = "ui"
    CONSOLE = "console"


class Platform(StrEnum):
    REST = "rest"
    MLFLOW = "mlflow"


class Runtime(StrEnum):
    LOCAL = "local"
    KUBERNETES = "kubernetes"


PlatformOption = Annotated[
    Platform,
    typer.Option("--platform", help="The model platform in the box, or a real MLflow beside a prediction log in Parquet files."),
]


def up(  # noqa: PLR0913 - a port a part, and where the console is reached
    home: Annotated[
        Path | None, typer.Option("--home", help="Data folder; default MLRUNBOOK_DATA_DIR, else ~/.local/share/mlrunbook.")
    ] = None,
    gateway_port: Port = 8090,
    platform_port: Port = 8070,
    model_port: Annotated[int, typer.Option("--model-port", "--model-server-port", min=1, max=65_535)] = 8080,
    prefect_port: Port = 4200,
    feature_server_port: Port = 6566,
    listen: ListenAt = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    behind_proxy: BehindProxy = "",
    with_fleet: Annotated[bool, typer.Option("--with-fleet", help="Also train and serve a model, and send it simulated traffic.")] = False,
) -> None:
    """Start the whole stack on this machine; Ctrl-C stops it."""
    from mlrunbook import bootstrap
    from mlrunbook.local.addresses import Ports
    from mlrunbook.local.stack import Stack, stop_on_signals

    bootstrap.policy()  # a mistake in it would stop the gateway: say so before anything starts
    proxies = networks(behind_proxy)
    public = _public(listen, tls_cert, tls_key, proxies)
    ports = Ports(prefect_port, platform_port, model_port, gateway_port, feature_server_port)
    stack = Stack(home or target.data_dir(), ports=ports, report=typer.echo, public=public, proxies=proxies)
    ready = False
    try:
        with stop_on_signals(), stack:
            ready = True
            _tell(stack)
            with _fleet(stack) if with_fleet else contextlib.nullcontext():
                stack.wait()
    except KeyboardInterrupt:
        if not ready:
            raise
        typer.echo("stopped; nothing is left running")


def _public(address: str | None, cert: Path | None, key: Path | None, proxies: tuple[str, ...]) -> Listen | None:
    """Where people reach the console. What is wrong with it is said before anything starts."""
    from mlrunbook.base import certificate, listen

    if public := listen.listen(address, cert and cert.absolute(), key and key.absolute(), proxies):
        if public.cert and public.key:
            certificate.context(public.cert, public.key, now=datetime.now(UTC))
        listen.bound(public).close()
    return public


@contextlib.contextmanager
def _fleet(stack: Stack) -> Iterator[None]:
    from mlrunbook.base import db
    from mlrunbook.drills.fleet_runner import flowing, simulator_for, source_of, wait_until_served

    simulator = simulator_for(stack, source_of(None, 0), seed=0)
    simulator.build_history(db.engine(stack.database_url), now=datetime.now(UTC))
    wait_until_served(stack)
    typer.echo(f"The simulated fleet sends traffic to {simulator.model}.")
    with flowing(simulator, interval_s=5.0, batch=200):
        yield


def _tell(stack: Stack) -> None:
    """Where everything is. Where secrets lie, never the secrets."""
    env, secrets = stack.env(), stack.data / "secrets"
    login = f" (login: {secrets / 'prefect-auth'})" if (secrets / "prefect-auth").exists() and "PREFECT_API_URL" not in os.environ else ""
    moved = stack.data != target.DEFAULT_DATA_DIR.expanduser()
    public = env["MLRUNBOOK_PUBLIC_URL"]
    for label, where in (
        ("Console", public or env["MLRUNBOOK_GATEWAY_URL"]),
        ("Prefect UI", f"{env['PREFECT_API_URL'].removesuffix('/api')}{login}"),
        ("Gateway", env["MLRUNBOOK_GATEWAY_URL"]),
        ("Platform", env["MLRUNBOOK_PLATFORM_URL"]),
        ("Model server", env["MLRUNBOOK_MODEL_SERVER_URL"]),
        ("Tokens", f"{secrets}/*.token"),
        ("Messages", str(stack.data / "messages")),
        ("Logs", str(stack.data / "logs")),
    ):
        typer.echo(f"  {label:<13} {where}")
    if not public:
        typer.echo("Pages and notices link to the console once MLRUNBOOK_PUBLIC_URL says where people's browsers reach it.")
    typer.echo("Prefect's login equals a shell on this machine as this user: give it to those alone who may change production.")
    if moved:
        typer.echo(f"In another terminal, first: export MLRUNBOOK_DATA_DIR={shlex.quote(str(stack.data))}")
    typer.echo("Incidents: mlrunbook incidents list")
    typer.echo('To decide about plans: mlrunbook token create "Your Name" --scope approve --scope read --role ml_team_lead')
    typer.echo("Ctrl-C stops everything.")


def gateway(
    host: Host = "127.0.0.1",
    port: Port = 8090,
    no_dispatcher: Annotated[bool, typer.Option("--no-dispatcher", help="Serve HTTP only; another gateway delivers.")] = False,
    listen: ListenAt = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    behind_proxy: BehindProxy = "",
) -> None:
    """Run the gateway: alerts and reports in; pages, runs and answers out."""
    proxies = networks(behind_proxy)
    public = _public(listen, tls_cert, tls_key, proxies)
    options = [*(["--no-dispatcher"] if no_dispatcher else []), *gateway_options(public, proxies)]
    _become("mlrunbook.gateway", "--host", host, "--port", str(port), *options)


def platform(host: Host = "127.0.0.1", port: Port = 8070) -> None:
    """Run the model platform's API."""
    _become("mlrunbook.local.platform.api", "--host", host, "--port", str(port))


def worker(
    name: Annotated[str | None, typer.Option("--name", help="How Prefect shows it; default this machine's name.")] = None,
    with_healthcheck: Annotated[
        bool, typer.Option("--with-healthcheck", help="Also answer on /health: PREFECT_WORKER_WEBSERVER_HOST and _PORT.")
    ] = False,
) -> None:
    """Run flows of this checkout, and nothing else that Prefect's login could ask for."""
    from mlrunbook.adapters.prefect.deployments import deploy_command

    deploy_command(target.checkout())  # without a prefect.yaml it would refuse every run
    if not target.environment().get("PREFECT_API_URL"):
        raise Invalid(f"{target.NO_STACK}PREFECT_API_URL to your Prefect server's API")
    options = [*(["--name", name] if name else []), *(["--with-healthcheck"] if with_healthcheck else [])]
    _become("mlrunbook.adapters.prefect.worker", *options)


def _become(module: str, *options: str) -> None:
    """Replace this process by the service, so that signals and exit code are its own."""
    argv = [sys.executable, "-m", module, *options]
    env = target.environment()
    if not env.get("MLRUNBOOK_DATABASE_URL"):
        raise Invalid(f"{target.NO_STACK}MLRUNBOOK_DATABASE_URL")
    sys.stdout.flush()
    os.execve(sys.executable, argv, env)  # noqa: S606


def deploy() -> None:
    """Create the work pool and the deployments of prefect.yaml on the Prefect server."""
    from mlrunbook.adapters.prefect.deployments import deploy_command, ensure_pool, prefect_client
    from mlrunbook.base.settings import Settings

    env, home = target.environment(), target.checkout()
    command = deploy_command(home)
    url = env.get("PREFECT_API_URL")
    if not url:
        raise Invalid(f"{target.NO_STACK}PREFECT_API_URL to your Prefect server's API")
    with prefect_client(url, env.get("PREFECT_API_AUTH_STRING")) as http:
        ensure_pool(http, Settings().runs_at_once)
    if code := subprocess.run(command, cwd=home, env=env, check=False).returncode:
        raise Refused(f"`prefect deploy` failed with exit code {code}: its output above says why")
    typer.echo(f"deployed on {url}; runs start while a worker polls: mlrunbook worker")


def demo(  # noqa: PLR0913 - what may be shown otherwise
    fault: Annotated[str, typer.Option("--fault", help="What breaks; a wrong name lists them all.")] = "bad-release",
    approve: Annotated[
        Approve, typer.Option("--approve", help="Who decides: you here, the demo itself, you in Prefect's form or in the console.")
    ] = Approve.ASK,
    data: Annotated[Path | None, typer.Option("--data", help="The AI4I 2020 table as CSV instead of the simulated fleet.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Keep summary, review, messages and timeline here.")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    runtime: Annotated[
        Runtime, typer.Option("--runtime", help="Where the model's serving objects are: here, or in the kubeconfig's (test) cluster.")
    ] = Runtime.LOCAL,
    platform: PlatformOption = Platform.REST,
    models: Annotated[
        int, typer.Option("--models", min=1, max=2, help="2: two models of two teams fail at the same time (--platform mlflow).")
    ] = 1,
) -> None:
    """Break a model and watch the runbook carry the incident from alert to review."""
    from mlrunbook.drills import demo

    options = demo.Options(approve.value, data, out, seed, runtime.value, platform.value, models)
    raise typer.Exit(demo.run(fault, options, home=target.checkout()))


def gameday(
    fault: Annotated[list[str], typer.Option("--fault", help="What breaks; several times, or `all`. A wrong name lists them.")] = ["all"],  # noqa: B006
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Every fault this often, each time with the next seed.")] = 1,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    out: Annotated[Path, typer.Option("--out", help="Keep gameday.json and every run's record here.")] = Path("gameday"),
    platform: PlatformOption = Platform.REST,
) -> None:
    """Break a live stack in every known way and score the runbook's answers. Takes about a minute a fault."""
    from mlrunbook.drills import game_day

    raise typer.Exit(game_day.run(fault, repeat=repeat, seed=seed, out=out, home=target.checkout(), platform=platform.value))
