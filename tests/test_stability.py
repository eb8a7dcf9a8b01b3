"""The pages about installing, stability and upgrades name what there is."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flytekitplugins.inference
from flytekitplugins.inference.client.batch import journal
from flytekitplugins.inference.client.report import data
from flytekitplugins.inference.flyte.wheel import FILE_NAME
from flytekitplugins.inference.programs import protocol

PROJECT = Path(__file__).parent.parent / "plugins" / "flytekitplugins-inference"
PACKAGE = PROJECT / "flytekitplugins" / "inference"
STABILITY = (PROJECT / "docs" / "stability.md").read_text(encoding="utf-8")
MODULES = re.findall(r"`….([a-z_.]+)`", STABILITY)
PROGRAMS = re.findall(
    r"`(\w+)`", STABILITY.partition("## Programs")[2].partition("## Variables")[0]
)


@pytest.mark.parametrize("name", MODULES)
def test_a_stable_module_has_stable_names(name: str) -> None:
    module = importlib.import_module(f"flytekitplugins.inference.{name}")
    assert module.__all__
    assert all(hasattr(module, attribute) for attribute in module.__all__)


def test_what_the_pages_import_is_stable() -> None:
    pages = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("docs/servers/*.md")]
    imported = {
        module
        for page in pages
        for module in re.findall(
            r"^from flytekitplugins\.inference\.([\w.]+) import", page.read_text(), re.MULTILINE
        )
    }
    assert imported
    assert imported <= set(MODULES)


def test_the_stable_programs_are_those_that_pods_start() -> None:
    pods = "".join(
        pod.read_text() for pod in (Path(__file__).parent / "golden" / "pods").glob("*.yaml")
    )
    started = set(re.findall(r"flytekitplugins\.inference\.programs\.(\w+)", pods)) - {""}
    assert set(PROGRAMS) == started


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_stable_program_explains_itself(program: str) -> None:
    command = [sys.executable, "-m", f"flytekitplugins.inference.programs.{program}", "--help"]
    assert "usage:" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_stable_variables_are_read_or_set_by_the_package() -> None:
    sources = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    variables = re.findall(r"`(INFERENCE_[A-Z_]+[A-Z])`", STABILITY)
    assert len(variables) >= 8
    assert [name for name in variables if name not in sources] == []


def test_the_wheel_is_named_as_it_is_called() -> None:
    page = (PROJECT / "docs" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"flytekitplugins_inference-[\w.-]+\.whl", page)) == {FILE_NAME}
    assert f"flytekitplugins-inference {flytekitplugins.inference.__version__} in" in page


def test_the_formats_are_those_of_the_upgrade_notes() -> None:
    """When one changes, docs/upgrade.md must say what happens to files of the old format."""
    assert (journal.VERSION, protocol.VERSION, data.VERSION) == (1, 1, 1)
