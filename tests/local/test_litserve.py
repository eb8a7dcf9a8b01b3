"""A real server whose main process ends on SIGTERM and leaves its workers."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from flytekitplugins.inference import local
from patience import patient

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("litserve")

APP = """
import os
import litserve

class Double(litserve.LitAPI):
    def setup(self, device):
        pass

    def predict(self, request):
        return {"output": request["input"] * 2}

if __name__ == "__main__":
    server = litserve.LitServer(Double(), workers_per_device=2, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["INFERENCE_PORT"]), generate_client_file=False)
"""


def test_litserve_answers_and_leaves_no_worker(
    manifests: Any, alive: Any, tmp_path: Path, free_port: int
) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    server = {
        "name": "model-server",
        "restartPolicy": "Always",
        "command": ["python", str(app)],
        "env": [{"name": "INFERENCE_PORT", "value": str(free_port)}],
        "ports": [{"containerPort": free_port}],
        "startupProbe": manifests.probe(free_port, failureThreshold=100),
    }
    with local.start(manifests.pod(server, grace=20)) as pod:
        identity = pod._plan.root.name
        assert len(alive(identity)) >= 4
        body = json.dumps({"input": 21}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{free_port}/predict", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=patient(20)) as answer:
            assert json.load(answer) == {"output": 42}
    assert alive(identity) == []
    stopping, stopped = (
        next(e.seconds for e in pod.events if e.kind == kind) for kind in ("stopping", "stopped")
    )
    assert stopped - stopping < patient(15)
