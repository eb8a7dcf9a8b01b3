"""Builds the page of a report, in the order of a reader's questions.

The first screen answers four questions: was it fast, was the server busy, what failed, what should
change. The page needs no script; a table in `<details>` holds the values of each drawing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...distribution import install_command
from ...facts.wording import duration
from .. import record
from . import charts
from .data import Advice, ReportData, ServerData, idle_time
from .markup import Html, clipped, element, join
from .panels import Panel, Table, origin, panels
from .style import BODY_STYLE, STYLE
from .words import clock, count, number, share, times

__all__ = ["MAX_BYTES", "document", "fragment"]

MAX_BYTES = 2**20 - 4096
"""The limit for the page, because the Flyte console loads a Deck as a whole. The rest of the MiB is
left for its surroundings."""
MAX_SERVERS = 16
DRAWN_SERVERS = 4
"""How many servers have drawings, about 150 KiB each; the others only have tables."""
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
    """Return the report as HTML below 1 MiB, with its own style, for any page."""
    drawings, missing = _drawings(
        # drawings do not depend on a table's rows, so they are made once, with one row
        [panel for server in data.servers[:DRAWN_SERVERS] for panel in panels(server, 1)]
    )
    # tables shrink first, since drawings tell more
    for rows in (60, 20, 4):
        page = _page(data, rows, drawings, missing)
        if len(page.encode()) <= MAX_BYTES:
            return page
    return _page(
        data, 4, [], "The drawings are left out, as the page would have been larger than 1 MiB."
    )


def _page(data: ReportData, rows: int, drawings: Sequence[Drawing | None], missing: str) -> Html:
    servers = data.servers[:MAX_SERVERS]
    rest = iter(drawings)
    sections = []
    for index, server in enumerate(servers):
        figures = [(panel, next(rest, None)) for panel in panels(server, rows)]
        sections.append(_server(server, figures, index, len(servers) == 1))
    others = len(data.servers) - len(servers)
    if others:
        text = f"{count(others, 'more server')} in the numbers beside this page."
        sections.append(_el("p", text, class_="note"))
    return _el(
        "div",
        Html(f"<style>{STYLE}</style>"),
        _el("main", _header(data), *sections, _footer(missing)),
        class_="inference-report",
        lang="en",
    )


def _drawings(server_panels: list[Panel]) -> tuple[list[Drawing | None], str]:
    """Return the drawings of panels, and why there are none."""
    requested = [panel.chart for panel in server_panels if panel.chart is not None]
    if not requested:
        return [], ""
    if not charts.is_available():
        return [], f"Drawings need matplotlib in the task's image: {install_command('report')}"
    drawings = charts.draw(requested)
    if drawings is None:
        return [], "The drawings could not be made; the task's log tells why."
    rest = iter(drawings)
    return [None if panel.chart is None else next(rest) for panel in server_panels], ""


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
    server: ServerData,
    panels_with_drawings: list[tuple[Panel, Drawing | None]],
    index: int,
    is_single: bool,
) -> Html:
    level = "h2" if is_single else "h3"
    title = server.name or server.about.url or "server"
    figures = [
        _figure(panel, drawing, f"s{index}p{place}", level)
        for place, (panel, drawing) in enumerate(panels_with_drawings)
    ]
    parts = [
        *([] if is_single else [_el("h2", title, class_="server")]),
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
    words = [about.kind, about.model]
    if about.gpus is not None:
        words.append(count(about.gpus, "GPU") if about.gpus else "no GPU")
    if server.cold_start and server.cold_start.total_seconds is not None:
        words.append(f"start {duration(server.cold_start.total_seconds)}")
    text = " · ".join(clipped(word, 120) for word in words if word)
    return _el("p", text or about.url, class_="subtitle")


# The first screen


@dataclass(frozen=True)
class _Card:
    """A question and its answer."""

    question: str
    answer: str
    explanation: str
    mood: str = ""
    """The colour: `good`, `warn`, `bad` or `unknown`."""


UNSURE_SHARE = 0.1
"""From this share of the time on, an unknown part is said, and nothing is called good."""


def _answers(server: ServerData) -> Html:
    cards = (_speed(server), _busy(server), _failed(server), _change(server))
    return _el(
        "dl",
        *(
            _el(
                "div",
                _el("dt", card.question),
                _el("dd", _el("strong", card.answer), _el("span", card.explanation)),
                class_=f"card {card.mood}",
            )
            for card in cards
        ),
        class_="answers",
    )


def _speed(server: ServerData) -> _Card:
    question = "Was it fast?"
    clients = server.clients
    latency = clients.latency_seconds
    if latency.p50 is not None and latency.p99 is not None:
        rate = f"{number(clients.answered / max(clients.seconds, 1e-9))} answers per second"
        metrics = server.metrics
        tokens = metrics.totals.get("generation_tokens") if metrics else None
        if tokens and metrics and metrics.seconds:
            rate += f", {number(tokens / metrics.seconds)} tokens per second written"
        explanation = f"99 % within {duration(latency.p99)}; {rate}."
        return _Card(question, f"{duration(latency.p50)} median", explanation)
    if not server.batches:
        explanation = "Nothing was answered, so nothing is known."
        return _Card(question, "No answer yet", explanation, "unknown")
    batch = server.batches[-1]
    explanation = f"The last batch: {batch.rows:,.0f} rows in {duration(batch.duration)}"
    if batch.tokens_per_second:
        explanation += f", {number(batch.tokens_per_second)} tokens per second"
    return _Card(question, f"{number(batch.rows_per_second)} rows per s", f"{explanation}.")


def _busy(server: ServerData) -> _Card:
    question = "Was the server busy?"
    idle = idle_time(server)
    if idle is None:
        explanation = "It got no requests, or not for long enough."
        return _Card(question, "Not known", explanation, "unknown")
    is_idle = idle.seconds > 0.3 * idle.observed and idle.observed >= 30
    most = share(idle.observed - idle.seconds, idle.observed)
    if idle.unsure > UNSURE_SHARE * idle.observed:
        least = share(idle.observed - idle.seconds - idle.unsure, idle.observed)
        return _Card(
            question,
            f"Between {least} and {most}",
            f"It worked between two looks at {idle.source}: {duration(idle.unsure)} of "
            f"{duration(idle.observed)} may be either.",
            "warn" if is_idle else "unknown",
        )
    return _Card(
        question,
        f"{most} of the time",
        f"Idle {duration(idle.seconds)} of {duration(idle.observed)}, by {idle.source}.",
        "warn" if is_idle else "",
    )


def _failed(server: ServerData) -> _Card:
    question = "What failed?"
    clients = server.clients
    if not clients.requests:
        return _failed_rows(question, server)
    repeats = sum(clients.repeats.values())
    history = f"{count(repeats, 'repetition')}; " if repeats else ""
    history += (
        f"the server went away {times(clients.outage_count)}."
        if clients.outage_count
        else "the server was always there."
    )
    if not clients.failed:
        explanation = f"{count(clients.requests, 'request')}; {history}"
        return _Card(question, "Nothing", explanation, "warn" if clients.outage_count else "good")
    part = share(clients.failed, clients.requests)
    return _Card(
        question,
        count(clients.failed, "request"),
        f"{part} of {clients.requests:,}; {history}",
        "bad",
    )


def _failed_rows(question: str, server: ServerData) -> _Card:
    """Return what failed if only batches sent requests."""
    if not server.batches:
        explanation = "No client of this task sent a request."
        return _Card(question, "No requests", explanation, "unknown")
    rows = sum(batch.rows for batch in server.batches)
    failed = sum(batch.failed for batch in server.batches)
    if not failed:
        return _Card(question, "Nothing", f"{count(rows, 'row')} of batches.", "good")
    explanation = f"{share(failed, rows)} of {rows:,} of batches."
    return _Card(question, count(failed, "row"), explanation, "bad")


def _change(server: ServerData) -> _Card:
    question = "What should change?"
    if not server.advice:
        idle = idle_time(server)
        if idle is not None and idle.unsure > UNSURE_SHARE * idle.observed:
            explanation = "Whether the server was busy is not known; no other rule found a reason."
            return _Card(question, "Not known", explanation, "unknown")
        if idle is None or idle.observed < 30:
            explanation = "The numbers are too few for advice."
            return _Card(question, "Too early to say", explanation, "unknown")
        explanation = "No rule found a reason to change anything."
        return _Card(question, "Nothing stands out", explanation, "good")
    first = server.advice[0]
    return _Card(
        question,
        "One thing" if len(server.advice) == 1 else f"{len(server.advice)} things",
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
        # one of the two is shown, by the width of the reader's screen
        both = (
            Html(svg.replace("<svg ", f'<svg class="{kind}" ', 1)) for kind, svg in drawing.items()
        )
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
    whole = _el("table", _el("caption", table.caption), _el("thead", head), _el("tbody", *rows))
    return _el("div", whole, class_="scroll", tabindex=0, role="region", aria_label=table.caption)


def _failures(server: ServerData, level: str) -> list[Html]:
    tables = (
        *_failed_requests(server),
        _failed_rows_of_batches(server),
        _counts("Retried requests, by reason", "Reason", server.clients.repeats),
    )
    parts = [_table(table) for table in tables if table.rows]
    if not parts:
        return []
    return [_el(level, "Failures and repetitions"), _el("div", *parts, class_="tables")]


def _failed_requests(server: ServerData) -> tuple[Table, Table]:
    """Return the failed requests by kind, and examples."""
    clients = server.clients
    began = origin(server)
    kinds = dict(sorted(clients.errors.items(), key=lambda item: -item[1]))
    rows = tuple(
        (
            duration(max(failure.at - began, 0)),
            failure.error,
            failure.request,
            duration(failure.seconds),
            failure.text or "nothing",
        )
        for failure in clients.failures
    )
    caption = f"The first {len(rows)} failed requests" if len(rows) > 1 else "The failed request"
    head = ("After", "Kind", "Request", "Took", "Message")
    return (
        _counts("Failed requests by kind", "Kind", kinds),
        Table(caption=caption, head=head, rows=rows),
    )


def _failed_rows_of_batches(server: ServerData) -> Table:
    rows = (
        (f"row {failure.index}", str(failure.id), failure.kind, failure.message)
        for batch in server.batches
        for failure in batch.failures
    )
    return Table(
        caption="The first failed rows of batches",
        head=("Row", "Id", "Kind", "Message"),
        rows=tuple(itertools.islice(rows, 40)),
    )


def _counts(caption: str, head: str, counts: Mapping[str, int]) -> Table:
    rows = tuple((name, f"{value:,}") for name, value in list(counts.items())[:20])
    return Table(caption=caption, head=(head, "Times"), rows=rows)


def _outages(server: ServerData, level: str) -> list[Html]:
    clients = server.clients
    restarts = server.metrics.restarts if server.metrics else 0
    if not clients.outage_count and not restarts:
        return []
    began = origin(server)
    parts = []
    if clients.outage_count:
        rows = tuple(
            (
                f"{duration(max(outage.began - began, 0))} ({clock(outage.began)})",
                "not back" if outage.ended is None else duration(outage.ended - outage.began),
            )
            for outage in clients.outages
        )
        parts.append(
            _table(Table(caption="Times without an answer", head=("After", "For"), rows=rows))
        )
        others = clients.outage_count - record.MAX_OUTAGES
        if others > 0:
            parts.append(_el("p", f"{others:,} later ones are not listed.", class_="note"))
    if restarts:
        parts.append(
            _el(
                "p",
                f"Its counters went back to zero {times(restarts)}: it was restarted that often.",
            )
        )
    return [_el(level, "Outages and restarts"), *parts]


def _details(server: ServerData, level: str) -> Html:
    about = server.about
    facts = (
        ("Address", about.url),
        ("Template", about.kind),
        ("Model", about.model),
        ("Image", about.image),
        ("GPUs", "" if about.gpus is None else str(about.gpus)),
        ("CPU", about.cpu),
        ("Memory", about.mem),
        ("Metrics", _sampling(server)),
        *(
            (f"Answers with status {status}", f"{answers:,}")
            for status, answers in server.clients.statuses.items()
        ),
    )
    rows = tuple((label, fact) for label, fact in facts if fact)
    table = Table(caption="What ran", head=("What", "Value"), rows=rows)
    return join(_el(level, "The server"), _table(table))


def _sampling(server: ServerData) -> str:
    metrics = server.metrics
    if metrics is None:
        return "not sampled"
    samples = metrics.answered + metrics.unanswered
    return f"asked {times(samples)}, answered {times(metrics.answered)}"


def _footer(missing: str) -> Html:
    text = (
        "Times of day are UTC. Durations count from the moment in which the task's first "
        "client was made."
    )
    parts = [_el("p", missing, class_="missing")] if missing else []
    return _el("footer", *parts, _el("p", text))
