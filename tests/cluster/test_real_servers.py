"""Real model servers in real pods: loaded, asked by the task, and ended.

vLLM's build for CPUs is left out: with its libraries an image has 2 to 6 GB.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from dev.kubernetes.files import RUN, locked

from cluster import real_servers
from cluster.api import statuses
from cluster.flyte_platform import read_status
from cluster.images import TASK
from cluster.pods import fit
from flytekitplugins.inference import LlamaCpp, MLServer, Triton, VolumeModel
from golden.write import HELPER

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.api import Namespace
    from cluster.flyte_platform import Platform

ASK = """
import json, sys, urllib.request
url, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
with urllib.request.urlopen(request, timeout=60) as answer:
    print(json.dumps(json.load(answer)), flush=True)
"""
TENSOR = {"inputs": [{"name": "x", "shape": [1, 1], "data": [10.0]}]}


def model(server: str, path: str = "") -> VolumeModel:
    reference = {"reference": real_servers.model_image_name(server), "pullPolicy": "Never"}
    return VolumeModel(volume={"image": reference}, path=path)


CASES: dict[str, tuple[Callable[[], Any], str, dict[str, Any], str]] = {
    "llamacpp": (
        lambda: LlamaCpp(model=model("llamacpp", "tiny.gguf"), gpu=0, arg_dict={"ctx_size": 512}),
        "/v1/completions",
        {"prompt": " one two", "max_tokens": 2, "temperature": 0},
        " three four",
    ),
    "mlserver": (
        lambda: MLServer(model=model("mlserver"), model_names=["double"], gpu=0),
        "/v2/models/double/infer",
        {"inputs": [{**TENSOR["inputs"][0], "datatype": "FP64"}]},
        "20.0",
    ),
    "triton": (
        lambda: Triton(model=model("triton"), gpu=0),
        "/v2/models/double/infer",
        {"inputs": [{**TENSOR["inputs"][0], "shape": [1], "datatype": "FP32"}]},
        "20.0",
    ),
}


@pytest.mark.parametrize("server", sorted(CASES))
def test_a_real_server_answers_its_task(
    namespace: Namespace, platform: Platform, server: str
) -> None:
    if not (real_servers.SERVERS / server / "stamp").exists():
        pytest.skip(f"{server} is not installed; to get it: dev/servers {server}")
    load(server)
    make, path, body, expected = CASES[server]
    template = make()
    pod = dict(template.compile(HELPER))
    pod.setdefault("metadata", {})["name"] = server
    url = f"http://localhost:{template.port}{path}"
    command = ["python3", "-c", ASK, url, json.dumps(body)]
    pod["spec"]["containers"][0] |= {"image": TASK, "command": command}
    for container in pod["spec"]["initContainers"]:
        if container["name"] == "model-server":
            container["image"] = real_servers.image_name(server)
            container["resources"] = {"limits": {"cpu": "2", "memory": "2Gi"}}
    namespace.create("pods", fit(platform.admit(pod)))
    ended = namespace.wait_for_end(server, 90)
    assert ended["status"]["phase"] == "Succeeded", namespace.describe(server)
    assert read_status(ended).phase == "SUCCEEDED"
    assert expected in namespace.log(server, "primary")
    assert statuses(ended)["model-server"]["restartCount"] == 0


def load(server: str) -> None:
    """Bring the server's images to the node, unless these very ones are there."""
    loaded = RUN / f"images-{server}"
    with locked(RUN / f"images-{server}.lock", lambda: None):
        path = real_servers.archive(server)
        if not loaded.exists() or loaded.read_text() != path.name:
            subprocess.run([sys.executable, "-m", "dev.kubernetes", "load", str(path)], check=True)
            loaded.write_text(path.name)
