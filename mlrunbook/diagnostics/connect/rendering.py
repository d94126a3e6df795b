"""The policy's section of one model, as YAML with the reason of every guess beside it. No address and no secret is known here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from mlrunbook.domain.connecting.columns import NEEDED, LogGuess
from mlrunbook.domain.connecting.guesses import OPEN, Guess, Sure
from mlrunbook.domain.connecting.model import ModelGuess
from mlrunbook.domain.connecting.objects import ObjectsGuess
from mlrunbook.domain.connecting.promql import LiveGuess

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null", "none"})
WIDTH = 138
STEP = "  "
PREDICTION_PARTS = ("key", "at", "score", "label", "version", "threshold", "day", "asset_id", "segment", "latency_ms", "features_json")
OUTCOME_PARTS = ("key", "outcome", "reported_at", "day")


@dataclass(frozen=True)
class Names:
    """The connections, by the names that the policy gives them; None: not used."""

    registry: str | None = None
    predictions: str | None = None
    live: str | None = None


@dataclass(frozen=True)
class Line:
    depth: int
    text: str
    comment: str = ""

    def shown(self, indent: str) -> str:
        line = f"{indent}{STEP * self.depth}{self.text}".rstrip()
        if not self.comment:
            return line
        said = f"{line} # {one_line(self.comment)}" if self.text else f"{indent}{STEP * self.depth}# {one_line(self.comment)}"
        return said if len(said) <= WIDTH else max(said[: WIDTH - 3] + "...", line, key=len)  # never the value itself


def one_line(text: str) -> str:
    """Whatever it is, it ends no comment: what was read from outside stands here."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def scalar(value: str) -> str:
    """A text as YAML has it, in quotes where it would else be something else."""
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else in_quotes(value)


def in_quotes(value: str) -> str:
    """YAML's own quotes: those of JSON write a letter beyond U+FFFF as two halves, which YAML reads as two others."""
    return str(yaml.safe_dump(value, default_style='"', width=1_000_000)).rstrip("\n")


def listed(values: tuple[str, ...]) -> str:
    return f"[{', '.join(scalar(v) for v in values)}]"


def rendered(guess: ModelGuess, names: Names, indent: str) -> list[str]:
    """The lines of `models:` for it, without the markers around them."""
    lines = [
        Line(0, f"{scalar(guess.model)}:"),
        Line(1, "mode: observe", "looks, and says what it would do; nothing is changed. Then propose, then act"),
        Line(1, "", 'owner: "Your team"'),
        *_views(guess),
        *(_cluster(guess.objects) if guess.objects else ()),
        Line(1, "platform:"),
        *(_registry(guess, names.registry) if names.registry and guess.in_registry else ()),
        *(_predictions(guess, guess.log, names.predictions) if names.predictions and guess.log else ()),
        *(_live(guess.live, names.live) if names.live and guess.live else ()),
        *(_REPLAY if guess.in_registry and guess.log else ()),
        Line(2, f"serving: {serving(guess)}", _serving_words(guess)),
    ]
    return [line.shown(indent) for line in lines]


_REPLAY = (
    Line(2, "", "replay: {kind: mlflow} compares versions on logged requests. It runs each version's own code, so it is off: read"),
    Line(2, "", "docs/how-to/connect-mlflow.md first; `shadow: offline` beside it tries a candidate on the log instead of live requests"),
)


def serving(guess: ModelGuess) -> str:
    return "kubernetes" if guess.objects and guess.objects.deployment.value else "none"


def _serving_words(guess: ModelGuess) -> str:
    if guess.objects is None:
        return "no cluster was looked at: a rollback moves the registry's alias alone"
    if guess.objects.deployment.value:
        return ""
    if guess.objects.deployment.choices:
        return f"TODO: {guess.objects.deployment.reason}; name it under cluster, and write kubernetes here"
    return f"{guess.objects.deployment.reason}: a rollback moves the registry's alias alone"


def _said(guess: Guess) -> str:
    if guess.undecided:
        return f"{OPEN}: {guess.reason}"
    return guess.reason if guess.sure is Sure.SURE else f"{guess.sure}: {guess.reason}"


def _views(guess: ModelGuess) -> Iterator[Line]:
    if guess.views:
        yield Line(1, f"feature_views: {listed(guess.views)}", _said(guess.views_guess) if guess.views_guess else "")
    elif guess.views_guess is not None:
        yield Line(1, "feature_views: []", guess.views_guess.reason)


def _cluster(of: ObjectsGuess) -> Iterator[Line]:
    if of.deployment.value is None:
        return
    yield Line(1, "cluster:")
    yield Line(2, f"scaled_deployment: {scalar(of.deployment.value)}", _said(of.deployment))
    yield Line(2, f"restarted_deployment: {scalar(of.deployment.value)}", "the same")
    yield Line(2, f"service: {_or_null(of.service)}", _said(of.service))
    if of.version_label.value:
        yield Line(2, f"version_label: {scalar(of.version_label.value)}", _said(of.version_label))
    yield Line(2, f"config_map: {_or_null(of.config_map)}", _said(of.config_map))
    if of.config_key.value:
        yield Line(2, f"config_key: {scalar(of.config_key.value)}", _said(of.config_key))
    labels = ", ".join(f"{scalar(k)}: {scalar(v)}" for k, v in of.pod_selector.items())
    yield Line(2, f"pod_selector: {{{labels}}}", "what selects its pods, whatever the version")
    yield Line(2, f"container: {scalar(of.container.value or of.container.choices[0])}", _said(of.container))


def _or_null(guess: Guess) -> str:
    return scalar(guess.value) if guess.value else "null"


def _registry(guess: ModelGuess, connection: str) -> Iterator[Line]:
    yield Line(2, "registry:")
    yield Line(3, f"connection: {scalar(connection)}")
    if guess.registered.name != guess.model:
        yield Line(3, f"name: {in_quotes(guess.registered.name)}", "what it is called there")
    serving_, candidate = guess.serving, guess.candidate
    if serving_ is not None:
        chosen = scalar(serving_.value) if serving_.value else OPEN if serving_.choices else "champion"
        yield Line(3, f"serving_alias: {chosen}", _said(serving_))
    if candidate is not None and candidate.value:
        yield Line(3, f"candidate_alias: {scalar(candidate.value)}", _said(candidate))
    if serving(guess) == "kubernetes":
        yield Line(3, "server_follows: false", "a rollout restart tells the server; true where it loads by the alias itself")


def _predictions(guess: ModelGuess, log: LogGuess, connection: str) -> Iterator[Line]:
    yield Line(2, "predictions:")
    yield Line(3, f"connection: {scalar(connection)}")
    yield from _source("", log.table, log.query)
    if log.outcomes_table:
        yield from _source("outcomes_", log.outcomes_table, log.outcomes_query)
    if log.model_column.value and log.model_value is not None:
        yield Line(3, f"model_column: {scalar(log.model_column.value)}", _said(log.model_column))
        yield Line(3, f"model_value: {in_quotes(log.model_value)}")
    elif log.model_column.undecided:
        yield Line(3, f"model_column: {scalar(log.model_column.choices[0])}", _said(log.model_column))
        yield Line(3, f"model_value: {OPEN}")
    yield Line(3, f"time_zone: {scalar(guess.zone or 'UTC')}", "of times that name none")
    if log.positive.value:
        yield Line(3, f"positive: {listed(tuple(log.positive.value.split(', ')))}", _said(log.positive))
        yield Line(3, f"negative: {listed(log.negative)}")
    elif log.positive.undecided:
        yield Line(3, f"positive: [{OPEN}]", _said(log.positive))
    yield Line(3, "columns:")
    yield from (_column(part, log.predictions, needed=NEEDED) for part in PREDICTION_PARTS if part in log.predictions)
    if log.features:
        yield Line(4, f"features: {listed(log.features)}", "the inputs of the signature")
    yield Line(3, "outcomes:")
    yield from (_column(part, log.outcomes, needed=NEEDED) for part in OUTCOME_PARTS if part in log.outcomes)


def _source(prefix: str, table: str, query: str | None) -> Iterator[Line]:
    if query is None:
        yield Line(3, f"{prefix}table: {scalar(table)}")
    else:
        yield Line(3, f"{prefix}query: {in_quotes(query)}", "a time in it is a number")


def _column(part: str, guesses: Mapping[str, Guess], *, needed: frozenset[str]) -> Line:
    guess = guesses[part]
    if guess.value:
        return Line(4, f"{part}: {scalar(guess.value)}", _said(guess))
    either = part == "score" and not (guesses.get("label") and guesses["label"].value)
    if part in needed or either:
        return Line(4, f"{part}: {OPEN}", _said(guess).removeprefix(f"{OPEN}: "))
    return Line(4, f"{part}: null", _said(guess))


def _live(live: LiveGuess, connection: str) -> Iterator[Line]:
    if not live.figures:
        yield Line(2, "", f"live: {live.family.reason}")
        return
    yield Line(2, "live:", _said(live.family))
    yield Line(3, f"connection: {scalar(connection)}")
    for figure, expression in live.figures.items():
        yield Line(3, f"{figure}: {in_quotes(expression)}")
