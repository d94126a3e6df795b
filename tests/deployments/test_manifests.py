"""What is deployed to Kubernetes is valid, may do no more than it must, and starts what really exists."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import Any

import pytest
import yaml
from kubernetes import client
from pydantic import ValidationError
from sqlalchemy import create_engine

from mlrunbook.adapters.kubernetes.access import NEEDED
from mlrunbook.adapters.kubernetes.isolation import name_of
from mlrunbook.adapters.local import serving_config
from mlrunbook.adapters.local.serving_state import DEFAULT_MODEL
from mlrunbook.adapters.prefect.deployments import FLOW_PROCESS
from mlrunbook.base import policy_file, secret_files
from mlrunbook.base.listen import networks
from mlrunbook.base.settings import Settings
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway import app as gateway_app
from mlrunbook.local.platform import api
from mlrunbook.local.serving import model_server
from mlrunbook.response.world import World
from tests.deployments.manifests import BASE, FOLDER, INGRESS, PRODUCTION, Manifest, containers, every_file, find, of_kind, pods, rendered
from tests.docs.pages import ROOT

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None and "CI" not in os.environ, reason="renders with kubectl (Debian: apt-get install kubernetes-client)"
)
MODELS = {
    ("v1", "Namespace"): client.V1Namespace,
    ("v1", "ServiceAccount"): client.V1ServiceAccount,
    ("v1", "Service"): client.V1Service,
    ("v1", "ConfigMap"): client.V1ConfigMap,
    ("v1", "PersistentVolumeClaim"): client.V1PersistentVolumeClaim,
    ("apps/v1", "Deployment"): client.V1Deployment,
    ("rbac.authorization.k8s.io/v1", "Role"): client.V1Role,
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): client.V1RoleBinding,
    ("networking.k8s.io/v1", "NetworkPolicy"): client.V1NetworkPolicy,
    ("networking.k8s.io/v1", "Ingress"): client.V1Ingress,
    ("policy/v1", "PodDisruptionBudget"): client.V1PodDisruptionBudget,
    ("batch/v1", "Job"): client.V1Job,
}


def validated(manifest: Manifest) -> Any:
    """By the models of the official client, which are made from the API's schema and know no other field."""
    return MODELS[manifest["apiVersion"], manifest["kind"]].model_validate(manifest)


@pytest.mark.parametrize("folder", [BASE, PRODUCTION])
def test_every_object_is_one_that_the_api_knows(folder: str) -> None:
    assert len([validated(manifest) for manifest in rendered(folder)]) > 25
    validated(find("ConfigMap", "model-config"))


def test_an_ingress_brings_browsers_to_the_gateway_alone_and_the_rest_is_the_production_overlay() -> None:
    added = [one for one in rendered(INGRESS) if one not in rendered(PRODUCTION)]
    assert sorted(one["kind"] for one in added) == ["ConfigMap", "Deployment", "Ingress"]
    by_kind = {one["kind"]: one for one in added}
    ingress = validated(by_kind["Ingress"])
    (rule,) = ingress.spec.rules
    assert [path.backend.service.name for path in rule.http.paths] == ["gateway"]
    assert [host for tls in ingress.spec.tls for host in tls.hosts] == [rule.host]
    public = by_kind["ConfigMap"]["data"]["MLRUNBOOK_PUBLIC_URL"]
    assert public == Settings(public_url=public).public_url == f"https://{rule.host}"
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert networks(container["command"][container["command"].index("--behind-proxy") + 1])


def test_a_field_that_does_not_exist_would_be_noticed() -> None:
    wrong = json.loads(json.dumps(find("Deployment", "gateway")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(ValidationError, match="readinesProbe"):
        validated(wrong)


def test_the_role_has_every_verb_that_is_used_and_no_other() -> None:
    role = find("Role", "mlrunbook-runtime")
    granted = {(g, r, v) for rule in role["rules"] for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}
    assert granted == {(access.api_group, access.rule_resource, access.verb) for access in NEEDED}
    assert [role["metadata"]["namespace"] for role in of_kind("Role")] == ["ml-serving"]
    (binding,) = of_kind("RoleBinding")
    assert [(s["kind"], s["name"], s["namespace"]) for s in binding["subjects"]] == [("ServiceAccount", "worker", "mlrunbook")]
    assert not of_kind("ClusterRole")
    assert not of_kind("ClusterRoleBinding")


def test_every_verb_of_the_role_is_one_that_the_code_uses() -> None:
    source = "".join(file.read_text() for file in (ROOT / "mlrunbook/adapters/kubernetes").glob("*.py"))
    verbs = {"get": "get", "find": "list", "patch": "patch", "create": "create", "delete": "delete"}
    used = {(resource, verbs[verb]) for verb, resource in re.findall(r'cluster\.(get|find|patch|create|delete)(?:\(|, )"(\w+)"', source)}
    assert "cluster.log" in source
    assert "cluster.usage" in source
    used |= {("pods/log", "get"), ("pods", "list")}
    assert used == {(access.rule_resource, access.verb) for access in NEEDED}


def test_the_role_names_the_objects_that_the_policy_names(tmp_path: Any) -> None:
    objects = shipped_policy(tmp_path).objects.of(DEFAULT_MODEL)
    rules = find("Role", "mlrunbook-runtime")["rules"]
    assert {rule["resources"][0]: set(rule["resourceNames"]) for rule in rules if "resourceNames" in rule} == {
        "deployments": {objects.scaled_deployment, objects.restarted_deployment},
        "services": {objects.service},
        "configmaps": {objects.config_map},
        "horizontalpodautoscalers": {objects.scaled_deployment},
        "scaledobjects": {objects.scaled_deployment},
        "networkpolicies": {name_of(DEFAULT_MODEL)},
    }
    anyones = {(rule["resources"][0], verb) for rule in rules if "resourceNames" not in rule for verb in rule["verbs"]}
    assert {verb for _, verb in anyones} <= {"list", "create", "get"}, "what changes or deletes is limited to names"
    assert {resource for resource, verb in anyones if verb == "get"} == {"pods/log"}, "a pod's name is made up by its ReplicaSet"


def shipped_policy(folder: Any) -> Policy:
    file = folder / "runbook.yaml"
    file.write_text(find("ConfigMap", "mlrunbook-policy")["data"]["runbook.yaml"])
    return policy_file.load(file)


def test_the_policys_objects_are_there(tmp_path: Any) -> None:
    objects = shipped_policy(tmp_path).objects.of(DEFAULT_MODEL)
    deployment = find("Deployment", objects.scaled_deployment)
    assert deployment is find("Deployment", objects.restarted_deployment)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert objects.pod_selector.items() <= labels.items()
    assert find("Service", objects.service)["spec"]["selector"].items() <= labels.items()
    assert objects.container in [c["name"] for c in deployment["spec"]["template"]["spec"]["containers"]]
    file = tmp_path / "model-config.json"
    file.write_text(find("ConfigMap", objects.config_map)["data"][objects.config_key])
    assert serving_config.read(file).as_dict() == {"threshold": 0.5} | serving_config.NORMAL
    (mount,) = (m for m in deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] if m["name"] == "config")
    assert Settings(data_dir="/var/lib/mlrunbook").serving_config_file == (ROOT / mount["mountPath"] / objects.config_key)
    assert "subPath" not in mount  # such a file is never updated: the switches would wait for a restart


def test_applying_again_does_not_undo_the_runbook() -> None:
    """`kubectl apply` puts back what a manifest says, and leaves alone what it does not say."""
    assert "replicas" not in find("Deployment", "model-server")["spec"]
    assert not [m for m in rendered(PRODUCTION) if m["metadata"]["name"] == "model-config"]
    assert "version" not in find("Service", "model-service")["spec"]["selector"]


def test_pods_run_as_nobody_with_nothing() -> None:
    for deployment, pod in pods():
        spec = pod["spec"]
        context = spec["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] == context["fsGroup"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    accounts = {m["metadata"]["name"] for m in of_kind("ServiceAccount")}
    assert {pod["spec"]["serviceAccountName"] for _, pod in pods()} == accounts
    for name, _, container in containers():
        security = container["securityContext"]
        assert security == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, name
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
        assert "memory" in container["resources"]["limits"], name
    for name, _, container in containers(init=False):
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), name


def test_the_cluster_login_is_in_the_container_that_runs_flows_and_in_no_other() -> None:
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    for name, spec, container in containers():
        mounted = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == where]
        assert mounted == (["cluster-login"] if name == "worker/worker" else []), name
        tokens = [v["name"] for v in spec["volumes"] if "serviceAccountToken" in str(v)]
        assert tokens == (["cluster-login"] if name.startswith("worker/") else []), name
    (volume,) = (v for v in find("Deployment", "worker")["spec"]["template"]["spec"]["volumes"] if v["name"] == "cluster-login")
    files = {path for source in volume["projected"]["sources"] for path in re.findall(r"'path': '([\w.]+)'", str(source))}
    assert files == {"token", "ca.crt", "namespace"}, "what the client looks for in a pod"


SECRETS = {
    "gateway/migrate": {"MLRUNBOOK_DATABASE_URL"},
    "gateway/gateway": {"MLRUNBOOK_DATABASE_URL", "PREFECT_API_AUTH_STRING", "MLRUNBOOK_PLATFORM_TOKEN", "mlrunbook-channels"},
    "worker/migrate": {"MLRUNBOOK_DATABASE_URL"},
    "worker/deploy": {"PREFECT_API_AUTH_STRING"},
    "worker/worker": {"MLRUNBOOK_DATABASE_URL", "PREFECT_API_AUTH_STRING", "MLRUNBOOK_PLATFORM_TOKEN"},
    "prefect-server/prefect-server": {"PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_API_AUTH_STRING"},
    "model-platform/migrate": {"MLRUNBOOK_DATABASE_URL"},
    "model-platform/model-platform": {"MLRUNBOOK_DATABASE_URL", "MLRUNBOOK_GATEWAY_TOKEN"},
    "model-server/model-server": {"MLRUNBOOK_DATABASE_URL"},
}


def test_each_container_has_the_secrets_it_needs_as_files_and_none_as_variables() -> None:
    found = {}
    for name, spec, container in containers():
        assert not [env for env in container.get("env", ()) if "valueFrom" in env], name
        assert not [source for source in container.get("envFrom", ()) if "secretRef" in source], name
        (mount,) = (m for m in container["volumeMounts"] if m["mountPath"] == "/run/secrets/mlrunbook")
        assert mount["readOnly"]
        (volume,) = (v for v in spec["volumes"] if v["name"] == mount["name"])
        sources = [source["secret"] for source in volume["projected"]["sources"]]
        found[name] = {item["path"] for source in sources for item in source.get("items", ())}
        found[name] |= {source["name"] for source in sources if "items" not in source}
        assert volume["projected"]["defaultMode"] == 0o440
        settings = {env["name"]: env.get("value") for env in container.get("env", ())}
        for source in container.get("envFrom", ()):
            settings |= find("ConfigMap", source["configMapRef"]["name"])["data"]
        assert settings["MLRUNBOOK_SECRETS_DIR"] == mount["mountPath"], name
        reads = container["command"][:3] == ["python", "-m", "mlrunbook.base.secret_files"] or container["command"][0] == "mlrunbook"
        assert reads, name
    assert found == SECRETS


def test_no_secret_is_in_a_manifest() -> None:
    assert not of_kind("Secret")
    secret = re.compile(r"TOKEN|AUTH|PASSWORD|DATABASE")
    for name, _, container in containers():
        plain = [env["name"] for env in container.get("env", ()) if "value" in env]
        assert not [variable for variable in plain if secret.search(variable)], name
    for config in of_kind("ConfigMap"):
        assert not [key for key in config["data"] if secret.search(key)]


def test_every_variable_is_a_setting() -> None:
    ours = {f"MLRUNBOOK_{name.upper()}" for name, field in Settings.model_fields.items() if not field.validation_alias}
    prefects = {"PREFECT_HOME", "DO_NOT_TRACK", secret_files.FOLDER} | _prefect_settings()
    named = {env["name"] for _, _, container in containers() for env in container.get("env", ())}
    named |= {variable for secrets in SECRETS.values() for variable in secrets if variable.isupper()}
    named |= {key for name in ("mlrunbook", "model-platform") for key in find("ConfigMap", name)["data"]}
    assert not named - ours - prefects


def _prefect_settings() -> set[str]:
    from prefect.settings import get_current_settings

    def names(model: Any) -> set[str]:
        prefix = model.model_config.get("env_prefix", "")
        found: set[str] = set()
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            if hasattr(value, "model_config"):
                found |= names(value)
            found.add(f"{prefix}{name}".upper())
            alias = field.validation_alias
            found |= {str(choice).upper() for choice in getattr(alias, "choices", ()) if isinstance(choice, str)}
        return found

    return names(get_current_settings())


def test_every_command_exists() -> None:
    from mlrunbook.cli.main import app
    from tests.docs.test_pages import _problem, typer

    root = typer.main.get_command(app)
    seen = set()
    for name, _, container in containers():
        words = [str(word) for word in container["command"]]
        if words[:3] == ["python", "-m", "mlrunbook.base.secret_files"]:
            words = words[3:]
        seen.add(words[0])
        match words:
            case ["mlrunbook", *rest]:
                assert _problem(root, rest) is None, name
            case ["python", "-m", module, *options]:
                source = (ROOT / (module.replace(".", "/") + ".py")).read_text()
                assert all(f'add_argument("{option}"' in source for option in options if option.startswith("--")), name
            case ["prefect", *rest]:
                _prefect_takes(rest)
    assert seen == {"mlrunbook", "python", "prefect"}


def _prefect_takes(words: list[str]) -> None:
    from prefect.cli._app import _app

    _app.parse_args(words, print_error=False, exit_on_error=False)


def test_ports_are_those_the_commands_bind() -> None:
    for name, _, container in containers(init=False):
        (port,) = container["ports"]
        words = container["command"]
        bound = words[words.index("--port") + 1] if "--port" in words else _variable(container, "PREFECT_WORKER_WEBSERVER_PORT")
        assert str(port["containerPort"]) == bound, name
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            (asked,) = [v for k, v in container[probe].items() if k in ("httpGet", "tcpSocket")]
            assert asked["port"] == port["name"], name
    for service in of_kind("Service"):
        (port,) = service["spec"]["ports"]
        (target,) = (
            p["containerPort"]
            for deployment, pod in pods()
            if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
            and deployment["metadata"]["namespace"] == service["metadata"]["namespace"]
            for c in pod["spec"]["containers"]
            for p in c["ports"]
            if p["name"] == port["targetPort"]
        )
        assert port["port"] == target


def test_every_address_of_the_settings_is_a_service() -> None:
    services = {(f"{m['metadata']['name']}.{m['metadata']['namespace']}", m["spec"]["ports"][0]["port"]) for m in of_kind("Service")}
    for name in ("mlrunbook", "model-platform"):
        for key, value in find("ConfigMap", name)["data"].items():
            if found := re.match(r"http://([\w.-]+):(\d+)", value):
                assert (found[1], int(found[2])) in services, key


def test_every_probe_asks_for_what_the_server_answers(tmp_path: Any) -> None:
    engine, config = create_engine("postgresql+psycopg:///nowhere?host=/nowhere"), Settings(data_dir=tmp_path)
    none: Any = None
    world = World(engine, platform=none, runtime=none, notifier=none, orchestrator=none, policy=Policy(), lease_s=1, now=none)
    apps = {
        "gateway/gateway": gateway_app.create_app(world),
        "model-platform/model-platform": api.create_app(config, engine, evaluate_every_s=None),
        "model-server/model-server": model_server.create_app(config, engine),
    }
    routes = {name: {getattr(route, "path", None) for route in app.routes} for name, app in apps.items()}
    routes |= {"prefect-server/prefect-server": {"/api/health"}, "worker/worker": {"/health"}}
    for name, _, container in containers(init=False):
        paths = {container[p]["httpGet"]["path"] for p in ("startupProbe", "readinessProbe", "livenessProbe") if "httpGet" in container[p]}
        assert paths <= routes[name], name


def _variable(container: Manifest, name: str) -> str:
    return str(next(env["value"] for env in container["env"] if env["name"] == name))


def test_nothing_talks_that_is_not_named() -> None:
    policies = of_kind("NetworkPolicy")
    for deployment, pod in pods():
        labels, namespace = pod["metadata"]["labels"], deployment["metadata"]["namespace"]
        selecting = [p for p in policies if p["metadata"]["namespace"] == namespace and _selects(p["spec"]["podSelector"], labels)]
        if labels["app"] == "model-server":  # policies add up: one that lets callers in would void the one that isolates
            assert not selecting
        else:
            assert {"default-deny"} < {p["metadata"]["name"] for p in selecting}, labels
            assert all({"Ingress", "Egress"} >= set(p["spec"]["policyTypes"]) for p in selecting)


def test_who_serves_is_let_in_at_its_port() -> None:
    for service in of_kind("Service"):
        app, namespace = service["spec"]["selector"]["app"], service["metadata"]["namespace"]
        if app == "model-server":
            continue
        let_in = [
            port["port"]
            for p in of_kind("NetworkPolicy")
            if p["metadata"]["namespace"] == namespace and _selects(p["spec"]["podSelector"], {"app": app})
            for rule in p["spec"].get("ingress", ())
            for port in rule["ports"]
        ]
        assert let_in == [service["spec"]["ports"][0]["port"]], app


def _selects(selector: Manifest, labels: Manifest) -> bool:
    for one in selector.get("matchExpressions", ()):
        inside = labels.get(one["key"]) in one["values"]
        if inside != (one["operator"] == "In"):
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def test_volumes_secrets_and_configs_that_are_mounted_are_there_or_told_of() -> None:
    page = (ROOT / "docs/how-to/kubernetes.md").read_text()
    for name, spec, container in containers():
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                find("ConfigMap", volume["configMap"]["name"])
            if "persistentVolumeClaim" in volume:
                find("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                find("ConfigMap", source["configMapRef"]["name"])
        for volume in volumes.values():
            for source in volume.get("projected", {}).get("sources", ()):
                if secret := source.get("secret"):
                    assert f"secret generic {secret['name']}" in page, name
                    assert all(f"--from-literal={item['key']}=" in page for item in secret.get("items", ())), (name, secret)


def test_the_work_pools_template_makes_a_valid_job_and_leaves_nothing_to_who_starts_a_run() -> None:
    template = json.loads((FOLDER / "work-pool.json").read_text())
    assert template["variables"] == {"type": "object", "properties": {}, "additionalProperties": False}
    assert "{{" not in json.dumps(template)
    job = template["job_configuration"]["job_manifest"]
    validated(job)
    pod, (container,) = job["spec"]["template"]["spec"], job["spec"]["template"]["spec"]["containers"]
    worker = find("Deployment", "worker")["spec"]["template"]["spec"]
    same = ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "securityContext")
    assert {key: pod[key] for key in same} == {key: worker[key] for key in same}
    same = ("securityContext", "volumeMounts", "image")
    assert {key: container[key] for key in same} == {key: worker["containers"][0][key] for key in same}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert pod["volumes"] == [volume for volume in worker["volumes"] if volume["name"] in mounted]
    assert template["job_configuration"]["command"] == " ".join(container["args"])
    assert container["args"] == ["python", "-m", "mlrunbook.base.secret_files", "python", *FLOW_PROCESS]
    assert container["workingDir"] == find("ConfigMap", "mlrunbook")["data"]["MLRUNBOOK_HOME"]
    assert job["spec"]["backoffLimit"] == 0  # a run that died is started anew by the dispatcher, as a new generation


def test_images_are_one_that_the_overlay_names_by_its_digest() -> None:
    (image,) = {container["image"] for _, _, container in containers()}
    assert re.fullmatch(r"registry\.example\.com/mlrunbook@sha256:[0-9a-f]{64}", image)
    assert len(every_file()) == len({(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in every_file()})
    for file in sorted(FOLDER.rglob("*.yaml")):
        assert list(yaml.safe_load_all(file.read_text())), file
