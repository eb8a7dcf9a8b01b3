"""Both generations of the kubernetes client.

The oldest that can describe sidecars, and those around the rewrite in version 37.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parent / "check_kubernetes.py"
CLIENTS = Path(os.environ.get("INFERENCE_KUBERNETES_CLIENTS", Path(sys.prefix) / "kubernetes"))
"""Where `dev/setup` puts one client per folder, named by its version."""


@pytest.mark.parametrize("version", ["28.1.0", "31.0.0", "36.0.3", "37.0.1"])
def test_every_pod_survives(version: str) -> None:
    folder = CLIENTS / version
    path = [str(CHECK.parent.parent)]
    if version != "37.0.1":  # the one that is installed
        assert folder.is_dir(), f"{folder} is missing: run dev/setup"
        path.insert(0, str(folder))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    done = subprocess.run(
        [sys.executable, str(CHECK)], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == version
