"""The pages about servers: their examples are templates, and the YAML is part of the pod."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from flytekitplugins.inference import InferenceWarning, ModelInferenceTemplate
from flytekitplugins.inference.pod.parts import Helper

PAGES = Path(__file__).parent.parent / "plugins" / "flytekitplugins-inference" / "docs" / "servers"
NAMES = sorted(path.stem for path in PAGES.glob("*.md"))


def _templates(page: str) -> list[ModelInferenceTemplate]:
    """Return the templates that the page's examples make, in their order."""
    found: list[ModelInferenceTemplate] = []
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        names: dict[str, Any] = {}
        exec(block, names)  # the examples are ours
        found += [value for value in names.values() if isinstance(value, ModelInferenceTemplate)]
    return found


def _is_part(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and _is_part(part[key], whole[key]) for key in part
        )
    return bool(part == whole)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_are_templates_and_the_yaml_is_theirs(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)
        templates = _templates(page)
    assert len(templates) >= 2, "a minimal and a full example"
    pod = templates[-1].compile(Helper(image="helper:1", bundled=False))["spec"]["initContainers"]
    (server,) = (container for container in pod if container["name"] == "model-server")
    shown = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert shown
    for container in shown:
        assert _is_part(container, server)
