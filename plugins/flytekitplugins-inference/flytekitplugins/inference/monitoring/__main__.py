"""Prints what a cluster needs to watch the servers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from . import dashboard, pod_monitor, prometheus_rule, rule_file
from .dashboards import DASHBOARDS


def _dashboard(name: str, _: str) -> dict[str, Any]:
    return dashboard(name)


OBJECTS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "pod-monitor": lambda namespace: pod_monitor(namespace=namespace),
    "prometheus-rule": lambda namespace: prometheus_rule(namespace=namespace),
    "rules": lambda _: rule_file(),
    **{f"{name}-dashboard": partial(_dashboard, name) for name in DASHBOARDS},
}


def main() -> None:
    """Print one object as JSON, which is YAML too."""
    parser = argparse.ArgumentParser(
        prog="python -m flytekitplugins.inference.monitoring",
        description="Print what a cluster needs to watch the model servers of tasks, as JSON.",
    )
    parser.add_argument(
        "what",
        choices=OBJECTS,
        help="an object of Prometheus' operator; the alerts as a rule file of a Prometheus without "
        "it; or a dashboard for Grafana",
    )
    parser.add_argument("--namespace", default="", help="the namespace of the object")
    parsed = parser.parse_args()
    print(json.dumps(OBJECTS[parsed.what](parsed.namespace), indent=2))  # noqa: T201 - its purpose


if __name__ == "__main__":
    main()
