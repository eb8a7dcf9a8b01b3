"""The quantities that describe a model server, and their names in each server's metrics.

A server's package uses its entry of `FAMILIES`; a server of another distribution, which has no
entry, provides a mapping of the same form. `KNOWN_NAMES` reads an endpoint of which only the
address is known: servers prefix their names, so a page identifies its server.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "COUNTERS",
    "EVENTS",
    "FAMILIES",
    "GAUGES",
    "HISTOGRAMS",
    "INFOS",
    "KNOWN_NAMES",
    "QUANTITIES",
    "RATIOS",
    "MetricNames",
    "names_of",
    "scale_of",
    "united",
]

MetricNames = Mapping[str, str | tuple[str, ...]]
"""A server's name for each quantity that it reports. Several names belong to several versions, and
the first one on a page is read: a version that renames a metric reports both names for a while."""

GAUGES = ("requests_running", "requests_waiting")
RATIOS = ("kv_cache_usage", "cpu_kv_cache_usage")
"""Gauges from 0 to 1. The second one is of the blocks that vLLM V0 moved out of the GPU; no current
server has them."""
COUNTERS = ("prompt_tokens", "generation_tokens", "preemptions")
HISTOGRAMS = ("time_to_first_token", "inter_token_latency", "request_latency", "queue_time")
"""Of seconds; `request_latency` lasts from a request's arrival to its last token."""
EVENTS = (
    "requests_received",
    "requests_finished",
    "request_errors",
    "rejections",
    "prefix_cache_hits",
    "prefix_cache_queries",
    "heartbeat",
)
"""Counters that reports do not show. Finished requests and errors are labelled by reason; those of
the prefix cache count tokens. `heartbeat` is whatever moves at least once a second while the server
works: its steps, or, where it does not count these, tokens or answers."""
INFOS = ("lora_requests",)
"""What stands in a metric's labels; of several rows, that with the highest value is current."""
QUANTITIES = frozenset({*GAUGES, *RATIOS, *COUNTERS, *HISTOGRAMS, *EVENTS, *INFOS})

FAMILIES: Mapping[str, MetricNames] = {
    # vllm/v1/metrics/loggers.py, 0.33.0. The older names are those of V0 (vllm/engine/metrics.py)
    # and of the first releases of V1.
    "vllm": {
        "requests_running": "vllm:num_requests_running",
        "requests_waiting": "vllm:num_requests_waiting",
        "kv_cache_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        "cpu_kv_cache_usage": "vllm:cpu_cache_usage_perc",
        "prompt_tokens": "vllm:prompt_tokens_total",
        "generation_tokens": "vllm:generation_tokens_total",
        "preemptions": "vllm:num_preemptions_total",
        "time_to_first_token": "vllm:time_to_first_token_seconds",
        "inter_token_latency": (
            "vllm:inter_token_latency_seconds",
            "vllm:time_per_output_token_seconds",
        ),
        "request_latency": "vllm:e2e_request_latency_seconds",
        "queue_time": "vllm:request_queue_time_seconds",
        "requests_finished": "vllm:request_success_total",
        "rejections": "vllm:admission_rejections_total",
        "prefix_cache_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
        "prefix_cache_queries": (
            "vllm:prefix_cache_queries_total",
            "vllm:gpu_prefix_cache_queries_total",
        ),
        # a row for each combination of adapters ever seen; its value is a Unix time
        "lora_requests": "vllm:lora_requests_info",
        # a histogram, despite its name: one observation for each step
        "heartbeat": ("vllm:iteration_tokens_total_count", "vllm:generation_tokens_total"),
    },
    # sglang/srt/observability/metrics_collector.py, 0.5.23
    "sglang": {
        "requests_running": "sglang:num_running_reqs",
        "requests_waiting": "sglang:num_queue_reqs",
        "kv_cache_usage": "sglang:token_usage",
        "prompt_tokens": "sglang:prompt_tokens_total",
        "generation_tokens": "sglang:generation_tokens_total",
        "preemptions": "sglang:num_retracted_requests_total",
        "time_to_first_token": "sglang:time_to_first_token_seconds",
        "inter_token_latency": (
            "sglang:inter_token_latency_seconds",
            "sglang:time_per_output_token_seconds",
        ),
        "request_latency": "sglang:e2e_request_latency_seconds",
        "queue_time": "sglang:queue_time_seconds",
        "requests_received": "sglang:num_requests_received_total",
        "requests_finished": "sglang:num_requests_total",
        "request_errors": "sglang:num_aborted_requests_total",
        "prefix_cache_hits": "sglang:cached_tokens_total",
        "prefix_cache_queries": "sglang:prompt_tokens_total",
        # older versions count tokens only once a request has ended
        "heartbeat": ("sglang:realtime_tokens_total", "sglang:generation_tokens_total"),
    },
    # tools/server/README.md, `GET /metrics`. It reports no latencies, and its prompt tokens exclude
    # cached ones.
    "llamacpp": {
        "requests_running": "llamacpp:requests_processing",
        "requests_waiting": "llamacpp:requests_deferred",
        "prompt_tokens": "llamacpp:prompt_tokens_total",
        "generation_tokens": "llamacpp:tokens_predicted_total",
        "prefix_cache_hits": "llamacpp:prompt_tokens_cached_total",
        "heartbeat": ("llamacpp:n_decode_total", "llamacpp:tokens_predicted_total"),
    },
    # core/src/queue.rs and router/src/http/server.rs, 1.9
    "tei": {
        "requests_waiting": "te_queue_size",
        "request_latency": "te_request_duration",
        "queue_time": "te_request_queue_duration",
        "requests_received": "te_request_count",
        "requests_finished": "te_request_success",
        "request_errors": "te_request_failure",
        "heartbeat": "te_request_success",
    },
    # TGI 3.3; its tokens are sums of histograms, which have no place among the counters
    "tgi": {
        "requests_running": "tgi_batch_current_size",
        "requests_waiting": "tgi_queue_size",
        "inter_token_latency": "tgi_request_mean_time_per_token_duration",
        "request_latency": "tgi_request_duration",
        "queue_time": "tgi_request_queue_duration",
        "requests_received": "tgi_request_count",
        "requests_finished": "tgi_request_success",
        "request_errors": "tgi_request_failure",
        "heartbeat": "tgi_batch_inference_count",
    },
    # docs/user_guide/metrics.md, 2.71; its other metrics are cumulative, by model and version
    "triton": {
        "requests_waiting": "nv_inference_pending_request_count",
        # only with `--metrics-config histogram_latencies=true`
        "time_to_first_token": "nv_inference_first_response_histogram_ms",
        "requests_finished": "nv_inference_request_success",
        "request_errors": "nv_inference_request_failure",
        "heartbeat": "nv_inference_exec_count",
    },
    # mlserver/rest/app.py: starlette_exporter's names behind `metrics_rest_server_prefix`
    "mlserver": {
        "requests_running": "rest_server_requests_in_progress",
        "request_latency": "rest_server_request_duration_seconds",
        "requests_finished": "model_infer_request_success_total",
        "request_errors": "model_infer_request_failure_total",
        "heartbeat": "model_infer_request_success_total",
    },
    # NIM 1.x (docs.nvidia.com, "Observability"): vLLM's names of that time without their prefix.
    # Last, since names without a prefix are the likeliest to be another program's.
    "nim": {
        "requests_running": "num_requests_running",
        "requests_waiting": "num_requests_waiting",
        "kv_cache_usage": "gpu_cache_usage_perc",
        "prompt_tokens": "prompt_tokens_total",
        "generation_tokens": "generation_tokens_total",
        "time_to_first_token": "time_to_first_token_seconds",
        "inter_token_latency": "time_per_output_token_seconds",
        "request_latency": "e2e_request_latency_seconds",
        "requests_finished": ("request_finish_total", "request_success_total"),
        "request_errors": "request_failure_total",
        "heartbeat": "generation_tokens_total",
    },
}
"""The metrics of the known servers."""


def names_of(names: MetricNames, quantity: str) -> tuple[str, ...]:
    """Return the names of one quantity, newest first; empty if the server does not report it."""
    name = names.get(quantity, ())
    return (name,) if isinstance(name, str) else tuple(name)


def scale_of(name: str) -> float:
    """Return by how much a metric's values are multiplied to get base units.

    Prometheus' names end with their unit.
    """
    for suffix, scale in _SCALES.items():
        if name.endswith(suffix):
            return scale
    return 1.0


def united(*families: MetricNames) -> MetricNames:
    """Return the names of several servers as those of one, in their order."""
    quantities = dict.fromkeys(quantity for family in families for quantity in family)
    return {
        quantity: tuple(name for family in families for name in names_of(family, quantity))
        for quantity in quantities
    }


_SCALES = {"_ms": 1e-3, "_milliseconds": 1e-3, "_us": 1e-6, "_microseconds": 1e-6}

KNOWN_NAMES: MetricNames = united(*FAMILIES.values())
"""The names for an unknown server."""
