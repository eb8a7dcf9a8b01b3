"""The wheel: what is in it, and that it works without the source beside it."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import flytekitplugins.inference

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "plugins" / "flytekitplugins-inference"
PACKAGE = PROJECT / "flytekitplugins" / "inference"

USER_MODULE = """
from flytekit import task

from flytekitplugins.inference import VLLM

template = VLLM(arg_dict={"model": "org/model"}, download_inputs=True)


@task(task_config=template)
def ask(prompt: str) -> str:
    return prompt
"""
RUN_WITHOUT_SOURCE = """
import os, sys

sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != sys.argv[1]]
import flytekitplugins.inference
import user_module

first = user_module.template.pod_template.pod_spec.init_containers[0]
print(flytekitplugins.inference.__file__, type(user_module.ask).__name__, first.name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a wheel built of the project by its own build backend."""
    target = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(target)], cwd=PROJECT, check=True)
    (found,) = target.iterdir()
    return found


def test_the_wheel_holds_the_package_and_its_metadata_and_nothing_else(wheel: Path) -> None:
    expected = {
        str(path.relative_to(PROJECT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert "flytekitplugins/inference/py.typed" in found
    assert (
        "flytekitplugins/__init__.py" not in found
    )  # a namespace, shared with flytekit's other plugins


def test_the_wheel_registers_its_servers_and_one_entry_point_with_flytekit(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (
            name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")
        )
        parser = configparser.ConfigParser()
        parser.read_string(archive.read(name).decode())
    entry_points = {section: dict(parser[section]) for section in parser.sections()}
    servers = {path.parent.name for path in PACKAGE.glob("*/serve.py")}
    assert entry_points.keys() == {"flytekit.plugins", "flytekitplugins.inference.servers"}
    assert entry_points["flytekit.plugins"] == {
        "inference": "flytekitplugins.inference.flyte.register"
    }
    assert entry_points["flytekitplugins.inference.servers"].keys() == servers


def test_the_installed_wheel_works_without_the_source(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps"]
    subprocess.run(
        [*install, "--python", sys.executable, "--target", str(site), str(wheel)], check=True
    )
    elsewhere.mkdir()
    (elsewhere / "user_module.py").write_text(USER_MODULE)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-c", RUN_WITHOUT_SOURCE, str(PROJECT)]
    done = subprocess.run(
        command,
        cwd=elsewhere,
        env={**environ, "PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(site / "flytekitplugins" / "inference" / "__init__.py"),
        "InferenceTask",
        "input-downloader",
    ]


def test_this_session_tests_the_source() -> None:
    assert Path(flytekitplugins.inference.__file__).parent == PACKAGE
