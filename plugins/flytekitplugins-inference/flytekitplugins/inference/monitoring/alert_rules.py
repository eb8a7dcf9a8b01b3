"""Alerts on the exporter's metrics, for Prometheus.

Three traps shape the expressions. An absent metric is not zero: a server that does not report its
errors must neither fire nor silence an alert. A task's pod may live for five minutes, so counters
are judged by their increase in an hour, which is its whole life, and not by a rate of minutes. And
native sidecars are init containers, whose restarts kube-state-metrics counts under another name
than those of containers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["ALERTS", "AlertRule", "prometheus_rule", "rule_file"]

_POD = "namespace, pod, server, model_name"
"""The labels that name one server of one pod."""
_ERRORS = 'inference_requests_finished_total{reason=~"error|abort"}'


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertRule:
    """One alert."""

    name: str
    expression: str
    wait: str
    """How long it must hold."""
    severity: str
    """`critical`: somebody has to act now."""
    summary: str
    """What is wrong, with the labels of the pod."""
    action: str
    """What to look at."""

    @property
    def manifest(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expression,
            "for": self.wait,
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "description": self.action},
        }


def _restarts(container: str) -> str:
    return " or ".join(
        f'increase({metric}{{container=~"{container}(-.+)?"}}[1h])'
        for metric in (
            "kube_pod_init_container_status_restarts_total",
            "kube_pod_container_status_restarts_total",
        )
    )


def _share_of_errors() -> str:
    """Return the share of failed requests among all that ended."""
    finished = f"sum by ({_POD}) (increase(inference_requests_finished_total[1h]))"
    failed = f"sum by ({_POD}) (increase({_ERRORS}[1h]))"
    counted = f"sum by ({_POD}) (increase(inference_request_errors_total[1h]))"
    # a server reports one of the two; the other is absent, and must not make the sum absent
    errors = f"(({failed} or 0 * {finished}) + ({counted} or 0 * {finished}))"
    # what is counted apart is not among the finished requests
    everything = f"({finished} + ({counted} or 0 * {finished}))"
    return f"{errors} / {everything} > 0.05 and {everything} > 20"


_OF = "{{ $labels.namespace }}/{{ $labels.pod }}"

ALERTS: tuple[AlertRule, ...] = (
    AlertRule(
        name="InferenceServerNotReady",
        # a server that has never been ready starts, which is another alert
        expression="inference_ready == 0 and max_over_time(inference_ready[6h]) == 1",
        wait="3m",
        severity="critical",
        summary=f"The model server of {_OF} is no longer ready.",
        action="Read the log of model-server; inference_live says whether it still works.",
    ),
    AlertRule(
        name="InferenceKVCacheNearFull",
        expression=f"max by ({_POD}) (inference_kv_cache_usage_ratio) > 0.9",
        wait="5m",
        severity="warning",
        summary=f"The KV cache of {_OF} is {{{{ $value | humanizePercentage }}}} full.",
        action="Lower the concurrency or the context length, or give the server more memory.",
    ),
    AlertRule(
        name="InferenceRequestsWaiting",
        expression=f"sum by ({_POD}) (inference_requests_waiting) > 10",
        wait="2m",
        severity="warning",
        summary=f"{{{{ $value }}}} requests wait in the server of {_OF}.",
        action="Lower the concurrency of the batch, or use more replicas.",
    ),
    AlertRule(
        name="InferenceModelLoaderRestarts",
        expression=f"({_restarts('model-loader')}) > 3",
        wait="0m",
        severity="critical",
        summary=f"The model loader of {_OF} restarts again and again.",
        action="Read its last termination message: kubectl describe pod.",
    ),
    AlertRule(
        name="InferenceStartSlow",
        expression="inference_ready == 0 unless max_over_time(inference_ready[6h]) == 1",
        wait="15m",
        severity="warning",
        summary=f"The model server of {_OF} has not become ready for 15 minutes.",
        action="The log of server-gate has the phases; startup_timeout= bounds them.",
    ),
    AlertRule(
        name="InferenceModelLoaderStalled",
        expression=(
            'kube_pod_init_container_status_running{container=~"model-loader(-.+)?"} == 1 '
            "unless on (namespace, pod) inference_model_info "
            "and on (namespace, pod) sum by (namespace, pod) "
            "(rate(container_network_receive_bytes_total[5m])) < 1e5"
        ),
        wait="10m",
        severity="warning",
        summary=f"The model loader of {_OF} receives next to nothing.",
        action="Look at its log: the store may throttle, or another pod holds the lease.",
    ),
    AlertRule(
        name="InferenceTimeToFirstTokenSlow",
        expression=(
            f"histogram_quantile(0.95, sum by ({_POD}, le) "
            "(increase(inference_time_to_first_token_seconds_bucket[10m]))) > 5"
        ),
        wait="5m",
        severity="warning",
        summary=f"A first token takes {{{{ $value | humanizeDuration }}}} in {_OF} (p95).",
        action="Compare with the queue time: if that is the larger part, requests wait.",
    ),
    AlertRule(
        name="InferenceErrorShareHigh",
        expression=_share_of_errors(),
        wait="5m",
        severity="critical",
        summary=f"{{{{ $value | humanizePercentage }}}} of the requests in {_OF} fail.",
        action="inference_request_errors_total and inference_requests_finished_total have reasons.",
    ),
    AlertRule(
        name="InferenceNoProgress",
        expression="inference_live == 0",
        wait="0m",
        severity="critical",
        summary=f"The model server of {_OF} has work and does none of it.",
        action="The kubelet restarts it where liveness='progress'; its log tells what it did last.",
    ),
    AlertRule(
        name="InferenceServerRestarts",
        expression=(
            f"(increase(inference_server_restarts_total[1h]) or {_restarts('model-server')}) >= 1"
        ),
        wait="0m",
        severity="warning",
        summary=f"The model server of {_OF} restarted within the last hour.",
        action="kubectl describe pod has its exit code (137: memory) and failed probes.",
    ),
    AlertRule(
        name="InferencePodWaitsWithGPU",
        expression=(
            'sum by (namespace, pod) (kube_pod_init_container_resource_requests{resource=~".*gpu"})'
            " > 0 and on (namespace, pod) (inference_ready == 0)"
        ),
        wait="20m",
        severity="warning",
        summary=f"{_OF} has held a GPU for 20 minutes without a ready server.",
        action="The phases of the start show which one lasts: inference_start_phase_seconds.",
    ),
    AlertRule(
        name="InferenceGPUIdle",
        # no alert on utilisation as such: near 100 % says nothing about the load
        expression=(
            "max by (namespace, pod) (max_over_time(DCGM_FI_DEV_GPU_UTIL[5m])) == 0 "
            f"and on (namespace, pod) sum by ({_POD}) (inference_requests_waiting) > 0"
        ),
        wait="10m",
        severity="warning",
        summary=f"The GPU of {_OF} is idle while requests wait.",
        action="Look at inference_seconds_since_progress and at the server's log.",
    ),
)
"""All alerts. The thresholds are starting points."""


def rule_file() -> dict[str, Any]:
    """Return the content of a rule file of Prometheus."""
    return {
        "groups": [
            {
                "name": "flyte-inference",
                "interval": "30s",
                "rules": [alert.manifest for alert in ALERTS],
            }
        ]
    }


def prometheus_rule(*, name: str = "flyte-inference", namespace: str = "") -> dict[str, Any]:
    """Return the alerts as an object of Prometheus' operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": rule_file(),
    }
