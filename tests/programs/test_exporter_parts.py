"""The parts of the exporter: hostile pages, the memory of the last good one, totals."""

from __future__ import annotations

import math
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from flytekitplugins.inference.facts.address import parse_address
from flytekitplugins.inference.facts.liveness import LivenessRule
from flytekitplugins.inference.facts.metric_names import FAMILIES, QUANTITIES
from flytekitplugins.inference.facts.metrics_page import MetricsPage, scan
from flytekitplugins.inference.programs.exporter import history
from flytekitplugins.inference.programs.exporter.exporter_page import ExporterPage
from flytekitplugins.inference.programs.exporter.history import MAX_POINTS, ServerHistory
from flytekitplugins.inference.programs.exporter.server_monitor import HEALTH_BOUNDS, ServerMonitor
from flytekitplugins.inference.programs.exporter.start_facts import StartFacts
from flytekitplugins.inference.programs.exporter.upstream import (
    MAX_PAGE_BYTES,
    PageFaultError,
    ServerPage,
    Upstream,
)
from flytekitplugins.inference.programs.exporter.vocabulary import ALIASES, VOCABULARY

PAGES = Path(__file__).parents[1] / "data" / "metrics"
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


# Hostile pages


@contextmanager
def speaking(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of one connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                with suppress(OSError):  # the exporter had enough
                    speak(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/metrics"
        thread.join(20)


def ask(url: str, *, seconds: float = 5.0, native: bool = False) -> ServerPage:
    upstream = Upstream(parse_address(url), FAMILIES["vllm"], token="", keeps_native=native)
    return upstream.ask(seconds)


def endless(connection: socket.socket) -> None:
    connection.sendall(OK)
    while True:
        connection.sendall(b"vllm:num_requests_running 1\n" * 1000)


def huge_line(connection: socket.socket) -> None:
    connection.sendall(OK)
    while True:
        connection.sendall(b"a" * 65536)


def silent(connection: socket.socket) -> None:
    connection.recv(1)


def dripping(connection: socket.socket) -> None:
    connection.sendall(OK)
    while True:
        connection.sendall(b"v")
        connection.settimeout(0.02)
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            pass


def says(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


@pytest.mark.parametrize(
    ("speak", "reason"),
    [
        pytest.param(endless, "too_large", id="endless"),
        pytest.param(huge_line, "too_large", id="one line without an end"),
        pytest.param(silent, "timeout", id="slow to begin"),
        pytest.param(dripping, "timeout", id="slow"),
        pytest.param(says(b""), "broken", id="nothing"),
        pytest.param(says(b"\x16\x03\x01" * 100), "not_http", id="not HTTP"),
        pytest.param(says(b"HTTP/1.1 503 Busy\r\n\r\n"), "status", id="an error"),
        pytest.param(says(b"HTTP/1.1 302 Go\r\nLocation: http://h/\r\n\r\n"), "status", id="away"),
        pytest.param(
            says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nvllm:"), "broken", id="cut short"
        ),
        pytest.param(
            says(OK + b"vllm:generation_tokens_total 12"), "truncated", id="cut without a length"
        ),
        pytest.param(says(OK + b"vllm:x\x00 1\n"), "not_text", id="binary"),
        pytest.param(says(OK + b"\xff\xfe 1\n"), "not_text", id="not UTF-8"),
        pytest.param(says(OK + b"\x1f\x8b\x08\x00"), "not_text", id="compressed unasked"),
    ],
)
def test_a_bad_page_is_named_and_bounded(
    speak: Callable[[socket.socket], None], reason: str
) -> None:
    with speaking(speak) as url:
        tracemalloc.start()
        try:
            with pytest.raises(PageFaultError) as caught:
                ask(url, seconds=0.3 if reason == "timeout" else 20)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert caught.value.reason == reason
    assert peak < 8 * MAX_PAGE_BYTES


@pytest.mark.parametrize(
    "line",
    [
        "vllm:num_requests_running{a b} 1",
        'vllm:num_requests_running{a="x" b="y"} 1',
        'vllm:num_requests_running{a="x",a="y"} 1',
        'vllm:num_requests_running{1a="x"} 1',
        f'vllm:num_requests_running{{a="{"x" * 3000}"}} 1',
        'vllm:request_success_total{finished_reason="a",reason="b"} 1',
        "vllm:num_requests_running NaN",
    ],
)
def test_a_sample_that_would_spoil_the_page_is_left_out(line: str) -> None:
    text = page_of(says(OK + f"{line}\nvllm:num_requests_waiting 2\n".encode()))
    assert "inference_requests_waiting 2" in text
    assert "inference_requests_running" not in text
    assert "inference_requests_finished" not in text


def test_only_lines_of_the_format_pass_through() -> None:
    lines = [
        "# HELP x Text.",
        "# TYPE x counter",
        'x{a="b"} 1',
        "x_created 1.7e9",
        "# EOF",
        "# a remark",
        "<html>",
        "x{a=b} 1",
        "y 2",
    ]
    with speaking(says(OK + "\n".join([*lines, ""]).encode())) as url:
        native = ask(url, native=True).native
    assert native.splitlines() == [*lines[:3], "y 2"]


def page_of(speak: Callable[[socket.socket], None], **labels: str) -> str:
    with speaking(speak) as url:
        upstream = Upstream(parse_address(url), FAMILIES["vllm"], token="", keeps_native=False)
        monitor = ServerMonitor(upstream, lambda: None, LivenessRule())
        monitor.scrape()
    page = ExporterPage(labels, aliases=(), facts=StartFacts(None, None))
    return page.text(monitor.reading())


def test_a_label_that_the_server_sets_is_not_added_twice() -> None:
    line = b'vllm:num_requests_running{ model_name = "own" , engine="0",} 1\n'
    text = page_of(says(OK + line), model_name="ours", server="vllm")
    expected = 'inference_requests_running{model_name="own",engine="0",server="vllm"} 1'
    assert expected in text.splitlines()


def test_labels_of_ours_are_escaped() -> None:
    text = page_of(says(OK + b"vllm:num_requests_running 1\n"), model_name='a"b\\c\nd')
    assert r'inference_requests_running{model_name="a\"b\\c\nd"} 1' in text.splitlines()


def test_the_adapters_of_the_newest_row_are_counted() -> None:
    rows = (
        b'vllm:lora_requests_info{running_lora_adapters="",waiting_lora_adapters=""} 100\n'
        b'vllm:lora_requests_info{running_lora_adapters="a,b",waiting_lora_adapters="a"} 200\n'
    )
    lines = page_of(says(OK + rows)).splitlines()
    assert 'inference_lora_adapters{state="running"} 2' in lines
    assert 'inference_lora_adapters{state="waiting"} 1' in lines


def test_milliseconds_become_seconds() -> None:
    body = (
        b'nv_inference_first_response_histogram_ms_bucket{model="m",le="100"} 1\n'
        b'nv_inference_first_response_histogram_ms_bucket{model="m",le="+Inf"} 2\n'
        b'nv_inference_first_response_histogram_ms_sum{model="m"} 1500\n'
        b'nv_inference_first_response_histogram_ms_count{model="m"} 2\n'
    )
    with speaking(says(OK + body)) as url:
        upstream = Upstream(parse_address(url), FAMILIES["triton"], token="", keeps_native=False)
        monitor = ServerMonitor(upstream, lambda: None, LivenessRule())
        monitor.scrape()
    text = ExporterPage({}, aliases=(), facts=StartFacts(None, None)).text(monitor.reading())
    name = "inference_time_to_first_token_seconds"
    assert f'{name}_bucket{{model="m",le="0.1"}} 1' in text.splitlines()
    assert f'{name}_sum{{model="m"}} 1.5' in text.splitlines()


@pytest.mark.parametrize("file", sorted(path.stem for path in PAGES.iterdir()))
def test_what_a_real_page_says_is_what_the_exporters_page_says(file: str) -> None:
    """The exporter's page, read by the same reader under its own names, has the same quantities."""
    source = (PAGES / f"{file}.txt").read_text()
    names = FAMILIES[file.removesuffix("-cpu")]
    with speaking(says(OK + source.encode())) as url:
        upstream = Upstream(parse_address(url), names, token="", keeps_native=False)
        monitor = ServerMonitor(upstream, lambda: None, LivenessRule())
        monitor.scrape()
    text = ExporterPage({}, aliases=(), facts=StartFacts(None, None)).text(monitor.reading())
    own = {quantity: metric.name for quantity, metric in VOCABULARY.items()}
    assert scan(text, own) == scan(source, names)


# The vocabulary


def test_every_quantity_has_a_name_in_base_units() -> None:
    assert {*VOCABULARY} == QUANTITIES - {"lora_requests"}
    names = [metric.name for metric in VOCABULARY.values()]
    assert len(set(names)) == len(names)
    for metric in VOCABULARY.values():
        assert metric.name.startswith("inference_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")


def test_aliases_are_of_metrics_that_exist() -> None:
    monitor = ServerMonitor(None, lambda: True, LivenessRule())
    monitor.check()
    text = ExporterPage({}, aliases=(), facts=StartFacts(None, None)).text(monitor.reading())
    names = {metric.name for metric in VOCABULARY.values()} | {"inference_model_info"}
    for aliases in ALIASES.values():
        for name in aliases:
            assert name in names or f"# TYPE {name} " in text, name


# The monitor


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Pages(Upstream):
    """An upstream that gives the next of some pages or faults."""

    def __init__(self, *pages: ServerPage | str) -> None:
        self._pages = list(pages)

    def ask(self, seconds: float) -> ServerPage:
        page = self._pages.pop(0)
        if isinstance(page, str):
            raise PageFaultError(page)
        return page


def saying(**values: float) -> ServerPage:
    return ServerPage(totals=MetricsPage(values=values))


def test_the_last_good_values_stay_and_are_marked_stale() -> None:
    good = saying(requests_running=2)
    clock = Clock()
    monitor = ServerMonitor(
        Pages(good, "timeout", "not_text", good), lambda: None, LivenessRule(), clock=clock
    )
    monitor.scrape()
    clock.now = 7
    monitor.scrape()
    monitor.scrape()
    reading = monitor.reading()
    assert (reading.page, reading.is_stale, reading.age) == (good, True, 7)
    assert {name: n for name, n in reading.bad_pages.items() if n} == {"timeout": 1, "not_text": 1}
    monitor.scrape()
    reading = monitor.reading()
    assert (reading.is_stale, reading.age, reading.good_pages) == (False, 0, 2)


def test_a_page_that_was_asked_for_before_a_restart_is_no_answer_of_the_new_server() -> None:
    monitor: ServerMonitor

    class Late(Pages):
        def ask(self, seconds: float) -> ServerPage:
            assert not monitor.has_started()  # the kubelet starts the container meanwhile
            return saying(heartbeat=5)

    monitor = ServerMonitor(Pages(saying(heartbeat=5)), lambda: None, LivenessRule())
    assert monitor.has_started()
    monitor.scrape()
    monitor._upstream = Late()
    monitor.scrape()
    assert not monitor.has_started()
    monitor._upstream = Pages(saying(heartbeat=0))
    monitor.scrape()
    assert monitor.has_started()


@pytest.mark.parametrize(
    ("seconds", "slot"), [(0.0, 0), (0.3, 7), (1.0, 8), (20.0, 10), (25.0, 11)]
)
def test_times_of_readiness_answers_are_counted(seconds: float, slot: int) -> None:
    clock = Clock()

    def answer() -> bool:
        clock.now += seconds
        return True

    monitor = ServerMonitor(None, answer, LivenessRule(), clock=clock)
    monitor.check()
    reading = monitor.reading()
    assert reading.is_ready
    assert reading.health_seconds == seconds
    assert [*reading.health_buckets].index(1) == slot
    assert len(reading.health_buckets) == len(HEALTH_BOUNDS) + 1


def test_a_thread_that_hangs_is_noticed() -> None:
    clock = Clock()
    monitor = ServerMonitor(None, lambda: True, LivenessRule(), clock=clock)
    monitor._loops["check"] = 0.0
    clock.now = 60
    assert monitor.is_watching()
    clock.now = 61
    assert not monitor.is_watching()


# The history


def test_totals_survive_restarts_of_the_server() -> None:
    record = ServerHistory()
    for at, tokens in enumerate((10, 30, 5, 9)):
        record.add(MetricsPage(values={"generation_tokens": tokens, "requests_running": at}), at)
    summary = record.summary()
    assert summary["totals"] == {"generation_tokens": 39}
    assert summary["peaks"] == {"requests_running": 3}
    assert summary["series"] == {
        "seconds": [0, 1, 2, 3],
        "requests_running": [0, 1, 2, 3],
        "generation_tokens": [10, 30, 35, 39],
    }


def test_histograms_survive_restarts_of_the_server() -> None:
    record = ServerHistory()
    for counts, total in (((1.0, 2.0), 3.0), ((0.0, 1.0), 0.5), ((1.0, 3.0), 2.5)):
        buckets = {"queue_time": {1.0: counts[0], math.inf: counts[1]}}
        record.add(MetricsPage(buckets=buckets, sums={"queue_time": total}), 0)
    latency = record.summary()["latencies"]["queue_time"]
    assert latency["count"] == 5
    assert latency["mean"] == pytest.approx((3.0 + 2.5) / 5)


def test_the_series_is_bounded_and_keeps_its_end() -> None:
    record = ServerHistory()
    count = 10 * MAX_POINTS
    for at in range(count):
        record.add(MetricsPage(values={"requests_running": 1}), at)
    seconds = record.summary()["series"]["seconds"]
    assert MAX_POINTS // 2 <= len(seconds) <= MAX_POINTS
    assert count - seconds[-1] < 40
    steps = {later - earlier for earlier, later in pairwise(seconds)}
    assert len(steps) == 1


def test_bounds_that_change_with_each_page_fill_no_memory() -> None:
    record = ServerHistory()
    for at in range(10):
        bounds = {float(at * 500 + index): 1.0 for index in range(500)}
        record.add(MetricsPage(buckets={"queue_time": bounds}), at)
    assert len(record._buckets["queue_time"]) <= history.MAX_BOUNDS
