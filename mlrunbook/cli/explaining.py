"""How `mlrunbook webhook explain` reads a message without a gateway, and shows what it found."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlrunbook.cli import render, target
from mlrunbook.cli.policy import in_force, path_in_force
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.plural import counted
from mlrunbook.domain.policy.owned import Known, Standing

if TYPE_CHECKING:
    from mlrunbook.domain.policy.policy import Policy
    from mlrunbook.gateway.webhooks.explaining import Explained
    from mlrunbook.gateway.webhooks.parsing import Format

MAX_BYTES = 4 << 20  # what the gateway takes
MAX_SHOWN = 50  # parts; --json has all
BUILT_IN = "the built-in defaults"


def message_in(file: str) -> bytes:
    """Invalid where there is none, or the gateway would take none so long."""
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise Invalid(f"{file} is over {MAX_BYTES >> 20} MiB: the gateway takes no such message")
    return content


def format_named(name: str, mapping: str) -> Format:
    """Invalid for a mapping of a format that has none."""
    from mlrunbook.gateway.webhooks import registry

    if mapping and name != "generic":
        raise Invalid(f"only --format generic is read by a mapping, not {name}", field="mapping")
    return registry.of(f"{name}/{mapping}" if mapping else {"pagerduty-events": "pagerduty"}.get(name, name))


def headers_of(given: Iterable[str]) -> dict[str, str]:
    """Invalid for what is no header."""
    found = {}
    for one in given:
        name, colon, value = one.partition(":")
        if not colon or not name.strip():
            raise Invalid(f"--header {one[:100]!r}: write it as 'NAME: VALUE'", field="header")
        found[name.strip().lower()] = value.strip()
    return found


def explain(form: Format, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """All of it as data: by which policy, each part, and what could not be asked."""
    from mlrunbook.gateway.webhooks import explaining, mail_parsing
    from mlrunbook.gateway.webhooks.judging import judge_all, names_in
    from mlrunbook.gateway.webhooks.parsing import read_json

    policy, now, path = in_force(), datetime.now(UTC), path_in_force(None)
    if form.mapping and form.mapping not in policy.intake.generic:
        raise Invalid(_no_mapping(form.mapping, policy, path), field="mapping")
    if form.name == "email" and not body.lstrip().startswith(b"{"):  # else it is a mail as the quarantine keeps it
        body = mail_parsing.limited(body)
    if headers.get("content-type") and not form.accepts(headers):
        raise Invalid(f"the gateway answers 415: send Content-Type {' or '.join(form.media_types)}", field="header")
    read = explaining.readings_of(form, read_json(body, headers, policy.intake, now))
    standings = _standings(policy, names_in(read))
    judged = judge_all(read, policy, standings, received_at=now)
    parts = [_as_data(one) for one in explaining.explained(judged, policy, now=now)]
    cut_off = max((one.truncated for one in judged), default=0)
    notes = [*_notes(standings), *([f"its sender cut {cut_off} further alert(s) off"] if cut_off else [])]
    return {"format": form.source, "policy": str(path) if path else None, "parts": parts, "notes": notes}


def _no_mapping(name: str, policy: Policy, path: Path | None) -> str:
    """The gateway answers 404 then."""
    where, known = path or BUILT_IN, ", ".join(policy.intake.generic)
    return f"{where}: intake.generic has no mapping {name[:50]!r}; known: {known}. Ready ones to copy: deployments/receivers/mappings"


def _as_data(one: Explained) -> dict[str, Any]:
    read = {step: asdict(said) for step, said in one.read.items()}
    return {"outcome": one.verdict.outcome.value, "happens": one.verdict.happens, "title": one.title, "read": read}


def _standings(policy: Policy, names: set[str]) -> dict[str, Standing]:
    """As the gateway would ask, where a model platform is set or a stack runs here; else by policy alone."""
    env = target.environment()
    if url := env.get("MLRUNBOOK_PLATFORM_URL"):
        from mlrunbook.adapters.model_platform import HttpPlatform
        from mlrunbook.response.known_models import WAIT_S, KnownModels

        platform = HttpPlatform(url, env.get("MLRUNBOOK_PLATFORM_TOKEN"), timeout_s=WAIT_S)
        return KnownModels(platform, lambda: datetime.now(UTC)).of(policy, names, fresh=True)
    return {name: Standing(Known.KNOWN if policy.names(name) else Known.UNREACHABLE) for name in names}


def _notes(standings: Mapping[str, Standing]) -> Iterable[str]:
    if unasked := sorted(name for name, standing in standings.items() if standing.known is Known.UNREACHABLE):
        shown = ", ".join(unasked[:5]) + (", ..." if len(unasked) > 5 else "")
        yield (
            f"no registry was asked whether it knows {shown}. A name that nobody knows opens an incident only where its type is "
            "recognised: set MLRUNBOOK_PLATFORM_URL to have it asked, or name it under `models:`"
        )


def page(found: Mapping[str, Any]) -> Iterable[Any]:
    """For a terminal: a block a part."""
    parts, by = found["parts"], found["policy"] or BUILT_IN
    count = counted(len(parts), "part") if parts else "nothing in it"
    yield render.styled(f"{found['format']} message, {count}, read by {by}", "dim")
    for number, part in enumerate(parts[:MAX_SHOWN], start=1):
        yield ""
        yield render.styled(f"{number}. {part['title']}", "bold")
        table = render.grid(10, None)
        for step, said in part["read"].items():
            table.add_row(step.capitalize(), render.styled(f"{said['value']}: {said['because']}"))
        yield table
        yield render.verdict_row(part["outcome"], f"It {part['happens']}")
    if len(parts) > MAX_SHOWN:
        yield f"\nand {len(parts) - MAX_SHOWN} more: --json has all of them"
    for note in found["notes"]:
        yield ""
        yield render.styled(f"Note: {note}", "dim")
