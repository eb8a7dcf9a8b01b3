"""What to change: one small rule for each, which speaks only when the numbers do.

A rule reads `ServerData` and yields what it finds, with the numbers that it rests on. It is silent
when they are too few or unknown: a quantity that a server does not tell is not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ...facts.wording import duration
from .data import Advice, ServerData, asked, idle, most_in_flight, phases
from .words import count, number, share, times

__all__ = ["RULES", "advise"]

ENOUGH_SECONDS = 30.0
"""A shorter run says little about how a server is used."""
ENOUGH_REQUESTS = 20
IDLE_SHARE = 0.3
QUEUE_SHARE = 0.5
CACHE_SHARE = 0.2
LONG_QUEUE = 0.5
"""Of the requests that are worked on: a shorter queue only keeps the server busy."""
SLOW_START_SECONDS = 60.0
"""A faster start is not worth changing."""
START_SHARE = 0.5
"""Of a start: the phase that takes as much is what it waits for."""
TAIL = 5.0
"""How many times the median a 99th percentile is before it says something."""
REPEAT_SHARE = 0.02

FAILED = 3
COSTLY = 2
NOTE = 1


def advise(server: ServerData) -> list[Advice]:
    """Return what to change about one server and its use, the most urgent first."""
    found = [advice for rule in RULES for advice in rule(server)]
    return sorted(found, key=lambda advice: -advice.severity)


def _failures(server: ServerData) -> Iterator[Advice]:
    clients = server.clients
    failed, errors = clients.get("failed", 0), clients.get("errors", {})
    if not failed or not errors:
        return
    kind, many = max(errors.items(), key=lambda item: item[1])
    action = _ACTIONS.get(kind, "The examples below and the log of the model server tell more.")
    yield Advice(
        rule="failures",
        severity=FAILED,
        title=f"{count(failed, 'request')} failed",
        evidence=f"{share(failed, clients['requests']).capitalize()} of "
        f"{count(clients['requests'], 'request')}; "
        f"most often {kind} ({times(many)}).",
        action=action,
    )


_ACTIONS = {
    "status 400": "The server refuses what is sent: check the prompt's length against "
    "max_model_len, and the options.",
    "status 401": "Give the key of the server: api_key=.",
    "status 403": "Give the key of the server: api_key=.",
    "status 404": "Ask for a model that the server has: endpoint.served_model_name() tells its "
    "name.",
    "status 422": "The server refuses what is sent: the model's input names, shapes or types "
    "differ.",
    "status 429": "Send fewer requests at once: batch(max_concurrency=…) finds what the server "
    "takes by itself.",
    "status 503": "Send fewer requests at once: batch(max_concurrency=…) finds what the server "
    "takes by itself.",
    "status 500": "The log of the model server has the traceback.",
    "ServerNotReadyError": "Raise timeout= if requests may take longer; outage_seconds= if the "
    "server needs longer to "
    "come back.",
    "ServerExitedError": "The server ended while it was asked. Exit code 137 means that its "
    "memory limit (mem=) is too "
    "low; the pod's status and the log of the model server tell.",
}


def _outages(server: ServerData) -> Iterator[Advice]:
    clients = server.clients
    many = clients.get("outage_count", 0)
    if not many:
        return
    known = clients["outages"]
    ended = clients["began"] + clients["seconds"]
    away = sum((one["ended"] or ended) - one["began"] for one in known)
    still = any(one["ended"] is None for one in known)
    yield Advice(
        rule="outages",
        severity=FAILED,
        title=f"The server went away {times(many)}" + (" and did not come back" if still else ""),
        evidence=f"It did not answer for {duration(away)} of {duration(clients['seconds'])}.",
        action="The pod's status names the exit code of the container model-server. 137 (out of "
        "memory): raise mem=, "
        "or lower what the server keeps (max_model_len, max_num_seqs). Anything else: its log.",
    )


def _cold_start(server: ServerData) -> Iterator[Advice]:
    parts = phases(server.cold_start)
    total = max((phase.ended for phase in parts), default=0.0)
    if total < SLOW_START_SECONDS:
        return
    longest = max(parts, key=lambda phase: phase.seconds)
    if longest.seconds < START_SHARE * total:
        return
    known = [
        (begins, name, action)
        for begins, name, action in _STARTS
        if longest.name.startswith(begins)
    ]
    for _, name, action in known[:1]:
        yield Advice(
            rule="cold_start",
            severity=COSTLY,
            title=f"Most of the cold start was {name}",
            evidence=f"{duration(longest.seconds)} of {duration(total)} "
            f"({share(longest.seconds, total)}).",
            action=action,
        )


_STARTS = (
    (
        "loader.verify",
        "checking the model's digest",
        "Give the model loader more cores (model_loader_cpu=), or a faster disk for the model.",
    ),
    (
        "loader.",
        "bringing the model",
        "Keep it on a volume that outlives the pod: model_cache=. Then the next pod finds it "
        "there.",
    ),
    (
        "input_download",
        "bringing the inputs",
        "Give the input downloader more cores (download_inputs_cpu=), or pass fewer files to the "
        "task.",
    ),
    (
        "server_load",
        "the server's own loading",
        "Keep its compile cache on a volume that outlives the pod (volumes=); vLLM without "
        "compilation "
        "(enforce_eager) starts sooner and answers slower.",
    ),
)


def _idle(server: ServerData) -> Iterator[Advice]:
    known = idle(server)
    if known is None or known[1] < ENOUGH_SECONDS or asked(server) < ENOUGH_REQUESTS:
        return
    quiet, seen, who = known
    if quiet < IDLE_SHARE * seen:
        return
    most = most_in_flight(server)
    if most <= 2:
        evidence = (
            f"At most {count(most, 'request')} {'was' if most == 1 else 'were'} under way "
            "at a time."
        )
        action = "Send more at once: batch(max_concurrency=…), or the async client."
    elif (limit := _ceiling(server)) is not None:
        evidence = (
            f"Up to {count(most, 'request')} were under way, the most that "
            f"max_concurrency={limit} allows."
        )
        action = (
            "Raise max_concurrency, and give the next requests while earlier ones are being "
            "answered."
        )
    else:
        evidence = f"While there was work, up to {count(most, 'request')} were under way at a time."
        action = (
            "Prepare the next inputs while earlier ones are being answered (batch() reads them as "
            "it goes), and do "
            "what needs no server in a task of its own, which holds no GPU."
        )
    source = "its own metrics" if who == "server" else "what the clients sent"
    yield Advice(
        rule="idle",
        severity=COSTLY,
        title=f"The server was idle {share(quiet, seen)} of the time",
        evidence=f"{duration(quiet)} of {duration(seen)}, by {source}. {evidence}",
        action=action,
    )


def _ceiling(server: ServerData) -> int | None:
    """Return `max_concurrency` of a batch that spent most of its time there, or `None`."""
    for batch in server.batches:
        limit = int(_number(batch.get("max_concurrency")))
        points = batch.get("concurrency") or ()
        at_it = sum(1 for point in points if limit and _number(point.get("limit")) >= limit)
        if at_it > len(points) / 2:
            return limit
    return None


def _unfilled(server: ServerData) -> Iterator[Advice]:
    limit = _ceiling(server)
    seconds = (server.metrics or {}).get("times", {})
    has_queue = "requests_waiting" in (server.metrics or {}).get("most", {})
    if (
        limit is None
        or not has_queue
        or seconds["seen"] < ENOUGH_SECONDS
        or seconds["waiting"] > 0.05 * seconds["seen"]
    ):
        return
    if seconds["idle"] >= IDLE_SHARE * seconds["seen"]:
        return  # said by the rule above
    yield Advice(
        rule="concurrency_ceiling",
        severity=COSTLY,
        title=f"The batch was held back by max_concurrency={limit}",
        evidence="Most of the time it sent as many requests as it may, and the server had a "
        "queue for "
        f"{share(seconds['waiting'], seconds['seen'])} of it.",
        action="Raise max_concurrency, or leave it out: the batch finds the server's limit by "
        "itself.",
    )


def _queue(server: ServerData) -> Iterator[Advice]:
    metrics = server.metrics or {}
    seconds = metrics.get("times", {})
    if (
        seconds.get("seen", 0) < ENOUGH_SECONDS
        or seconds["waiting"] < QUEUE_SHARE * seconds["seen"]
    ):
        return
    if seconds["idle"] >= IDLE_SHARE * seconds["seen"]:
        return  # now too much, now nothing: the rule above tells what to do
    if metrics["most"]["requests_waiting"] < LONG_QUEUE * metrics["most"]["requests_running"]:
        return
    waited = metrics["histograms"].get("queue_time")
    evidence = (
        f"Requests waited in its queue {share(seconds['waiting'], seconds['seen'])} of the time, "
        "up to "
        f"{number(metrics['most']['requests_waiting'])} at once"
    )
    evidence += (
        f", for {duration(waited['p50'])} (median) before work on them began." if waited else "."
    )
    yield Advice(
        rule="queue",
        severity=NOTE,
        title="The server had more requests than it could work on",
        evidence=evidence,
        action="It is used to the full; that costs latency, not throughput. For shorter waits "
        "send fewer at once "
        "(max_concurrency=); for more throughput use more GPUs, or a map task over several pods.",
    )


def _cache(server: ServerData) -> Iterator[Advice]:
    metrics = server.metrics or {}
    preemptions = metrics.get("totals", {}).get("preemptions", 0)
    seconds = metrics.get("times", {})
    full = seconds.get("cache_full", 0.0)
    if not preemptions or not full or full < CACHE_SHARE * seconds["seen"]:
        return
    yield Advice(
        rule="kv_cache",
        severity=COSTLY,
        title="The KV cache was full, and requests were computed again",
        evidence=f"It was above 90 % for {share(full, seconds['seen'])} of the time, and requests "
        "were preempted "
        f"{times(int(preemptions))}.",
        action="Lower max_num_seqs or max_model_len, raise gpu_memory_utilization, or take a GPU "
        "with more memory.",
    )


def _repeats(server: ServerData) -> Iterator[Advice]:
    clients = server.clients
    repeats = clients.get("repeats", {})
    busy = sum(many for reason, many in repeats.items() if reason in ("429", "502", "503"))
    requests = clients.get("requests", 0)
    if requests < ENOUGH_REQUESTS or busy < REPEAT_SHARE * requests or not busy:
        return
    kinds = ", ".join(
        f"{reason} {times(many)}"
        for reason, many in sorted(repeats.items(), key=lambda one: -one[1])
    )
    yield Advice(
        rule="busy_answers",
        severity=COSTLY,
        title=f"{count(busy, 'request')} found the server busy and had to wait",
        evidence=f"{kinds}, for {count(requests, 'request')}; each waits before it is sent once "
        "more.",
        action="Send fewer at once: batch() lowers its concurrency by itself, other code with "
        "max_concurrency= or a "
        "semaphore.",
    )


def _tail(server: ServerData) -> Iterator[Advice]:
    latency = server.clients.get("latency_seconds", {})
    if (
        latency.get("count", 0) < 5 * ENOUGH_REQUESTS
        or latency["p99"] < TAIL * latency["p50"]
        or latency["p99"] < 1
    ):
        return
    reasons = []
    if server.clients.get("outage_count"):
        reasons.append("the server's outages")
    if server.clients.get("repeats"):
        reasons.append("requests that were asked again")
    if (server.metrics or {}).get("times", {}).get("waiting"):
        reasons.append("the server's queue")
    cause = f" Part of it: {_listed(reasons)}." if reasons else ""
    yield Advice(
        rule="tail",
        severity=NOTE,
        title="A few requests took far longer than most",
        evidence=f"The slowest 1 % took {duration(latency['p99'])} or more, "
        f"{number(latency['p99'] / latency['p50'])} times the median of "
        f"{duration(latency['p50'])}.{cause}",
        action="Requests of much differing length make such a tail: bound them with max_tokens, "
        "and let long ones "
        "start first.",
    )


def _rows(server: ServerData) -> Iterator[Advice]:
    failed = sum(_number(batch.get("failed")) for batch in server.batches)
    rows = sum(_number(batch.get("rows")) for batch in server.batches)
    if not failed:
        return
    kinds: dict[str, int] = {}
    for batch in server.batches:
        for failure in batch.get("failures") or ():
            kind = str(failure.get("kind") or "unknown")
            kinds[kind] = kinds.get(kind, 0) + 1
    examples = ", ".join(
        f"{kind} ({times(many)})"
        for kind, many in sorted(kinds.items(), key=lambda one: -one[1])[:3]
    )
    yield Advice(
        rule="failed_rows",
        severity=FAILED,
        title=f"{count(int(failed), 'row')} of a batch failed",
        evidence=f"{share(failed, rows).capitalize()} of {count(int(rows), 'row')}"
        + (f"; the first: {examples}." if examples else "."),
        action="Each failed row is in the result, with its error.",
    )


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


RULES: tuple[Callable[[ServerData], Iterator[Advice]], ...] = (
    _outages,
    _failures,
    _rows,
    _idle,
    _unfilled,
    _cache,
    _repeats,
    _cold_start,
    _queue,
    _tail,
)
