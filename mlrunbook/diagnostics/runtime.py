"""Where the model server runs, and what features come from: the local supervisor or the cluster, and Feast."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import psutil

from mlrunbook.adapters.feast.store import FeastStore
from mlrunbook.adapters.kubernetes import cluster as kubernetes_cluster
from mlrunbook.adapters.kubernetes.access import NEEDED, Access
from mlrunbook.adapters.kubernetes.cluster import Cluster
from mlrunbook.adapters.kubernetes.controllers import SCALED_OBJECT
from mlrunbook.adapters.kubernetes.isolation import name_of
from mlrunbook.adapters.local.serving_state import desired_state
from mlrunbook.diagnostics.doctor import CALL_S, Ask, Finding, fail, ok, warn
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.policy.cluster import ClusterObjects

ROLE = "deployments/kubernetes/base/access.yaml"


def runtime(ask: Ask) -> Iterator[Finding]:
    yield from (_cluster if ask.settings.runtime == "kubernetes" else _local)(ask)


def _local(ask: Ask) -> Iterator[Finding]:
    """The desired state is a file; who makes it true is the supervisor of `mlrunbook up`."""
    file = ask.settings.serving_state_file
    wanted = desired_state(file)
    folder = next(path for path in (file.parent, *file.parent.parents) if path.exists())
    if not os.access(folder, os.W_OK):
        yield fail("runtime", f"{folder} cannot be written: stopping and restarting would fail", "run as the user of the data folder")
        return
    note = ask.settings.data / "run" / "stack.json"
    try:
        said = json.loads(note.read_text())
        alive = psutil.Process(said["pid"]).create_time() == said["started_at"]
    except (OSError, ValueError, KeyError, psutil.Error):
        alive = False
    serves = wanted["model"]
    if not alive:
        said = f"no `mlrunbook up` supervises {ask.settings.data}: nothing restarts or stops the model server"
        yield warn("runtime", said, "mlrunbook up")
    else:
        isolated = ", isolated" if wanted["isolated"] else ""
        yield ok("runtime", f"local, supervised; serves {serves}: {wanted['replicas']} server wanted{isolated}")
    if serves and serves != ask.model:
        said = f"this machine serves {serves}, not {ask.model}: every change to the serving of {ask.model} is refused here"
        yield warn("model served", said, f"ask about {serves} with --model, or run the runbook where {ask.model} is served")


def _cluster(ask: Ask) -> Iterator[Finding]:
    from kubernetes import client
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    login = kubernetes_cluster.login(ask.settings.kube_context, ask.settings.kube_namespace)
    api: Any = client.ApiClient(login.configuration)
    try:
        server: Any = client.VersionApi(api).get_code(_request_timeout=CALL_S)
        mapped = sorted(ask.policy.objects.by_model)
        yield ok("runtime", f"Kubernetes {server.git_version}, namespace {login.namespace}; serves {', '.join(mapped) or 'no model'}")
        if ask.model not in mapped:
            yield _unmapped(ask.model, mapped)
            return
        objects = ask.policy.objects.of(ask.model)
        named = _names(ask.model, objects, api, login.namespace)
        lacking = [access for access in NEEDED if not _allowed(api, access, login.namespace, named)]
    except ApiException as error:
        fix = "log in again, or renew the token of the kubeconfig" if error.status == 401 else "ask whoever runs the cluster"
        yield fail("runtime", f"the API server answers {error.status} {error.reason}", fix)
        return
    except (HTTPError, OSError) as error:
        yield fail("runtime", f"the API server gives no answer ({type(error).__name__})", "check KUBECONFIG and MLRUNBOOK_KUBE_CONTEXT")
        return
    for access in lacking:
        said = f"not allowed in namespace {login.namespace}, and needed: {access.why}"
        yield fail(f"{access.verb} {access.rule_resource}", said, f"add to the Role ({ROLE}): {access.rule}")
    if not lacking:
        yield ok("permissions", f"all {len(NEEDED)} verbs that the runbook uses in {login.namespace}")
    yield from _objects(Cluster(lambda: login, timeout_s=CALL_S), objects, {a.resource for a in lacking})


def _unmapped(model: str, mapped: list[str]) -> Finding:
    if not mapped:
        said = "the policy names no model for `cluster.default` and no other model's objects: every change in the cluster is refused"
        return fail("cluster objects", said, "name your model in `cluster.default_model`, or its objects in `models.<name>.cluster`")
    said = f"the policy maps objects of {', '.join(mapped)}, not of {model}: every change to {model} in the cluster is refused"
    return fail("cluster objects", said, f"name its objects in `models.{model}.cluster`, or ask about {mapped[0]} with --model")


def _names(model: str, objects: ClusterObjects, api: Any, namespace: str) -> dict[str, set[str]]:
    """The objects by name, where a Role may be limited to them."""
    autoscalers = _autoscalers(api, namespace, objects)
    owners = [owner for one in autoscalers for owner in one.metadata.owner_references or ()]
    return {
        "deployments": {objects.scaled_deployment, objects.restarted_deployment},
        "services": {objects.service or ""},
        "configmaps": {objects.config_map or ""},
        "horizontalpodautoscalers": {one.metadata.name for one in autoscalers} or {objects.scaled_deployment},
        "scaledobjects": {owner.name for owner in owners if owner.kind == SCALED_OBJECT} or {objects.scaled_deployment},
        "networkpolicies": {name_of(model)},
    }


def _autoscalers(api: Any, namespace: str, objects: ClusterObjects) -> list[Any]:
    """Those of the model server; none where we may not look, which is told as what it is."""
    from kubernetes import client
    from kubernetes.client.exceptions import ApiException

    try:
        found: Any = client.AutoscalingV1Api(api).list_namespaced_horizontal_pod_autoscaler(namespace, _request_timeout=CALL_S)
    except ApiException:
        return []
    return [one for one in found.items if one.spec.scale_target_ref.name == objects.scaled_deployment]


def _allowed(api: Any, access: Access, namespace: str, named: dict[str, set[str]]) -> bool:
    """As `kubectl auth can-i`."""
    from kubernetes import client

    reviews: Any = client.AuthorizationV1Api(api)
    asked = {"group": access.api_group, "resource": access.resource, "subresource": access.subresource, "verb": access.verb}
    return all(
        reviews.create_self_subject_access_review(
            {"spec": {"resourceAttributes": asked | {"namespace": namespace, "name": name}}}, _request_timeout=CALL_S
        ).status.allowed
        for name in (named.get(access.resource, {""}) if access.verb in ("get", "patch", "delete") else {""})
    )


def _objects(cluster: Cluster, objects: ClusterObjects, lacking: set[str]) -> Iterator[Finding]:
    """What the policy names is there and fits together; of what we may not read, the permission has been told."""
    wanted = [("deployments", name) for name in dict.fromkeys((objects.scaled_deployment, objects.restarted_deployment))]
    wanted += [(kind, name) for kind, name in (("services", objects.service), ("configmaps", objects.config_map)) if name]
    found, missing = {}, []
    for resource, name in wanted:
        if resource not in lacking:
            try:
                found[resource, name] = cluster.get(resource, name)
            except NotFound:
                missing.append(f"{resource.removesuffix('s')}/{name}")
    pods = ",".join(f"{key}={value}" for key, value in objects.pod_selector.items())
    config = found.get(("configmaps", objects.config_map or ""))
    restarted = found.get(("deployments", objects.restarted_deployment))
    if missing:
        yield fail(
            "cluster objects", f"not in {cluster.namespace}: {', '.join(missing)}", "correct the names under `cluster` in the policy"
        )
    elif config and objects.config_key not in (config.get("data") or {}):
        said = f"configmap/{objects.config_map} has no key {objects.config_key}"
        yield fail("cluster objects", said, "correct `config_key` under `cluster` in the policy")
    elif restarted and not objects.pod_selector.items() <= restarted["spec"]["template"]["metadata"]["labels"].items():
        said = f"the pods of deployment/{objects.restarted_deployment} lack {pods}"
        yield fail("cluster objects", said, "correct `pod_selector` under `cluster` in the policy")
    else:
        yield ok("cluster objects", ", ".join(f"{resource.removesuffix('s')}/{name}" for resource, name in found))
    if "pods" not in lacking:
        yield _pods(cluster, objects, pods)
    if "horizontalpodautoscalers" not in lacking:
        scalers = cluster.find("horizontalpodautoscalers")
        ours = [h["metadata"]["name"] for h in scalers if h["spec"]["scaleTargetRef"]["name"] == objects.scaled_deployment]
        yield ok("autoscaler", f"{', '.join(ours)}: suspended while serving is stopped" if ours else "none scales the model server")


def _pods(cluster: Cluster, objects: ClusterObjects, words: str) -> Finding:
    pods = cluster.find("pods", labels=objects.pod_selector)
    ready = [p for p in pods if any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions") or ())]
    if ready:
        return ok("model server's pods", f"{len(ready)} of {len(pods)} ready")
    look = f"was it stopped on purpose? kubectl -n {cluster.namespace} get pods -l {words}"
    return warn("model server's pods", f"none of {len(pods)} is ready", look)


def features(ask: Ask) -> Iterator[Finding]:
    """The registry and a read as the model server does it. Feast takes seconds to import."""
    config = ask.settings
    if config.feature_repo is None:
        yield warn("feature store", "none is configured: path B and training on its features end at a person", "set MLRUNBOOK_FEATURE_REPO")
    else:
        state = FeastStore(config.feature_repo, ask.policy.for_model(ask.model).features).inspect(entities=20)
        for problem in state.problems:
            yield fail("feature store", problem.sentence, "docs/how-to/features-and-training.md")
        if not state.problems:
            yield ok("feature store", f"{len(state.views)} views, readable online")
    if config.feature_server_url:
        url = config.feature_server_url.rstrip("/")
        try:
            answer = httpx.get(f"{url}/health", timeout=CALL_S, trust_env=False)
            good, said = answer.is_success, str(answer.status_code)
        except httpx.HTTPError as error:
            good, said = False, type(error).__name__
        if good:
            yield ok("feature server", url)
        else:
            yield warn("feature server", f"{url}/health: {said}", "start it, or correct MLRUNBOOK_FEATURE_SERVER_URL")
