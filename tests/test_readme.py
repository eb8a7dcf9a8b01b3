"""The README's example does what it says: it is a task, and its YAML is the pod's."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml
from flytekit.core.base_task import PythonTask

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[0]


def test_the_example_becomes_the_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "readme_example.py").write_text(_block("python"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    example = importlib.import_module("readme_example")
    assert isinstance(example.complete, PythonTask)
    assert yaml.safe_load(_block("yaml")) == example.llm.manifest["spec"]
