"""Models of an MLflow registry; a real one, in a sqlite file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patience import patient, wait_for
from ports import reserve_port

pytestmark = pytest.mark.slow

REGISTER = """
import sys
from pathlib import Path
from mlflow import MlflowClient
client = MlflowClient()
try:
    client.create_registered_model("fraud")
except Exception:
    pass
version = client.create_model_version("fraud", source=Path(sys.argv[1]).as_uri())
client.set_registered_model_alias("fraud", "champion", version.version)
print(version.version)
"""

UPLOAD = """
import sys
from mlflow import MlflowClient
client = MlflowClient()
run = client.create_run("0")
client.log_artifacts(run.info.run_id, sys.argv[1], "model")
client.create_registered_model("fraud")
source = run.info.artifact_uri + "/model"
client.create_model_version("fraud", source=source, run_id=run.info.run_id)
"""


@pytest.fixture
def registry(tmp_path: Path) -> dict[str, str]:
    pytest.importorskip("mlflow")
    return {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}


def register(directory: Path, content: bytes, registry: dict[str, str]) -> None:
    directory.mkdir()
    (directory / "MLmodel").write_bytes(content)
    command = [sys.executable, "-c", REGISTER, str(directory)]
    subprocess.run(command, env=registry, check=True, capture_output=True, timeout=300)


def test_versions_and_aliases_are_published(
    load: Any, registry: dict[str, str], tmp_path: Path
) -> None:
    register(tmp_path / "one", b"one", registry)
    register(tmp_path / "two", b"two", registry)
    first = load("models:/fraud/1", **registry)
    assert first.code == 0, first.stderr
    assert first.files == {"MLmodel": b"one"}
    assert first.metadata["revision"].startswith("1-")
    assert load("models:/fraud@champion", **registry).files == {"MLmodel": b"two"}
    assert load("models:/fraud/latest", **registry).files == {"MLmodel": b"two"}
    assert load("models:/fraud/1", MLFLOW_TRACKING_URI="http://127.0.0.1:9").files == {
        "MLmodel": b"one"
    }
    for text in ("models:/fraud/9", "models:/fraud/Production"):
        missing = load(text, **registry)
        assert (missing.code, missing.message["error"]) == (66, "RevisionNotFoundError")
        assert text in missing.message["message"]


def test_a_logged_model_is_published(load: Any, registry: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import mlflow\n"
        "class M(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, model_input: list[str]) -> list[str]:\n"
        "        return model_input\n"
        "mlflow.pyfunc.log_model(name='m', python_model=M(), registered_model_name='echo', "
        "pip_requirements=[])\n"
    )
    (tmp_path / "work").mkdir()
    script = tmp_path / "work" / "log_model.py"
    script.write_text(code)
    environ = {**registry, "GIT_PYTHON_REFRESH": "quiet", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(script)]
    subprocess.run(
        command, env=environ, cwd=tmp_path / "work", capture_output=True, check=True, timeout=300
    )
    loaded = load("models:/echo/1", **registry)
    assert loaded.code == 0, loaded.stderr
    assert "MLmodel" in loaded.files


def test_a_version_is_checked(load: Any, registry: dict[str, str], tmp_path: Path) -> None:
    register(tmp_path / "one", b"one", registry)

    def check(source: str, **environ: str) -> Any:
        return load.wait(load.start("--check", source, **{**registry, **environ}))

    found, missing = check("models:/fraud/1"), check("models:/fraud@nobody")
    assert found.code == 0, found.stderr
    assert "check passed missing_bytes=3" in found.stderr
    assert (missing.code, missing.message["error"]) == (66, "RevisionNotFoundError")
    assert not (tmp_path / "cache").exists()
    away = check("models:/fraud/1", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert (away.code, away.message["error"]) == (69, "SourceUnavailableError")


def is_there(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=patient(5)):
            return True
    except OSError:
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A tracking server that keeps the artifacts itself: only MLflow's client can fetch them."""
    pytest.importorskip("mlflow")
    port = reserve_port()
    places = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        f"{tmp_path}/kept",
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *places,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--workers", "1"], stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(
            lambda: is_there(f"http://127.0.0.1:{port}/health"),
            120,
            otherwise=(tmp_path / "server.log").read_text,
        )
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_what_only_mlflow_can_fetch_is_listed_by_a_check(
    load: Any, server: str, tmp_path: Path
) -> None:
    (tmp_path / "up" / "sub").mkdir(parents=True)
    (tmp_path / "up" / "MLmodel").write_bytes(b"one")
    (tmp_path / "up" / "sub" / "weights.bin").write_bytes(b"weights")
    environ = {"MLFLOW_TRACKING_URI": server, "GIT_PYTHON_REFRESH": "quiet"}
    command = [sys.executable, "-c", UPLOAD, str(tmp_path / "up")]
    subprocess.run(
        command,
        env={**environ, "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    done = load.wait(load.start("--check", "models:/fraud/1", "--exclude", "MLmodel", **environ))
    assert done.code == 0, done.stderr
    assert (
        "check passed missing_bytes=17" in done.stderr
    )  # the chosen file, and all of them where they are staged
    assert not (tmp_path / "cache").exists()
    assert load("models:/fraud/1", **environ).files == {
        "MLmodel": b"one",
        "sub/weights.bin": b"weights",
    }


def test_a_version_has_to_be_named(load: Any) -> None:
    assert load("models:/fraud").code == 64
