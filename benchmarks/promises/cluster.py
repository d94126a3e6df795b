"""The cluster of the far side: what the runtime writes there becomes what the model server of the `FileWorld` does, and is counted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from mlrunbook.adapters.kubernetes.reading import RESTART_ID
from tests import fake_serving
from tests.fake_kubernetes import FakeKubernetes
from tests.fakes import FileWorld

Object = dict[str, Any]
STAMP = "%Y-%m-%dT%H:%M:%SZ"
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
SILENT = {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}
CRASHES = SILENT | {
    "containerStatuses": [
        {
            "name": "model-server",
            "ready": False,
            "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
        }
    ]
}
BAD = "example.com/bad:2"  # an image whose container crashes


class Cluster:
    """Namespaces are the fake's; one model's objects are in the only one."""

    def __init__(self, fake: FakeKubernetes, world: Callable[[], FileWorld]) -> None:
        self.fake, self._world = fake, world
        self.seeded: dict[tuple[str, str, str], Object] = {}

    def keep_as_seed(self) -> None:
        self.seeded = copy.deepcopy(self.fake.objects)

    def reset(self, *, bad_rollout: bool) -> None:
        """As seeded, with the config of the world."""
        self.fake.objects = copy.deepcopy(self.seeded)
        self.fake.writes.clear()
        held = self._config_map()
        content = json.loads(held["data"]["model-config.json"]) | self._world().state["config"]
        held["data"]["model-config.json"] = json.dumps(content)
        if bad_rollout:
            self.fake.now = f"{self._world()._now() - timedelta(minutes=10):{STAMP}}"
            self._roll_out_what_crashes()
        self.fake.now = f"{self._world()._now():{STAMP}}"
        self.kubelet()
        self.fake.reconcile()

    def handle(self, method: str, url: str, headers: Any, body: Any) -> Any:
        before, version = self._seen(), self.fake.version
        answer = self.fake.handle(method, url, headers, body)
        if self.fake.version != version and "dryRun" not in url:
            self._follow(before, self._seen())
        self.kubelet()
        self.fake.reconcile()
        return copy.deepcopy(answer)

    def kubelet(self) -> None:
        """Pods that wait become ready, where their image and the server let them."""
        hung = bool(self._world().state["hung"])
        mine = [o for key, o in self.fake.objects.items() if key[1] == "pods"]
        for pod in mine:
            bad, former = pod["spec"]["containers"][0]["image"] == BAD, "former" in pod["metadata"]["name"]
            pod["status"] = copy.deepcopy(CRASHES if bad else SILENT if hung and not former else READY)

    def _roll_out_what_crashes(self) -> None:
        deployment = self._deployment()
        template = copy.deepcopy(deployment["spec"]["template"])  # the ReplicaSet of the old one shares it
        template["spec"]["containers"][0]["image"] = BAD
        deployment["spec"]["template"] = template
        deployment["metadata"]["generation"] += 1
        self.fake.reconcile()
        old = [k for k, o in self.fake.objects.items() if k[1] == "pods" and "former" not in k[2] and BAD not in str(o["spec"])]
        for key in old:
            del self.fake.objects[key]

    def _seen(self) -> Object:
        deployment, service = self._deployment(), next(o for k, o in self.fake.objects.items() if k[1] == "services")
        template = deployment["spec"]["template"]
        return {
            "config": json.loads(self._config_map()["data"]["model-config.json"]),
            "route": service["spec"]["selector"].get("version"),
            "replicas": deployment["spec"]["replicas"],
            "restart_id": (template["metadata"].get("annotations") or {}).get(RESTART_ID),
            "template": copy.deepcopy(template["spec"]),
            "isolated": any(k[1] == "networkpolicies" for k in self.fake.objects),
        }

    def _follow(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Count the one change that a request made, and let the model server do as it says."""
        world = self._world()
        s = world.state
        if after["replicas"] != before["replicas"]:
            world._apply(f"scale:{after['replicas']}", {"replicas": after["replicas"]} | (world._loaded() if after["replicas"] else {}))
        elif after["route"] != before["route"]:
            world._apply(f"route:{after['route']}", {"route": after["route"]})
        elif after["isolated"] != before["isolated"]:
            world._apply(f"isolate:{after['isolated']}", {"isolated": after["isolated"]})
        elif after["template"] != before["template"]:
            world._apply("undo", {"hung": False})
        elif after["restart_id"] != before["restart_id"]:
            world._apply("restart", {"restart_id": after["restart_id"]} | world._loaded() | fake_serving.restarted(s))
        elif moved := {k: v for k, v in after["config"].items() if before["config"].get(k) != v and k != "revision"}:
            made = {"ref": "model-config", "author": "mlrunbook", "at": world._now().isoformat()}
            made |= {"from": {k: before["config"].get(k) for k in moved}, "to": moved}
            kind = "config:" + ",".join(f"{k}={v}" for k, v in sorted(moved.items()))
            world._apply(kind, {"config": s["config"] | moved, "config_changes": [*s["config_changes"], made]})
        else:
            world._apply("written again", {})

    def _deployment(self) -> Object:
        return next(o for k, o in self.fake.objects.items() if k[1] == "deployments" and k[2] == "model-server")

    def _config_map(self) -> Object:
        return next(o for k, o in self.fake.objects.items() if k[1:] == ("configmaps", "model-config"))
