"""A model's own code runs confined: what it tries against us fails, and what it breaks is its own problem. No MLflow takes part: a stand-in
package of that name loads the "model", which is a file of Python."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from mlrunbook.adapters.mlflow.replay import confine, scoring
from mlrunbook.adapters.mlflow.replay.scoring import Limits, Rows, Scored
from mlrunbook.domain.errors import Refused
from tests.waiting import until

ROWS = Rows([{"age": 40.0}, {"age": 70.0}], ("1",), ("0",))
STAND_IN = """
import sys
class Meta:
    flavors = {"python_function": {}}
    def get_input_schema(self): return None
class Loaded:
    metadata = Meta()
    def __init__(self, folder): self.scope = {}; exec(open(folder + "/model.py").read(), self.scope)
    def predict(self, frame): return self.scope["predict"](frame)
def load_model(folder): return Loaded(folder)
"""
PANDAS = """
class Rows(list):
    iloc = property(lambda self: self)
    def __getitem__(self, at): return Rows([list.__getitem__(self, i) for i in at]) if isinstance(at, list) else list.__getitem__(self, at)
    def head(self, n): return self
def DataFrame(rows, columns=None): return Rows(rows)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment of the model's own, as a team has one."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "mlflow").mkdir()
    (site / "mlflow" / "__init__.py").touch()
    (site / "mlflow" / "pyfunc.py").write_text(STAND_IN)
    (site / "pandas.py").write_text(PANDAS)
    return str(folder / "bin" / "python")


def run(python: str, folder: Path, code: str, *, timeout_s: float = 60.0, memory_mb: int = 1_000) -> Scored:
    """`code` is the body of the model's `predict`."""
    body = "".join(f"    {line}\n" for line in code.splitlines())
    (folder / "model.py").write_text(f"import os, sys, socket\ndef predict(rows):\n{body}    return [0.25] * len(rows)\n")
    return scoring.score(folder, ROWS, Limits(timeout_s, memory_mb, python))


def test_a_sound_model_scores(python: str, tmp_path: Path) -> None:
    found = run(python, tmp_path, "")
    assert (found.scores, found.problem, found.labels_only) == ((0.25, 0.25), None, False)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param("open(SECRET).read()", id="reads-a-secret-file"),
        pytest.param("open(f'/proc/{PARENT}/environ').read()", id="reads-our-environment"),
        pytest.param("open(f'/proc/{PARENT}/mem', 'rb')", id="reads-our-memory"),
        pytest.param("os.listdir(os.path.dirname(SECRET))", id="lists-our-folder"),
        pytest.param("open(SECRET, 'a')", id="writes-a-file-of-ours"),
        pytest.param("os.chmod(SECRET, 0o777)", id="opens-a-file-of-ours-to-all"),
        pytest.param("os.truncate(SECRET, 0)", id="empties-a-file-of-ours"),
        pytest.param("os.unlink(SECRET)", id="deletes-a-file-of-ours"),
        pytest.param("os.link(SECRET, 'here')", id="links-a-file-of-ours"),
        pytest.param("socket.socket()", id="opens-a-connection"),
        pytest.param("socket.socket(socket.AF_UNIX)", id="opens-a-local-connection"),
        pytest.param("socket.socketpair()", id="opens-a-pair-of-sockets"),
        pytest.param("os.fork()", id="forks"),
        pytest.param("__import__('subprocess').run(['/bin/true'])", id="starts-a-program"),
        pytest.param("os.kill(PARENT, 0)", id="signals-us"),
        pytest.param("os.setpriority(os.PRIO_PROCESS, PARENT, 19)", id="slows-us-down"),
        pytest.param("__import__('resource').prlimit(PARENT, 7, (1, 1))", id="limits-us"),
    ],
)
def test_what_a_model_tries_against_us_is_refused_by_the_kernel(
    attack: str, python: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("ours") / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o600)
    given = attack.replace("SECRET", repr(str(secret))).replace("PARENT", str(os.getpid()))
    found = run(
        python,
        tmp_path,
        f"try:\n    {given}\nexcept (PermissionError, OSError) as e:\n    return [1.0 * (e.errno in (1, 13, 18))] * len(rows)",
    )
    assert (found.problem, set(found.scores)) == (None, {1.0})
    assert secret.read_text() == "hunter2"
    assert secret.stat().st_mode & 0o777 == 0o600


def test_it_has_no_setting_of_ours(python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLRUNBOOK_CONNECTION_ML", "https://user:hunter2@mlflow.example.com")
    found = run(python, tmp_path, "assert 'hunter2' not in str(os.environ) and not [k for k in os.environ if 'RUNBOOK' in k], os.environ")
    assert found.problem is None


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param("bytearray(10 << 30)", id="takes-10-GB"),
        pytest.param("raise ValueError('x' * 100_000)", id="fails-at-length"),
        pytest.param("return ['maybe'] * len(rows)", id="answers-words"),
        pytest.param("return [0.5]", id="answers-too-few"),
        pytest.param("return [7.5] * len(rows)", id="answers-no-probability"),
        pytest.param("return [float('nan')] * len(rows)", id="answers-no-number"),
        pytest.param("os._exit(0)", id="ends-without-a-word"),
        pytest.param("print('\\x1b[2J <script>' * 1000); os._exit(3)", id="prints-and-ends"),
        pytest.param("os.abort()", id="aborts"),
        pytest.param("open('r', 'w').write('{garbage'); os._exit(0)", id="leaves-garbage"),
        pytest.param("open('r', 'w').write('[' * 100_000); os._exit(0)", id="leaves-a-deep-answer"),
        pytest.param("os.mkdir('r'); os._exit(0)", id="leaves-a-folder"),
        pytest.param("open('r', 'w').write('{\"scores\": [0.1, 0.2, 0.3]}'); os._exit(0)", id="answers-rows-that-were-not-asked"),
        pytest.param("f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))", id="fills-the-disk"),
    ],
)
def test_what_a_model_breaks_is_its_own_problem_in_a_short_sentence(attack: str, python: str, tmp_path: Path) -> None:
    found = run(python, tmp_path, attack)
    assert found.scores == ()
    assert found.problem
    assert len(found.problem) < 700
    assert "\x1b" not in found.problem


def test_one_that_sleeps_for_ever_is_ended_with_all_its_threads(python: str, tmp_path: Path) -> None:
    code = "import threading, time\nfor _ in range(20): threading.Thread(target=time.sleep, args=(9999,)).start()\ntime.sleep(9999)"
    found = run(python, tmp_path, code, timeout_s=3)
    assert "replay.timeout_s" in (found.problem or "")
    until(lambda: str(tmp_path) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout, 30)


def test_an_environment_without_mlflow_says_what_to_install(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    bare = tmp_path_factory.mktemp("bare")
    venv.create(bare, symlinks=True, with_pip=False)
    found = run(str(bare / "bin" / "python"), tmp_path, "")
    assert "install mlflow-skinny" in (found.problem or "")


def test_an_interpreter_that_is_not_there_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="/nowhere/python"):
        run("/nowhere/python", tmp_path, "")


def test_a_process_that_cannot_be_confined_runs_nothing(tmp_path: Path) -> None:
    """As on a kernel that takes no rules: a machine of a kind that has no list of calls."""
    script = tmp_path / "confine.py"
    script.write_text(Path(confine.__file__).read_text().replace('"x86_64": (0', '"none": (0').replace('"aarch64": (1', '"none2": (1'))
    wanted = '{"argv": ["/bin/echo", "ran"], "read": [], "write": [], "memory_bytes": 1000000000, "file_bytes": 1000, "cpu_s": 9}'
    done = subprocess.run([sys.executable, "-I", str(script), wanted], capture_output=True, text=True)
    assert done.returncode == confine.NOT_CONFINED
    assert "ran" not in done.stdout.split()
