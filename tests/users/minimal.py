"""A user's module that every supported flytekit can import: no async tasks."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

from flytekit import task, workflow

from flytekitplugins.inference import ModelInferenceTemplate

SERVER = str(Path(__file__).parent / "echo_server.py")
ECHO = ModelInferenceTemplate(
    image="echo:1",
    command=["python", SERVER, "$(INFERENCE_PORT)"],
    health_endpoint="/health",
    port=28123,
    gpu=0,
)
WITH_INPUTS = replace(ECHO, download_inputs=True, port=28124)


def ask(template: ModelInferenceTemplate) -> dict[str, Any]:
    """Return what the echo server says of itself."""
    with urllib.request.urlopen(f"{template.base_url}/ask", timeout=10) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


@task(task_config=ECHO)
def pid_of_server(word: str) -> int:
    return int(ask(ECHO)["pid"])


@workflow
def workflow_of_one(word: str) -> int:
    return pid_of_server(word=word)
