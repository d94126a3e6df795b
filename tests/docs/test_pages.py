"""Whatever the pages name exists: files, modules, commands, options, endpoints, settings, links."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from sqlalchemy import create_engine

from mlrunbook.base.policy_file import parse, warnings_of
from mlrunbook.base.settings import Settings, webhook_secret_name
from mlrunbook.base.tokens import Scope
from mlrunbook.cli.main import app
from mlrunbook.domain.policy.connections import connection_variable
from mlrunbook.domain.policy.policy import Policy, channel_variable
from mlrunbook.domain.roles import Duty, Role
from mlrunbook.gateway import app as gateway_app
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.local.platform import api
from mlrunbook.local.serving import model_server
from mlrunbook.response.world import World
from tests.docs.pages import PAGES, README, ROOT, Page

# Read where they are needed, not through Settings.
OTHER_VARIABLES = {
    "MLRUNBOOK_PLATFORM_EVALUATE_S",
    "MLRUNBOOK_ENVIRONMENT",
    "MLRUNBOOK_DEBUG",
    "MLRUNBOOK_RUN_ENV",
    "MLRUNBOOK_SECRETS_DIR",
}
PATH = re.compile(r"^(?:(?:flows|tasks|mlrunbook|docs|tests|deployments|benchmarks|\.ci)(?:/[\w./-]*)?|[\w-]+\.(?:py|toml|lock|yaml))$")

every_page = pytest.mark.parametrize("page", PAGES, ids=str)


@every_page
def test_every_file_that_is_named_exists(page: Page) -> None:
    named = [span for span in page.spans if PATH.match(span)]
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


@every_page
def test_a_name_said_to_be_in_a_file_is_in_it(page: Page) -> None:
    said = re.findall(r"((?:`[\w-]+`(?: and |, )?)+) in `([\w/.-]+\.py)`", page.prose)
    wrong = []
    for names, path in said:
        source = (ROOT / path).read_text()
        for name in re.findall(r"`([\w-]+)`", names):
            defined = rf'(?m)^(async )?(def|class) {name}\b|^\s+def {name}\b|^{name}\b.*=|@flow\(name="{name}"'
            if not re.search(defined, source):
                wrong.append(f"{name} in {path}")
    assert not wrong


@every_page
def test_every_link_resolves(page: Page) -> None:
    broken = []
    for link in page.links:
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://")):
            continue
        path = (page.path.parent / target).resolve() if target else page.path
        if not path.exists() or (anchor and anchor not in Page(path).anchors):
            broken.append(link)
    assert not broken


@every_page
def test_every_command_and_option_of_ours_exists(page: Page) -> None:
    root = typer.main.get_command(app)
    wrong = []
    for command in page.all_commands:
        for part in _invocations(command):
            if problem := _problem(root, part):
                wrong.append(f"{command}: {problem}")
    assert not wrong


def _invocations(command: str) -> Iterator[list[str]]:
    if not command.startswith("mlrunbook "):
        return
    words = shlex.split(command.replace("\\\n", " "))
    yield words[1 : words.index(">")] if ">" in words else words[1:]


def _problem(command: Any, words: list[str]) -> str | None:
    """What the parser says against `words` after `command`; nothing is run. Naming a command without its arguments is fine."""
    if words and words[0] in getattr(command, "commands", {}):
        return _problem(command.commands[words[0]], words[1:])
    if not words or words == ["--help"]:
        return None
    if hasattr(command, "commands"):
        return f"no command {words[0]}"
    for option, choices in (("--scope", Scope), ("--role", (*Role, *Duty))):  # checked by the command itself, not by the parser
        given = [words[i + 1] for i, word in enumerate(words[:-1]) if word == option]
        if wrong := set(given) - set(choices):
            return f"{option} {wrong}"
    try:
        command.make_context(command.name, list(words))
    except Exception as error:
        return str(error) or type(error).__name__
    return None


def test_a_wrong_command_would_be_noticed() -> None:
    root = typer.main.get_command(app)
    wrong = (
        "incident list",
        "incidents approve incident_1 --digest 1",
        "up --port 1",
        "report --severity worst",
        "token create x --scope root",
        "policy check a b",
    )
    assert all(_problem(root, words.split()) for words in wrong)
    assert _problem(root, ["incidents", "approve", "incident_1", "--plan", "29436b06ead0", "--yes"]) is None


@every_page
def test_every_make_target_exists(page: Page) -> None:
    for command in page.all_commands:
        if command.startswith("make "):
            words = shlex.split(command)
            done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr


@every_page
def test_every_variable_is_a_setting(page: Page) -> None:
    settings = {f"MLRUNBOOK_{name.upper()}" for name, field in Settings.model_fields.items() if not field.validation_alias}
    channels = {channel_variable(name) for name in Policy().channels} | {"MLRUNBOOK_CHANNEL_"}
    channels |= {f"MLRUNBOOK_WEBHOOK_SECRET_{name.upper()}" for name in (*FORMATS, "")}
    mappings = {path.stem for path in (ROOT / "deployments/receivers/mappings").iterdir()} | {"watch"}  # the one that the page makes up
    channels |= {webhook_secret_name(f"generic/{name}") for name in mappings}
    named = set(re.findall(r"MLRUNBOOK_[A-Z_]+", page.text))
    connections = {name for name in named if name.startswith(connection_variable(""))}  # each team names its own
    assert not named - settings - channels - connections - OTHER_VARIABLES


def test_every_setting_is_in_the_readme() -> None:
    settings = {str(field.validation_alias or f"MLRUNBOOK_{name.upper()}") for name, field in Settings.model_fields.items()}
    table = {name for row in README.table("Settings") for name in re.findall(r"`([A-Z_]+)(?:<NAME>)?`", row[0])}
    assert not (settings | OTHER_VARIABLES) - table


def test_the_defaults_in_the_readme_are_the_settings() -> None:
    stated = {row[0].strip("`"): row[1].strip("`") for row in README.table("Settings")}
    for name, field in Settings.model_fields.items():
        variable = f"MLRUNBOOK_{name.upper()}"
        if isinstance(field.default, str | float) and variable in stated:
            assert stated[variable] == (f"{field.default:g}" if isinstance(field.default, float) else field.default)
    assert stated["MLRUNBOOK_PLATFORM_EVALUATE_S"] == f"{api.EVALUATE_EVERY_S:g}"


def test_the_other_variables_are_read_somewhere() -> None:
    source = "".join(path.read_text() for path in (ROOT / "mlrunbook").rglob("*.py"))
    assert not [name for name in OTHER_VARIABLES if f'"{name}"' not in source]


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """(method, path) of the gateway, the platform and the model server; names in braces made equal. There is no database."""
    folder = tmp_path_factory.mktemp("routes")
    engine = create_engine("postgresql+psycopg:///nowhere?host=/nowhere")
    config = Settings(data_dir=folder)
    none: Any = None
    world = World(engine, platform=none, runtime=none, notifier=none, orchestrator=none, policy=Policy(), lease_s=1, now=none)
    apps = [
        gateway_app.create_app(world),
        api.create_app(config, engine, evaluate_every_s=None),
        model_server.create_app(config, engine),
    ]
    found = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for one in apps
        for path, methods in one.openapi()["paths"].items()
        for method in methods
    }
    return found | {("GET", "/docs")}


@every_page
def test_every_endpoint_that_is_named_exists(page: Page, routes: set[tuple[str, str]]) -> None:
    wrong = []
    for method, url in _endpoints(page):
        path = re.sub(r"\{\w+\}", "{}", url.partition("?")[0])
        known = {p for m, p in routes if method in (None, m)}
        if not any(re.fullmatch(p.replace("{}", "[^/]+"), path) for p in known):
            wrong.append(f"{method} {url}")
    assert not wrong


def _endpoints(page: Page) -> Iterator[tuple[str | None, str]]:
    for span in page.spans:
        if found := re.fullmatch(r"(?:(GET|POST|PATCH|PUT|DELETE) )?(/(?:api|webhooks|health|metrics|docs)[\w/.{}?=-]*)", span):
            yield found[1], found[2]
    for command in page.all_commands + [span for span in page.spans if span.startswith("curl ")]:
        if found := re.search(r"curl (.*?)\$MLRUNBOOK_(?:GATEWAY|PLATFORM)_URL(/[\w/.?=-]*)", command, re.DOTALL):
            yield "POST" if "-X POST" in found[1] else "GET", found[2]


def test_the_platforms_shapes_are_what_the_adapter_reads_and_sends() -> None:
    page, adapter = Page(ROOT / "docs/how-to/add-a-model-platform.md"), (ROOT / "mlrunbook/adapters/model_platform.py").read_text()
    rows = page.table("What is called")
    shapes = page.section("What is called").partition("\n- A **window**")[2]
    shown = {name for row in rows for name in re.findall(r"`(\w+)`", row[1] + row[2])} | set(re.findall(r"`([a-z]\w*)`", shapes))
    kinds = {"deployment", "rollback", "config", "infrastructure", "feature_store", "data_pipeline", "staging", "status", "current"}
    assert not [name for name in shown - kinds if f'"{name}"' not in adapter]
    called = {
        re.sub(r"\{.*?\}", "", path)
        for path in re.findall(r'"(/api/[\w/-]+)|_model\(model\)\}(/[\w/-]+)', adapter)
        for path in path
        if path
    }
    assert all(any(path.rstrip("/") in row[0] for row in rows) for path in called)


def test_only_the_effects_call_what_changes_the_world() -> None:
    verbs = "scale|route|write_config|restart|undo_rollout|isolate|rollback|flag_pending_work_orders|register|stage|promote"
    verbs += "|resume_feature_schedules|materialize"
    changing = re.compile(rf"\b(?:platform|runtime|features)\.(?:{verbs})\(")
    sources = [path for folder in ("mlrunbook", "flows", "tasks") for path in (ROOT / folder).rglob("*.py")]
    # The contract's suite asks a platform what changes it, for a model that a person names: no incident, no plan, nothing to undo.
    known = {"mlrunbook/response/execution/handlers.py", "mlrunbook/diagnostics/platform_contract.py"}
    assert {str(path.relative_to(ROOT)) for path in sources if changing.search(path.read_text())} == known


def test_the_alertmanager_receiver_can_be_pasted(routes: set[tuple[str, str]]) -> None:
    page = Page(ROOT / "docs/how-to/receive-alerts.md")
    (config,) = (found for block in page.blocks("yaml") if "receivers" in (found := yaml.safe_load(block)))
    (hook,) = next(r for r in config["receivers"] if r["name"] == "mlrunbook")["webhook_configs"]
    assert hook["url"] == "http://127.0.0.1:8090/webhooks/alertmanager"
    assert ("POST", "/webhooks/alertmanager") in routes
    assert hook["http_config"]["authorization"].keys() == {"type", "credentials_file"}
    assert {route["receiver"] for route in config["route"]["routes"]} <= {r["name"] for r in config["receivers"]}
    shipped = yaml.safe_load((ROOT / "deployments/prometheus/alertmanager.yml").read_text())
    assert next(r for r in shipped["receivers"] if r["name"] == "mlrunbook")["webhook_configs"][0]["url"] == hook["url"]
    assert [route for route in config["route"]["routes"] if route not in shipped["route"]["routes"]] == []
    assert shipped["route"]["receiver"] == config["route"]["receiver"]


def test_the_schedule_of_the_readme_fits_the_respond_deployment() -> None:
    (schedule,) = (yaml.safe_load(block)["schedules"][0] for block in README.blocks("yaml"))
    source = (ROOT / "flows/incident.py").read_text()
    assert all(f"    {name}: " in source for name in schedule["parameters"])


def test_prefect_commands_name_deployments_and_their_parameters() -> None:
    deployments = {d["name"]: d["entrypoint"] for d in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    for page in PAGES:
        for command in [c for c in [*page.shell_commands, *page.spans] if c.startswith("prefect deployment run ")]:
            words = shlex.split(command.replace("\\\n", " "))
            flow, _, name = words[3].partition("/")
            assert flow == name
            source = ROOT / (deployments[name].rpartition(".")[0].replace(".", "/") + ".py")
            signature = re.search(rf"async def {name.replace('-', '_')}\((.*?)\) ->", source.read_text(), re.DOTALL)
            assert signature
            given = [words[i + 1].partition("=")[0] for i, word in enumerate(words) if word == "-p"]
            assert not [p for p in given if f"{p}: " not in signature[1]]


def test_nothing_names_a_machine_or_a_registry() -> None:
    for page in PAGES:
        assert not re.search(r"/root/|/home/|/tmp/", page.text), page


def test_long_lines_are_tables_only() -> None:
    for page in PAGES:
        for number, line in enumerate(page.text.splitlines(), 1):
            inside = line.startswith("|") or re.match(r" *[+0-9.]+ s ", line)
            assert len(line) <= 150 or inside, f"{page}:{number}"


@pytest.mark.parametrize("name", ["connect-mlflow", "connect-a-warehouse"])
def test_a_policy_that_connects_a_model_can_be_pasted(name: str) -> None:
    blocks = Page(ROOT / f"docs/how-to/{name}.md").blocks("yaml")
    assert blocks
    for block in blocks:
        assert parse(block).models["churn"].platform is not None
        assert not warnings_of(block)


def test_the_licence_is_the_one_the_package_names() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()


def test_the_changelog_has_this_version() -> None:
    version = re.search(r'^version = "(.+)"', Path(ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"## {version[1]} " in (ROOT / "CHANGELOG.md").read_text()
