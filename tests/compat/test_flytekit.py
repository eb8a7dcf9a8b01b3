"""The oldest flytekit that is supported, beside the installed one, which all other tests use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECK = Path(__file__).parent / "check_flytekit.py"
OLDEST = "1.13.0"
FLYTEKITS = Path(os.environ.get("INFERENCE_FLYTEKITS", Path(sys.prefix) / "flytekit"))
"""Where `dev/setup` puts one flytekit per folder, named by its version."""


def test_the_oldest() -> None:
    folder = FLYTEKITS / OLDEST
    assert folder.is_dir(), f"{folder} is missing: run dev/setup"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(CHECK.parent.parent)])}
    done = subprocess.run(
        [sys.executable, str(CHECK)], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == OLDEST
