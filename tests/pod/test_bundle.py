"""The programs travel in a pod spec, and start from there without this package."""

from __future__ import annotations

import base64
import bz2
import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from flyteidl.core.literals_pb2 import Blob, BlobMetadata, Literal, LiteralMap, Scalar
from flyteidl.core.types_pb2 import BlobType

from flytekitplugins.inference.pod.bundle import BOOTSTRAP, programs_bundle
from flytekitplugins.inference.programs.protocol import PROGRAMS_VARIABLE

MAX_ARG_STRLEN = 128 * 1024
"""Linux's limit for one argument or variable (`execve(2)`)."""


PROGRAMS = ("download_inputs", "load_model", "wait_for_server")


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_fits_into_a_variable_and_survives_templating(program: str) -> None:
    assert len(programs_bundle(program)) < MAX_ARG_STRLEN * 0.6
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", programs_bundle(program))
    assert "{{" not in BOOTSTRAP
    assert "$(" not in BOOTSTRAP


def test_it_holds_the_errors_and_the_programs_only() -> None:
    archive = zipfile.ZipFile(io.BytesIO(bz2.decompress(base64.b64decode(programs_bundle("download_inputs")))))
    names = set(archive.namelist())
    assert not any("load_model" in name for name in names)
    assert {"flytekitplugins/inference/__init__.py", "flytekitplugins/inference/errors.py"} <= names
    assert archive.read("flytekitplugins/inference/__init__.py") == b""
    assert all(
        re.fullmatch(r"flytekitplugins/(inference/((__init__|errors)\.py|programs/\w+\.py))?", name) for name in names
    )


def test_it_is_the_same_in_every_process() -> None:
    code = "from flytekitplugins.inference.pod.bundle import programs_bundle; print(programs_bundle('download_inputs'))"
    environ = {**os.environ, "PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert other.stdout.strip() == programs_bundle("download_inputs")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_starts_from_it_where_the_package_is_not_installed(program: str, tmp_path: Path) -> None:
    # -S: without site-packages; what is left is a bare interpreter, as in an image without this package
    command = [sys.executable, "-S", "-c", BOOTSTRAP, program, "--help"]
    environ = {PROGRAMS_VARIABLE: programs_bundle(program), "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {program}")


def test_the_bundled_downloader_does_its_work_in_flytekits_image(tmp_path: Path) -> None:
    """Flytekit's libraries are there, this package is not: `.pth` files are not read without `site`."""
    (tmp_path / "weights.bin").write_bytes(b"weights")
    blob = Blob(metadata=BlobMetadata(type=BlobType(dimensionality=BlobType.SINGLE)), uri=str(tmp_path / "weights.bin"))
    literals = LiteralMap(literals={"model": Literal(scalar=Scalar(blob=blob))})
    (tmp_path / "inputs.pb").write_bytes(literals.SerializeToString())
    output, files = tmp_path / "shared" / "inputs.json", tmp_path / "tmp" / "inputs"
    command = [sys.executable, "-S", "-c", BOOTSTRAP, "download_inputs", str(tmp_path / "inputs.pb")]
    command += ["--output", str(output), "--directory", str(files)]
    libraries = sysconfig.get_path("purelib")
    environ = {
        PROGRAMS_VARIABLE: programs_bundle("download_inputs"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": libraries,
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = Path(json.loads(output.read_text())["model"])
    assert path.read_bytes() == b"weights"
    assert path.is_relative_to(files)
