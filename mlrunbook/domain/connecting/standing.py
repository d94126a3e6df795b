"""What an incident of one model can do with what the policy names for it, what is missing, and what follows from that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mlrunbook.domain.policy.cluster import ClusterObjects
from mlrunbook.domain.policy.connections import PlatformParts, PredictionsPart, Replay, Serving, Shadow


class Can(StrEnum):
    YES = "yes"
    PERSON = "person"  # the runbook prepares it, and somebody does it
    NO = "no"  # it is not judged


@dataclass(frozen=True)
class Standing:
    """One line: what, whether, and why or what follows. `fix`: what would change it; "" where nothing has to."""

    what: str
    can: Can
    said: str
    fix: str = ""


@dataclass(frozen=True)
class Means:
    """What there is for a model, from the policy and the settings.

    rest            a REST platform answers what its parts leave out
    reads_features  a feature store is set
    own_training    the policy has a training command of the team's own
    not_confined    why no model's own code can be confined on this machine; "": it can
    """

    parts: PlatformParts
    serving: Serving
    objects: ClusterObjects | None = None
    rest: bool = False
    features: tuple[str, ...] = ()
    reads_features: bool = False
    own_training: bool = False
    not_confined: str = ""


def standings(of: Means) -> tuple[Standing, ...]:
    return (*_measured(of), *_paths(of), *_contained(of))


def _measured(of: Means) -> Iterator[Standing]:
    log, live = of.parts.predictions, of.parts.live
    if log is None and not of.rest:
        yield Standing("F1, drift, segments", Can.NO, "no log of predictions is named", "mlrunbook connect --predictions URL")
    elif log is not None:
        yield from _of_log(log)
    absent = [words for key, words in _FIGURES.items() if live is None or getattr(live, key) is None]
    if live is None and not of.rest:
        if log is None or log.columns.latency_ms is None:
            yield Standing("latency, errors, traffic", Can.NO, "no alert of them is confirmed", "mlrunbook connect --prometheus URL")
        else:
            yield Standing("errors, traffic", Can.NO, "no Prometheus is named; latency is the log's", "mlrunbook connect --prometheus URL")
    elif live is not None and absent:
        yield Standing(
            ", ".join(absent), Can.NO, "not measured: an alert of it is neither confirmed nor denied", "name its PromQL under live"
        )


_FIGURES = {"latency_p95_s": "latency", "error_rate": "errors", "requests": "traffic", "null_rate": "nulls"}


def _of_log(log: PredictionsPart) -> Iterator[Standing]:
    yield Standing("F1, drift, segments", Can.YES, "counted in the warehouse")
    if log.columns.version is None:
        yield Standing("F1 of one version", Can.NO, "the log has no version: a bad release is not told from bad data",
                       "name predictions.columns.version")  # fmt: skip
    if (log.outcomes_table or log.outcomes_query) and log.outcomes.reported_at is None:
        yield Standing("corrected outcomes", Can.NO, "outcomes carry no time of their own: which one is newer is not known",
                       "name predictions.outcomes.reported_at")  # fmt: skip
    if log.columns.segment is None:
        yield Standing("segments, fairness", Can.NO, "the log has no segment: groups are not compared", "name predictions.columns.segment")
    if log.columns.day is None:
        yield Standing("cost of a look", Can.YES, "no day column: a look may read the whole log", "name predictions.columns.day")


def _paths(of: Means) -> Iterator[Standing]:
    registry, server = of.parts.registry, of.serving
    if registry is None and not of.rest:
        yield Standing("path A, roll back", Can.PERSON, "no registry is named", "mlrunbook connect --mlflow URL")
    elif server is Serving.NONE and registry is not None and not registry.server_follows:
        said = f"the alias {registry.serving_alias} moves; whoever runs the server makes it load that version"
        yield Standing("path A, roll back", Can.YES, said, "server_follows: true where it does by itself, or name its Deployment")
    elif registry is not None:
        how = "the server follows it" if registry.server_follows else "a rollout restart loads it"
        yield Standing("path A, roll back", Can.YES, f"the alias {registry.serving_alias} moves, and {how}")
    else:
        yield Standing("path A, roll back", Can.YES, "by the REST platform")
    if of.features and of.reads_features:
        yield Standing("path B, features", Can.YES, f"materialises {', '.join(of.features)}")
    else:
        why = "no feature store is set" if of.features else "no feature views of this model are named"
        yield Standing("path B, features", Can.PERSON, why, "mlrunbook connect --feast DIR")
    if registry is not None and not of.own_training:
        yield Standing("path C, retrain", Can.PERSON, "the training command is that of the box", "name yours in training.command")
    else:
        tried = " and tried on logged requests" if of.parts.replay.kind is not Replay.NONE else ""
        yield Standing("path C, retrain", Can.YES, f"by training.command; a candidate is staged{tried}, a person promotes it")
    if registry is not None:
        yield from _compared(of)
    yield _threshold(of)


def _compared(of: Means) -> Iterator[Standing]:
    """Versions on the same requests: before a rollback, and before a candidate is promoted."""
    what, replay = "candidates, compared", of.parts.replay
    if replay.kind is Replay.NONE:
        why = "replay is off: versions are not scored on the same requests"
        fix = "replay.kind: mlflow runs a model's own code, confined: see docs/how-to/connect-mlflow.md; rest: your REST platform does it"
        yield Standing(what, Can.NO, why, fix)
        return
    if replay.kind is Replay.MLFLOW and of.not_confined:
        yield Standing(what, Can.NO, f"replay by MLflow is not done on this machine: {of.not_confined}", "run the worker where it can be")
        return
    how = "replay by MLflow, in a process of its own" if replay.kind is Replay.MLFLOW else "replay by the REST platform"
    yield Standing(what, Can.YES, how)
    if of.parts.shadow is Shadow.OFFLINE:
        yield Standing(
            "candidates, in the shadow", Can.YES, "offline: the requests served since it was staged are replayed, once outcomes come"
        )
    elif of.parts.predictions is not None:
        why = "the log holds no shadow scores: a candidate waits, and ends as not enough evidence"
        yield Standing("candidates, in the shadow", Can.NO, why, "shadow: offline")


def _threshold(of: Means) -> Standing:
    if of.serving is Serving.LOCAL:
        return Standing("path D, threshold", Can.YES, "in the server's config file")
    if of.serving is Serving.NONE:
        return Standing("path D, threshold", Can.PERSON, "no server is named that takes one", "name its Deployment under cluster")
    if of.objects is None:
        return Standing(
            "path D, threshold", Can.PERSON, "the policy names no objects of it in the cluster", "mlrunbook connect --kube-context"
        )
    if of.objects.config_map is None:
        return Standing("path D, threshold", Can.PERSON, "the server takes no threshold from a ConfigMap", "name one in cluster.config_map")
    return Standing("path D, threshold", Can.YES, f"in configmap/{of.objects.config_map}")


def _contained(of: Means) -> Iterator[Standing]:
    if of.serving is Serving.NONE:
        yield Standing("stop, reroute, isolate", Can.PERSON, "no server is named: on-call is paged with what to do",
                       "mlrunbook connect --kube-context NAME")  # fmt: skip
    elif of.serving is Serving.KUBERNETES and of.objects is None:
        yield Standing("stop, reroute, isolate", Can.PERSON, "the policy names no objects of it", "mlrunbook connect --kube-context NAME")
    elif of.objects is not None and of.objects.service is None:
        yield Standing("stop, isolate", Can.YES, f"deployment/{of.objects.scaled_deployment}")
        yield Standing("reroute to a version", Can.PERSON, "no Service is named", "name it in cluster.service")
    else:
        where = f"deployment/{of.objects.scaled_deployment}, service/{of.objects.service}" if of.objects else "the local server"
        yield Standing("stop, reroute, isolate", Can.YES, where)
