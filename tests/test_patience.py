"""Tests hold on a busy machine: ports are reserved, and bounds stretch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import patience
from ports import reserve_port

TESTS = Path(__file__).parent
RIGID = re.compile(
    r"monotonic\(\) \+ \d"  # until = time.monotonic() + 30
    r"|monotonic\(\) - \w+ < \d"  # assert time.monotonic() - begun < 1
    r"|\.communicate\(timeout=\d"
    r"|process\.wait\((timeout=)?\d"
)


def rigid_bounds(source: str) -> list[str]:
    """Return the lines that bound what has to happen by a number of seconds."""
    return [line.strip() for line in source.splitlines() if RIGID.search(line)]


@pytest.mark.parametrize(
    ("line", "is_rigid"),
    [
        ("until = time.monotonic() + 30", True),
        ("until = time.monotonic() + patient(30)", False),
        ("process.communicate(timeout=50)", True),
        ("process.communicate(timeout=patient(50))", False),
        ("assert process.wait(10) == 143", True),
        ("assert process.wait(patient(10)) == 143", False),
        ("assert time.monotonic() - begun < 1", True),
    ],
)
def test_what_is_rigid(line: str, is_rigid: bool) -> None:
    assert bool(rigid_bounds(line)) == is_rigid


# What is to show that a process goes on for a while waits for its end in vain.
IN_VAIN = {
    "process.wait(0.5)",
    "script.process.wait(0.7)  # a grace period of ten minutes has begun",
}


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(TESTS.rglob("*.py")) if path != Path(__file__)],
    ids=lambda path: str(path.relative_to(TESTS)),
)
def test_bounds_stretch_with_the_machine(path: Path) -> None:
    assert set(rigid_bounds(path.read_text(encoding="utf-8"))) <= IN_VAIN


def test_what_does_not_happen_is_told_with_what_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "factor", lambda: 1.0)
    with pytest.raises(AssertionError, match="seen instead"):
        patience.wait_for(list, 0.01, otherwise=lambda: "seen instead")
    assert patience.wait_for(lambda: "first", 0) == "first"


def test_workers_wait_as_long_as_the_first_process_has_measured() -> None:
    source = "import patience; print(patience.factor())"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=TESTS, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == patience.factor() >= 1


def test_two_processes_reserve_different_ports() -> None:
    own = {reserve_port() for _ in range(250)}  # of two blocks
    source = "import ports; print(*[ports.reserve_port() for _ in range(250)])"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=TESTS, capture_output=True, text=True, check=True
    )
    others = {int(port) for port in done.stdout.split()}
    assert len(own) == len(others) == 250
    assert not own & others
