"""One namespace of a cluster through the official client: a timeout on every call, every call one of `NEEDED`, errors translated.

Answers are the server's JSON as it stands, not the client's models: nothing of a pod template is lost that this client does not know,
and nothing that an older or newer server leaves out fails. The client is imported at the first call: that takes 0.9 s.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from mlrunbook.adapters.kubernetes.access import LOOKED_AT, NEEDED, Access
from mlrunbook.adapters.kubernetes.errors import Unauthenticated, retry_after_s, translated
from mlrunbook.domain.errors import Invalid

Object = dict[str, Any]
FIELD_MANAGER = "mlrunbook"
STRATEGIC, MERGE, JSON = (f"application/{kind}+json" for kind in ("strategic-merge-patch", "merge-patch", "json-patch"))
THROTTLED_TRIES = 4
LONGEST_WAIT_S = 10.0  # a server that asks for more is asked again by the task, not here
_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_METRICS = {"group": "metrics.k8s.io", "version": "v1beta1"}
_CUSTOM = {"keda.sh": "v1alpha1"}  # API group of custom resources -> the version that we read and write

# (API group, resource) -> the client's class, and the noun of its methods
_CLIENT = {
    ("apps", "deployments"): ("AppsV1Api", "deployment"),
    ("apps", "replicasets"): ("AppsV1Api", "replica_set"),
    ("autoscaling", "horizontalpodautoscalers"): ("AutoscalingV1Api", "horizontal_pod_autoscaler"),
    ("keda.sh", "scaledobjects"): ("CustomObjectsApi", "custom_object"),
    ("", "services"): ("CoreV1Api", "service"),
    ("", "configmaps"): ("CoreV1Api", "config_map"),
    ("", "pods"): ("CoreV1Api", "pod"),
    ("", "events"): ("CoreV1Api", "event"),
    ("networking.k8s.io", "networkpolicies"): ("NetworkingV1Api", "network_policy"),
}
_VERBS = {"get": "read"}  # as the client calls them
_GROUPS = {resource: group for group, resource in _CLIENT}
_BY_NAME = {(a.api_group, a.resource, a.verb, a.subresource): a for a in (*NEEDED, *LOOKED_AT)}


@dataclass(frozen=True)
class Login:
    """Where the API server is and who we are: the kubeconfig's context, or the pod's service account."""

    configuration: Any  # kubernetes.client.Configuration
    namespace: str


def login(context: str | None, namespace: str | None, *, config_file: str | None = None) -> Login:
    """`config_file`, KUBECONFIG or a context of the settings: that kubeconfig; else, in a pod, its service account; else ~/.kube/config.

    Raises Invalid where none is usable, with what to set.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    configuration.retries = False  # what is tried again, and when, is decided here
    in_pod = os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG") and not context and not config_file
    try:
        if in_pod:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            own = (_IN_POD / "namespace").read_text().strip()
        else:
            file = config_file or os.environ.get("KUBECONFIG")  # as it is now: the client looks once, when it is imported
            config.load_kube_config(file, context=context, client_configuration=configuration)  # type: ignore[no-untyped-call]
            contexts, current = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
            chosen = next((c for c in contexts if c["name"] == context), current)
            own = chosen["context"].get("namespace", "default")
    except (config.ConfigException, OSError) as error:
        where = "the pod's service account" if in_pod else f"the kubeconfig (KUBECONFIG={os.environ.get('KUBECONFIG', '~/.kube/config')})"
        raise Invalid(f"no cluster to talk to: {where} is not usable: {error}", field="MLRUNBOOK_KUBE_CONTEXT") from error
    return Login(configuration, namespace or own)


class Cluster:
    """Objects of one namespace, by the resource's plural as in a Role. Threads share nothing: the client pools its connections."""

    def __init__(self, sign_in: Callable[[], Login], *, timeout_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sign_in, self._timeout_s, self._sleep = sign_in, timeout_s, sleep
        self._login: Login | None = None
        self._apis: dict[str, Any] = {}

    @property
    def namespace(self) -> str:
        if self._login is None:
            self._login = self._sign_in()
        return self._login.namespace

    def get(self, resource: str, name: str) -> Object:
        return dict(self._json(resource, "get", name))

    def find(self, resource: str, *, labels: Mapping[str, str] | None = None, fields: str | None = None) -> list[Object]:
        options: Object = {"label_selector": selector(labels)} if labels else {}
        return list(self._json(resource, "list", None, **options, **({"field_selector": fields} if fields else {}))["items"])

    def patch(self, resource: str, name: str, body: Any, *, style: str = STRATEGIC, dry_run: bool = False) -> Object:
        return dict(self._json(resource, "patch", name, body=body, _content_type=style, **_written(dry_run)))

    def create(self, resource: str, body: Object, *, dry_run: bool = False) -> Object:
        return dict(self._json(resource, "create", None, body=body, **_written(dry_run)))

    def delete(self, resource: str, name: str, *, dry_run: bool = False) -> None:
        self._json(resource, "delete", name, **({"dry_run": "All"} if dry_run else {}))

    def log(self, pod: str, container: str, *, previous: bool = False, tail: int | None = None, since_s: int | None = None) -> str:
        """The end of a container's log, or of the one that ran before it crashed. "" where nothing was written."""
        access = _BY_NAME["", "pods", "get", "log"]
        options: Object = {"container": container, "previous": previous} | ({"tail_lines": tail} if tail else {})
        options |= {"since_seconds": since_s} if since_s else {}

        def read(api: Any) -> Any:
            return api.read_namespaced_pod_log(pod, self.namespace, **options, **self._raw())

        return self._asked(access, f"pod/{pod}", "CoreV1Api", read).decode(errors="replace")

    def usage(self, labels: Mapping[str, str]) -> list[Object]:
        """PodMetrics of metrics.k8s.io. NotFound where the cluster measures nothing."""
        access = _BY_NAME["metrics.k8s.io", "pods", "list", ""]

        def read(api: Any) -> Any:
            return api.list_namespaced_custom_object(
                **_METRICS, namespace=self.namespace, plural="pods", label_selector=selector(labels), **self._raw()
            )

        return list(json.loads(self._asked(access, "pods of metrics.k8s.io", "CustomObjectsApi", read))["items"])

    def _json(self, resource: str, verb: str, name: str | None, **options: Any) -> Any:
        group = _GROUPS[resource]
        access = _BY_NAME[group, resource, verb, ""]
        api_name, noun = _CLIENT[group, resource]
        method = f"{_VERBS.get(verb, verb)}_namespaced_{noun}"
        named: Object = {"name": name} if name is not None else {}
        if version := _CUSTOM.get(group):
            named |= {"group": group, "version": version, "plural": resource}

        def ask(api: Any) -> Any:
            return getattr(api, method)(**named, namespace=self.namespace, **options, **self._raw())

        singular = resource.removesuffix("s") if group in _CUSTOM else noun.replace("_", "")
        what = singular + (f"/{name}" if name is not None else "s")
        return json.loads(self._asked(access, what, api_name, ask))

    def _raw(self) -> Object:
        return {"_preload_content": False, "_request_timeout": self._timeout_s}

    def _asked(self, access: Access, what: str, api_name: str, ask: Callable[[Any], Any]) -> bytes:
        """Ask once; again after the time a throttling server names, and after signing in anew where it does not know us any more: in
        both cases it has done nothing."""
        from kubernetes.client.exceptions import ApiException
        from pydantic import ValidationError
        from urllib3.exceptions import HTTPError

        renewed = False
        for tries in count(1):
            try:
                answer = ask(self._api(api_name))
                return bytes(answer.read())
            except (ApiException, HTTPError, OSError) as error:
                known = translated(error, access, what, self.namespace)
                wait_s = retry_after_s(error)
                if isinstance(known, Unauthenticated) and not renewed:
                    renewed, self._login, self._apis = True, None, {}
                    continue
                if (
                    wait_s is not None
                    and wait_s <= LONGEST_WAIT_S
                    and getattr(error, "status", None) in (429, 503)
                    and tries < THROTTLED_TRIES
                ):
                    self._sleep(wait_s)
                    continue
                raise known from error
            except ValidationError as error:
                raise Invalid(f"{what}: {error}") from error
        raise AssertionError("unreachable")  # pragma: no cover - the loop has no end

    def _api(self, name: str) -> Any:
        from kubernetes import client

        if name not in self._apis:
            if self._login is None:
                self._login = self._sign_in()
            self._apis[name] = getattr(client, name)(client.ApiClient(self._login.configuration))
        return self._apis[name]


def selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def matches(labels: Mapping[str, str] | None, wanted: Mapping[str, str]) -> bool:
    return all((labels or {}).get(key) == value for key, value in wanted.items())


def _written(dry_run: bool) -> Object:
    return {"field_manager": FIELD_MANAGER} | ({"dry_run": "All"} if dry_run else {})
