"""Compile every case and write its golden file: `dev/golden`. The diff is reviewed like code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from flytekitplugins.inference.pod.parts import Helper
from flytekitplugins.inference.programs.protocol import PROGRAMS_VARIABLE

from .cases import CASES, make

DIRECTORY = Path(__file__).parent / "pods"
HELPER = Helper(image="cr.flyte.org/flyteorg/flytekit:py3.11-1.16.31", bundled=True)
"""What flytekit would answer, fixed, so that the files do not depend on the installed version."""


def compiled(name: str) -> dict[str, Any]:
    """Return the pod of one case, with a word in place of the bundled programs."""
    manifest = make(name).compile(HELPER)
    for container in manifest["spec"]["initContainers"]:
        for variable in container.get("env", ()):
            if variable["name"] == PROGRAMS_VARIABLE:
                variable["value"] = "<the bundled programs>"
    return manifest


def to_yaml(manifest: dict[str, Any]) -> str:
    """Return a manifest as the text of its golden file."""
    return yaml.safe_dump(manifest, sort_keys=False, width=120)


def main() -> None:
    """Write all files and remove those without a case."""
    DIRECTORY.mkdir(exist_ok=True)
    for path in DIRECTORY.glob("*.yaml"):
        if path.stem not in CASES:
            path.unlink()
    for name in CASES:
        (DIRECTORY / f"{name}.yaml").write_text(to_yaml(compiled(name)), encoding="utf-8")
    print(f"{len(CASES)} golden files in {DIRECTORY}")


if __name__ == "__main__":
    main()
