"""An API server over real HTTP that behaves as the measured one (1.20.2) does where the runbook touches it.

Objects with resourceVersion and generation; three kinds of patch; optimistic locking; dry runs; RBAC; Deployments that keep ReplicaSets
with revisions, and pods that are ready once somebody, like a kubelet, says so. Faults are set on the object; the sockets are real.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/[^/]+)(?:/namespaces/(?P<ns>[^/]+))?/(?P<res>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)
KINDS = {
    "deployments": "Deployment",
    "replicasets": "ReplicaSet",
    "pods": "Pod",
    "services": "Service",
    "configmaps": "ConfigMap",
    "events": "Event",
    "networkpolicies": "NetworkPolicy",
    "horizontalpodautoscalers": "HorizontalPodAutoscaler",
    "scaledobjects": "ScaledObject",
    "namespaces": "Namespace",
    "nodes": "Node",
}
MERGED_BY = {"containers": "name", "env": "name", "ports": "containerPort"}
NOW = "2026-03-02T12:00:00Z"  # when what a test has no other time for was created


class Answer(Exception):
    """An error status, as the API server words it."""

    def __init__(self, code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.headers = code, reason, message, headers or {}


class Gone(Exception):
    """The connection breaks without an answer."""


@dataclass
class FakeKubernetes:
    """`allowed`: (group, resource[/subresource], verb) that a token not "admin" may do; `before`/`after` see every call of such a token
    and may raise Answer or Gone: after, the change has happened. `writes`: what its calls changed."""

    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)  # (namespace, resource, name)
    allowed: set[tuple[str, str, str]] | None = None
    tokens: set[str] = field(default_factory=lambda: {"admin", "worker"})
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    writes: list[tuple[str, str, str]] = field(default_factory=list)
    logs: dict[tuple[str, bool], list[tuple[int, str]]] = field(default_factory=dict)  # (container, previous): (age in seconds, line)
    usage: dict[str, str] | None = None  # None: no metrics.k8s.io
    stuck: bool = False  # new pods never become ready, and the deadline passes
    before: Callable[[tuple[str, str, str]], None] = lambda call: None
    after: Callable[[tuple[str, str, str]], None] = lambda call: None
    lock: threading.RLock = field(default_factory=threading.RLock)
    version: int = 0
    now: str = NOW

    def handle(self, method: str, url: str, headers: Any, body: Any) -> Any:
        parts = urlsplit(url)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        found = PATH.fullmatch(parts.path)
        if not found:
            raise Answer(404, "NotFound", "the server could not find the requested resource")
        ns, res, name, sub = found["ns"] or "", found["res"], found["name"], found["sub"] or ""
        if res == "namespaces":
            ns = ""
        verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}[method]
        call = (found["group"] or "", f"{res}/{sub}" if sub else res, verb)
        token = (headers.get("Authorization") or "").removeprefix("Bearer ")
        with self.lock:
            admin = token == "admin"
            if not admin:
                self.before(call)
            if token not in self.tokens:
                raise Answer(401, "Unauthorized", "Unauthorized")
            if not admin and self.allowed is not None and call not in self.allowed:
                who = f'User "{token}" cannot {verb} resource "{res}" in API group "{call[0]}" in the namespace "{ns}"'
                raise Answer(403, "Forbidden", f"{res} is forbidden: {who}")
            version = self.version
            if not admin:
                self.calls.append(call)
            answer = self.served(found["group"] or "", ns, res, name, sub, verb, query, headers.get("Content-Type") or "", body)
            if not admin:
                if self.version != version:
                    self.writes.append((call[1], verb, name or answer["metadata"]["name"]))
                self.after(call)
            self.reconcile()
            return answer

    def served(  # noqa: PLR0913 - the parts of a request to the API server
        self, group: str, ns: str, res: str, name: str | None, sub: str, verb: str, query: Object, style: str, body: Any
    ) -> Any:
        if group == "metrics.k8s.io":
            return self.measured(ns)
        if res not in KINDS:
            raise Answer(404, "NotFound", "the server could not find the requested resource")
        if verb == "list":
            items = [o for (n, r, _), o in sorted(self.objects.items()) if r == res and n == ns and _selected(o, query)]
            return {"kind": f"{KINDS[res]}List", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)}, "items": items}
        dry = query.get("dryRun") == "All"
        if verb == "create":
            return self.create(ns, res, body, dry=dry)
        key = (ns, res, name or "")
        if key not in self.objects:
            raise Answer(404, "NotFound", f'{res} "{name}" not found')
        if sub == "log":
            return self.log(query)
        if verb == "get":
            return _scale(self.objects[key]) if sub == "scale" else self.objects[key]
        if verb == "delete":
            gone = self.objects[key]
            if not dry:
                del self.objects[key]
                self.version += 1
            return gone
        return self.patch(key, sub, style, body, dry=dry)

    def create(self, ns: str, res: str, body: Object, *, dry: bool) -> Object:
        key = (ns, res, body["metadata"]["name"])
        if key in self.objects:
            raise Answer(409, "AlreadyExists", f'{res} "{key[2]}" already exists')
        made = copy.deepcopy(body)
        made["metadata"] |= {
            "uid": str(uuid.uuid4()),
            "namespace": ns,
            "creationTimestamp": self.now,
            "generation": 1,
            "resourceVersion": "0",
        }
        _validated(res, made)
        if not dry:
            self.version += 1
            made["metadata"]["resourceVersion"] = str(self.version)
            self.objects[key] = made
        return made

    def patch(self, key: tuple[str, str, str], sub: str, style: str, body: Any, *, dry: bool) -> Object:
        old = self.objects[key]
        if style == "application/json-patch+json":
            new = _json_patched(old, body)
        elif sub == "scale":
            new = _merged(old, {"spec": {"replicas": body["spec"]["replicas"]}}, strategic=False)
        else:
            new = _merged(old, body, strategic=style == "application/strategic-merge-patch+json")
        if new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
            what = f'Operation cannot be fulfilled on {key[1]} "{key[2]}"'
            raise Answer(409, "Conflict", f"{what}: the object has been modified; please apply your changes to the latest version")
        _validated(key[1], new)
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        if dry:
            return new
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = new
        return _scale(new) if sub == "scale" else new

    def log(self, query: Object) -> str:
        since_s, tail = query.get("sinceSeconds"), query.get("tailLines")
        if since_s is not None and int(since_s) < 1:
            raise Answer(422, "Invalid", "PodLogOptions is invalid: sinceSeconds: Invalid value: must be greater than 0")
        written = self.logs.get((query["container"], query.get("previous") == "true"), [])
        lines = [line for age_s, line in written if since_s is None or age_s <= int(since_s)]
        return "".join(f"{line}\n" for line in (lines[-int(tail) :] if tail else lines))

    def measured(self, ns: str) -> Object:
        if self.usage is None:
            raise Answer(404, "NotFound", "the server could not find the requested resource")
        pods = [o for (n, r, _), o in self.objects.items() if (n, r) == (ns, "pods")]
        rows = [{"metadata": {"name": p["metadata"]["name"]}, "containers": [{"name": "model-server", "usage": self.usage}]} for p in pods]
        return {"kind": "PodMetricsList", "items": rows}

    def reconcile(self) -> None:
        """The deployment controller: one ReplicaSet a template, its pods, and the status."""
        for (ns, res, name), deployment in list(self.objects.items()):
            if res == "deployments" and not deployment["spec"].get("paused"):
                self._rolled_out(ns, name, deployment)

    def _rolled_out(self, ns: str, name: str, deployment: Object) -> None:
        template, uid = deployment["spec"]["template"], deployment["metadata"]["uid"]
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        owned = {k: o for k, o in self.objects.items() if k[:2] == (ns, "replicasets") and _owner(o) == uid}
        current = (ns, "replicasets", f"{name}-{digest}")
        numbers = [int(o["metadata"]["annotations"]["deployment.kubernetes.io/revision"]) for o in owned.values()]
        if current not in owned:
            labels = {**template["metadata"]["labels"], "pod-template-hash": digest}
            spec = {"replicas": 0, "template": {**template, "metadata": {**template["metadata"], "labels": labels}}}
            owners = [_owned("Deployment", deployment)]
            self._put(current, {"metadata": {"labels": labels, "annotations": {}, "ownerReferences": owners}, "spec": spec})
        notes = self.objects[current]["metadata"]["annotations"]
        newest = max(numbers, default=0)
        if not notes.get("deployment.kubernetes.io/revision") or int(notes["deployment.kubernetes.io/revision"]) < newest:
            if former := notes.get("deployment.kubernetes.io/revision"):
                history = notes.get("deployment.kubernetes.io/revision-history")
                notes["deployment.kubernetes.io/revision-history"] = f"{history},{former}" if history else former
            notes["deployment.kubernetes.io/revision"] = str(newest + 1)
            deployment["metadata"].setdefault("annotations", {})["deployment.kubernetes.io/revision"] = str(newest + 1)
        self._pods(ns, name, deployment, digest)

    def _pods(self, ns: str, name: str, deployment: Object, digest: str) -> None:
        """New ones at once; the old ones go when the new ones are ready."""
        wanted, template = deployment["spec"].get("replicas", 1), deployment["spec"]["template"]
        sets = {
            o["metadata"]["uid"]: o
            for k, o in self.objects.items()
            if k[:2] == (ns, "replicasets") and _owner(o) == deployment["metadata"]["uid"]
        }
        mine = {k: p for k, p in self.objects.items() if k[:2] == (ns, "pods") and _owner(p) in sets}
        current = self.objects[ns, "replicasets", f"{name}-{digest}"]
        new = {k: p for k, p in mine.items() if p["metadata"]["labels"]["pod-template-hash"] == digest}
        for i in range(wanted):
            key = (ns, "pods", f"{name}-{digest}-"[:58] + str(i))  # cut as the API server cuts it
            if key not in new:
                labels = {**template["metadata"]["labels"], "pod-template-hash": digest}
                meta = {"labels": labels, "ownerReferences": [_owned("ReplicaSet", current)]}
                new[key] = self._put(key, {"metadata": meta, "spec": copy.deepcopy(template["spec"]), "status": {"phase": "Pending"}})
        for key in [k for k in new if int(k[2][len(f"{name}-{digest}-"[:58]) :]) >= wanted]:
            del new[key]
            self.objects.pop(key)
        ready = sum(map(_ready, new.values()))
        old = {k: p for k, p in mine.items() if k not in new and k in self.objects}
        for key in list(old) if ready >= wanted else []:
            self.objects.pop(key)
            del old[key]
        available = ready + sum(map(_ready, old.values()))
        for set_uid, replica_set in sets.items():
            serve = sum(_ready(p) and _owner(p) == set_uid for p in {**new, **old}.values())
            replica_set["status"] = {"readyReplicas": serve} if serve else {}
        late = self.stuck and ready < wanted
        progressing = {
            "type": "Progressing",
            "status": str(not late),
            "reason": "ProgressDeadlineExceeded" if late else "ReplicaSetUpdated",
        }
        counts = {"replicas": len(new) + len(old), "updatedReplicas": len(new), "readyReplicas": available, "availableReplicas": available}
        status = {"observedGeneration": deployment["metadata"]["generation"], "conditions": [progressing]}
        deployment["status"] = status | {key: n for key, n in counts.items() if n}  # zeros are left out

    def _put(self, key: tuple[str, str, str], made: Object) -> Object:
        self.version += 1
        own = {"name": key[2], "namespace": key[0], "uid": str(uuid.uuid4()), "resourceVersion": str(self.version)}
        made["metadata"] |= own | {"creationTimestamp": self.now, "generation": 1}
        self.objects[key] = made
        return made


def _owned(kind: str, by: Object) -> Object:
    return {"apiVersion": "apps/v1", "uid": by["metadata"]["uid"], "controller": True, "kind": kind, "name": by["metadata"]["name"]}


def _owner(thing: Object) -> str | None:
    return next((o["uid"] for o in thing["metadata"].get("ownerReferences", ())), None)


def _ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))


def _scale(deployment: Object) -> Object:
    """Zero replicas are left out of a Scale (omitempty)."""
    replicas = deployment["spec"]["replicas"]
    return {"kind": "Scale", "metadata": deployment["metadata"], "spec": {"replicas": replicas} if replicas else {}}


def _selected(thing: Object, query: Object) -> bool:
    labels = thing["metadata"].get("labels") or {}
    wanted = [pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair]
    return all(labels.get(key) == value for key, value in wanted)


def _validated(res: str, thing: Object) -> None:
    spec = thing.get("spec") or {}
    wrong = None
    if res == "deployments":
        if not isinstance(spec.get("replicas", 1), int) or spec.get("replicas", 1) < 0:
            wrong = f"spec.replicas: Invalid value: {spec['replicas']}: must be greater than or equal to 0"
        for container in spec["template"]["spec"]["containers"]:
            if not container.get("image"):
                wrong = "spec.template.spec.containers[0].image: Required value"
    if res == "services" and not all(re.fullmatch(r"[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?", v) for v in (spec.get("selector") or {}).values()):
        wrong = "spec.selector: Invalid value: a valid label must be an empty string or consist of alphanumeric characters"
    if wrong:
        raise Answer(422, "Invalid", f'{KINDS[res]} "{thing["metadata"]["name"]}" is invalid: {wrong}')


def _merged(old: Any, patch: Any, *, strategic: bool, name: str = "") -> Any:
    """A merge patch (RFC 7386); a strategic one also merges the lists that have a merge key. null removes."""
    if strategic and isinstance(patch, list) and name in MERGED_BY and isinstance(old, list):
        by, merged = MERGED_BY[name], copy.deepcopy(old)
        for item in patch:
            at = next((i for i, each in enumerate(merged) if each.get(by) == item.get(by)), None)
            if at is None:
                merged.append(copy.deepcopy(item))
            else:
                merged[at] = _merged(merged[at], item, strategic=True)
        return merged
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value, strategic=strategic, name=key)
    return merged


def _json_patched(old: Object, operations: list[Object]) -> Object:
    new = copy.deepcopy(old)
    for operation in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        at = new
        for part in way:
            at = at[part]
        if operation["op"] == "test" and at.get(last) != operation["value"]:
            raise Answer(422, "Invalid", f"the server rejected our request: testing path {operation['path']} failed")
        if operation["op"] in ("replace", "add"):
            at[last] = copy.deepcopy(operation["value"])
    return new


@contextmanager
def serving(fake: FakeKubernetes) -> Iterator[str]:
    """Its address, for as long as it serves."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            headers: dict[str, str] = {}
            try:
                code, content = 200, fake.handle(self.command, self.path, self.headers, json.loads(raw) if raw else None)
            except Answer as error:
                code, headers = error.code, error.headers
                content = {"kind": "Status", "status": "Failure", "reason": error.reason, "message": error.message, "code": code}
            except Gone:
                self.close_connection = True
                return
            text = content if isinstance(content, str) else json.dumps(content)
            self.send_response(code)
            for key, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(key, value)
            body = text.encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _answer

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(path: Path, url: str, token: str) -> Path:
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": token, "user": {"token": token}}],
        "contexts": [{"name": token, "context": {"cluster": "fake", "user": token, "namespace": "default"}}],
        "current-context": token,
    }
    path.write_text(json.dumps(body))
    return path
