"""The metrics exporter in the pod: its place, its probes, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from flytekitplugins.inference import (
    NIM,
    TEI,
    VLLM,
    APIKeySecret,
    ConfigError,
    LlamaCpp,
    MetricsExporter,
    MLServer,
    ModelInferenceTemplate,
    ModelServers,
    NIMSecrets,
    Ollama,
    OllamaModel,
    Probe,
    Probes,
    Server,
    SGLang,
    Triton,
)
from flytekitplugins.inference.pod.exporter import PORT_NAME
from flytekitplugins.inference.pod.parts import Helper
from flytekitplugins.inference.programs import export_metrics
from flytekitplugins.inference.programs.exporter.vocabulary import ALIASES
from flytekitplugins.inference.programs.protocol import EXPORTER_ALIASES

pytestmark = pytest.mark.filterwarnings("ignore::flytekitplugins.inference.InferenceWarning")

HELPER = Helper(image="helper", bundled=False)
LIVE = {"path": "/live", "port": 9090}
STARTED = {"path": "/started", "port": 9090}


def containers(template: Any) -> dict[str, Any]:
    pod = template.compile(HELPER)
    return {container["name"]: container for container in pod["spec"]["initContainers"]}


def vllm(**fields: Any) -> VLLM:
    return VLLM(**{"model": "s3://models/qwen", "metrics": True, **fields})


def test_without_metrics_there_is_none() -> None:
    assert "metrics-exporter" not in containers(vllm(metrics=False))


@pytest.mark.parametrize("startup_timeout", [None, 600])
def test_it_starts_first_of_all_as_a_sidecar_with_a_named_port(startup_timeout: Any) -> None:
    pod = containers(vllm(startup_timeout=startup_timeout, download_inputs=True))
    assert next(iter(pod)) == "metrics-exporter"
    exporter = pod["metrics-exporter"]
    assert exporter["restartPolicy"] == "Always"
    assert exporter["ports"] == [{"name": PORT_NAME, "containerPort": 9090}]
    assert exporter["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 9090}
    assert "startupProbe" not in exporter, "the start would wait for it"
    assert len(PORT_NAME) <= 15


def test_behind_a_gate_the_exporter_answers_both_probes() -> None:
    server = containers(vllm(startup_timeout=600))["model-server"]
    assert server["livenessProbe"]["httpGet"] == LIVE
    assert server["startupProbe"]["httpGet"] == STARTED


def test_without_a_gate_the_kubelet_waits_for_the_server_itself() -> None:
    server = containers(vllm())["model-server"]
    assert server["livenessProbe"]["httpGet"] == LIVE
    assert server["startupProbe"]["httpGet"] == {"path": "/health", "port": 8000}


def test_a_server_without_a_readiness_address_is_not_judged_while_it_loads() -> None:
    server = containers(vllm(health_endpoint=None))["model-server"]
    assert server["startupProbe"]["httpGet"] == STARTED


def test_the_users_own_liveness_probe_stays() -> None:
    own = Probes(liveness=Probe(path="/alive", period_seconds=7))
    server = containers(vllm(probes=own))["model-server"]
    assert server["livenessProbe"]["httpGet"] == {"path": "/alive", "port": 8000}


def test_liveness_can_be_left_to_the_user() -> None:
    pod = containers(vllm(liveness=None, startup_timeout=600))
    assert "metrics-exporter" in pod
    assert not {"livenessProbe", "startupProbe"} & pod["model-server"].keys()


SERVERS = {
    "vllm": vllm(),
    "sglang": SGLang(model="s3://models/qwen", metrics=True),
    "llamacpp": LlamaCpp(model="s3://m/x.gguf", model_file="x.gguf", metrics=True),
    "tei": TEI(model="s3://models/bge", metrics=True, arg_dict={"auto_truncate": True}),
    "triton": Triton(model="s3://models/repository", metrics=True),
    "mlserver": MLServer(model="s3://models/repository", model_names=["affine"], metrics=True),
    "nim": NIM(
        secrets=NIMSecrets(ngc_secret_key="key", ngc_secret_group="ngc"),
        image="nvcr.io/nim/x:1",
        metrics=True,
    ),
}


@pytest.mark.parametrize("name", SERVERS)
def test_its_arguments_are_those_of_the_program(name: str) -> None:
    server = SERVERS[name]
    words = containers(server)["metrics-exporter"]["args"]
    parsed = export_metrics._parser().parse_args(words)
    names = export_metrics._names(parsed.names)
    assert (
        names
        == {
            quantity: name if isinstance(name, str) else tuple(name)
            for quantity, name in server.server().metric_names.items()
        }
        or name == "nim"
    )
    assert names["heartbeat"]
    assert parsed.server == name
    assert parsed.bound == 120
    assert str(parsed.summary) == "/shared/metrics-summary.json"
    port = server.server().metrics_port or server.port
    assert parsed.url == f"http://localhost:{port}{server.server().metrics_path}"
    assert containers(server)["model-server"]["livenessProbe"]["httpGet"]["path"] == "/live"


def test_names_of_a_server_of_another_distribution_travel_with_it() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own(ModelInferenceTemplate):
        def server(self) -> Server:
            return Server(
                metrics_path="/metrics",
                metric_names={"heartbeat": ("own_steps", "own_old"), "speed": "own_speed"},
            )

    pod = containers(Own(image="x", metrics=True))
    parsed = export_metrics._parser().parse_args(pod["metrics-exporter"]["args"])
    assert export_metrics._names(parsed.names) == {"heartbeat": ("own_steps", "own_old")}
    assert parsed.server == "own"
    assert pod["model-server"]["livenessProbe"]["httpGet"] == LIVE


def test_the_settings_become_arguments() -> None:
    exporter = MetricsExporter(
        port=9100,
        path="own",
        stall_timeout=timedelta(minutes=5),
        aliases=["ml", "gen_ai"],
        native=True,
        mem="128Mi",
    )
    container = containers(vllm(metrics=exporter))["metrics-exporter"]
    parsed = export_metrics._parser().parse_args(container["args"])
    assert (parsed.port, parsed.url) == (9100, "http://localhost:8000/own")
    assert (parsed.bound, parsed.alias, parsed.native) == (300, ["ml", "gen_ai"], True)
    assert container["resources"]["limits"]["memory"] == "128Mi"
    assert container["ports"][0]["containerPort"] == 9100


def test_the_servers_key_is_a_variable_of_it() -> None:
    template = vllm(api_key_secret=APIKeySecret(key="token", group="vllm"), startup_timeout=600)
    container = containers(template)["metrics-exporter"]
    parsed = export_metrics._parser().parse_args(container["args"])
    assert parsed.token_env in {variable["name"] for variable in container["env"]}


def test_it_reads_what_the_loader_and_the_gate_write() -> None:
    container = containers(vllm(startup_timeout=600))["metrics-exporter"]
    parsed = export_metrics._parser().parse_args(container["args"])
    mounts = {
        mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]
    }
    assert mounts[str(parsed.models)] is True
    assert mounts[str(parsed.start_report.parent)] is False


def test_each_server_of_a_pod_has_its_own() -> None:
    pod = ModelServers(
        {
            "chat": vllm(),
            "embed": TEI(model="s3://models/bge", port=8001, metrics=MetricsExporter(port=9091)),
        }
    )
    ours = [name for name in containers(pod) if name.startswith("metrics")]
    assert ours == ["metrics-exporter-chat", "metrics-exporter-embed"]
    assert containers(pod)["model-server-embed"]["livenessProbe"]["httpGet"]["port"] == 9091


def test_two_exporters_on_one_port_are_refused() -> None:
    with pytest.raises(ConfigError, match="9090"):
        ModelServers({"a": vllm(), "b": TEI(model="s3://models/bge", port=8001, metrics=True)})


def test_a_server_of_any_image_needs_the_path_of_its_page() -> None:
    with pytest.raises(ConfigError, match=r"metrics=MetricsExporter\(path=…\)"):
        ModelInferenceTemplate(image="x", metrics=True)
    template = ModelInferenceTemplate(image="x", metrics=MetricsExporter(path="/metrics"))
    assert "livenessProbe" not in containers(template)["model-server"], "nothing shows its work"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metrics": "yes"}, "metrics must be True, False or a MetricsExporter"),
        ({"metrics": MetricsExporter(port=0)}, "metrics.port"),
        ({"metrics": MetricsExporter(aliases="ml")}, "metrics.aliases must be a list"),
        ({"metrics": MetricsExporter(aliases=["other"])}, "there is no 'other'"),
        ({"metrics": MetricsExporter(stall_timeout=0)}, "metrics.stall_timeout"),
        ({"metrics": MetricsExporter(native=1)}, "metrics.native must be True or False"),  # type: ignore[arg-type]
        ({"metrics": MetricsExporter(mem="3")}, "metrics.mem"),
        ({"liveness": "always"}, "liveness must be 'auto', 'progress' or None"),
        ({"metrics": False, "liveness": "progress"}, "needs metrics=True"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        vllm(**fields)


def test_a_server_without_metrics_is_named() -> None:
    with pytest.raises(ConfigError, match="Ollama tells no page of metrics"):
        Ollama(model=OllamaModel(name="qwen2.5:0.5b"), metrics=True)


def test_the_names_of_aliases_are_those_of_the_program() -> None:
    assert tuple(sorted(ALIASES)) == EXPORTER_ALIASES
