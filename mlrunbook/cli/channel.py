"""`mlrunbook channel ...`: by which channels people are reached, and whether a message really gets there. No gateway is needed."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlrunbook.cli import render, target
from mlrunbook.cli.policy import in_force
from mlrunbook.domain.errors import Invalid, Refused

if TYPE_CHECKING:
    from mlrunbook.domain.policy.policy import Policy

app = typer.Typer(no_args_is_help=True, help="The channels by which people are reached.")

# What uses a channel by its name, whatever the policy says of people.
BY_NAME = {"incidents": "notices of every incident", "email": "stakeholders", "tickets": "tickets"}


@app.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """List the channels, who uses each, and whether its address is set here. An address is never shown."""
    from mlrunbook.domain.policy.policy import channel_variable

    policy, env = in_force(), target.environment()
    rows: list[dict[str, Any]] = [
        {"name": name, "called": policy.channels.get(name, ""), "usedBy": users, "variable": channel_variable(name)}
        | {"addressIsSet": bool(env.get(channel_variable(name)))}
        for name, users in _users(policy).items()
    ]
    if json:
        render.as_json(rows)
        return
    listing = render.grid(12, None, None)
    listing.add_row("Channel", "Used by", "Address")
    for row in rows:
        address = "set" if row["addressIsSet"] else f"not set: {row['variable']}"
        words = (row["name"], ", ".join(row["usedBy"]) or "nobody", address)
        listing.add_row(*(render.styled(word, "" if row["addressIsSet"] else "yellow") for word in words))
    render.console().print(listing)


@app.command("test")
def try_out(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The channel, as `mlrunbook channel list` shows it.")],
    page: Annotated[bool, typer.Option("--page", help="Yes, call whoever is on duty: needed where the channel is a pager.")] = False,
    hold_s: Annotated[
        float, typer.Option("--hold-s", min=0, help="How long a pager's test alert stays open, so that it rings; Ctrl-C ends it sooner.")
    ] = 30.0,
) -> None:
    """Send a real message through a channel, marked as a test, and say what came back. A pager's test alert is resolved again.

    Exit code: 0 when the service took it within the 15 s that a page has, 1 when it did not or the address is not set.
    """
    from mlrunbook.adapters.channels import channel_test

    address = _address(name)
    sent = channel_test.message(name, asked_by=_asker(), at=datetime.now(UTC))
    if channel_test.pages(address) and not page:
        raise Refused(f"{name} is a pager: a test calls whoever is on duty. Say so with `mlrunbook channel test {name} --page`")
    with channel_test.ChannelTest() as through:
        if channel_test.pages(address):
            said = through.ring(sent, address, meanwhile=lambda: _let_ring(hold_s))
        else:
            said = through.send(sent, address)
    typer.echo(render.plain(f"delivered by {name}: {said}"))
    typer.echo("Ask whoever reads it whether it arrived: a service says only that it took the message.")


def _let_ring(seconds: float) -> None:
    if not seconds:
        return
    typer.echo(f"The test alert is open for {seconds:.0f} s; Ctrl-C resolves it now.")
    with suppress(KeyboardInterrupt):
        time.sleep(seconds)


def _address(name: str) -> str:
    from mlrunbook.domain.policy.policy import channel_variable

    known = _users(in_force())
    if name not in known:
        raise Invalid(f"there is no channel {name!r}; the policy has {', '.join(known)}", field="name")
    variable = channel_variable(name)
    if not (address := target.environment().get(variable)):
        raise Refused(
            f"{variable} is not set here: {name} reaches nobody, its messages are only files. Set it, for the gateway or `mlrunbook up` too"
        )
    return address


def _users(policy: Policy) -> Mapping[str, list[str]]:
    """channel -> who is reached by it: every channel of the policy, and those that are used by name."""
    from mlrunbook.domain.roles import Role

    users: dict[str, list[str]] = {name: [] for name in [*policy.channels, *BY_NAME]}
    for name, what in BY_NAME.items():
        users[name].append(what)
    for one in policy.variants:  # of all models, then those of each
        for role in Role:
            for name in one.escalation.of(role).channels:
                users[name].append(role.words)
        for contact in type(one.contacts).model_fields:
            for name in getattr(one.contacts, contact).channels:
                users[name].append(f"contact: {contact}")
        for name in one.communication.fallback_channels:
            users[name].append("pages whose own channel fails")
    for model, rules in policy.models.items():
        for usual, name in (rules.channels or {}).items():
            users[name].append(f"{usual} of {model}")
    return {name: list(dict.fromkeys(who)) for name, who in users.items()}


def _asker() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        user = f"user {os.getuid()}"
    return f"{user} on {socket.gethostname()}"
