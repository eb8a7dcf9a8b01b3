"""The examples, run as their readers run them."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Return a directory with a short path.

    LitServe creates Unix sockets in it, whose paths may have at most 103 bytes.
    """
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="digits-") as directory:
        yield Path(directory)


@pytest.mark.live
@pytest.mark.slow
def test_digits_trains_serves_and_measures_on_this_machine(scratch: Path) -> None:
    """The workflow succeeds, even if the server's port is in use; it leaves a Deck, no process."""
    environ = {**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    pyflyte = Path(sys.executable).with_name("pyflyte")
    with socket.socket() as occupied:
        occupied.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else's server is as good
            occupied.bind(("0.0.0.0", 8080))
            occupied.listen()
        done = subprocess.run(
            [str(pyflyte), "run", "examples/digits/workflow.py", "digits", "--seed", "3"],
            cwd=ROOT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    accuracy = re.search(r"evaluate: took [\d.]+ s, accuracy ([\d.]+)", done.stdout)
    assert accuracy, done.stdout
    assert float(accuracy[1]) > 0.95
    answers = re.search(r"the server answers at http://localhost:(\d+)", done.stdout)
    assert answers, done.stdout
    assert answers[1] != "8080"
    (deck,) = scratch.rglob("deck.html")
    html = deck.read_text(encoding="utf-8")
    assert 'alt="100 images of handwritten digits.' in html
    assert f"<strong>{float(accuracy[1]):.1%}</strong>" in html
    assert list(scratch.glob("inference-pod-*")) == []
    assert processes_with(f"TMPDIR={scratch}") == []


def processes_with(variable: str) -> list[str]:
    """Return the command lines of processes with a variable in their environment (on Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable in process.joinpath("environ").read_text(errors="replace").split("\0"):
                found.append(
                    process.joinpath("cmdline").read_text(errors="replace").replace("\0", " ")
                )
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def test_the_image_of_digits_holds_the_server_where_its_command_looks() -> None:
    """The path in the template's command is in the repository; the Dockerfile copies it there."""
    (path,) = re.findall(
        r'command=\["python", "([^"]+)"', (DIGITS / "workflow.py").read_text(encoding="utf-8")
    )
    dockerfile = (DIGITS / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert (ROOT / path).is_file()
    assert f"COPY {path} {Path(path).parent}/" in dockerfile
