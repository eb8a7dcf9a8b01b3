"""The page as text: escaping, size, ids, and what it says when something is missing.

In a browser: `test_browser`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from client.report.cases import (
    EPOCH,
    HOSTILE,
    Run,
    almost_empty,
    batch,
    healthy,
    report_data,
    several,
    stats,
    troubled,
)
from client.stub import Stub
from flytekitplugins.inference.client.endpoint import Endpoint, ServerDetails
from flytekitplugins.inference.client.report import charts, collect, note_batch
from flytekitplugins.inference.client.report.data import ReportData, ServerData
from flytekitplugins.inference.client.report.json_fields import from_json, to_json
from flytekitplugins.inference.client.report.markup import Html, element, join
from flytekitplugins.inference.client.report.page import document, fragment
from flytekitplugins.inference.client.report.report_files import HTML_NAME, JSON_NAME, Report
from flytekitplugins.inference.client.report.snapshots import (
    BatchStats,
    MetricsWindow,
    RowFailure,
    ServerInfo,
)

MIB = 2**20


class _Reader(HTMLParser):
    """What a browser would load or run, by the names of elements and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")


def test_a_page_is_below_one_mebibyte_and_loads_nothing(pages: dict[str, str]) -> None:
    for page in pages.values():
        assert len(page.encode()) < MIB
        read = _Reader(page)
        assert not read.elements & {
            "script",
            "link",
            "iframe",
            "img",
            "image",
            "object",
            "embed",
            "base",
            "form",
            "a",
        }
        assert not {
            name
            for name in read.attributes
            if name.startswith("on") or name in ("src", "action", "href")
        }
        assert all(target.startswith("#") for target in read.attributes.get("xlink:href", ()))
        assert "@import" not in page
        assert "url(" not in page.replace("url(#", "")


def test_ids_are_used_once_and_point_somewhere(pages: dict[str, str]) -> None:
    for page in pages.values():
        ids = re.findall(r'\sid="([^"]*)"', page)
        assert len(ids) == len(set(ids))
        used = re.findall(r'(?:url\(#|href="#|aria-labelledby=")([^)"]*)', page)
        assert used == [] or set(used) <= set(ids)


def test_drawings_have_the_pages_colours_and_font(pages: dict[str, str]) -> None:
    drawings = re.findall(r"<svg.*?</svg>", pages["troubled"], flags=re.DOTALL)
    assert len(drawings) == 14
    for drawing in drawings:
        assert not re.search(r"#[0-9a-fA-F]{6}\b", drawing)
        assert "font-family" not in drawing
        assert "DejaVu" not in drawing
        assert set(re.findall(r"var\(--([a-z]+)\)", drawing)) <= set(charts.COLOURS)


def test_what_comes_from_outside_is_escaped(pages: dict[str, str]) -> None:
    page = pages["hostile"]
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("</style>") == 2  # the page's and the fragment's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&gt;&lt;img" in page
    assert "&amp;amp;" in page
    assert not re.search("[\x00-\x08\u202e\ud800-\udfff]", page)
    page.encode("utf-8")


def test_a_dollar_sign_in_a_drawing_is_one() -> None:
    pytest.importorskip("matplotlib")
    bar: charts.Bar = {"label": "$x^2$", "colour": "one", "values": [0.0, 1.0], "text": "a $ b $"}
    drawn = charts.draw([{"kind": "timeline", "bars": [bar]}])
    assert drawn is not None
    assert ">$x^2$</text>" in drawn[0]["wide"]


def test_the_first_screen_answers_four_questions(pages: dict[str, str]) -> None:
    page = pages["troubled"]
    answers = re.findall(r"<dt>(.*?)</dt><dd><strong>(.*?)</strong>", page)
    assert [question for question, _ in answers] == [
        "Was it fast?",
        "Was the server busy?",
        "What failed?",
        "What should change?",
    ]
    assert re.fullmatch(r"\d+ requests", answers[2][1])
    assert page.index("<dl") < page.index("What to change") < page.index("<svg")


def test_every_case_says_what_state_it_is_in(pages: dict[str, str]) -> None:
    assert "Running, as of" in pages["almost_empty"]
    assert "The task failed" in pages["troubled"]
    assert "The function raised ServerNotReadyError: 140 of 4,000 rows failed" in pages["troubled"]
    assert "Finished, " in pages["healthy"]
    assert "No requests" in pages["unasked"]


def test_several_servers_have_a_section_each(pages: dict[str, str]) -> None:
    assert re.findall(r'<h2 class="server">(.*?)</h2>', pages["several"]) == ["embedder", "chat"]


def test_a_drawing_is_the_same_each_time() -> None:
    pytest.importorskip("matplotlib")
    assert fragment(healthy()) == fragment(healthy())


def test_a_run_too_short_for_drawings_is_told_in_words(pages: dict[str, str]) -> None:
    assert "<svg" not in pages["almost_empty"]
    assert "1 answer, of 2.4 s in the median." in pages["almost_empty"]
    assert "could not be made" not in pages["almost_empty"]


# What is missing


def test_without_matplotlib_the_page_has_all_tables_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("matplotlib")
    full = fragment(troubled())
    monkeypatch.setattr(charts.importlib.util, "find_spec", lambda name: None)
    plain = fragment(troubled())
    assert "flytekitplugins-inference[report]" in plain
    assert "<svg" not in plain
    assert plain.count("<table") == full.count("<table") > 10


def test_drawings_that_fail_leave_the_page(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(charts.sys, "executable", "/nonexistent/python")
    plain = fragment(healthy())
    assert "could not be made" in plain
    assert "<svg" not in plain
    assert len(caplog.records) == 1


def test_the_process_that_draws_tells_why_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("matplotlib")
    assert charts.draw([{"kind": "unheard-of"}]) is None
    assert "KeyError: 'unheard-of'" in caplog.text


def test_making_a_page_imports_no_plotting_library_here() -> None:
    code = (
        "import sys; from flytekitplugins.inference.client.report import report\n"
        "from flytekitplugins.inference.client.endpoint import Endpoint\n"
        "html = report([Endpoint(url='http://localhost:1')]).html\n"
        "print([name for name in ('matplotlib', 'numpy', 'flytekit', 'kubernetes') if name in "
        "sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Size


def test_many_servers_stay_below_one_mebibyte() -> None:
    server = troubled().servers[0]
    data = report_data(*(replace(server, name=f"server-{index}") for index in range(40)))
    page = document(fragment(data))
    assert len(page.encode()) < MIB
    assert "24 more servers in the numbers beside this page" in page
    assert page.count("<svg") > 50


def test_drawings_go_where_tables_do_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("flytekitplugins.inference.client.report.page.MAX_BYTES", 60_000)
    page = fragment(healthy())
    assert "left out, as the page would have been larger" in page
    assert len(page.encode()) < 60_000


def test_long_texts_are_clipped() -> None:
    server = replace(almost_empty().servers[0], about=ServerInfo(kind="x" * 10_000_000, url="u"))
    assert len(fragment(report_data(server))) < MIB


# Markup


def test_texts_are_escaped_and_html_is_not() -> None:
    made = element(
        "p", "a < b & c", element("br"), Html("<i>x</i>"), class_="x", aria_label='"y"', id=None
    )
    assert made == '<p class="x" aria-label="&quot;y&quot;">a &lt; b &amp; c<br><i>x</i></p>'
    assert join(HOSTILE, "\x07") == join(HOSTILE, "\x07").encode().decode()


# Reports


def test_a_report_of_an_endpoint(stub: Stub, tmp_path: Path) -> None:
    start = tmp_path / "cold-start.json"
    start.write_text(json.dumps(to_json(healthy().servers[0].cold_start)))
    endpoint = Endpoint(
        url=stub.url, cold_start=str(start), about=ServerDetails(kind="VLLM", gpus=2, model="m")
    )
    request = endpoint.record.begin("POST /v1/x")
    request.status = 200
    endpoint.record.end(request)
    note_batch(endpoint.url, {"path": "a", "rows": 1})
    note_batch(endpoint.url, {"path": "a", "rows": 2})
    made = endpoint.report(path=tmp_path / "reports" / "one")
    server = made.data.servers[0]
    assert server.about == ServerInfo(kind="VLLM", url=stub.url, model="m", gpus=2)
    assert server.clients.answered == 1
    assert [one.rows for one in server.batches] == [2]
    assert server.cold_start is not None
    assert server.metrics is None
    written = tmp_path / "reports" / "one"
    assert sorted(path.name for path in written.iterdir()) == [HTML_NAME, JSON_NAME]
    assert json.loads((written / JSON_NAME).read_text()) == made.data.to_dict()
    assert (written / HTML_NAME).read_text() == made.html
    assert made.html.startswith("<!doctype html>")
    assert made._repr_html_() == made.fragment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"phases": 3}',
        '{"phases": [{"name": 1}]}',
        "[" * 100_000,
        '{"phases": [null]}',
    ],
)
def test_a_start_report_that_is_none(stub: Stub, tmp_path: Path, text: str) -> None:
    start = tmp_path / "cold-start.json"
    start.write_text(text)
    assert collect.collect(Endpoint(url=stub.url, cold_start=str(start))).cold_start is None
    assert (
        collect.collect(Endpoint(url=stub.url, cold_start=str(tmp_path / "none"))).cold_start
        is None
    )


def test_batches_that_are_remembered_are_bounded() -> None:
    for index in range(collect.MAX_BATCHES + 5):
        note_batch("http://bounded.invalid", {"path": str(index)})
        note_batch("http://bounded.invalid", {"rows": index})
    assert len(collect._batches["http://bounded.invalid"]) == collect.MAX_BATCHES


def test_the_servers_of_remembered_batches_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_batches", {})
    for index in range(collect.MAX_SERVERS_OF_BATCHES + 3):
        note_batch(f"http://server-{index}.invalid", {"rows": index})
    assert len(collect._batches) == collect.MAX_SERVERS_OF_BATCHES
    assert f"http://server-{collect.MAX_SERVERS_OF_BATCHES + 2}.invalid" in collect._batches
    assert "http://server-0.invalid" not in collect._batches


def test_a_summary_that_tells_nothing_makes_a_page() -> None:
    server = ServerData(
        clients=stats(Run().record), batches=(BatchStats(), BatchStats(failures=(RowFailure(),)))
    )
    assert "Batch 2" in fragment(ReportData(made=EPOCH, servers=(server,)))


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / HTML_NAME).mkdir()
    with pytest.raises(OSError, match=HTML_NAME):
        Report(several()).write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [HTML_NAME, JSON_NAME]


@pytest.mark.parametrize(("failed", "answer"), [(0, "Nothing"), (12, "12 rows")])
def test_a_batch_without_other_clients_answers_the_questions(failed: int, answer: str) -> None:
    page = fragment(
        report_data(ServerData(clients=stats(Run().record), batches=(batch(failed=failed),)))
    )
    answers = re.findall(r"<dt>(.*?)</dt><dd><strong>(.*?)</strong>", page)
    assert answers[0] == ("Was it fast?", "6.8 rows per s")
    assert answers[2] == ("What failed?", answer)
    assert "No requests" not in page


def test_the_batch_is_drawn_from_its_summary() -> None:
    page = fragment(report_data(ServerData(clients=stats(Run().record), batches=(batch(),))))
    assert "4,000 rows in 9 min 52 s" in page


@pytest.mark.parametrize(
    ("times", "answer"),
    [
        ({"seen": 600, "idle": 30, "unsure": 570}, "Between 0 % and 95 %"),
        ({"seen": 600, "idle": 60, "unsure": 0}, "90 % of the time"),
    ],
)
def test_nothing_is_called_good_that_is_not_known(times: dict[str, float], answer: str) -> None:
    """Samples in which a counter moved say only that the server worked for a part of the time."""
    server = ServerData(metrics=from_json(MetricsWindow, {"times": times}))
    page = fragment(ReportData(made=0.0, servers=(server,)))
    assert answer in page
    assert ("Nothing stands out" in page) is (not times["unsure"])
