"""The `PodMonitor` that has Prometheus scrape the exporters of task pods.

Task pods have no Service, so a `ServiceMonitor` never finds them. The exporter is an init container
that keeps running (a native sidecar), and its port has a name; Prometheus finds both, also while
the pod is still Pending because later init containers run.
"""

from __future__ import annotations

from typing import Any

from ..pod.exporter import PORT_NAME

__all__ = ["FLYTE_LABELS", "pod_monitor"]

FLYTE_LABELS = ("project", "domain", "execution-id", "workflow-name", "task-name", "node-id")
"""The labels of a task's pod that its samples get, with `_` for `-` (flyteorg/flyte v1.16.8,
`flytepropeller/pkg/controller/nodes/task/`)."""
INTERVAL = "15s"
"""The exporter asks its server every 5 s; more frequent scrapes would see the same twice."""


def pod_monitor(
    *, name: str = "flyte-inference", namespace: str = "", namespaces: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the object.

    Args:
        name: Its name.
        namespace: The namespace it lies in; empty leaves that to `kubectl`.
        namespaces: The namespaces of task pods; empty stands for all.
    """
    selector: dict[str, Any] = {"matchNames": list(namespaces)} if namespaces else {"any": True}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {
            "namespaceSelector": selector,
            # every pod of a Flyte task has this label; those without an exporter lack the port
            "selector": {"matchExpressions": [{"key": "execution-id", "operator": "Exists"}]},
            "podTargetLabels": list(FLYTE_LABELS),
            "podMetricsEndpoints": [{"port": PORT_NAME, "path": "/metrics", "interval": INTERVAL}],
        },
    }
