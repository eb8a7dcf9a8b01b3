"""Models of an MLflow registry; a real one, in a sqlite file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def registry(tmp_path: Path) -> dict[str, str]:
    pytest.importorskip("mlflow")
    return {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}


def register(directory: Path, content: bytes, registry: dict[str, str]) -> None:
    directory.mkdir()
    (directory / "MLmodel").write_bytes(content)
    command = [sys.executable, "-c", REGISTER, str(directory)]
    subprocess.run(command, env=registry, check=True, capture_output=True, timeout=300)


def test_versions_and_aliases_are_published(load: Any, registry: dict[str, str], tmp_path: Path) -> None:
    register(tmp_path / "one", b"one", registry)
    register(tmp_path / "two", b"two", registry)
    first = load("models:/fraud/1", **registry)
    assert first.code == 0, first.stderr
    assert first.files == {"MLmodel": b"one"}
    assert first.metadata["revision"].startswith("1-")
    assert load("models:/fraud@champion", **registry).files == {"MLmodel": b"two"}
    assert load("models:/fraud/1", MLFLOW_TRACKING_URI="http://127.0.0.1:9").files == {"MLmodel": b"one"}
    missing = load("models:/fraud/9", **registry)
    assert (missing.code, missing.message["error"]) == (66, "RevisionNotFoundError")


def test_a_logged_model_is_published(load: Any, registry: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import mlflow\n"
        "class M(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, model_input: list[str]) -> list[str]:\n"
        "        return model_input\n"
        "mlflow.pyfunc.log_model(name='m', python_model=M(), registered_model_name='echo', pip_requirements=[])\n"
    )
    (tmp_path / "work").mkdir()
    script = tmp_path / "work" / "log_model.py"
    script.write_text(code)
    environ = {**registry, "GIT_PYTHON_REFRESH": "quiet", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(script)]
    subprocess.run(command, env=environ, cwd=tmp_path / "work", capture_output=True, check=True, timeout=300)
    loaded = load("models:/echo/1", **registry)
    assert loaded.code == 0, loaded.stderr
    assert "MLmodel" in loaded.files


def test_a_version_has_to_be_named(load: Any) -> None:
    assert load("models:/fraud").code == 64
