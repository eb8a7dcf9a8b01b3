"""Each rule: when it speaks, with which numbers, and when it is silent."""

from __future__ import annotations

from typing import Any

import pytest

from client.report.cases import START, Run, batch, cold_start, stats
from flytekitplugins.inference.client.record import Record
from flytekitplugins.inference.client.report.advice import RULES, advise
from flytekitplugins.inference.client.report.data import Advice, ServerData
from flytekitplugins.inference.client.report.json_fields import from_json
from flytekitplugins.inference.client.report.snapshots import BatchStats, ClientStats, MetricsWindow


def _clients(**members: Any) -> ClientStats:
    """Return what clients saw that do not know when the server was busy."""
    counts = {"seconds": 600.0, "requests": 1000, "answered": 1000, "most_in_flight": 16}
    counts["busy_seconds"] = None  # type: ignore[assignment]
    return from_json(ClientStats, {**Record().snapshot(), **counts, **members})


def _metrics(
    *, seen: float = 600, idle: float = 0, waiting: float = 0, full: float = 0, **members: Any
) -> MetricsWindow:
    window = {
        "times": {"seen": seen, "idle": idle, "waiting": waiting, "cache_full": full},
        "most": {"requests_running": 16, "requests_waiting": 9 if waiting else 0},
    }
    return from_json(MetricsWindow, {**window, **members})


def _advice(server: ServerData) -> dict[str, Advice]:
    return {advice.rule: advice for advice in advise(server)}


def _latency(p50: float, p99: float, count: int = 1000) -> dict[str, Any]:
    return {
        "count": count,
        "mean": p50,
        "min": p50 / 2,
        "p50": p50,
        "p95": p50 * 2,
        "p99": p99,
        "max": p99 * 2,
    }


def test_a_healthy_run_needs_no_advice() -> None:
    assert (
        advise(
            Run(clients=16)
            .go()
            .server(batches=(batch(),), cold_start=cold_start(("server_load", 0, 40)))
        )
        == []
    )


@pytest.mark.parametrize(
    "server",
    [ServerData(), ServerData(clients=stats(Record())), ServerData(metrics=_metrics())],
)
def test_nothing_known_is_no_advice(server: ServerData) -> None:
    assert advise(server) == []


def test_each_rule_is_quiet_on_its_own_without_numbers() -> None:
    assert [list(rule(ServerData())) for rule in RULES] == [[]] * len(RULES)


def test_the_most_urgent_comes_first() -> None:
    clients = _clients(failed=3, errors={"status 500": 3}, latency_seconds=_latency(1, 60))
    advice = advise(ServerData(clients=clients, metrics=_metrics(idle=372), cold_start=START))
    severities = [one.severity for one in advice]
    assert severities == sorted(severities, reverse=True)
    assert [one.rule for one in advice] == ["failures", "idle", "cold_start", "tail"]


# Idle


def test_an_idle_server_asked_one_by_one() -> None:
    advice = _advice(ServerData(clients=_clients(most_in_flight=1), metrics=_metrics(idle=372)))[
        "idle"
    ]
    assert advice.title == "The server was idle 62 % of the time"
    assert (
        advice.evidence == "6 min 12 s of 10 min, by its own metrics, read every 5 s. "
        "At most 1 request was under way at a time."
    )
    assert "max_concurrency" in advice.action


def test_an_idle_server_held_back_by_max_concurrency() -> None:
    server = ServerData(
        clients=_clients(most_in_flight=4),
        metrics=_metrics(idle=372),
        batches=(batch(max_concurrency=4, concurrency=[{"seconds": 1.0, "limit": 4}] * 9),),
    )
    advice = _advice(server)
    assert advice["idle"].action.startswith("Raise max_concurrency")
    assert "max_concurrency=4" in advice["idle"].evidence
    assert "concurrency_ceiling" not in advice


def test_an_idle_server_of_a_task_with_other_work() -> None:
    advice = _advice(ServerData(clients=_clients(), metrics=_metrics(idle=372)))["idle"]
    assert advice.action.startswith("Prepare the next inputs")


def test_an_idle_server_of_a_batch_that_no_client_recorded() -> None:
    clients = _clients(requests=0, answered=0, most_in_flight=0)
    advice = _advice(ServerData(clients=clients, metrics=_metrics(idle=372), batches=(batch(),)))[
        "idle"
    ]
    assert "up to 48 requests were under way" in advice.evidence


def test_an_idle_server_without_metrics() -> None:
    server = ServerData(clients=_clients(seconds=100.0, requests=30, busy_seconds=1.0))
    assert "by what the clients sent" in _advice(server)["idle"].evidence


@pytest.mark.parametrize(
    ("clients", "metrics"),
    [
        (_clients(), _metrics(idle=170)),
        (_clients(requests=3), _metrics(idle=372)),
        (_clients(), _metrics(seen=25, idle=25)),
    ],
)
def test_too_little_to_call_a_server_idle(clients: ClientStats, metrics: MetricsWindow) -> None:
    assert "idle" not in _advice(ServerData(clients=clients, metrics=metrics))


# Load


def _at_ceiling(waiting: float) -> ServerData:
    points = [{"seconds": float(index), "limit": 8 if index > 3 else 4} for index in range(20)]
    return ServerData(
        clients=_clients(),
        metrics=_metrics(waiting=waiting),
        batches=(batch(max_concurrency=8, concurrency=points),),
    )


def test_a_batch_at_its_ceiling_while_nothing_waits() -> None:
    advice = _advice(_at_ceiling(waiting=0))["concurrency_ceiling"]
    assert advice.title == "The batch was held back by max_concurrency=8"
    assert "0 % of it" in advice.evidence


def test_a_batch_at_its_ceiling_with_a_queue_is_well() -> None:
    assert "concurrency_ceiling" not in _advice(_at_ceiling(waiting=200))


def test_a_batch_below_its_ceiling_is_well() -> None:
    server = ServerData(
        clients=_clients(), metrics=_metrics(), batches=(batch(max_concurrency=512),)
    )
    assert _advice(server) == {}


def test_a_queue_for_most_of_the_time() -> None:
    waited = {"queue_time": {"count": 10, "mean": 1, "p50": 0.8, "p95": 2, "p99": 3}}
    advice = _advice(
        ServerData(clients=_clients(), metrics=_metrics(waiting=480, histograms=waited))
    )["queue"]
    assert advice.evidence == (
        "Requests waited in its queue 80 % of the time, up to 9 at once, for 800 ms (median) "
        "before work on them began."
    )
    assert advice.severity == 1


def test_a_short_queue_only_keeps_the_server_busy() -> None:
    short = {"requests_running": 16, "requests_waiting": 2}
    assert "queue" not in _advice(
        ServerData(clients=_clients(), metrics=_metrics(waiting=600, most=short))
    )


def test_a_server_that_is_idle_in_between_is_not_used_to_the_full() -> None:
    advice = _advice(ServerData(clients=_clients(), metrics=_metrics(waiting=310, idle=250)))
    assert set(advice) == {"idle"}


def test_a_queue_now_and_then_is_well() -> None:
    assert "queue" not in _advice(ServerData(clients=_clients(), metrics=_metrics(waiting=200)))


def test_a_full_cache_with_preemptions() -> None:
    advice = _advice(
        ServerData(clients=_clients(), metrics=_metrics(full=240, totals={"preemptions": 37.0}))
    )["kv_cache"]
    assert (
        advice.evidence
        == "It was above 90 % for 40 % of the time, and requests were preempted 37 times."
    )
    assert "max_num_seqs" in advice.action


@pytest.mark.parametrize(("full", "preemptions"), [(240, 0.0), (10, 37.0)])
def test_a_cache_that_is_used_well(full: float, preemptions: float) -> None:
    server = ServerData(
        clients=_clients(), metrics=_metrics(full=full, totals={"preemptions": preemptions})
    )
    assert "kv_cache" not in _advice(server)


# Start


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ([("loader.download", 0, 95), ("server_load", 95, 120)], "model_cache="),
        ([("loader.adapter.a", 0, 95), ("server_load", 95, 120)], "model_cache="),
        ([("loader.verify", 0, 95), ("server_load", 95, 120)], "model_loader_cpu="),
        ([("input_download", 0, 95), ("server_load", 95, 120)], "download_inputs_cpu="),
        ([("loader.download", 0, 10), ("server_load", 10, 120)], "compile cache"),
    ],
)
def test_a_slow_start(parts: list[tuple[str, float, float]], word: str) -> None:
    advice = _advice(ServerData(cold_start=cold_start(*parts)))["cold_start"]
    assert word in advice.action
    assert "of 2 min (" in advice.evidence


@pytest.mark.parametrize(
    "parts",
    [
        [("loader.download", 0, 40), ("server_load", 40, 50)],
        [("loader.download", 0, 50), ("loader.verify", 50, 100), ("server_load", 100, 150)],
        [("first_answer", 0, 90)],
    ],
)
def test_a_start_that_is_fast_or_has_no_longest_part(parts: list[tuple[str, float, float]]) -> None:
    assert advise(ServerData(cold_start=cold_start(*parts))) == []


# Failures


def test_failed_requests() -> None:
    clients = _clients(failed=12, errors={"status 429": 3, "ServerExitedError": 9})
    advice = _advice(ServerData(clients=clients))["failures"]
    assert advice.title == "12 requests failed"
    assert advice.evidence == "1 % of 1,000 requests; most often ServerExitedError (9 times)."
    assert "137" in advice.action


def test_a_kind_of_failure_without_known_cause() -> None:
    advice = _advice(ServerData(clients=_clients(failed=1, errors={"KeyError": 1})))["failures"]
    assert (advice.title, advice.action[:19]) == ("1 request failed", "The examples below ")


@pytest.mark.parametrize(
    ("ended", "title"), [(160.0, "once"), (None, "once and did not come back")]
)
def test_outages(ended: float | None, title: str) -> None:
    clients = _clients(began=100.0, outage_count=1, outages=[{"began": 150.0, "ended": ended}])
    advice = _advice(ServerData(clients=clients))["outages"]
    assert advice.title == f"The server went away {title}"
    assert (
        advice.evidence == f"It did not answer for {'10 s' if ended else '9 min 10 s'} of 10 min."
    )


def test_busy_answers() -> None:
    advice = _advice(ServerData(clients=_clients(repeats={"503": 80, "ReadError": 2})))[
        "busy_answers"
    ]
    assert advice.title == "80 requests found the server busy and had to wait"
    assert advice.evidence.startswith("503 80 times, ReadError twice, for 1,000 requests")


@pytest.mark.parametrize("repeats", [{"503": 5}, {"ReadError": 500}, {}])
def test_a_few_repetitions_are_normal(repeats: dict[str, int]) -> None:
    assert "busy_answers" not in _advice(ServerData(clients=_clients(repeats=repeats)))


def test_failed_rows() -> None:
    advice = _advice(ServerData(batches=(batch(failed=140), batch(failed=0))))["failed_rows"]
    assert advice.title == "140 rows of a batch failed"
    assert advice.evidence == "2 % of 8,000 rows; the first: status 400 (20 times)."


def test_failed_rows_of_a_summary_that_tells_little() -> None:
    assert (
        _advice(ServerData(batches=(BatchStats(failed=1),)))["failed_rows"].title
        == "1 row of a batch failed"
    )


def test_a_long_tail_names_what_it_may_come_from() -> None:
    clients = _clients(
        latency_seconds=_latency(2, 30), repeats={"ReadError": 1}, outage_count=1, outages=[]
    )
    advice = _advice(ServerData(clients=clients, metrics=_metrics(waiting=5)))["tail"]
    assert advice.evidence.startswith(
        "The slowest 1 % took 30 s or more, 15 times the median of 2 s."
    )
    assert "the server's outages, retried requests and the server's queue" in advice.evidence


@pytest.mark.parametrize(
    "latency", [_latency(2, 9), _latency(0.01, 0.5), _latency(2, 30, count=50)]
)
def test_a_tail_that_says_nothing(latency: dict[str, Any]) -> None:
    assert "tail" not in _advice(ServerData(clients=_clients(latency_seconds=latency)))


def test_waiting_for_containers_is_a_part_of_the_start() -> None:
    start = cold_start(("input_download", 0, 3), ("server_load", 85, 90), ("first_answer", 89, 91))
    assert (start.seconds, start.rest_seconds) == (91, 82)
    advice = _advice(ServerData(cold_start=start))["cold_start"]
    assert advice.title == "Most of the cold start was waiting for the pod's containers"
    assert advice.evidence.startswith("1 min 22 s of 1 min 31 s")


def test_what_is_not_known_gives_no_advice_on_idleness() -> None:
    metrics = from_json(MetricsWindow, {"times": {"seen": 600, "idle": 10, "unsure": 585}})
    assert "idle" not in _advice(ServerData(clients=_clients(), metrics=metrics))
