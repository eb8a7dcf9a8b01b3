"""The report on a real server: what llama.cpp, its gate and a real client tell, put together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference import LlamaCpp
from flytekitplugins.inference.client.report import sampling
from patience import patient

pytestmark = pytest.mark.live


def test_a_report_on_llamacpp(servers: Any, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    (tmp_path / "model").mkdir()
    shutil.copy(
        servers.model("llamacpp", "llama-gguf") / "model.gguf", tmp_path / "model" / "tiny.gguf"
    )
    described = LlamaCpp(
        model=f"file://{tmp_path / 'model'}",
        model_file="tiny.gguf",
        arg_dict={"ctx_size": 512, "alias": "tiny"},
        startup_timeout=round(patient(30)),
        gpu=0,
        cpu=1,
        mem="1Gi",
    )
    with servers.running("llamacpp", described) as running:
        endpoint = running.template.endpoint
        with sampling(endpoint) as sampler, endpoint.client() as client:
            assert sampler is not None
            sampler.sample()
            for _ in range(3):
                client.completions.create(model="tiny", prompt="once", max_tokens=8)
            parts = list(
                client.completions.create(model="tiny", prompt="twice", max_tokens=4, stream=True)
            )
        report = running.template.report(path=tmp_path / "report")
    (server,) = report.data.servers
    assert parts
    assert (server.clients.answered, server.clients.failed) == (4, 0)
    assert server.clients.first_byte_seconds.count == 1
    assert server.metrics is not None
    assert server.metrics.totals["generation_tokens"] == pytest.approx(28, abs=4)
    assert server.metrics.restarts == 0
    assert {"requests_running", "requests_waiting"} <= set(server.metrics.series)
    assert server.cold_start is not None
    assert server.cold_start.outcome == "ready"
    assert {"loader.download", "server_load"} <= {phase.name for phase in server.cold_start.phases}
    page = (tmp_path / "report" / "inference-report.html").read_text()
    assert "Cold start" in page
    assert "LlamaCpp" in page
