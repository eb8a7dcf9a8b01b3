"""A task with another distribution's server beside it: README.md says how to run it."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

from flytekit import task
from inference_bentoml import BentoML

HERE = Path(__file__).parent
BENTO = BentoML(
    image="registry.example.com/iris:1",
    model=os.environ.get("IRIS_MODEL", "s3://models/iris"),
    service="service:Iris",
    working_dir=str(HERE),
    gpu=0,
    startup_timeout=120,
)


@task(task_config=BENTO)
def classify(
    flowers: list[list[float]] = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]],  # noqa: B006
) -> list[str]:
    """Return the species of iris flowers, each given as four measures in centimetres."""
    body = json.dumps({"flowers": flowers}).encode()
    request = urllib.request.Request(
        f"{BENTO.base_url}/classify", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        species: list[str] = json.load(response)
    return species
