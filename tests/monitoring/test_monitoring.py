"""What is rendered for the cluster: schemas, alerts that fire and stay quiet, dashboards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference import monitoring
from flytekitplugins.inference.facts.liveness import LivenessRule
from flytekitplugins.inference.facts.metrics_page import MetricFamily
from flytekitplugins.inference.monitoring import ALERTS, dashboard, pod_monitor, rule_file
from flytekitplugins.inference.monitoring.dashboards import DASHBOARDS
from flytekitplugins.inference.pod.exporter import PORT_NAME
from flytekitplugins.inference.programs.exporter.exporter_page import ExporterPage
from flytekitplugins.inference.programs.exporter.server_monitor import ServerMonitor
from flytekitplugins.inference.programs.exporter.start_facts import StartFacts
from flytekitplugins.inference.programs.exporter.upstream import ServerPage
from flytekitplugins.inference.programs.exporter.vocabulary import VOCABULARY

LABELS = {"namespace": "p-d", "pod": "a0", "server": "vllm", "model_name": "qwen"}
POD = {"namespace": "p-d", "pod": "a0"}


@pytest.fixture(scope="session")
def promtool() -> str:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return path


# Objects


def test_the_pod_monitor_finds_the_port_by_its_name() -> None:
    value = pod_monitor(namespace="monitoring", namespaces=("p-d",))
    (endpoint,) = value["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == PORT_NAME
    assert value["metadata"]["namespace"] == "monitoring"
    assert value["spec"]["namespaceSelector"] == {"matchNames": ["p-d"]}
    assert pod_monitor()["spec"]["namespaceSelector"] == {"any": True}


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("pod-monitor", "PodMonitor"),
        ("prometheus-rule", "PrometheusRule"),
        ("rules", None),
        ("pod-dashboard", None),
        ("fleet-dashboard", None),
    ],
)
def test_the_command_prints_each_object(what: str, kind: str | None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", monitoring.__name__, what, "--namespace", "watch"],
        check=True,
        capture_output=True,
        text=True,
    )
    value = json.loads(done.stdout)
    assert value.get("kind") == kind
    assert kind is None or value["metadata"]["namespace"] == "watch"


# Names


@pytest.fixture
def exported_names(tmp_path: Path) -> set[str]:
    """Return the names of all metrics that the exporter can have on its page."""
    families = {
        quantity: MetricFamily("x", {suffix: {"": 1.0} for suffix in suffixes(metric.kind)})
        for quantity, metric in VOCABULARY.items()
    }
    families["lora_requests"] = MetricFamily("x", {"": {"": 1.0}})
    reading = ServerMonitor(None, lambda: True, LivenessRule()).reading()
    reading.page = ServerPage(families=families)

    report, metadata = tmp_path / "report.json", tmp_path / "metadata.json"
    report.write_text('{"phases": [{"name": "load", "seconds": 1}], "total_seconds": 1}')
    metadata.write_text('{"model_id": "m", "bytes": 1}')
    facts = StartFacts(report, metadata)
    text = ExporterPage({}, aliases=(), facts=facts).text(reading)
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def suffixes(kind: str) -> tuple[str, ...]:
    return ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)


def panels(name: str) -> list[tuple[str, str]]:
    """Return title and expression of each query of a dashboard."""
    return [
        (panel["title"], target["expr"])
        for panel in dashboard(name)["panels"]
        for target in panel.get("targets", ())
    ]


EXPRESSIONS = [
    *((alert.name, alert.expression) for alert in ALERTS),
    *(query for name in DASHBOARDS for query in panels(name)),
]


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS, ids=lambda text: text[:30])
def test_an_expression_uses_metrics_that_exist(
    title: str, expression: str, exported_names: set[str]
) -> None:
    used = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\binference_\w+", expression)}
    assert used <= exported_names, title


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_portable(name: str) -> None:
    value = dashboard(name)
    text = json.dumps(value)
    assert value["uid"] == f"flyte-inference-{name}"
    assert value["templating"]["list"][0]["name"] == "datasource"
    assert "job=" not in text
    assert "null" not in text
    numbers = [panel["id"] for panel in value["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in value["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "$datasource"
            assert panel["targets"]
    for _, expression in panels(name):
        assert "rate(" not in expression or "$__rate_interval" in expression


def test_the_dashboards_are_those_that_are_generated() -> None:
    pytest.importorskip("grafana_foundation_sdk")  # it needs Python 3.11
    root = Path(__file__).parents[2]
    command = [sys.executable, "dev/dashboards.py", "--check"]
    done = subprocess.run(command, check=False, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# Alerts


@dataclass(frozen=True)
class Case:
    """Series that make one alert fire, and series close to them that do not."""

    fires: dict[str, str]
    quiet: tuple[dict[str, str], ...]
    labels: dict[str, str]
    minutes: int


def series(name: str, **labels: str) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in {**LABELS, **labels}.items())
    return f"{name}{{{pairs}}}"


def of_pod(name: str, **labels: str) -> str:
    pairs = ",".join(f'{key}="{value}"' for key, value in {**POD, **labels}.items())
    return f"{name}{{{pairs}}}"


READY = series("inference_ready")
WAITING = series("inference_requests_waiting")
FINISHED = series("inference_requests_finished_total", reason="stop")
ABORTED = series("inference_requests_finished_total", reason="abort")
FAILED = series("inference_request_errors_total", reason="overloaded")
GPU = of_pod("DCGM_FI_DEV_GPU_UTIL", gpu="0")
REQUESTED = of_pod(
    "kube_pod_init_container_resource_requests",
    container="model-server",
    resource="nvidia_com_gpu",
)
LOADER = of_pod("kube_pod_init_container_status_running", container="model-loader")
RECEIVED = of_pod("container_network_receive_bytes_total", interface="eth0")


def restarts(kind: str, container: str) -> str:
    return of_pod(f"kube_pod_{kind}_status_restarts_total", container=container)


def buckets(fast: int, slow: int) -> dict[str, str]:
    """Return a histogram that grows each minute by some fast and some slow observations."""
    name = "inference_time_to_first_token_seconds_bucket"
    return {
        series(name, le="1"): f"0+{fast}x60",
        series(name, le="10"): f"0+{fast + slow}x60",
        series(name, le="+Inf"): f"0+{fast + slow}x60",
    }


CASES = {
    "InferenceServerNotReady": Case(
        {READY: "1x5 0x20"}, ({READY: "0x60"}, {READY: "1x60"}, {}), LABELS, 15
    ),
    "InferenceKVCacheNearFull": Case(
        {series("inference_kv_cache_usage_ratio"): "0.95x60"},
        ({series("inference_kv_cache_usage_ratio"): "0.85x60"}, {}),
        LABELS,
        10,
    ),
    "InferenceRequestsWaiting": Case({WAITING: "11x60"}, ({WAITING: "10x60"}, {}), LABELS, 10),
    "InferenceModelLoaderRestarts": Case(
        {restarts("init_container", "model-loader"): "0+1x60"},
        (
            {restarts("init_container", "model-loader"): "2x60"},
            {restarts("init_container", "input-downloader"): "0+1x60"},
        ),
        {**POD, "container": "model-loader"},
        10,
    ),
    "InferenceStartSlow": Case({READY: "0x60"}, ({READY: "0x8 1x60"}, {}), LABELS, 20),
    "InferenceModelLoaderStalled": Case(
        {LOADER: "1x60", RECEIVED: "5000+10x60"},
        (
            {LOADER: "1x60", RECEIVED: "0+60000000x60"},
            {LOADER: "1x60", RECEIVED: "5000+10x60", series("inference_model_info"): "1x60"},
            {LOADER: "0x60", RECEIVED: "5000+10x60"},
        ),
        {**POD, "container": "model-loader"},
        20,
    ),
    "InferenceTimeToFirstTokenSlow": Case(
        buckets(5, 5), (buckets(99, 1), buckets(0, 0), {}), LABELS, 20
    ),
    "InferenceErrorShareHigh": Case(
        {FINISHED: "0+10x60", FAILED: "0+1x60"},
        (
            {FINISHED: "0+100x60", FAILED: "0+1x60"},
            {FINISHED: "0+10x60"},  # the server tells no errors
            {FAILED: "0+10x60"},
            {FINISHED: "0x60", FAILED: "0x60"},
            {FINISHED: "0+0.1x60", FAILED: "0+0.1x60"},  # too few
        ),
        LABELS,
        15,
    ),
    "InferenceNoProgress": Case(
        {series("inference_live"): "1x5 0x20"}, ({series("inference_live"): "1x60"}, {}), LABELS, 10
    ),
    "InferenceServerRestarts": Case(
        {series("inference_server_restarts_total"): "0x5 1x20"},
        ({series("inference_server_restarts_total"): "1x60"}, {}),
        LABELS,
        10,
    ),
    "InferencePodWaitsWithGPU": Case(
        {REQUESTED: "1x60", READY: "0x60"},
        ({REQUESTED: "1x60", READY: "0x9 1x60"}, {READY: "0x60"}, {REQUESTED: "1x60"}),
        POD,
        30,
    ),
    "InferenceGPUIdle": Case(
        {GPU: "0x60", WAITING: "3x60"},
        ({GPU: "0x60", WAITING: "0x60"}, {GPU: "99x60", WAITING: "3x60"}, {WAITING: "3x60"}),
        POD,
        20,
    ),
}


def test_every_alert_has_a_case() -> None:
    assert {*CASES} == {alert.name for alert in ALERTS}


def test_promtool_takes_the_rules(promtool: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(rule_file()))
    done = subprocess.run(
        [promtool, "check", "rules", path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def run_promtool(promtool: str, directory: Path, tests: list[dict[str, Any]]) -> None:
    rules = rule_file()
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]  # which promtool would compare word by word
    (directory / "rules.json").write_text(json.dumps(rules))
    path = directory / "test.json"
    path.write_text(
        json.dumps({"rule_files": ["rules.json"], "evaluation_interval": "30s", "tests": tests})
    )
    done = subprocess.run(
        [promtool, "test", "rules", path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def expecting(
    values: dict[str, str], alert: str, minutes: int, alerts: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": value} for name, value in values.items()],
        "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": alerts}],
    }


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires_and_stays_quiet(promtool: str, tmp_path: Path, alert: Any) -> None:
    case = CASES[alert.name]
    expected = [{"exp_labels": {**case.labels, "severity": alert.severity}}]
    run_promtool(
        promtool,
        tmp_path,
        [
            expecting(case.fires, alert.name, case.minutes, expected),
            *(expecting(values, alert.name, case.minutes, []) for values in case.quiet),
        ],
    )


def test_reasons_of_finished_requests_count_as_errors_too(promtool: str, tmp_path: Path) -> None:
    values = {FINISHED: "0+10x60", ABORTED: "0+10x60"}
    labels = [{"exp_labels": {**LABELS, "severity": "critical"}}]
    run_promtool(promtool, tmp_path, [expecting(values, "InferenceErrorShareHigh", 15, labels)])


def test_an_alert_clears(promtool: str, tmp_path: Path) -> None:
    values = {series("inference_live"): "1x5 0x5 1x20"}
    run_promtool(promtool, tmp_path, [expecting(values, "InferenceNoProgress", 20, [])])


def test_containers_restarts_count_where_sidecars_are_not_native(
    promtool: str, tmp_path: Path
) -> None:
    values = {restarts("container", "model-loader-chat"): "0+1x60"}
    expected = [{"exp_labels": {**POD, "container": "model-loader-chat", "severity": "critical"}}]
    run_promtool(
        promtool, tmp_path, [expecting(values, "InferenceModelLoaderRestarts", 10, expected)]
    )
