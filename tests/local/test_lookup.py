"""A container's command names programs of its image; here they are those of this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flytekitplugins.inference.local.processes.lookup import find_program, with_programs


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "a-server"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("name", "found"),
    [("a-server", True), ("/app/a-server", True), ("app/a-server", False), ("/app/other", False)],
)
def test_a_path_of_the_image_means_the_program_of_that_name(
    program: Path, name: str, found: bool
) -> None:
    assert find_program(name, str(program.parent)) == (str(program) if found else None)


def test_a_path_of_this_machine_is_that_program(program: Path) -> None:
    assert find_program(str(program), "/nowhere") == str(program)
    assert find_program("python3", "/nowhere") == sys.executable


def test_a_program_behind_one_that_waits_is_found_too(program: Path) -> None:
    path = str(program.parent)
    command = ["sh", "-c", "…", "wait", "/models/.ready", "--", "/app/a-server", "/app/a-server"]
    assert with_programs(command, path)[-2:] == [str(program), "/app/a-server"]
    assert with_programs(["sh", "--", "/app/other"], path) == ["sh", "--", "/app/other"]
    assert with_programs(["sh", "--", "a-server"], path) == ["sh", "--", "a-server"]
