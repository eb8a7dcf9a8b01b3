"""Pages of metrics: those of real servers, and those that nobody should write."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest

from flytekitplugins.inference.facts import metrics_page
from flytekitplugins.inference.facts.metric_names import (
    COUNTERS,
    EVENTS,
    FAMILIES,
    GAUGES,
    HISTOGRAMS,
    INFOS,
    KNOWN_NAMES,
    QUANTITIES,
    RATIOS,
    MetricNames,
    names_of,
    united,
)
from flytekitplugins.inference.facts.metrics_page import (
    MAX_PAGE_BYTES,
    MetricsPage,
    quantile,
    queue_length,
    scan,
)

PAGES = Path(__file__).parents[1] / "data" / "metrics"
NAMES: MetricNames = {
    "requests_running": "x_running",
    "requests_waiting": ("x_waiting", "x_queued"),
    "kv_cache_usage": "x_cache",
    "generation_tokens": "x_tokens_total",
    "time_to_first_token": ("x_ttft", "x_old_ttft"),
}


# Names


def test_each_quantity_is_of_one_kind() -> None:
    kinds = (*GAUGES, *RATIOS, *COUNTERS, *HISTOGRAMS, *EVENTS, *INFOS)
    assert len(kinds) == len(QUANTITIES)
    assert all(set(names) <= QUANTITIES for names in FAMILIES.values())


def test_no_two_servers_share_a_name() -> None:
    # one server may tell two quantities by one metric
    families = [
        {name for quantity in family for name in names_of(family, quantity)}
        for family in FAMILIES.values()
    ]
    assert sum(map(len, families)) == len(set.union(*families))


def test_several_versions_are_united_in_their_order() -> None:
    both = united({"queue_time": ("b", "a")}, {"queue_time": "c", "preemptions": "d"})
    assert both == {"queue_time": ("b", "a", "c"), "preemptions": ("d",)}
    assert names_of(both, "request_latency") == ()


# Pages of real servers


def test_a_page_of_vllm() -> None:
    page = scan((PAGES / "vllm-cpu.txt").read_text(), FAMILIES["vllm"])
    assert page.values == {
        "requests_running": 0,
        "requests_waiting": 0,
        "kv_cache_usage": 0,
        "prompt_tokens": 2085,
        "generation_tokens": 4456,
        "preemptions": 0,
        "requests_finished": 279,
        "rejections": 0,
        "prefix_cache_hits": 0,
        "prefix_cache_queries": 2085,
        "heartbeat": 515,
    }
    assert page.buckets["time_to_first_token"][0.25] == 197
    assert page.buckets["time_to_first_token"][math.inf] == 279
    assert page.sums["request_latency"] > page.sums["time_to_first_token"] > 63


@pytest.mark.parametrize(
    ("file", "values"),
    [
        (
            "llamacpp",
            {
                "requests_running": 0,
                "requests_waiting": 0,
                "prompt_tokens": 15,
                "generation_tokens": 8,
                "prefix_cache_hits": 0,
                "heartbeat": 8,
            },
        ),
        (
            "triton",
            {"requests_waiting": 0, "requests_finished": 1, "request_errors": 0, "heartbeat": 1},
        ),
        (
            "mlserver",
            {"requests_running": 0, "requests_finished": 3, "request_errors": 1, "heartbeat": 3},
        ),
    ],
)
def test_pages_of_other_servers(file: str, values: dict[str, float]) -> None:
    text = (PAGES / f"{file}.txt").read_text()
    assert scan(text, FAMILIES[file]).values == values
    assert scan(text, KNOWN_NAMES).values == values
    assert scan(text, FAMILIES["sglang"]) == MetricsPage()


OFF_BY_DEFAULT = {"cpu_kv_cache_usage"}
"""What no current version reports."""
TRITON_OPTIONS = {"time_to_first_token"}
"""What Triton reports with `--metrics-config histogram_latencies=true`."""


@pytest.mark.parametrize("file", sorted(path.stem for path in PAGES.iterdir()))
def test_every_name_of_a_family_is_on_its_page(file: str) -> None:
    names = FAMILIES[file.removesuffix("-cpu")]
    page = scan((PAGES / f"{file}.txt").read_text(), names)
    assert {*page.values, *page.buckets} == set(names) - {*INFOS} - OFF_BY_DEFAULT - (
        TRITON_OPTIONS if file == "triton" else set()
    )


@pytest.mark.parametrize(
    ("family", "quantity", "newer", "older"),
    [
        ("vllm", "kv_cache_usage", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        (
            "vllm",
            "prefix_cache_hits",
            "vllm:prefix_cache_hits_total",
            "vllm:gpu_prefix_cache_hits_total",
        ),
        (
            "vllm",
            "heartbeat",
            "vllm:iteration_tokens_total_count",
            "vllm:generation_tokens_total",
        ),
        (
            "sglang",
            "heartbeat",
            "sglang:realtime_tokens_total",
            "sglang:generation_tokens_total",
        ),
        (
            "llamacpp",
            "heartbeat",
            "llamacpp:n_decode_total",
            "llamacpp:tokens_predicted_total",
        ),
        ("nim", "requests_finished", "request_finish_total", "request_success_total"),
    ],
)
def test_each_version_is_read_by_its_own_name(
    family: str, quantity: str, newer: str, older: str
) -> None:
    for text in (f"{newer} 0.5\n{older} 0.25\n", f"{older} 0.25\n{newer} 0.5\n", f"{newer} 0.5\n"):
        assert scan(text, FAMILIES[family]).values[quantity] == 0.5
    assert scan(f"{older} 0.25\n", FAMILIES[family]).values[quantity] == 0.25


def test_a_histogram_in_milliseconds_becomes_seconds() -> None:
    text = "\n".join(
        [
            'x_ms_bucket{le="100"} 1',
            'x_ms_bucket{le="2500"} 3',
            'x_ms_bucket{le="+Inf"} 4',
            "x_ms_sum 8000",
            "x_ms_count 4",
        ]
    )
    page = scan(text, {"time_to_first_token": "x_ms"})
    assert page.buckets["time_to_first_token"] == {0.1: 1, 2.5: 3, math.inf: 4}
    assert page.sums["time_to_first_token"] == 8


# What a line may be


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("x_running 5", 5),
        ("x_running\t 5\r", 5),
        ("x_running 5 1700000000000", 5),
        ("x_running 5 1700000000.123", 5),
        ("x_running{} 5", 5),
        ("x_running{}5", 5),
        ('x_running 5e0 # {trace_id="a"} 0.67 1.7e9', 5),
        ('x_running{a="b"} 5 # {trace_id="} 9"} 0.67', 5),
        ('x_running{a="} 9 {"} 5', 5),
        ('x_running{a="x\\"y z"} 5.5e1 1700000000000', 55),
        ('x_running{a="back\\\\"} 5', 5),
        ('x_running{a="\u2028x_running 7"} 5', 5),
        ("x_running 0", 0),
        ("x_running NaN", None),
        ("x_running +Inf", None),
        ("x_running -Inf", None),
        ("x_running 1e999", None),
        ("x_running 1e300", None),
        ("x_running -3", None),
        ("x_running", None),
        ("x_running ", None),
        ("x_running\n5", None),
        ("x_running{", None),
        ('x_running{a="b', None),
        ('x_running{a="b\n"} 5', None),
        ("x_running five", None),
        (f"x_running {'9' * 100_000}", None),
        ("x_running_more 5", None),
        ("more_x_running 5", None),
        ("# TYPE x_running gauge", None),
        ("", None),
        ("# EOF", None),
        ("\x00\ud800", None),
    ],
)
def test_a_line(line: str, value: float | None) -> None:
    assert scan(line, NAMES).values.get("requests_running") == value
    assert scan(f"x_cache 1\n{line}\n# EOF\n", NAMES).values.get("requests_running") == value


def test_labels_are_summed_and_ratios_averaged() -> None:
    text = (
        'x_running{engine="0"} 3\nx_running{engine="1"} 4\n'
        'x_cache{engine="0"} 0.2\nx_cache{engine="1"} 0.6\n'
    )
    assert scan(text, NAMES).values == {"requests_running": 7, "kv_cache_usage": pytest.approx(0.4)}


def test_a_page_that_stands_twice_counts_once() -> None:
    text = 'x_running{engine="0"} 3\nx_running{engine="1"} 4\n'
    assert scan(text + text, NAMES).values == {"requests_running": 7}


@pytest.mark.parametrize(
    ("text", "waiting"),
    [
        ("x_waiting 3\nx_queued 3\n", 3),
        ("x_queued 3\nx_waiting 4\n", 4),
        ("x_queued 3\n", 3),
        ("x_waiting NaN\nx_queued 3\n", 3),
    ],
)
def test_a_renamed_metric_is_read_once(text: str, waiting: int) -> None:
    assert scan(text, NAMES).values == {"requests_waiting": waiting}


@pytest.mark.parametrize(
    ("text", "buckets"),
    [
        ('x_ttft_bucket{le="0.1"} 1\nx_ttft_bucket{le="+Inf"} 2\n', {0.1: 1, math.inf: 2}),
        ('x_ttft_bucket{le="1",a="0"} 1\nx_ttft_bucket{a="1",le="1.0"} 2\n', {1: 3}),
        ('x_old_ttft_bucket{le="1"} 1\n', {1: 1}),
        ('x_ttft_bucket{a="x,le=",b="5",le="2"} 1\n', {2: 1}),
        ('x_ttft_bucket{le="1"} 1 # {trace_id="a"} 0.5 1.7e9\n', {1: 1}),
        ('x_ttft_bucket{le="soon"} 1\nx_ttft_bucket{le="NaN"} 1\nx_ttft_bucket{} 1\n', {}),
    ],
)
def test_buckets(text: str, buckets: dict[float, float]) -> None:
    page = scan(text, NAMES)
    assert page.buckets == {"time_to_first_token": buckets}
    assert page.sums == {"time_to_first_token": 0}


def test_a_histogram_without_buckets_is_not_told() -> None:
    assert scan("x_ttft_sum 3\nx_ttft_count 2\n", NAMES) == MetricsPage()


def test_unknown_quantities_are_passed_over() -> None:
    assert scan("x_running 1\n", {"colour": "x_running"}) == MetricsPage()
    assert scan("x_running 1\n", {}) == MetricsPage()


# Bounds


def test_a_page_beyond_the_bounds_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f'x_running{{a="{index}"}} 1\n' for index in range(20))
    monkeypatch.setattr(metrics_page, "MAX_SERIES", 20)
    assert scan(text, NAMES).values == {"requests_running": 20}
    assert scan(text + 'x_cache{a="b"} 1\n', NAMES) == MetricsPage()
    monkeypatch.setattr(metrics_page, "MAX_PAGE_BYTES", len(text) - 1)
    assert scan(text, NAMES) == MetricsPage()


@pytest.mark.parametrize(
    "text",
    [
        "\n" * MAX_PAGE_BYTES,
        'x_running{a="' * (MAX_PAGE_BYTES // 13),
        'x_running{a="' + "\\" * (MAX_PAGE_BYTES - 13),
        "x_running{" + 'a="",' * ((MAX_PAGE_BYTES - 10) // 5),
        "x_running" + " " * (MAX_PAGE_BYTES - 9),
        "x_running " * (MAX_PAGE_BYTES // 10),
    ],
    ids=["line breaks", "quotes", "backslashes", "labels", "blanks", "names"],
)
def test_no_page_is_tried_again_and_again(text: str) -> None:
    """A pattern that went back over what it read would need hours for each of these."""
    assert scan(text, {**KNOWN_NAMES, **NAMES}) == MetricsPage()


# What is made of it


@pytest.mark.parametrize(
    ("share", "seconds"),
    [(0.0, 0.0), (0.25, 0.05), (0.5, 0.1), (0.75, 0.55), (0.99, 1.0), (1.0, 1.0)],
)
def test_quantiles(share: float, seconds: float) -> None:
    buckets = {0.1: 50.0, 1.0: 100.0, math.inf: 100.0}
    tolerance = pytest.approx(seconds, abs=0.02)
    assert quantile(buckets, share) == tolerance


@pytest.mark.parametrize(
    "buckets",
    [
        dict(zip((0.1, 1.0, math.inf), counts, strict=True))
        for counts in itertools.product((0.0, 1.0, 5.0), repeat=3)
    ]
    + [{}, {math.inf: 3.0}, {0.1: 3.0}],
)
def test_quantiles_of_odd_buckets_are_numbers(buckets: dict[float, float]) -> None:
    for share in (0.0, 0.5, 0.99, 1.0):
        assert 0 <= quantile(buckets, share) <= 1


@pytest.mark.parametrize(
    ("text", "waiting"),
    [
        ('vllm:num_requests_waiting{a="0"} 3.0\nvllm:num_requests_waiting{a="1"} 2.0\n', 5),
        ("# HELP llamacpp:requests_deferred x\nllamacpp:requests_deferred 7\n", 7),
        ("tgi_queue_size 1e+01\n", 10),
        ("sglang:num_queue_reqs 1e18\n", 10**18),
        ("sglang:num_queue_reqs 1e300\n", None),
        ("vllm:num_requests_waiting +Inf\n", None),
        ("vllm:num_requests_waiting 1e999\n", None),
        ("vllm:num_requests_waiting NaN\n", None),
        ("vllm:num_requests_running 4\n", None),
        ("", None),
    ],
)
def test_the_queue_of_an_unknown_server(text: str, waiting: int | None) -> None:
    length = queue_length(text, KNOWN_NAMES)
    assert length == waiting
    assert length is None or isinstance(length, int)
