"""A description has one pod, byte for byte: in every process and every Python of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "plugins" / "flytekitplugins-inference"
COMPILE = """
import hashlib, json
from flytekitplugins.inference import VLLM, ModelInferenceTemplate, ModelServers
from flytekitplugins.inference.pod.parts import Helper

bundled = Helper(image="flytekit:1", bundled=True)
llm = VLLM(model="s3://m/x", download_inputs=True, startup_timeout=60,
           lora_adapters={"b": "o/n", "a": "o/m"},
           env={"Z": "1", "A": "2"}, arg_dict={"max_model_len": 9, "dtype": "auto"})
ranker = ModelInferenceTemplate(
    image="a/b:1", health_endpoint="/health", port=9000, startup_timeout=60)
pods = [pod.compile(bundled) for pod in (llm, ranker, ModelServers({"x": llm, "y": ranker}))]
print(hashlib.sha256(json.dumps(pods).encode()).hexdigest())
"""


def _interpreters() -> set[str]:
    """Return this Python and those of other supported versions; they need nothing installed."""
    found = {sys.executable}
    for minor in (10, 11, 12):
        asked = subprocess.run(
            ["sh", "-c", f"python3.{minor} -c 'import sys; print(sys.executable)'"],
            check=False,
            capture_output=True,
            text=True,
        )
        found.update(asked.stdout.split())
    return found


def test_the_pod_is_the_same_in_every_process_and_version() -> None:
    digests = {}
    for interpreter in _interpreters():
        for seed in ("0", "1"):
            environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONHASHSEED": seed}
            ended = subprocess.run(
                [interpreter, "-c", COMPILE],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            digests[interpreter, seed] = ended.stdout
    assert len(set(digests.values())) == 1, digests
