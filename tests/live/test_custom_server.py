"""BentoML, a server of another distribution, run from the compiled pod as its README does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_iris

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_server"

pytestmark = pytest.mark.live


@pytest.fixture
def iris(tmp_path: Path) -> Path:
    """A model of the real measurements: the centroid of each species."""
    data = load_iris()
    centroids = {
        str(name): data.data[data.target == index].mean(axis=0).tolist()
        for index, name in enumerate(data.target_names)
    }
    (tmp_path / "centroids.json").write_text(json.dumps(centroids))
    return tmp_path


def test_the_example_classifies_flowers(servers: Any, iris: Path) -> None:
    command = [str(Path(sys.executable).with_name("pyflyte")), "run", "workflow.py", "classify"]
    with servers.on_path("bentoml"):
        environment = {**os.environ, "PYTHONPATH": str(EXAMPLE), "IRIS_MODEL": f"file://{iris}"}
        ended = subprocess.run(
            command,
            check=False,
            cwd=EXAMPLE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert ended.returncode == 0, ended.stderr
    assert "['setosa', 'virginica']" in ended.stdout
    assert "[server-gate] wait_for_server ready" in ended.stderr
