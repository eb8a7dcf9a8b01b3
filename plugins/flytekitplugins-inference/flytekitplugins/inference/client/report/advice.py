"""Rules that give advice, each one only if the numbers support it.

A rule reads `ServerData` and yields its advice together with the evidence. It yields nothing if the
numbers are too few or unknown: a quantity that a server does not report is not zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from ...facts.wording import duration
from .data import Advice, ServerData, idle_time, most_in_flight, request_count
from .snapshots import REST, MetricsWindow
from .words import count, number, share, times

__all__ = ["RULES", "advise"]

ENOUGH_SECONDS = 30.0
"""A shorter run says little about how a server is used."""
ENOUGH_REQUESTS = 20
IDLE_SHARE = 0.3
QUEUE_SHARE = 0.5
CACHE_SHARE = 0.2
LONG_QUEUE = 0.5
"""A share of the running requests: a shorter queue only keeps the server busy."""
SLOW_START_SECONDS = 60.0
"""A faster start is not worth a change."""
START_SHARE = 0.5
"""The share of a start from which a phase counts as its bottleneck."""
TAIL = 5.0
"""The ratio of the 99th percentile to the median from which the tail is worth a remark."""
REPEAT_SHARE = 0.02

FAILED = 3
COSTLY = 2
NOTE = 1


def advise(server: ServerData) -> list[Advice]:
    """Return what to change about one server and its use, the most urgent first."""
    advice = [one for rule in RULES for one in rule(server)]
    # stable: of equal severity, the order of the rules decides
    return sorted(advice, key=lambda one: -one.severity)


def _failures(server: ServerData) -> Iterator[Advice]:
    clients = server.clients
    if not clients.failed or not clients.errors:
        return
    kind, occurrences = max(clients.errors.items(), key=lambda item: item[1])
    action = _ACTIONS.get(kind, "The examples below and the log of the model server tell more.")
    yield Advice(
        rule="failures",
        severity=FAILED,
        title=f"{count(clients.failed, 'request')} failed",
        evidence=f"{share(clients.failed, clients.requests).capitalize()} of "
        f"{count(clients.requests, 'request')}; most often {kind} ({times(occurrences)}).",
        action=action,
    )


_ACTIONS = {
    "status 400": "The server refuses what is sent: check the prompt's length against "
    "max_model_len, and the options.",
    "status 401": "Give the key of the server: api_key=.",
    "status 403": "Give the key of the server: api_key=.",
    "status 404": "Ask for a model that the server has; endpoint.served_model_name() is its name.",
    "status 422": "The server refuses what is sent: the model's input names, shapes or types "
    "differ.",
    "status 429": "Send fewer requests at once; batch() finds by itself how many the server takes.",
    "status 503": "Send fewer requests at once; batch() finds by itself how many the server takes.",
    "status 500": "The log of the model server has the traceback.",
    "ServerNotReadyError": "Raise timeout= if requests may take longer; outage_seconds= if the "
    "server needs longer to come back.",
    "ServerExitedError": "The server ended while it was answering. Exit code 137 means that its "
    "memory limit (mem=) is too low; see the pod's status and the log of the model server.",
}


def _outages(server: ServerData) -> Iterator[Advice]:
    clients = server.clients
    if not clients.outage_count:
        return
    away = sum((outage.ended or clients.ended) - outage.began for outage in clients.outages)
    is_away = any(outage.ended is None for outage in clients.outages)
    end = " and did not come back" if is_away else ""
    yield Advice(
        rule="outages",
        severity=FAILED,
        title=f"The server went away {times(clients.outage_count)}{end}",
        evidence=f"It did not answer for {duration(away)} of {duration(clients.seconds)}.",
        action="The pod's status names the exit code of the container model-server. 137 (out of "
        "memory): raise mem=, or lower what the server keeps (max_model_len, max_num_seqs). Any "
        "other code: read its log.",
    )


def _cold_start(server: ServerData) -> Iterator[Advice]:
    if server.cold_start is None or server.cold_start.seconds < SLOW_START_SECONDS:
        return
    total = server.cold_start.seconds
    longest = server.cold_start.longest
    if longest.seconds < START_SHARE * total:
        return
    causes = (cause for cause in _STARTS if longest.name.startswith(cause[0]))
    for _, name, action in list(causes)[:1]:
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
        "Keep it on a volume that outlives the pod (model_cache=), where the next pod finds it.",
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
        "compilation (enforce_eager) starts sooner and answers more slowly.",
    ),
    (
        REST,
        "waiting for the pod's containers",
        "The pod's events (kubectl describe pod) say for what: a node, an image or a volume. Keep "
        "large images on the nodes, and ask for fewer resources if no node had room.",
    ),
)
"""The start of a phase's name, its meaning, and how to shorten it; the first match counts."""


def _idle(server: ServerData) -> Iterator[Advice]:
    idle = idle_time(server)
    if idle is None or idle.observed < ENOUGH_SECONDS or request_count(server) < ENOUGH_REQUESTS:
        return
    if idle.seconds < IDLE_SHARE * idle.observed:
        return
    evidence, action = _cause_of_idleness(server)
    yield Advice(
        rule="idle",
        severity=COSTLY,
        title=f"The server was idle {share(idle.seconds, idle.observed)} of the time",
        evidence=f"{duration(idle.seconds)} of {duration(idle.observed)}, by {idle.source}. "
        f"{evidence}",
        action=action,
    )


def _cause_of_idleness(server: ServerData) -> tuple[str, str]:
    """Return the evidence for why a server was idle, and what to do about it."""
    most = most_in_flight(server)
    if most <= 2:
        return (
            f"At most {count(most, 'request')} {'was' if most == 1 else 'were'} under way "
            "at a time.",
            "Send more at once: batch(max_concurrency=…), or the async client.",
        )
    limit = _ceiling(server)
    if limit is not None:
        return (
            f"Up to {count(most, 'request')} were under way, the most that "
            f"max_concurrency={limit} allows.",
            "Raise max_concurrency, and give the next requests while earlier ones are being "
            "answered.",
        )
    return (
        f"While there was work, up to {count(most, 'request')} were under way at a time.",
        "Prepare the next inputs while earlier ones are being answered (batch() reads them as "
        "it goes), and do what needs no server in a task of its own, which holds no GPU.",
    )


def _ceiling(server: ServerData) -> int | None:
    """Return `max_concurrency` of a batch that spent most of its time there, or `None`."""
    for batch in server.batches:
        limit = batch.max_concurrency
        points = [point for point in batch.concurrency if limit and (point.limit or 0) >= limit]
        if len(points) > len(batch.concurrency) / 2:
            return limit
    return None


def _unfilled(server: ServerData) -> Iterator[Advice]:
    limit = _ceiling(server)
    metrics = server.metrics
    if limit is None or metrics is None or "requests_waiting" not in metrics.most:
        return
    seconds = metrics.times
    if seconds.seen < ENOUGH_SECONDS or seconds.waiting > 0.05 * seconds.seen:
        return
    if seconds.idle >= IDLE_SHARE * seconds.seen:
        return  # `_idle` covers this
    yield Advice(
        rule="concurrency_ceiling",
        severity=COSTLY,
        title=f"The batch was held back by max_concurrency={limit}",
        evidence="Most of the time it sent as many requests as it may, and the server had a "
        f"queue for {share(seconds.waiting, seconds.seen)} of it.",
        action="Raise max_concurrency, or leave it out: the batch finds the server's limit by "
        "itself.",
    )


def _queue(server: ServerData) -> Iterator[Advice]:
    metrics = server.metrics or MetricsWindow()
    seconds = metrics.times
    if seconds.seen < ENOUGH_SECONDS or seconds.waiting < QUEUE_SHARE * seconds.seen:
        return
    if seconds.idle >= IDLE_SHARE * seconds.seen:
        return  # the load is uneven: `_idle` covers this
    longest = metrics.most["requests_waiting"]
    if longest < LONG_QUEUE * metrics.most["requests_running"]:
        return
    evidence = (
        f"Requests waited in its queue {share(seconds.waiting, seconds.seen)} of the time, "
        f"up to {number(longest)} at once"
    )
    wait = metrics.histograms.get("queue_time")
    if wait is not None and wait.p50 is not None:
        evidence += f", for {duration(wait.p50)} (median) before work on them began."
    else:
        evidence += "."
    yield Advice(
        rule="queue",
        severity=NOTE,
        title="The server had more requests than it could work on",
        evidence=evidence,
        action="It is fully used; that costs latency, not throughput. For shorter waits send fewer "
        "at once (max_concurrency=); for more throughput use more GPUs, or a map task over several "
        "pods.",
    )


def _cache(server: ServerData) -> Iterator[Advice]:
    metrics = server.metrics or MetricsWindow()
    preemptions = metrics.totals.get("preemptions", 0)
    full = metrics.times.cache_full
    if not preemptions or not full or full < CACHE_SHARE * metrics.times.seen:
        return
    yield Advice(
        rule="kv_cache",
        severity=COSTLY,
        title="The KV cache was full, and requests were recomputed",
        evidence=f"It was above 90 % for {share(full, metrics.times.seen)} of the time, and "
        f"requests were preempted {times(int(preemptions))}.",
        action="Lower max_num_seqs or max_model_len, raise gpu_memory_utilization, or take a GPU "
        "with more memory.",
    )


def _repeats(server: ServerData) -> Iterator[Advice]:
    clients = server.clients
    busy = sum(clients.repeats.get(status, 0) for status in ("429", "502", "503"))
    if clients.requests < ENOUGH_REQUESTS or busy < REPEAT_SHARE * clients.requests or not busy:
        return
    reasons = sorted(clients.repeats.items(), key=lambda item: -item[1])
    kinds = ", ".join(f"{reason} {times(occurrences)}" for reason, occurrences in reasons)
    yield Advice(
        rule="busy_answers",
        severity=COSTLY,
        title=f"{count(busy, 'request')} found the server busy and had to wait",
        evidence=f"{kinds}, for {count(clients.requests, 'request')}; each waits before it is "
        "sent again.",
        action="Send fewer at once: batch() lowers its concurrency by itself; limit other code "
        "with a semaphore.",
    )


def _tail(server: ServerData) -> Iterator[Advice]:
    latency = server.clients.latency_seconds
    if latency.p50 is None or latency.p99 is None or latency.count < 5 * ENOUGH_REQUESTS:
        return
    if latency.p99 < TAIL * latency.p50 or latency.p99 < 1:
        return
    reasons = []
    if server.clients.outage_count:
        reasons.append("the server's outages")
    if server.clients.repeats:
        reasons.append("retried requests")
    if server.metrics and server.metrics.times.waiting:
        reasons.append("the server's queue")
    cause = f" Part of it: {_enumerated(reasons)}." if reasons else ""
    yield Advice(
        rule="tail",
        severity=NOTE,
        title="A few requests took far longer than most",
        evidence=f"The slowest 1 % took {duration(latency.p99)} or more, "
        f"{number(latency.p99 / latency.p50)} times the median of "
        f"{duration(latency.p50)}.{cause}",
        action="If the lengths of the requests differ much, bound them with max_tokens, and start "
        "the long ones first.",
    )


def _rows(server: ServerData) -> Iterator[Advice]:
    failed = sum(batch.failed for batch in server.batches)
    rows = sum(batch.rows for batch in server.batches)
    if not failed:
        return
    kinds = Counter(
        failure.kind or "unknown" for batch in server.batches for failure in batch.failures
    )
    examples = ", ".join(
        f"{kind} ({times(occurrences)})" for kind, occurrences in kinds.most_common(3)
    )
    end = f"; the first: {examples}." if examples else "."
    yield Advice(
        rule="failed_rows",
        severity=FAILED,
        title=f"{count(failed, 'row')} of a batch failed",
        evidence=f"{share(failed, rows).capitalize()} of {count(rows, 'row')}{end}",
        action="Each failed row is in the result, with its error.",
    )


def _enumerated(words: list[str]) -> str:
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
