"""What MLflow says of an artefact comes from outside: nothing is written or read beside it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from mlrunbook.adapters.mlflow.client import MlflowClient
from mlrunbook.adapters.mlflow.replay.artefacts import fetch
from mlrunbook.domain.errors import Refused

MLMODEL = b"flavors: {}\n"


def client(uri: str, listed: dict[str, list[dict[str, object]]], content: bytes = MLMODEL) -> MlflowClient:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("get-download-uri"):
            return httpx.Response(200, json={"artifact_uri": uri})
        if request.url.path.endswith("/artifacts"):
            return httpx.Response(200, json={"files": listed.get(request.url.params["path"], [])})
        return httpx.Response(200, content=content)

    return MlflowClient("ml", "https://mlflow.example.com", transport=httpx.MockTransport(answer))


def test_a_proxied_artefact_lies_in_the_folder_with_its_digest(tmp_path: Path) -> None:
    listed = {"0/m": [{"path": "MLmodel"}, {"path": "code", "is_dir": True}], "0/m/code": [{"path": "code/own.py"}]}
    found = [fetch(client("mlflow-artifacts:/0/m", listed), "churn", "1", at, most_bytes=99, local=None) for at in made(tmp_path, 2)]
    assert sorted(str(p.relative_to(tmp_path / "0")) for p in (tmp_path / "0").rglob("*.*")) == ["code/own.py"]
    assert found[0] == found[1]
    other = fetch(client("mlflow-artifacts:/0/m", listed, b"else"), "churn", "1", made(tmp_path / "more", 1)[0], most_bytes=99, local=None)
    assert other.digest != found[0].digest


def made(folder: Path, count: int) -> list[Path]:
    for i in range(count):
        (folder / str(i)).mkdir(parents=True)
    return [folder / str(i) for i in range(count)]


@pytest.mark.parametrize(
    ("uri", "listed", "most_bytes"),
    [
        pytest.param("s3://bucket/m", {}, 99, id="in-a-bucket"),
        pytest.param("file:///etc", {}, 99, id="a-folder-that-nobody-opened"),
        pytest.param("mlflow-artifacts:/0/m", {"0/m": [{"path": ".."}]}, 99, id="a-name-that-leads-out"),
        pytest.param("mlflow-artifacts:/0/m", {"0/m": [{"path": "MLmodel"}]}, 3, id="larger-than-allowed"),
        pytest.param("mlflow-artifacts:/0/m", {"0/m": [{"path": f"f{i}"} for i in range(3000)]}, 10**9, id="too-many-files"),
        pytest.param("mlflow-artifacts:/0/m", {"0/m": []}, 99, id="no-MLmodel"),
    ],
)
def test_what_may_not_be_fetched_is_refused(uri: str, listed: dict[str, list[dict[str, object]]], most_bytes: int, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        fetch(client(uri, listed), "churn", "1", tmp_path, most_bytes=most_bytes, local=None)


def test_a_path_that_leads_out_is_cut_to_its_name(tmp_path: Path) -> None:
    (into,) = made(tmp_path, 1)
    listed: dict[str, list[dict[str, object]]] = {"0/m": [{"path": "MLmodel"}, {"path": "../../../evil"}]}
    fetch(client("mlflow-artifacts:/0/m", listed), "churn", "1", into, most_bytes=99, local=None)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0", "MLmodel", "evil"]
    assert (into / "evil").is_file()


def test_of_a_folder_that_policy_opens_no_link_is_followed_and_nothing_beside_it_is_read(tmp_path: Path) -> None:
    opened, beside, into = (tmp_path / name for name in ("opened", "beside", "into"))
    for folder in (opened / "m", beside, into):
        folder.mkdir(parents=True)
    (opened / "m" / "MLmodel").write_bytes(MLMODEL)
    (beside / "MLmodel").write_bytes(MLMODEL)
    (opened / "m" / "link").symlink_to(beside / "MLmodel")
    fetch(client(f"file://{opened}/m", {}), "churn", "1", into, most_bytes=99, local=opened)
    assert [path.name for path in into.iterdir()] == ["MLmodel"]
    for uri in (f"file://{beside}", f"file://{opened}/../beside"):
        with pytest.raises(Refused):
            fetch(client(uri, {}), "churn", "1", into, most_bytes=99, local=opened)
