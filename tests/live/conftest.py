"""Real model servers, installed by `dev/servers`, and pods that run them on this machine.

A server that is not installed skips its tests; with `INFERENCE_REQUIRE_LIVE=1`, which continuous
integration sets after `dev/servers`, it fails them, unless `dev/servers` found that this platform
has no such server. vLLM and Ollama are optional there too: they are required where
`INFERENCE_TEST_VLLM=1`, `INFERENCE_TEST_OLLAMA=1`.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flytekitplugins.inference import VLLM, ModelInferenceTemplate, Probe, Probes
from flytekitplugins.inference.pod.parts import MODEL_SERVER
from live.models import made
from patience import patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flytekitplugins.inference.flyte.local_run import LocalServer

ROOT = Path(__file__).parents[2]
SERVERS = ROOT / ".venv" / "servers"
OPTIONAL = {"vllm": "INFERENCE_TEST_VLLM", "ollama": "INFERENCE_TEST_OLLAMA"}
"""What takes long to install, and the variable that asks for it."""
VLLM_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # binding needs NUMA information, which containers hide
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True)
class Servers:
    """The environments of the servers, and the models made for them."""

    directory: Path = SERVERS

    def environment(self, name: str) -> Path:
        """Return a server's environment; without one, skip the test, or fail it if required."""
        directory = self.directory / name
        if (directory / "stamp").exists():
            return directory
        obstacle = self.directory / f"{name}.obstacle"
        if obstacle.exists():
            pytest.skip(f"{name} is not to be had here: {obstacle.read_text().strip()}")
        reason = f"{name} is not installed in {directory}; to get it: dev/servers {name}"
        wanted = name not in OPTIONAL or os.environ.get(OPTIONAL[name]) == "1"
        if wanted and os.environ.get("INFERENCE_REQUIRE_LIVE") == "1":
            pytest.fail(f"{reason}. INFERENCE_REQUIRE_LIVE=1 says that it must be there.")
        pytest.skip(reason)

    def model(self, name: str, kind: str, *options: str) -> Path:
        """Return the directory of a model, made by a server's environment; see `live.models`."""
        return made(
            self.environment(name) / "bin" / "python",
            kind,
            *options,
            cache=self.directory / "models",
        )

    @contextmanager
    def on_path(self, name: str) -> Iterator[None]:
        """Let manifests find a server's command, as its image would have it."""
        programs = self.environment(name) / "bin"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(programs), prepend=os.pathsep)
            yield

    @contextmanager
    def running(
        self, name: str, template: ModelInferenceTemplate, inputs: Mapping[str, Any] | None = None
    ) -> Iterator[LocalServer]:
        """Run the pod of a template, and see that its server ends by itself when it is told to."""
        with self.on_path(name), template.run_locally(inputs) as server:
            yield server
        happened = [event.kind for event in server.pod.events if event.container == MODEL_SERVER]
        assert "killed" not in happened, server.pod.events
        assert happened.count("started") == 1, server.pod.events
        assert happened[-1] == "exited", server.pod.events


@pytest.fixture(scope="session")
def servers() -> Servers:
    return Servers()


@pytest.fixture
def no_servers(servers: Servers, tmp_path: Path) -> Servers:
    """Return what a machine has on which nothing is installed."""
    return replace(servers, directory=tmp_path)


@pytest.fixture(scope="session")
def startup() -> Callable[..., Probes]:
    """Return probes for a server that is asked each second, not every tenth as on a cluster."""

    def probes(path: str, *, seconds: int = 30) -> Probes:
        return Probes(
            startup=Probe(path=path, period_seconds=1, failure_threshold=round(patient(seconds)))
        )

    return probes


@pytest.fixture(scope="session")
def metric_names() -> Callable[[str], set[str]]:
    """Return the names of the metrics on a page."""

    def names(page: str) -> set[str]:
        return set(re.findall(r"^# TYPE (\S+) ", page, flags=re.MULTILINE))

    return names


@pytest.fixture(scope="session")
def saved_metrics() -> Callable[[str], str]:
    """Return a page of metrics as a real server gave it, kept for tests that start none."""
    return lambda name: (ROOT / "tests" / "data" / "metrics" / f"{name}.txt").read_text()


@pytest.fixture(scope="session")
def vllm_server(servers: Servers, startup: Callable[..., Probes]) -> Iterator[LocalServer]:
    """A vLLM with the model `tiny` and the adapter `back`.

    It takes a minute to start, so all tests that need a vLLM share it.
    """
    options = {
        "model": str(servers.model("vllm", "llama")),
        "served_model_name": "tiny",
        "max_model_len": 1024,
        "enforce_eager": True,
        "enable_lora": True,
        "max_lora_rank": 8,
        # More than the tests load, so that the last place stays empty: on CPUs, requests without an
        # adapter get what is there when they are batched with some that have one.
        # https://github.com/vllm-project/vllm/pull/48421
        "max_loras": 4,
        "lora_modules": [f"back={servers.model('vllm', 'adapter', '--step=-1')}"],
    }
    template = VLLM(
        gpu=0,
        arg_dict=options,
        env=VLLM_ENVIRONMENT,
        probes=startup("/health", seconds=100),
        termination_grace_period=30,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(servers.directory / "cache"))
        with servers.running("vllm", template) as server:
            yield server
