"""What a cluster needs to watch the servers: who is scraped, alerts, dashboards.

    python -m flytekitplugins.inference.monitoring pod-monitor | kubectl apply -f -

prints Kubernetes objects as JSON, which is YAML too. Standard library only.

| module | what it holds |
|---|---|
| `pod_monitor` | the `PodMonitor` that has Prometheus scrape the exporters of task pods |
| `alert_rules` | the alerts, as a `PrometheusRule` and as a rule file |
| `dashboards` | Grafana's dashboards, which `dev/dashboards.py` generates |
"""

from __future__ import annotations

from .alert_rules import ALERTS, prometheus_rule, rule_file
from .dashboards import dashboard
from .pod_monitor import pod_monitor

__all__ = ["ALERTS", "dashboard", "pod_monitor", "prometheus_rule", "rule_file"]
