"""Generates Grafana's dashboards of the package (`monitoring/*.json`).

usage: python dev/dashboards.py [--check]

Needs `grafana-foundation-sdk`. With --check it writes nothing and fails if a file would change.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)

ROOT = Path(__file__).parents[1]
ROOM = ROOT / "plugins/flytekitplugins-inference/flytekitplugins/inference/monitoring"
SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
FULL, HALF, THIRD, SIXTH = 24, 12, 8, 4
SERVER = '{namespace=~"$namespace", pod=~"$pod"}'
PROJECT = '{project=~"$project", domain=~"$domain"}'


@dataclass(frozen=True)
class Query:
    """One expression of a panel, and how its series are called."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    width: int = THIRD
    is_number: bool = False
    limit: float | None = None
    """The upper end of the axis."""


def quantiles(name: str, selector: str) -> tuple[Query, ...]:
    buckets = f"sum by (le) (rate({name}_bucket{selector}[$__rate_interval]))"
    return tuple(
        Query(f"histogram_quantile({share}, {buckets})", f"p{round(share * 100)}")
        for share in (0.5, 0.95, 0.99)
    )


def rate(name: str, selector: str, by: str = "") -> str:
    of = f"sum by ({by})" if by else "sum"
    return f"{of} (rate({name}{selector}[$__rate_interval]))"


def number(title: str, text: str, expression: str, unit: str = "short") -> Panel:
    return Panel(title, text, (Query(expression, ""),), unit, SIXTH, is_number=True)


POD: dict[str, tuple[Panel, ...]] = {
    "State": (
        number("Ready", "1: the server answers with its model.", f"min(inference_ready{SERVER})"),
        number("Alive", "0: it has work and does none.", f"min(inference_live{SERVER})"),
        number(
            "Since progress",
            "Since the server last proved that it works.",
            f"max(inference_seconds_since_progress{SERVER})",
            "s",
        ),
        number("Restarts", "Of the server.", f"sum(inference_server_restarts_total{SERVER})"),
        number("Start", "The whole start.", f"max(inference_start_seconds{SERVER})", "s"),
        number("Model", "Its size.", f"max(inference_model_bytes{SERVER})", "bytes"),
    ),
    "Load": (
        Panel(
            "Requests",
            "Running and waiting in the server.",
            (
                Query(f"sum(inference_requests_running{SERVER})", "running"),
                Query(f"sum(inference_requests_waiting{SERVER})", "waiting"),
            ),
        ),
        Panel(
            "KV cache",
            "Used share; requests are preempted when it is full.",
            (Query(f"max by (pod) (inference_kv_cache_usage_ratio{SERVER})", "{{pod}}"),),
            "percentunit",
            limit=1,
        ),
        Panel(
            "Tokens",
            "Per second.",
            (
                Query(rate("inference_prompt_tokens_total", SERVER), "prompt"),
                Query(rate("inference_generation_tokens_total", SERVER), "generated"),
            ),
        ),
        Panel(
            "Prefix cache",
            "Share of prompt tokens found there.",
            (
                Query(
                    f"{rate('inference_prefix_cache_hit_tokens_total', SERVER)} / "
                    f"{rate('inference_prefix_cache_queried_tokens_total', SERVER)}",
                    "hits",
                ),
            ),
            "percentunit",
            limit=1,
        ),
        Panel(
            "GPU",
            "From DCGM's exporter, joined by pod. A busy GPU says nothing about the load.",
            (Query(f"avg by (gpu) (DCGM_FI_DEV_GPU_UTIL{SERVER})", "GPU {{gpu}}"),),
            "percent",
            limit=100,
        ),
        Panel(
            "Adapters",
            "LoRA adapters in use.",
            (Query(f"sum by (state) (inference_lora_adapters{SERVER})", "{{state}}"),),
        ),
    ),
    "Latency": (
        Panel(
            "First token",
            "From arrival.",
            quantiles("inference_time_to_first_token_seconds", SERVER),
            "s",
        ),
        Panel(
            "Between tokens",
            "Of a request.",
            quantiles("inference_inter_token_latency_seconds", SERVER),
            "s",
        ),
        Panel("Whole request", "", quantiles("inference_request_latency_seconds", SERVER), "s"),
        Panel("Queue", "Time waited.", quantiles("inference_queue_time_seconds", SERVER), "s"),
        Panel(
            "Health check",
            "Times of the answers whether the server is ready.",
            quantiles("inference_health_check_seconds", SERVER),
            "s",
        ),
    ),
    "Ends and errors": (
        Panel(
            "Finished",
            "Requests per second by reason.",
            (Query(rate("inference_requests_finished_total", SERVER, "reason"), "{{reason}}"),),
        ),
        Panel(
            "Failed and refused",
            "Requests per second by reason.",
            (
                Query(rate("inference_request_errors_total", SERVER, "reason"), "{{reason}}"),
                Query(
                    rate("inference_requests_rejected_total", SERVER, "reason"),
                    "refused: {{reason}}",
                ),
            ),
        ),
        Panel(
            "The exporter's own errors",
            "Pages of the server that were not good, per second.",
            (
                Query(
                    rate("inference_exporter_scrape_errors_total", SERVER, "reason"), "{{reason}}"
                ),
            ),
        ),
    ),
    "Start": (
        Panel(
            "Phases of the start",
            "Seconds of each.",
            (Query(f"max by (phase) (inference_start_phase_seconds{SERVER})", "{{phase}}"),),
            "s",
            FULL,
        ),
    ),
}

FLEET: dict[str, tuple[Panel, ...]] = {
    "Now": (
        number("Servers", "Pods with a server.", f"count(inference_up{PROJECT})"),
        number("Ready", "With their model.", f"sum(inference_ready{PROJECT})"),
        number("Without progress", "", f"count(inference_live{PROJECT} == 0) or vector(0)"),
        number("Running", "Requests.", f"sum(inference_requests_running{PROJECT})"),
        number("Waiting", "Requests.", f"sum(inference_requests_waiting{PROJECT})"),
        number("Tokens/s", "Generated.", rate("inference_generation_tokens_total", PROJECT)),
    ),
    "By task": (
        Panel(
            "Servers",
            "Pods.",
            (Query(f"count by (task_name) (inference_up{PROJECT})", "{{task_name}}"),),
        ),
        Panel(
            "Tokens",
            "Generated per second.",
            (
                Query(
                    rate("inference_generation_tokens_total", PROJECT, "task_name"),
                    "{{task_name}}",
                ),
            ),
        ),
        Panel(
            "Waiting",
            "Requests.",
            (Query(f"sum by (task_name) (inference_requests_waiting{PROJECT})", "{{task_name}}"),),
        ),
        Panel(
            "Cold starts",
            "Seconds of the longest start.",
            (Query(f"max by (task_name) (inference_start_seconds{PROJECT})", "{{task_name}}"),),
            "s",
        ),
        Panel(
            "Phases of the start",
            "Seconds, mean of all pods.",
            (Query(f"avg by (phase) (inference_start_phase_seconds{PROJECT})", "{{phase}}"),),
            "s",
        ),
        Panel(
            "Failures",
            "Requests within an hour, by reason; a pod may live for minutes only.",
            (
                Query(
                    "sum by (reason) (increase(inference_requests_finished_total"
                    '{project=~"$project", domain=~"$domain", reason=~"error|abort"}[1h]))',
                    "{{reason}}",
                ),
                Query(
                    f"sum by (reason) (increase(inference_request_errors_total{PROJECT}[1h]))",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            "Idle GPUs",
            "GPUs of pods with a server that do nothing.",
            (
                Query(
                    "count(max by (namespace, pod, gpu) (DCGM_FI_DEV_GPU_UTIL) == 0 "
                    f"and on (namespace, pod) inference_up{PROJECT})",
                    "idle",
                ),
            ),
        ),
        Panel(
            "Restarts",
            "Of servers, within an hour.",
            (
                Query(
                    f"sum by (task_name) (increase(inference_server_restarts_total{PROJECT}[1h]))",
                    "{{task_name}}",
                ),
            ),
        ),
    ),
}

DASHBOARDS: dict[str, tuple[str, dict[str, tuple[Panel, ...]], dict[str, str]]] = {
    "pod": (
        "Flyte inference: server",
        POD,
        {
            "namespace": "label_values(inference_up, namespace)",
            "pod": 'label_values(inference_up{namespace=~"$namespace"}, pod)',
        },
    ),
    "fleet": (
        "Flyte inference: all tasks",
        FLEET,
        {
            "project": "label_values(inference_up, project)",
            "domain": 'label_values(inference_up{project=~"$project"}, domain)',
        },
    ),
}


def built(name: str) -> str:
    """Return one dashboard as text."""
    title, rows, variables = DASHBOARDS[name]
    board = Dashboard(title).uid(f"flyte-inference-{name}").tags(["flyte", "inference"])
    board = board.refresh("30s").time("now-1h", "now").editable()
    board = board.with_variable(
        DatasourceVariable("datasource").label("Data source").type("prometheus")
    )
    for variable, query in variables.items():
        board = board.with_variable(
            QueryVariable(variable)
            .datasource(SOURCE)
            .query(query)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .all_value(".*")
            .multi(True)
            .current(VariableOption(selected=True, text="All", value="$__all"))
        )
    for row, panels in rows.items():
        board = board.with_row(Row(row))
        for panel in panels:
            board = board.with_panel(panel_of(panel))
    value = present(json.loads(JSONEncoder(sort_keys=True, indent=2).encode(board.build())))
    for number_of_panel, panel in enumerate(value["panels"], start=1):
        panel["id"] = number_of_panel
    return json.dumps(value, indent=1) + "\n"


def present(value: Any) -> Any:
    """Return a value without the fields that the library leaves empty."""
    if isinstance(value, dict):
        return {name: present(field) for name, field in value.items() if field is not None}
    return [present(item) for item in value] if isinstance(value, list) else value


def panel_of(panel: Panel) -> Any:
    result: Any = Stat() if panel.is_number else TimeSeries()
    result = result.title(panel.title).description(panel.text).datasource(SOURCE)
    result = result.unit(panel.unit).span(panel.width).height(4 if panel.is_number else 8)
    if not panel.is_number:
        result = result.min(0)
    if panel.limit is not None:
        result = result.max(panel.limit)
    for index, query in enumerate(panel.queries):
        result = result.with_target(
            Dataquery()
            .expr(query.expression)
            .legend_format(query.legend)
            .ref_id(chr(ord("A") + index))
            .datasource(SOURCE)
        )
    return result


def main() -> int:
    is_check = sys.argv[1:] == ["--check"]
    differing = []
    for name in DASHBOARDS:
        path = ROOM / f"{name}.json"
        text = built(name)
        if not path.exists() or path.read_text() != text:
            differing.append(name)
            if not is_check:
                path.write_text(text)
    print(f"dashboards: {', '.join(differing) or 'nothing'} changed")
    return 1 if is_check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
