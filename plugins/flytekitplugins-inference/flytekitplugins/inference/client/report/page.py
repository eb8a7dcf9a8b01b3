"""The page: what happened, in the order in which somebody asks.

The first screen answers four questions: was it fast, was the server busy, what failed, what should
change. It is read without a script; values behind a drawing are in a table behind `<details>`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...distribution import install_command
from ...facts.wording import duration
from .. import record
from . import charts
from .data import Advice, ReportData, ServerData, idle
from .markup import Html, clipped, element, join
from .panels import Panel, Table, origin, panels
from .style import BODY_STYLE, STYLE
from .words import clock, count, number, share, times

__all__ = ["MAX_BYTES", "document", "fragment"]

MAX_BYTES = 2**20 - 4096
"""Of the page: the Flyte console loads a Deck as a whole. The rest of the MiB is for what stands
around it."""
MAX_SERVERS = 16
DRAWN_SERVERS = 4
"""The drawings of one take about 150 KiB; the others have their tables."""
Drawing = dict[str, str]

_el = element


def document(content: str) -> str:
    """Return a page around a fragment."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<title>Inference report</title>\n'
        f"<style>{BODY_STYLE}</style>\n</head>\n"
        f"<body>\n{content}\n</body>\n</html>\n"
    )


def fragment(data: ReportData) -> str:
    """Return the report as HTML that brings its own style and fits into any page, below 1 MiB."""
    drawn, missing = _drawn(
        [panel for server in data.servers[:DRAWN_SERVERS] for panel in panels(server, 1)]
    )
    for rows in (60, 20, 4):
        page = _page(data, rows, drawn, missing)
        if len(page.encode()) <= MAX_BYTES:
            return page
    return _page(
        data, 4, [], "The drawings are left out, as the page would have been larger than 1 MiB."
    )


def _page(data: ReportData, rows: int, drawn: Sequence[Drawing | None], missing: str) -> Html:
    servers = data.servers[:MAX_SERVERS]
    drawings, sections = iter(drawn), []
    for index, server in enumerate(servers):
        shown = panels(server, rows)
        sections.append(
            _server(
                server, [(panel, next(drawings, None)) for panel in shown], index, len(servers) == 1
            )
        )
    left = len(data.servers) - len(servers)
    more = (
        [_el("p", f"{count(left, 'more server')} in the numbers beside this page.", class_="note")]
        if left
        else []
    )
    return _el(
        "div",
        Html(f"<style>{STYLE}</style>"),
        _el("main", _header(data), *sections, *more, _footer(data, missing)),
        class_="inference-report",
        lang="en",
    )


def _drawn(shown: list[Panel]) -> tuple[list[Drawing | None], str]:
    """Return the drawings of panels, and why there are none."""
    wanted = [panel.chart for panel in shown if panel.chart is not None]
    if not wanted:
        return [], ""
    if not charts.is_available():
        return [], f"Drawings need matplotlib in the task's image: {install_command('report')}"
    drawings = charts.draw(wanted)
    if drawings is None:
        return [], "The drawings could not be made; the task's log tells why."
    made = iter(drawings)
    return [next(made) if panel.chart is not None else None for panel in shown], ""


def _header(data: ReportData) -> Html:
    if data.running:
        state = _el("span", f"Running, as of {clock(data.made)}", class_="state running")
    elif data.error:
        state = _el("span", "The task failed", class_="state failed")
    else:
        state = _el("span", f"Finished, {clock(data.made)}", class_="state")
    error = (
        [_el("p", f"The function raised {clipped(data.error)}", class_="error")]
        if data.error
        else []
    )
    return _el("header", _el("h1", "Inference report"), state, *error)


def _server(
    server: ServerData, shown: list[tuple[Panel, Drawing | None]], index: int, is_single: bool
) -> Html:
    title = (
        []
        if is_single
        else [_el("h2", server.name or str(server.about.get("url", "server")), class_="server")]
    )
    level = "h2" if is_single else "h3"
    figures = [
        _figure(panel, drawing, f"s{index}p{place}", level)
        for place, (panel, drawing) in enumerate(shown)
    ]
    parts = [
        *title,
        _subtitle(server),
        _answers(server),
        *_advice(server, level),
        *([_el("div", *figures, class_="figures")] if figures else []),
        *_failures(server, level),
        *_outages(server, level),
        _details(server, level),
    ]
    return _el("section", *parts, aria_label=None if is_single else server.name or "server")


def _subtitle(server: ServerData) -> Html:
    about = server.about
    gpus = about.get("gpus")
    words = [
        str(about.get("kind", "")),
        str(about.get("model", "")),
        (count(gpus, "GPU") if gpus else "no GPU") if isinstance(gpus, int) else "",
        f"start {duration(server.cold_start['total_seconds'])}"
        if server.cold_start and isinstance(server.cold_start.get("total_seconds"), int | float)
        else "",
    ]
    return _el(
        "p",
        " · ".join(clipped(word, 120) for word in words if word) or str(about.get("url")),
        class_="subtitle",
    )


# The first screen


def _answers(server: ServerData) -> Html:
    cards = (_speed(server), _busy(server), _failed(server), _change(server))
    return _el(
        "dl",
        *(
            _el(
                "div",
                _el("dt", asked),
                _el("dd", _el("strong", answer), _el("span", more)),
                class_=f"card {mood}",
            )
            for asked, answer, more, mood in cards
        ),
        class_="answers",
    )


def _speed(server: ServerData) -> tuple[str, str, str, str]:
    asked = "Was it fast?"
    clients = server.clients
    latency = clients.get("latency_seconds", {})
    if not latency.get("count") and server.batches:
        batch = server.batches[-1]
        rows, tokens = (_known(batch.get(key)) for key in ("rows_per_second", "tokens_per_second"))
        more = (
            f"The last batch: {_known(batch.get('rows')):,.0f} rows in "
            f"{duration(_known(batch.get('duration')))}"
        )
        return (
            asked,
            f"{number(rows)} rows per s",
            more + (f", {number(tokens)} tokens per second." if tokens else "."),
            "",
        )
    if not latency.get("count"):
        return asked, "No answer yet", "Nothing was answered, so nothing is known.", "unknown"
    metrics = server.metrics or {}
    tokens = metrics.get("totals", {}).get("generation_tokens")
    rate = f"{number(clients['answered'] / max(clients['seconds'], 1e-9))} answers per second"
    if tokens and metrics["seconds"]:
        rate += f", {number(tokens / metrics['seconds'])} tokens per second written"
    return (
        asked,
        f"{duration(latency['p50'])} median",
        f"99 % within {duration(latency['p99'])}; {rate}.",
        "",
    )


def _busy(server: ServerData) -> tuple[str, str, str, str]:
    asked = "Was the server busy?"
    known = idle(server)
    if known is None:
        return asked, "Not known", "It was asked nothing, or not for long enough.", "unknown"
    quiet, seen, who = known
    source = "by its own metrics" if who == "server" else "by what the clients sent"
    mood = "warn" if quiet > 0.3 * seen and seen >= 30 else ""
    return (
        asked,
        f"{share(seen - quiet, seen)} of the time",
        f"Idle {duration(quiet)} of {duration(seen)}, {source}.",
        mood,
    )


def _failed(server: ServerData) -> tuple[str, str, str, str]:
    asked = "What failed?"
    clients = server.clients
    failed = clients.get("failed", 0)
    away = clients.get("outage_count", 0)
    if not clients.get("requests") and server.batches:
        rows, lost = (
            sum(_known(batch.get(key)) for batch in server.batches) for key in ("rows", "failed")
        )
        if not lost:
            return asked, "Nothing", f"{count(int(rows), 'row')} of batches.", "good"
        return (
            asked,
            count(int(lost), "row"),
            f"{share(lost, rows)} of {rows:,.0f} of batches.",
            "bad",
        )
    if not clients.get("requests"):
        return asked, "Nothing asked", "No client of this task sent a request.", "unknown"
    repeats = sum(clients.get("repeats", {}).values())
    retold = f"{count(repeats, 'repetition')}; " if repeats else ""
    outages = f"the server went away {times(away)}." if away else "the server was always there."
    if not failed:
        return (
            asked,
            "Nothing",
            f"{count(clients['requests'], 'request')}; {retold}{outages}",
            "warn" if away else "good",
        )
    answer = count(failed, "request")
    return (
        asked,
        answer,
        f"{share(failed, clients['requests'])} of {clients['requests']:,}; {retold}{outages}",
        "bad",
    )


def _known(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _change(server: ServerData) -> tuple[str, str, str, str]:
    asked = "What should change?"
    if not server.advice:
        seen = idle(server)
        if seen is None or seen[1] < 30:
            return asked, "Too early to say", "The numbers are too few for advice.", "unknown"
        return asked, "Nothing stands out", "No rule found a reason to change anything.", "good"
    first = server.advice[0]
    answer = "One thing" if len(server.advice) == 1 else f"{len(server.advice)} things"
    return (
        asked,
        answer,
        f"First: {_lowered(first.title)}.",
        "bad" if first.severity == 3 else "warn",
    )


def _lowered(text: str) -> str:
    return text[0].lower() + text[1:]


def _advice(server: ServerData, level: str) -> list[Html]:
    if not server.advice:
        return []
    items = [
        _el("li", *_one_advice(advice), class_=_MOODS[advice.severity][0])
        for advice in server.advice
    ]
    return [_el(level, "What to change"), _el("ol", *items, class_="advice")]


_MOODS = {3: ("bad", "Failure"), 2: ("warn", "Costs time"), 1: ("info", "Good to know")}


def _one_advice(advice: Advice) -> list[Html]:
    return [
        _el(
            "p",
            _el("span", _MOODS[advice.severity][1], class_="tag"),
            " ",
            _el("strong", f"{clipped(advice.title)}."),
        ),
        _el("p", clipped(advice.evidence, 500), class_="evidence"),
        _el("p", clipped(advice.action, 500)),
    ]


# The panels


def _figure(panel: Panel, drawing: Drawing | None, name: str, level: str) -> Html:
    parts = [_el(level, panel.title, id=name), _el("p", panel.sentence)]
    if drawing is not None:
        both = (Html(_of_panel(svg, name, kind)) for kind, svg in drawing.items())
        parts.append(
            _el(
                "div",
                *both,
                role="img",
                aria_label=f"{panel.title}. {panel.sentence}",
                class_="drawing",
            )
        )
        parts += [_el("p", panel.note, class_="note")] if panel.note else []
    if panel.table.rows:
        parts.append(
            _el(
                "details", _el("summary", f"{panel.table.caption}, as a table"), _table(panel.table)
            )
        )
    return _el("section", *parts, class_="figure", aria_labelledby=name)


def _of_panel(svg: str, name: str, kind: str) -> str:
    return svg.replace("<svg ", f'<svg class="{kind}" ', 1)


def _table(table: Table) -> Html:
    head = _el("tr", *(_el("th", text, scope="col") for text in table.head))
    rows = [
        _el(
            "tr",
            _el("th", clipped(row[0]), scope="row"),
            *(_el("td", clipped(text)) for text in row[1:]),
        )
        for row in table.rows
    ]
    made = _el("table", _el("caption", table.caption), _el("thead", head), _el("tbody", *rows))
    return _el("div", made, class_="scroll", tabindex=0, role="region", aria_label=table.caption)


def _failures(server: ServerData, level: str) -> list[Html]:
    clients = server.clients
    began = origin(server)
    parts: list[Html] = []
    rows: tuple[tuple[str, ...], ...]
    examples = clients.get("failures") or []
    if clients.get("errors"):
        kinds = sorted(clients["errors"].items(), key=lambda item: -item[1])
        rows = tuple((kind, f"{many:,}") for kind, many in kinds[:20])
        parts.append(
            _table(Table(caption="Failed requests by kind", head=("Kind", "Times"), rows=rows))
        )
    if examples:
        rows = tuple(
            (
                duration(max(one["at"] - began, 0)),
                one["error"],
                one["request"],
                duration(one["seconds"]),
                one["text"] or "nothing",
            )
            for one in examples
        )
        caption = (
            f"The first {len(rows)} failed requests" if len(rows) > 1 else "The failed request"
        )
        head = ("After", "Kind", "Request", "Took", "What was said")
        parts.append(_table(Table(caption=caption, head=head, rows=rows)))
    rows_failed = tuple(
        (
            f"row {one.get('index')}",
            str(one.get("id")),
            str(one.get("kind", "")),
            str(one.get("message", "")),
        )
        for batch in server.batches
        for one in batch.get("failures") or ()
    )[:40]
    if rows_failed:
        columns = ("Row", "Id", "Kind", "What was said")
        parts.append(
            _table(
                Table(caption="The first failed rows of batches", head=columns, rows=rows_failed)
            )
        )
    if clients.get("repeats"):
        rows = tuple(
            (f"{reason}", f"{many:,}") for reason, many in list(clients["repeats"].items())[:20]
        )
        caption = "Requests sent once more, by reason"
        parts.append(_table(Table(caption=caption, head=("Reason", "Times"), rows=rows)))
    return (
        [_el(level, "Failures and repetitions"), _el("div", *parts, class_="tables")]
        if parts
        else []
    )


def _outages(server: ServerData, level: str) -> list[Html]:
    clients = server.clients
    many = clients.get("outage_count", 0)
    restarts = (server.metrics or {}).get("restarts", 0)
    if not many and not restarts:
        return []
    began = origin(server)
    parts = []
    if many:
        rows = tuple(
            (
                f"{duration(max(one['began'] - began, 0))} ({clock(one['began'])})",
                "not back" if one["ended"] is None else duration(one["ended"] - one["began"]),
            )
            for one in clients["outages"]
        )
        parts.append(
            _table(Table(caption="Times without an answer", head=("After", "For"), rows=rows))
        )
        if many > record.MAX_OUTAGES:
            parts.append(
                _el("p", f"{many - record.MAX_OUTAGES:,} later ones are not listed.", class_="note")
            )
    if restarts:
        parts.append(
            _el("p", f"Its counters began anew {times(restarts)}: so often it was started again.")
        )
    return [_el(level, "Outages and restarts"), *parts]


def _details(server: ServerData, level: str) -> Html:
    about = server.about
    names = {
        "url": "Address", "kind": "Template", "model": "Model", "image": "Image", "gpus": "GPUs", "cpu": "CPU",
        "mem": "Memory",
    }  # fmt: skip
    rows = [(label, str(about[key])) for key, label in names.items() if key in about]
    metrics = server.metrics
    if metrics is None:
        told = "not sampled"
    else:
        asked = metrics["answered"] + metrics["unanswered"]
        told = f"asked {times(asked)}, answered {times(metrics['answered'])}"
    rows.append(("Metrics", told))
    rows += [
        (f"Answers with status {status}", f"{many:,}")
        for status, many in server.clients.get("statuses", {}).items()
    ]
    table = Table(caption="What ran", head=("What", "Value"), rows=tuple(rows))
    return join(_el(level, "The server"), _table(table))


def _footer(data: ReportData, missing: str) -> Html:
    made = (
        "Times of day are UTC. Durations count from the moment in which the task's first "
        "client was made."
    )
    parts = [_el("p", missing, class_="missing")] if missing else []
    return _el("footer", *parts, _el("p", made))
