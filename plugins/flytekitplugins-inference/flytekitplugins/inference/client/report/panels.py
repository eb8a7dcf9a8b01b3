"""What a report shows of one server: panels.

Each says the same fact as a sentence, a drawing and a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...facts.wording import duration
from .charts import Bar, Chart, Line
from .data import ServerData
from .snapshots import REST, BatchStats, ClientLatency, LatencySummary, MetricsWindow
from .words import count, number, share

__all__ = ["Panel", "Table", "origin", "panels"]

FEW = 5
"""Fewer values than this are clearer in words than in a drawing."""
POINTS = 140
"""The most values of a drawing over time: more are indistinguishable."""
Number = float | None
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of texts; the first column names the row."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One fact."""

    title: str
    sentence: str
    chart: Chart | None
    table: Table
    note: str = ""
    """How to read the drawing; shown only with it."""


def panels(server: ServerData, rows: int) -> list[Panel]:
    """Return the panels that have numbers.

    Args:
        server: The server.
        rows: How many rows a table of values over time may have.
    """
    return [panel for make in _PANELS for panel in make(server, rows)]


def origin(server: ServerData) -> float:
    """Return where the time axes of a server's drawings begin, in seconds since the epoch."""
    # 0.0: nothing was observed by that source
    moments = [server.clients.began, server.metrics.began if server.metrics else 0.0]
    return min((moment for moment in moments if moment), default=0.0)


def _cold_start(server: ServerData, _: int) -> Iterator[Panel]:
    spans = server.cold_start.spans() if server.cold_start else []
    if server.cold_start is None or not spans:
        return
    total, rest = server.cold_start.seconds, server.cold_start.rest_seconds
    longest = server.cold_start.longest
    outcome = server.cold_start.outcome
    end = "" if outcome in ("ready", "") else f" It ended with {outcome}."
    bars: list[Bar] = [
        {
            "label": _phase(span.name),
            "colour": _phase_colour(span.name),
            "values": [span.began, span.ended],
            "text": duration(span.seconds),
        }
        for span in spans
    ]
    rows = [
        (_phase(span.name), *map(duration, (span.seconds, span.began, span.ended)))
        for span in spans
    ]
    if rest >= 0.5:
        rows.append((_phase(REST), duration(rest), "", ""))
    yield Panel(
        title="Cold start",
        sentence=f"The start took {duration(total)}; its longest part was "
        f"“{_phase(longest.name)}” with {duration(longest.seconds)} "
        f"({share(longest.seconds, total)}).{end}",
        chart={"kind": "timeline", "bars": bars},
        table=Table(
            caption="Parts of the cold start",
            head=("Part", "Took", "From", "To"),
            rows=tuple(rows),
        ),
    )


_PHASES = {
    "loader.resolve": "Resolving the model",
    "loader.wait": "Waiting for another pod",
    "loader.download": "Model download",
    "loader.verify": "Model verification",
    "input_download": "Input download",
    "server_load": "Server load",
    "first_answer": "First answer",
    REST: "Waiting for containers",
}


def _phase(name: str) -> str:
    if name.startswith("loader.adapter."):
        return f"Adapter {name.removeprefix('loader.adapter.')}"
    return _PHASES.get(name, name)


def _phase_colour(name: str) -> str:
    if name.startswith("loader"):
        return "one"
    return "three" if name == "input_download" else "two"


def _requests(server: ServerData, rows: int) -> Iterator[Panel]:
    clients = server.clients
    if not clients.requests:
        return
    lines = _request_rates(server)
    spans = _spans(server)
    away = ""
    if spans and lines:
        parts = "part" if len(spans) == 1 else "parts"
        away = f" The server was away in the shaded {parts}."
    yield Panel(
        title="Requests",
        sentence=f"{count(clients.answered, 'request')} answered, {clients.failed:,} failed and "
        f"{clients.in_flight:,} under way in {duration(clients.seconds)}: "
        f"{number(clients.answered / max(clients.seconds, 1e-9))} per second.{away}",
        chart={"kind": "lines", "lines": lines, "spans": spans, "y_label": "requests per second"}
        if lines
        else None,
        table=_requests_over_time(server, rows),
    )


def _request_rates(server: ServerData) -> list[Line]:
    """Return answers and failures per second; empty if the run is too short for a drawing."""
    timeline = server.clients.timeline
    per = _per(len(timeline.begun), POINTS)
    seconds = timeline.cell_seconds * per
    shift = server.clients.began - origin(server)
    x = [shift + index * seconds for index in range(len(_sums(timeline.begun, per)))]
    if len(x) < FEW:
        return []
    answered = [value / seconds for value in _sums(timeline.answered, per)]
    lines = [_line("answered", "one", x, answered, filled=True)]
    if server.clients.failed:
        failed = [value / seconds for value in _sums(timeline.failed, per)]
        lines.append(_line("failed", "bad", x, failed, dashed=True))
    return lines


def _requests_over_time(server: ServerData, rows: int) -> Table:
    timeline = server.clients.timeline
    per = _per(len(timeline.begun), rows)
    shift = server.clients.began - origin(server)
    columns = (timeline.begun, timeline.answered, timeline.failed)
    counts = zip(*(_sums(column, per) for column in columns), strict=True)
    return Table(
        caption="Requests over time",
        head=("From", "Begun", "Answered", "Failed"),
        rows=tuple(
            (
                duration(shift + index * timeline.cell_seconds * per),
                *(f"{value:,}" for value in values),
            )
            for index, values in enumerate(counts)
        ),
    )


def _load(server: ServerData, rows: int) -> Iterator[Panel]:
    clients = server.clients
    metrics = server.metrics or MetricsWindow()
    lines: list[Line] = []
    facts = []
    if clients.requests:
        lines.append(_sent(server))
        facts.append(
            f"The task had up to {count(clients.most_in_flight, 'request')} under way at once"
        )
    if "requests_running" in metrics.series:
        lines.append(_series(server, "requests_running", "running", "two"))
    if "requests_waiting" in metrics.series:
        lines.append(_series(server, "requests_waiting", "waiting", "three", dashed=True))
    if "requests_running" in metrics.most:
        facts.append(f"the server worked on up to {number(metrics.most['requests_running'])}")
    if "requests_waiting" in metrics.most:
        waiting = metrics.most["requests_waiting"]
        facts.append(f"{f'up to {number(waiting)}' if waiting else 'none'} waited in its queue")
    lines = [line for line in lines if len(line["x"]) >= FEW]
    if not facts:
        return
    sentence = f"{facts[0][0].upper()}{', '.join(facts)[1:]}."
    table = _samples(
        server,
        "Requests in the server",
        rows,
        (("requests_running", "Running", number), ("requests_waiting", "Waiting", number)),
    )
    moments = (("most", f"{clients.most_in_flight:,}"), ("at the end", f"{clients.in_flight:,}"))
    yield Panel(
        title="In flight and queue",
        sentence=sentence,
        chart={"kind": "lines", "lines": lines, "spans": _spans(server), "y_label": "requests"}
        if lines
        else None,
        table=table
        or Table(caption="Requests under way", head=("Moment", "Under way"), rows=moments),
    )


def _sent(server: ServerData) -> Line:
    """Return how many requests the clients had in flight over time."""
    timeline = server.clients.timeline
    counts = timeline.in_flight()
    per = _per(len(counts), POINTS)
    # the highest of a stretch, because its mean would hide a short burst
    values = [max(part) for part in _chunks(counts, per)]
    shift = server.clients.began - origin(server)
    x = [shift + (index + 1) * timeline.cell_seconds * per for index in range(len(values))]
    return _line("sent", "one", x, values)


@dataclass(frozen=True, kw_only=True)
class _LatencyRow:
    """One distribution, all of whose numbers are known."""

    label: str
    observer: str
    colour: str
    count: int
    mean: float
    quantiles: tuple[float, float, float]
    """The median, 95 % and 99 %."""
    extremes: tuple[float, float] | None = None
    """The minimum and the maximum, if they are known."""

    @property
    def median(self) -> float:
        return self.quantiles[0]

    @property
    def bar(self) -> Bar:
        least, most = ([value] for value in self.extremes) if self.extremes else ([], [])
        return {
            "label": f"{self.label}, {self.observer.partition(',')[0]}",
            "colour": self.colour,
            "values": [*least, *self.quantiles, *most],
            "text": "",
        }

    @property
    def texts(self) -> tuple[str, ...]:
        return (
            self.label,
            self.observer,
            f"{self.count:,}",
            *(duration(value) for value in (*self.quantiles, self.mean)),
            duration(self.extremes[1]) if self.extremes else "not reported",
        )


def _latency(server: ServerData, _: int) -> Iterator[Panel]:
    rows = _latency_rows(server)
    if not rows:
        return
    first = rows[0]
    if first.count < FEW:
        sentence = f"{count(first.count, 'answer')}, of {duration(first.median)} in the median."
    else:
        p50, p95, p99 = map(duration, first.quantiles)
        sentence = (
            f"Half of the answers took at most {p50}, 95 % at most {p95}, "
            f"99 % at most {p99}.{_latency_of_parts(rows)}"
        )
    yield Panel(
        title="Latency",
        sentence=sentence,
        chart=None if first.count < FEW else {"kind": "ranges", "bars": [row.bar for row in rows]},
        note="● median  ┃ 95 %  ◆ 99 %. A thin line reaches from the fastest to the slowest. "
        "Logarithmic.",
        table=Table(
            caption="Latency",
            head=("What", "Seen by", "Count", "Median", "95 %", "99 %", "Mean", "Slowest"),
            rows=tuple(row.texts for row in rows),
        ),
    )


def _latency_rows(server: ServerData) -> list[_LatencyRow]:
    """Return the distributions that are known, those of whole answers first."""
    clients = server.clients
    histograms = server.metrics.histograms if server.metrics else {}
    candidates = (
        ("End to end", "task", "one", clients.latency_seconds),
        ("End to end", "server", "two", histograms.get("request_latency")),
        ("First byte", "task, streamed", "one", clients.first_byte_seconds),
        ("First token", "server", "two", histograms.get("time_to_first_token")),
        ("Per token", "server", "two", histograms.get("inter_token_latency")),
        ("Queue", "server", "two", histograms.get("queue_time")),
    )
    rows = (_latency_row(*candidate) for candidate in candidates)
    return [row for row in rows if row is not None]


def _latency_row(
    label: str, observer: str, colour: str, latency: LatencySummary | None
) -> _LatencyRow | None:
    if latency is None or latency.mean is None:
        return None
    if latency.p50 is None or latency.p95 is None or latency.p99 is None:
        return None
    extremes = None
    if isinstance(latency, ClientLatency) and None not in (latency.min, latency.max):
        extremes = (latency.min or 0.0, latency.max or 0.0)
    return _LatencyRow(
        label=label,
        observer=observer,
        colour=colour,
        count=latency.count,
        mean=latency.mean,
        quantiles=(latency.p50, latency.p95, latency.p99),
        extremes=extremes,
    )


def _latency_of_parts(rows: Sequence[_LatencyRow]) -> str:
    """Return what is known of an answer's first part and of each further token, as sentences."""
    first = next((row for row in rows if row.label.startswith("First")), None)
    token = next((row for row in rows if row.label == "Per token"), None)
    begin = ""
    if first is not None:
        begin = f" The first part of an answer came after {duration(first.median)},"
    if token is not None:
        return f"{begin} each further token after {duration(token.median)} (medians)."
    return f"{begin} in the median." if begin else ""


def _tokens(server: ServerData, rows: int) -> Iterator[Panel]:
    metrics = server.metrics or MetricsWindow()
    directions = [
        direction
        for direction in (("generation_tokens", "written", "two"), ("prompt_tokens", "read", "one"))
        if direction[0] in metrics.totals
    ]
    if not directions or not metrics.seconds:
        return
    lines = [
        _series(server, name, label, colour, rate=True, dashed=colour == "one")
        for name, label, colour in directions
    ]
    rates = " and ".join(
        f"{number(metrics.totals[name] / metrics.seconds)} tokens {label}"
        for name, label, _ in directions
    )
    totals = " and ".join(f"{metrics.totals[name]:,.0f} {label}" for name, label, _ in directions)
    yield Panel(
        title="Throughput",
        sentence=f"Per second {rates}: {totals} in {duration(metrics.seconds)}.",
        chart=_chart(lines, server, "tokens per second"),
        table=_samples(
            server,
            "Tokens",
            rows,
            tuple((name, label.capitalize(), number) for name, label, _ in directions),
        )
        or Table(caption="Tokens", head=("", ""), rows=()),
    )


def _cache(server: ServerData, rows: int) -> Iterator[Panel]:
    metrics = server.metrics or MetricsWindow()
    if "kv_cache_usage" not in metrics.most:
        return
    preemptions = metrics.totals.get("preemptions")
    more = "" if preemptions is None else f" {count(int(preemptions), 'request')} preempted."
    table = _samples(
        server, "KV cache", rows, (("kv_cache_usage", "In use", lambda value: share(value, 1)),)
    )
    if table is None:
        return
    chart = _chart(
        [_series(server, "kv_cache_usage", "in use", "two", filled=True)], server, "in use"
    )
    if chart is not None:
        chart["top"] = 1.0
    yield Panel(
        title="KV cache",
        sentence=f"At most {share(metrics.most['kv_cache_usage'], 1)} of the KV cache "
        f"was in use.{more}",
        chart=chart,
        table=table,
    )


def _batches(server: ServerData, rows: int) -> Iterator[Panel]:
    for index, batch in enumerate(server.batches):
        points = batch.concurrency
        tokens = ""
        if batch.tokens_per_second:
            tokens = f", {number(batch.tokens_per_second)} tokens per second"
        yield Panel(
            title="Batch" if len(server.batches) == 1 else f"Batch {index + 1}",
            sentence=f"{count(batch.rows, 'row')} in {duration(batch.duration)}: "
            f"{number(batch.rows_per_second)} rows per second{tokens}. "
            f"{batch.failed:,} failed, {batch.retried:,} requests were retried, "
            f"{batch.resumed:,} rows came from an earlier run.",
            chart={"kind": "lines", "lines": _concurrency(batch), "y_label": "requests"}
            if len(points) > 1
            else None,
            table=Table(
                caption="The batch over time",
                head=("After", "In flight", "Allowed", "Rows per second"),
                rows=tuple(
                    (
                        duration(point.seconds),
                        _text(point.in_flight, number),
                        _text(point.limit, number),
                        _text(point.rows_per_second, number),
                    )
                    for point in points[:: _per(len(points), rows)]
                ),
            ),
        )


def _concurrency(batch: BatchStats) -> list[Line]:
    points = batch.concurrency
    x = [point.seconds for point in points]
    allowed = [point.limit for point in points]
    return [
        _line("in flight", "one", x, [point.in_flight for point in points]),
        _line("allowed", "two", x, allowed, dashed=True, steps=True),
    ]


_PANELS: tuple[Callable[[ServerData, int], Iterator[Panel]], ...] = (
    _requests,
    _latency,
    _load,
    _tokens,
    _cache,
    _cold_start,
    _batches,
)


def _line(
    label: str,
    colour: str,
    x: Sequence[float],
    y: Sequence[Number],
    *,
    dashed: bool = False,
    filled: bool = False,
    steps: bool = False,
) -> Line:
    return {
        "label": label,
        "colour": colour,
        "x": list(x),
        "y": list(y),
        "dashed": dashed,
        "filled": filled,
        "steps": steps,
    }


def _series(
    server: ServerData, name: str, label: str, colour: str, *, rate: bool = False, **style: bool
) -> Line:
    """Return one quantity of the server's metrics over time; a counter as its growth per second."""
    metrics = server.metrics or MetricsWindow()
    shift = metrics.began - origin(server)
    stretches = list(zip(metrics.at, metrics.series["seconds"], metrics.series[name], strict=True))
    if rate:
        stretches = stretches[1:]  # nothing is known of before the first sample
    groups = list(_chunks(stretches, _per(len(stretches), POINTS)))
    x = [shift + group[-1][0] for group in groups]
    y = []
    for group in groups:
        weighted = [
            (value / seconds if rate and seconds else value, seconds or 0.0)
            for _, seconds, value in group
            if value is not None and (seconds or not rate)
        ]
        y.append(_mean(weighted))
    return _line(label, colour, x, y, **style)


def _mean(weighted: Sequence[tuple[float, float]]) -> Number:
    weight = sum(seconds or 1.0 for _, seconds in weighted)
    return (
        sum(value * (seconds or 1.0) for value, seconds in weighted) / weight if weighted else None
    )


def _chart(lines: list[Line], server: ServerData, y_label: str) -> Chart | None:
    """Return a drawing of the lines with two values or more; `None` when there is none."""
    lines = [line for line in lines if sum(value is not None for value in line["y"]) > 1]
    if not lines:
        return None
    return {"kind": "lines", "lines": lines, "spans": _spans(server), "y_label": y_label}


def _samples(
    server: ServerData,
    caption: str,
    rows: int,
    columns: Sequence[tuple[str, str, Callable[[float], str]]],
) -> Table | None:
    """Return quantities of the server's metrics over time; `None` if it reports none of them.

    Args:
        server: The server.
        caption: What they are.
        rows: How many there may be.
        columns: The quantity, its column's head, and how a value is written.
    """
    metrics = server.metrics or MetricsWindow()
    columns = [column for column in columns if column[0] in metrics.series]
    if not columns:
        return None
    shift = metrics.began - origin(server)
    per = _per(len(metrics.at), rows)
    moments = [part[-1] for part in _chunks(metrics.at, per)]
    cells = []
    for name, _, words in columns:
        values = [
            _combined(part, is_counter=name in metrics.totals)
            for part in _chunks(metrics.series[name], per)
        ]
        cells.append([_text(value, words) for value in values])
    return Table(
        caption=f"{caption} over time",
        head=("Until", *(head for _, head, _ in columns)),
        rows=tuple(
            (duration(shift + at), *texts) for at, *texts in zip(moments, *cells, strict=True)
        ),
    )


def _combined(values: Sequence[Number], *, is_counter: bool) -> Number:
    """Return the value of several stretches: the sum of a counter's, the mean of others."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    return sum(numbers) if is_counter else sum(numbers) / len(numbers)


def _text(value: Number, words: Callable[[float], str]) -> str:
    return "not reported" if value is None else words(value)


def _spans(server: ServerData) -> list[tuple[float, float]]:
    """Return when the server was away, in seconds on the time axis."""
    begin = origin(server)
    clients = server.clients
    return [
        (outage.began - begin, (outage.ended or clients.ended) - begin)
        for outage in clients.outages
    ]


def _per(cells: int, most: int) -> int:
    """Return how many cells become one, so that there are at most so many."""
    return max(1, -(-cells // most))


def _chunks(values: Sequence[T], per: int) -> Iterator[Sequence[T]]:
    return (values[index : index + per] for index in range(0, len(values), per))


def _sums(values: Sequence[int], per: int) -> list[int]:
    return [sum(part) for part in _chunks(values, per)]
