"""The exporter's vocabulary: what each quantity is called, whichever server it comes from.

Names follow Prometheus: base units, counters end in `_total`. A server's labels stay as they are,
but for those that say why a request ended, which become `reason`; its buckets stay as well.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...facts.metric_names import scale_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ...facts.metrics_page import MetricFamily

__all__ = [
    "ALIASES",
    "VOCABULARY",
    "Labels",
    "Metric",
    "common_labels",
    "escaped",
    "lines_of",
    "sample",
]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of the exporter's page."""

    name: str
    kind: str
    """Prometheus' type."""
    text: str
    """The help text, on one line."""

    def head(self, name: str = "") -> str:
        """Return the lines before the samples, for this or another name of the metric."""
        name = name or self.name
        return f"# HELP {name} {self.text}\n# TYPE {name} {self.kind}\n"


def _metric(name: str, kind: str, text: str) -> Metric:
    return Metric(f"inference_{name}", kind, text)


VOCABULARY: Mapping[str, Metric] = {
    "requests_running": _metric("requests_running", "gauge", "Requests being processed."),
    "requests_waiting": _metric("requests_waiting", "gauge", "Requests queued in the server."),
    "kv_cache_usage": _metric("kv_cache_usage_ratio", "gauge", "Used share of the KV cache."),
    "cpu_kv_cache_usage": _metric(
        "cpu_kv_cache_usage_ratio", "gauge", "Used share of the KV cache in CPU memory."
    ),
    "prompt_tokens": _metric("prompt_tokens_total", "counter", "Prompt tokens processed."),
    "generation_tokens": _metric("generation_tokens_total", "counter", "Tokens generated."),
    "preemptions": _metric("preemptions_total", "counter", "Requests preempted."),
    "time_to_first_token": _metric(
        "time_to_first_token_seconds", "histogram", "Time from arrival to the first token."
    ),
    "inter_token_latency": _metric(
        "inter_token_latency_seconds", "histogram", "Time between two tokens of a request."
    ),
    "request_latency": _metric(
        "request_latency_seconds", "histogram", "Time from arrival to the last token."
    ),
    "queue_time": _metric("queue_time_seconds", "histogram", "Time that requests were queued."),
    "requests_received": _metric("requests_received_total", "counter", "Requests received."),
    "requests_finished": _metric("requests_finished_total", "counter", "Requests finished."),
    "request_errors": _metric("request_errors_total", "counter", "Requests failed, by reason."),
    "rejections": _metric("requests_rejected_total", "counter", "Requests refused by admission."),
    "prefix_cache_hits": _metric(
        "prefix_cache_hit_tokens_total", "counter", "Prompt tokens found in the prefix cache."
    ),
    "prefix_cache_queries": _metric(
        "prefix_cache_queried_tokens_total", "counter", "Prompt tokens looked up there."
    ),
    "heartbeat": _metric("heartbeat_total", "counter", "Steps of the server's work."),
}

# Other names for the same samples. `ml`: the published article on sidecars. `gen_ai`:
# open-telemetry/semantic-conventions-genai of 2026-08-20 (status: development), with the unit that
# OpenTelemetry's exporter for Prometheus appends.
ALIASES: Mapping[str, Mapping[str, str]] = {
    "ml": {
        "inference_ready": "ml_model_healthy",
        "inference_health_check_seconds": "ml_health_check_latency_seconds",
        "inference_exporter_scrape_errors_total": "ml_exporter_errors_total",
        "inference_model_info": "ml_model_info",
        "inference_requests_running": "ml_requests_running",
        "inference_requests_waiting": "ml_requests_waiting",
        "inference_kv_cache_usage_ratio": "ml_gpu_kv_cache_usage",
        "inference_cpu_kv_cache_usage_ratio": "ml_cpu_kv_cache_usage",
    },
    "gen_ai": {
        "inference_request_latency_seconds": "gen_ai_server_request_duration_seconds",
        "inference_time_to_first_token_seconds": "gen_ai_server_time_to_first_token_seconds",
        "inference_inter_token_latency_seconds": "gen_ai_server_time_per_output_token_seconds",
    },
}
"""Name of a set of aliases → name in the vocabulary → alias."""

MAX_LABELS = 2048
"""Characters of one sample's labels; the longest of a known server have 300."""
_LABEL = r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*'
_LABELS = re.compile(rf"(?:{_LABEL}(?:,|$))*")
_ONE_LABEL = re.compile(_LABEL)
_REASONS = frozenset({"finished_reason", "err"})
"""Labels of vLLM, and of TGI and TEI, that become `reason`."""
_WITH_REASON = frozenset({"requests_finished", "request_errors", "rejections"})

Labels = tuple[tuple[str, str], ...]
"""Names and values of labels; the values are escaped."""


def common_labels(labels: Mapping[str, str]) -> Labels:
    """Return labels for every sample of a page, without those that are empty."""
    return tuple((name, escaped(value)) for name, value in labels.items() if value)


def escaped(value: str) -> str:
    """Return a label's value as the text format writes it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def sample(name: str, labels: Labels, value: float) -> str:
    """Return one line of the page."""
    return _line(name, _text(labels), value)


def lines_of(quantity: str, family: MetricFamily, common: Labels) -> Iterator[str]:
    """Yield the samples of one quantity, without its head.

    A sample with labels that Prometheus would refuse, and with them the whole page, is left out.

    Args:
        quantity: One of `VOCABULARY`.
        family: The server's samples.
        common: Labels for each sample; one that the server sets itself is not added.
    """
    name = VOCABULARY[quantity].name
    scale = scale_of(family.name)
    has_reason = quantity in _WITH_REASON
    for suffix, series in family.samples.items():
        factor = 1.0 if suffix in ("_bucket", "_count") else scale
        bound_scale = scale if suffix == "_bucket" else 1.0
        for labels, value in series.items():
            text = _labels(labels, common, has_reason, bound_scale)
            if text is not None:
                yield _line(name + suffix, text, value * factor)


def _line(name: str, labels: str, value: float) -> str:
    number = int(value) if value == int(value) else value
    return f"{name}{{{labels}}} {number!r}\n" if labels else f"{name} {number!r}\n"


def _text(labels: Labels) -> str:
    return ",".join([f'{name}="{value}"' for name, value in labels])


# The labels of a server hardly ever change, so a page takes them from here. The number and the
# length of entries bound the memory.
@functools.lru_cache(maxsize=2048)
def _labels(labels: str, common: Labels, has_reason: bool, bound_scale: float) -> str | None:
    """Return the labels of a sample of the page, or `None` for those that are not well formed."""
    inner = labels[1:-1].rstrip(" \t,")
    if len(inner) > MAX_LABELS or not _LABELS.fullmatch(inner):
        return None
    own: dict[str, str] = {}
    for name, value in _ONE_LABEL.findall(inner):
        key = "reason" if has_reason and name in _REASONS else name
        if key in own:
            return None
        own[key] = _scaled(value, bound_scale) if key == "le" and bound_scale != 1.0 else value
    return _text((*own.items(), *(pair for pair in common if pair[0] not in own)))


def _scaled(bound: str, scale: float) -> str:
    try:
        return f"{float(bound) * scale:g}"
    except ValueError:
        return bound
