"""What a report shows of one server: panels, each with the same fact as a sentence, a drawing and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...facts.wording import duration
from .charts import Bar, Chart, Line
from .data import ServerData, in_flight, phases
from .words import count, number, share

__all__ = ["Panel", "Table", "origin", "panels"]

FEW = 5
"""Values that say more in words than in a drawing."""
POINTS = 140
"""In a drawing of values over time: more cannot be told apart."""
Number = float | None


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
    """Return the panels for which there are numbers.

    Args:
        server: The server.
        rows: How many rows a table of values over time may have.
    """
    return [panel for make in _PANELS for panel in make(server, rows)]


def origin(server: ServerData) -> float:
    """Return where the time axes of a server's drawings begin, in seconds since the epoch."""
    known = [
        part["began"] for part in (server.clients, server.metrics) if part and part.get("began")
    ]
    return min(known, default=0.0)


def _cold_start(server: ServerData, _: int) -> Iterator[Panel]:
    parts = phases(server.cold_start)
    if not parts:
        return
    total = max(part.ended for part in parts)
    longest = max(parts, key=lambda part: part.seconds)
    outcome = str((server.cold_start or {}).get("outcome", ""))
    end = "" if outcome == "ready" else f" It ended with {outcome}."
    bars: list[Bar] = [
        {"label": _phase(part.name), "colour": _phase_colour(part.name), "values": [part.began, part.ended],
         "text": duration(part.seconds)}
        for part in parts
    ]  # fmt: skip
    yield Panel(
        title="Cold start",
        sentence=f"The start took {duration(total)}; its longest part was "
        f"“{_phase(longest.name)}” with "
        f"{duration(longest.seconds)} ({share(longest.seconds, total)}).{end}",
        chart={"kind": "timeline", "bars": bars},
        table=Table(
            caption="Parts of the cold start",
            head=("Part", "Took", "From", "To"),
            rows=tuple(
                (
                    _phase(part.name),
                    duration(part.seconds),
                    duration(part.began),
                    duration(part.ended),
                )
                for part in parts
            ),
        ),
    )


_PHASES = {
    "loader.resolve": "Resolving the model",
    "loader.wait": "Wait for other pod",
    "loader.download": "Model download",
    "loader.verify": "Model verification",
    "input_download": "Input download",
    "server_load": "Server load",
    "first_answer": "First answer",
}


def _phase(name: str) -> str:
    if name.startswith("loader.adapter."):
        return f"Adapter {name.removeprefix('loader.adapter.')}"
    return _PHASES.get(name, name)


def _phase_colour(name: str) -> str:
    return "one" if name.startswith("loader") else "three" if name == "input_download" else "two"


def _requests(server: ServerData, rows: int) -> Iterator[Panel]:
    clients = server.clients
    if not clients.get("requests"):
        return
    timeline = clients["timeline"]
    width = timeline["cell_seconds"]
    shift = clients["began"] - origin(server)
    cells = range(len(timeline["begun"]))
    per = _per(len(cells), POINTS)
    x = [shift + index * width * per for index in range(len(_sums(timeline["begun"], per)))]
    rate = 1 / (width * per)
    lines: list[Line] = [
        _line(
            "answered",
            "one",
            x,
            [value * rate for value in _sums(timeline["answered"], per)],
            filled=True,
        )
    ]
    if clients["failed"]:
        lines.append(
            _line(
                "failed",
                "bad",
                x,
                [value * rate for value in _sums(timeline["failed"], per)],
                dashed=True,
            )
        )
    if len(x) < FEW:
        lines = []
    seconds = clients["seconds"]
    spans = _spans(server)
    away = (
        f" The server was away in the shaded {'part' if len(spans) == 1 else 'parts'}."
        if spans and lines
        else ""
    )
    per = _per(len(cells), rows)
    yield Panel(
        title="Requests",
        sentence=f"{count(clients['answered'], 'request')} answered, {clients['failed']:,} failed "
        "and "
        f"{clients['in_flight']:,} under way in {duration(seconds)}: "
        f"{number(clients['answered'] / max(seconds, 1e-9))} per second.{away}",
        chart={"kind": "lines", "lines": lines, "spans": spans, "y_label": "requests per second"}
        if lines
        else None,
        table=Table(
            caption="Requests over time",
            head=("From", "Begun", "Answered", "Failed"),
            rows=tuple(
                (
                    duration(shift + index * width * per),
                    f"{begun:,}",
                    f"{answered:,}",
                    f"{failed:,}",
                )
                for index, (begun, answered, failed) in enumerate(
                    zip(
                        *(_sums(timeline[name], per) for name in ("begun", "answered", "failed")),
                        strict=True,
                    )
                )
            ),
        ),
    )


def _load(server: ServerData, rows: int) -> Iterator[Panel]:
    clients, metrics = server.clients, server.metrics or {}
    series = metrics.get("series", {})
    begin = origin(server)
    lines: list[Line] = []
    facts = []
    if clients.get("requests"):
        counts = in_flight(clients)
        width = clients["timeline"]["cell_seconds"]
        per = _per(len(counts), POINTS)
        values = [max(part) for part in _chunks(counts, per)]
        x = [clients["began"] - begin + (index + 1) * width * per for index in range(len(values))]
        lines.append(_line("sent", "one", x, values))
        facts.append(
            f"The task had up to {count(clients['most_in_flight'], 'request')} under way at once"
        )
    for name, label, colour in (
        ("requests_running", "running", "two"),
        ("requests_waiting", "waiting", "three"),
    ):
        if name in series:
            lines.append(_series(server, name, label, colour, dashed=colour == "three"))
    most = metrics.get("most", {})
    if "requests_running" in most:
        facts.append(f"the server worked on up to {number(most['requests_running'])}")
    if "requests_waiting" in most:
        waiting = most["requests_waiting"]
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
    if table is None:
        table = Table(
            caption="Requests under way",
            head=("Moment", "Under way"),
            rows=(
                ("most", f"{clients.get('most_in_flight', 0):,}"),
                ("at the end", f"{clients.get('in_flight', 0):,}"),
            ),
        )
    yield Panel(
        title="In flight and queue",
        sentence=sentence,
        chart={"kind": "lines", "lines": lines, "spans": _spans(server), "y_label": "requests"}
        if lines
        else None,
        table=table,
    )


def _latency(server: ServerData, _: int) -> Iterator[Panel]:
    clients = server.clients
    histograms = (server.metrics or {}).get("histograms", {})
    rows = [
        ("End to end", "task", clients.get("latency_seconds", {}), "one"),
        ("End to end", "server", histograms.get("request_latency", {}), "two"),
        ("First byte", "task, streamed", clients.get("first_byte_seconds", {}), "one"),
        ("First token", "server", histograms.get("time_to_first_token", {}), "two"),
        ("Per token", "server", histograms.get("inter_token_latency", {}), "two"),
        ("Queue", "server", histograms.get("queue_time", {}), "two"),
    ]
    known = [row for row in rows if row[2].get("count")]
    if not known:
        return
    bars: list[Bar] = []
    for label, who, numbers, colour in known:
        inner = [numbers["p50"], numbers["p95"], numbers["p99"]]
        values = [numbers["min"], *inner, numbers["max"]] if "max" in numbers else inner
        bars.append(
            {
                "label": f"{label}, {who.partition(',')[0]}",
                "colour": colour,
                "values": values,
                "text": "",
            }
        )
    label, who, numbers, _colour = known[0]
    first = next((row for row in known if row[0].startswith("First")), None)
    token = next((row for row in known if row[0] == "Per token"), None)
    more = f" The first part of an answer came after {duration(first[2]['p50'])}," if first else ""
    more += (
        f" each further token after {duration(token[2]['p50'])} (medians)."
        if token
        else " in the median."
        if first
        else ""
    )
    is_few = numbers["count"] < FEW
    sentence = (
        f"{count(numbers['count'], 'answer')}, of {duration(numbers['p50'])} in the median."
        if is_few
        else f"Half of the answers took at most {duration(numbers['p50'])}, 95 % at most "
        f"{duration(numbers['p95'])}, "
        f"99 % at most {duration(numbers['p99'])}.{more}"
    )
    yield Panel(
        title="Latency",
        sentence=sentence,
        chart=None if is_few else {"kind": "ranges", "bars": bars},
        note="● median  ┃ 95 %  ◆ 99 %. A thin line reaches from the fastest to the slowest. "
        "Logarithmic.",
        table=Table(
            caption="Latency",
            head=("What", "Seen by", "Count", "Median", "95 %", "99 %", "Mean", "Slowest"),
            rows=tuple(
                (
                    label,
                    who,
                    f"{numbers['count']:,}",
                    *(duration(numbers[key]) for key in ("p50", "p95", "p99", "mean")),
                    duration(numbers["max"]) if "max" in numbers else "not told",
                )
                for label, who, numbers, _colour in known
            ),
        ),
    )


def _tokens(server: ServerData, rows: int) -> Iterator[Panel]:
    metrics = server.metrics or {}
    totals = metrics.get("totals", {})
    seconds = metrics.get("seconds", 0.0)
    told = [
        (name, label, colour)
        for name, label, colour in (
            ("generation_tokens", "written", "two"),
            ("prompt_tokens", "read", "one"),
        )
        if name in totals
    ]
    if not told or not seconds:
        return
    lines = [
        _series(server, name, label, colour, rate=True, dashed=colour == "one")
        for name, label, colour in told
    ]
    parts = [f"{number(totals[name] / seconds)} tokens {label}" for name, label, _ in told]
    yield Panel(
        title="Throughput",
        sentence=f"Per second {' and '.join(parts)}: "
        f"{' and '.join(f'{totals[name]:,.0f} {label}' for name, label, _ in told)} in "
        f"{duration(seconds)}.",
        chart=_chart(lines, server, "tokens per second"),
        table=_samples(
            server,
            "Tokens",
            rows,
            tuple((name, label.capitalize(), number) for name, label, _ in told),
        )
        or Table(caption="Tokens", head=("", ""), rows=()),
    )


def _cache(server: ServerData, rows: int) -> Iterator[Panel]:
    metrics = server.metrics or {}
    if "kv_cache_usage" not in metrics.get("most", {}):
        return
    preemptions = metrics["totals"].get("preemptions")
    told = "" if preemptions is None else f" {count(int(preemptions), 'request')} preempted."
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
        sentence=f"At most {share(metrics['most']['kv_cache_usage'], 1)} of the KV cache was in "
        f"use.{told}",
        chart=chart,
        table=table,
    )


def _batches(server: ServerData, rows: int) -> Iterator[Panel]:
    for index, batch in enumerate(server.batches):
        points = [
            point
            for point in batch.get("concurrency") or ()
            if isinstance(point.get("seconds"), int | float)
        ]
        x = [point["seconds"] for point in points]
        lines = [
            _line("in flight", "one", x, [point.get("in_flight") for point in points]),
            _line(
                "allowed",
                "two",
                x,
                [point.get("limit") for point in points],
                dashed=True,
                steps=True,
            ),
        ]
        done = batch.get("rows", 0)
        rate = batch.get("rows_per_second", 0)
        tokens = batch.get("tokens_per_second")
        told = f", {number(tokens)} tokens per second" if tokens else ""
        step = _per(len(points), rows)
        yield Panel(
            title="Batch" if len(server.batches) == 1 else f"Batch {index + 1}",
            sentence=f"{count(int(done), 'row')} in {duration(batch.get('duration', 0))}: "
            f"{number(rate)} rows per "
            f"second{told}. {batch.get('failed', 0):,} failed, {batch.get('retried', 0):,} "
            "requests were made again, "
            f"{batch.get('resumed', 0):,} rows came from an earlier run.",
            chart={"kind": "lines", "lines": lines, "y_label": "requests"}
            if len(points) > 1
            else None,
            table=Table(
                caption="The batch over time",
                head=("After", "In flight", "Allowed", "Rows per second"),
                rows=tuple(
                    (
                        duration(point["seconds"]),
                        *(
                            _told(point.get(key), number)
                            for key in ("in_flight", "limit", "rows_per_second")
                        ),
                    )
                    for point in points[::step]
                ),
            ),
        )


_PANELS: tuple[Callable[[ServerData, int], Iterator[Panel]], ...] = (
    _requests,
    _latency,
    _load,
    _tokens,
    _cache,
    _cold_start,
    _batches,
)


def _line(label: str, colour: str, x: Sequence[float], y: Sequence[Number], **more: bool) -> Line:
    line: Line = {"label": label, "colour": colour, "x": list(x), "y": list(y)}
    line.update(more)  # type: ignore[typeddict-item]
    return line


def _series(
    server: ServerData, name: str, label: str, colour: str, *, rate: bool = False, **more: bool
) -> Line:
    """Return one quantity of the server's metrics over time; a counter as its growth per second."""
    metrics = server.metrics or {}
    series = metrics["series"]
    shift = metrics["began"] - origin(server)
    parts = list(zip(series["at"], series["seconds"], series[name], strict=True))
    if rate:
        parts = parts[1:]  # nothing is known of before the first sample
    grouped = list(_chunks(parts, _per(len(parts), POINTS)))
    x = [shift + group[-1][0] for group in grouped]
    y = []
    for group in grouped:
        known = [
            (value, seconds)
            for _, seconds, value in group
            if value is not None and (seconds > 0 or not rate)
        ]
        y.append(_mean([(value / seconds if rate else value, seconds) for value, seconds in known]))
    return _line(label, colour, x, y, **more)


def _mean(weighted: Sequence[tuple[float, float]]) -> Number:
    weight = sum(seconds or 1.0 for _, seconds in weighted)
    return (
        sum(value * (seconds or 1.0) for value, seconds in weighted) / weight if weighted else None
    )


def _chart(lines: list[Line], server: ServerData, y_label: str) -> Chart | None:
    drawn = [line for line in lines if sum(value is not None for value in line["y"]) > 1]
    return (
        {"kind": "lines", "lines": drawn, "spans": _spans(server), "y_label": y_label}
        if drawn
        else None
    )


def _samples(
    server: ServerData,
    caption: str,
    rows: int,
    columns: Sequence[tuple[str, str, Callable[[float], str]]],
) -> Table | None:
    """Return quantities of the server's metrics over time as a table; `None` when it tells none of them."""
    metrics = server.metrics or {}
    series = metrics.get("series", {})
    told = [column for column in columns if column[0] in series]
    if not told:
        return None
    shift = metrics["began"] - origin(server)
    per = _per(len(series["at"]), rows)
    moments = [part[-1] for part in _chunks(series["at"], per)]
    counters = set(metrics.get("totals", {}))
    cells = []
    for name, _label, words in told:
        parts = [
            [value for value in part if value is not None] for part in _chunks(series[name], per)
        ]
        sums = [
            (sum(part) if name in counters else sum(part) / len(part)) if part else None
            for part in parts
        ]
        cells.append([_told(value, words) for value in sums])
    return Table(
        caption=f"{caption} over time",
        head=("Until", *(label for _, label, _ in told)),
        rows=tuple(
            (duration(shift + at), *texts) for at, *texts in zip(moments, *cells, strict=True)
        ),
    )


def _told(value: Any, words: Callable[[float], str]) -> str:
    return words(value) if isinstance(value, int | float) else "not told"


def _spans(server: ServerData) -> list[tuple[float, float]]:
    clients = server.clients
    begin = origin(server)
    end = clients.get("began", 0) + clients.get("seconds", 0)
    return [
        (one["began"] - begin, (one["ended"] or end) - begin) for one in clients.get("outages", ())
    ]


def _per(cells: int, most: int) -> int:
    """Return how many cells become one, so that there are at most so many."""
    return max(1, -(-cells // most))


def _chunks(values: Sequence[Any], per: int) -> Iterator[Sequence[Any]]:
    return (values[index : index + per] for index in range(0, len(values), per))


def _sums(values: Sequence[int], per: int) -> list[int]:
    return [sum(part) for part in _chunks(values, per)]
