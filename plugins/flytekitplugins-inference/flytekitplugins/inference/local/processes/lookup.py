"""Which program of this machine a container's command means, and what to say when there is none."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..plan.local_plan import ContainerPlan

PYTHONS = frozenset({"python", "python3"})
"""Names that mean the interpreter this process runs on."""

INSTALL_HINTS: Mapping[str, str] = {
    "vllm": "pip install vllm",
    "litserve": "pip install litserve",
    "sglang": 'pip install "sglang[all]"',
    "mlserver": "pip install mlserver",
    "ollama": "install Ollama, see https://ollama.com/download",
    "llama-server": "install llama.cpp, for example with `brew install llama.cpp`",
    "text-embeddings-router": "build it, see "
    "https://github.com/huggingface/text-embeddings-inference#local-install",
    "tritonserver": "build Triton, see https://github.com/triton-inference-server/server",
    "trtllm-serve": "pip install tensorrt-llm",
    "uvicorn": "pip install uvicorn",
}
"""How to get well-known servers, by the name of their program or Python package."""


def search_path(path: str | None) -> str:
    """Return a `PATH` in which the programs of this interpreter's environment come first."""
    here = str(Path(sys.executable).parent)
    return os.pathsep.join([here, path or os.defpath])


def find_program(name: str, path: str) -> str | None:
    """Return the absolute path of a program, or `None`.

    Args:
        name: First word of a container's command; a path of its image means the program of that
            name.
        path: The `PATH` to look on.
    """
    if name in PYTHONS:
        return sys.executable
    program = shutil.which(name, path=path)
    if program is None and Path(name).is_absolute():
        program = shutil.which(Path(name).name, path=path)
    return str(Path(program).absolute()) if program else None


def what_it_becomes(command: Sequence[str]) -> Sequence[str]:
    """Return the command that a container becomes in the end: what follows `--` of its shell's."""
    words = tuple(command)
    if words[:2] == ("sh", "-c") and "--" in words:
        return words[words.index("--") + 1 :]
    return words


def with_programs(command: Sequence[str], path: str) -> list[str]:
    """Return a command whose paths of its image are those of this machine.

    A command that first waits for something names the program that it then becomes behind `--`.
    """
    return [
        (find_program(word, path) or word) if before == "--" and Path(word).is_absolute() else word
        for before, word in zip(("", *command), command)  # noqa: B905 - one is longer
    ]


def missing_module(container: ContainerPlan) -> str | None:
    """Return the Python package that `python -m` is to run and that this interpreter does not have.

    `None` also where that cannot be told: the container has a `PYTHONPATH` of its own, or works in
    another directory.
    """
    words = (*what_it_becomes(container.command), *container.args)
    if (
        len(words) < 3
        or words[0] not in PYTHONS
        or words[1] != "-m"
        or "PYTHONPATH" in container.env
    ):
        return None
    package = words[2].partition(".")[0]
    here = Path(package)  # `python -m` also looks into the working directory
    if container.working_dir or here.is_dir() or here.with_suffix(".py").exists():
        return None
    return None if importlib.util.find_spec(package) else package


def why_no_module(container: ContainerPlan, package: str) -> str:
    """Say that a Python package is missing, and how to get it."""
    hint = INSTALL_HINTS.get(package, "install it in this environment")
    return (
        f"{container.name} runs `python -m` with the package {package!r}, which this environment "
        f"does not have. To get it: {hint}. Or give command= with a program of this machine, or "
        "run the image: INFERENCE_LOCAL_BACKEND=containers."
    )


def why_missing(container: ContainerPlan) -> str:
    """Say why a container cannot run as a process, and what would help."""
    image = f"image {container.image!r}" if container.image else "its image"
    if not container.command:
        return (
            f"{container.name} has no command: its program is the entry point of {image}, which "
            "only a container runtime can run. Give command= with a program of this machine, or "
            "run the image: INFERENCE_LOCAL_BACKEND=containers."
        )
    name = what_it_becomes(container.command)[0]
    hint = INSTALL_HINTS.get(Path(name).name, "install it")
    return (
        f"{container.name} runs {name!r} of {image}, which this machine does not have on its PATH. "
        f"To get it: {hint}. Or give command= with a program of this machine, or run the image: "
        "INFERENCE_LOCAL_BACKEND=containers."
    )
