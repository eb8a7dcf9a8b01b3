"""Draws charts as SVG with matplotlib, in a separate process.

The process is separate because drawing would block the task's threads for seconds, and because
matplotlib's settings are global: the user's own plots must not change even for a moment. That
process is `python -m …charts`, which reads a list of charts as JSON and writes a list of SVG texts.

Colours are CSS variables, so that one drawing suits light and dark; text stays text, for readers
and for search.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bar", "Chart", "Line", "draw", "is_available"]

TIMEOUT_SECONDS = 60.0
"""The limit for drawing everything, which takes about two seconds."""
WIDTHS = {"wide": 560, "narrow": 330}
"""Widths in CSS pixels, for a column of a page on a desktop and for a phone."""
COLOURS = {
    "ink": "#010101",
    "muted": "#010102",
    "grid": "#010103",
    "page": "#010104",
    "one": "#010105",
    "two": "#010106",
    "three": "#010107",
    "bad": "#010108",
}
"""Placeholder colours for matplotlib; the page's variable of the same name replaces each."""

_logger = logging.getLogger(__name__)


class Line(TypedDict, total=False):
    """Values over time."""

    label: str
    colour: str
    dashed: bool
    steps: bool
    filled: bool
    x: Sequence[float]
    y: Sequence[float | None]


class Bar(TypedDict):
    """A stretch of a timeline, or the range of a distribution."""

    label: str
    colour: str
    values: Sequence[float]
    """From and to; or for a range p50, p95 and p99 with the least before and the most behind where
    they are known."""
    text: str


class Chart(TypedDict, total=False):
    """One drawing."""

    kind: str
    """`lines`, `timeline` or `ranges`."""
    lines: Sequence[Line]
    bars: Sequence[Bar]
    spans: Sequence[tuple[float, float]]
    """Stretches of time to shade: the server was away."""
    y_label: str
    top: float
    """Where the y axis ends."""


def is_available() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(charts: Sequence[Chart]) -> list[dict[str, str]] | None:
    """Return each chart as SVG by the names of `WIDTHS`, or `None` when they cannot be drawn.

    Waits for the drawing process without blocking other threads.
    """
    command = [sys.executable, "-m", __name__]
    environment = {
        **os.environ,
        # the task may have extended `sys.path`, and the process must find what it finds
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "MPLBACKEND": "svg",
    }
    try:
        process = subprocess.run(
            command,
            input=json.dumps(list(charts), allow_nan=False),
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
        drawings: list[dict[str, str]] = json.loads(process.stdout)
    except subprocess.CalledProcessError as error:
        _logger.warning(
            "The report has no charts, as drawing them failed: %s", error.stderr[-500:].strip()
        )
        return None
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        _logger.warning("The report has no charts, as drawing them failed: %s", error)
        return None
    return drawings


# The other process


def _main() -> None:
    import matplotlib

    # Text stays text, for search and screen readers. Dollar signs must not start a formula: names
    # of models and servers come from outside.
    matplotlib.rcParams.update({"svg.fonttype": "none", "text.parse_math": False, "font.size": 11})
    matplotlib.rcParams.update(
        {"axes.spines.top": False, "axes.spines.right": False, "path.simplify": True}
    )
    charts: list[Chart] = json.load(sys.stdin)
    drawings = [
        {name: _svg(chart, width, f"c{index}{name[0]}") for name, width in WIDTHS.items()}
        for index, chart in enumerate(charts)
    ]
    json.dump(drawings, sys.stdout)


def _svg(chart: Chart, width: int, prefix: str) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = prefix  # else ids differ in each run
    rows = len(chart.get("bars", ()))
    height = 216 if chart["kind"] == "lines" else 40 + 29 * rows
    # at 72 dpi, a point of matplotlib is a pixel of the page
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    _DRAWERS[chart["kind"]](axes, chart, width)
    _dress(axes, chart)
    text = io.StringIO()
    figure.savefig(
        text,
        format="svg",
        transparent=True,
        # without dates and versions, so that equal numbers give an equal drawing
        metadata={"Date": None, "Creator": None, "Format": None},
    )
    return _inline(text.getvalue(), prefix)


def _dress(axes: Any, chart: Chart) -> None:
    muted = COLOURS["muted"]
    axes.patch.set_alpha(0)
    axes.tick_params(colors=muted, labelcolor=muted, length=3)
    for spine in axes.spines.values():
        spine.set_color(COLOURS["grid"])
    axes.grid(
        visible=True,
        axis="y" if chart["kind"] == "lines" else "x",
        color=COLOURS["grid"],
        linewidth=0.7,
    )
    axes.set_axisbelow(True)
    if chart["kind"] != "lines":
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"], length=0)


def _draw_lines(axes: Any, chart: Chart, width: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    lines = chart["lines"]
    for line in lines:
        colour = COLOURS[line["colour"]]
        y = [float("nan") if value is None else value for value in line["y"]]
        style = {
            "color": colour,
            "linewidth": 1.7,
            "linestyle": (0, (4, 2)) if line.get("dashed") else "-",
        }
        if line.get("steps"):
            axes.step(line["x"], y, where="post", label=line["label"], **style)
        else:
            marker = "o" if len(y) == 1 else None
            axes.plot(line["x"], y, label=line["label"], marker=marker, markersize=4, **style)
        if line.get("filled"):
            step = {"step": "post"} if line.get("steps") else {}
            axes.fill_between(line["x"], y, color=colour, alpha=0.18, linewidth=0, **step)
    for began, ended in chart.get("spans", ()):
        axes.axvspan(began, ended, color=COLOURS["bad"], alpha=0.22, linewidth=0)
    last = max((line["x"][-1] for line in lines if line["x"]), default=1.0)
    last = max([last, *(ended for _, ended in chart.get("spans", ()))])
    axes.set_xlim(0, last or 1)
    top = chart.get("top")
    # all values may be zero, and matplotlib warns of an axis without height
    axes.set_ylim(0, top or max(axes.get_ylim()[1], 1e-9))
    axes.set_ylabel(chart.get("y_label", ""), color=COLOURS["muted"])
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=_are_whole(lines)))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick_percent if top == 1 else _tick_number))
    axes.xaxis.set_major_locator(_time_locator(last, 6 if width > 400 else 4))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick_time))
    if len(lines) > 1:
        columns = len(lines)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=columns,
            frameon=False,
            labelcolor=COLOURS["ink"],
            borderaxespad=0.2,
            handlelength=1.8,
            columnspacing=1.4,
        )


def _draw_timeline(axes: Any, chart: Chart, width: int) -> None:
    from matplotlib.ticker import FuncFormatter

    bars = chart["bars"]
    end = max((bar["values"][1] for bar in bars), default=1.0) or 1.0
    for row, bar in enumerate(bars):
        began, ended = bar["values"]
        axes.barh(
            row,
            # a phase of almost no length is still visible
            max(ended - began, end / 250),
            left=began,
            height=0.55,
            color=COLOURS[bar["colour"]],
            linewidth=0,
        )
        # The text stands behind its bar; before one that reaches far to the right; within one that
        # leaves no place on either side.
        is_far_right = ended > 0.72 * end
        is_inside = is_far_right and began < 0.3 * end
        axes.annotate(
            bar["text"],
            (began if is_far_right and not is_inside else ended, row),
            xytext=(-5 if is_far_right else 5, 0),
            textcoords="offset points",
            va="center",
            ha="right" if is_far_right else "left",
            color=COLOURS["page"] if is_inside else COLOURS["ink"],
            annotation_clip=False,
        )
    axes.set_yticks(
        range(len(bars)), [_short(bar["label"], 28 if width > 400 else 19) for bar in bars]
    )
    # downwards, so that the first bar is on top
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, end)
    axes.xaxis.set_major_locator(_time_locator(end, 6 if width > 400 else 4))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick_time))


def _draw_ranges(axes: Any, chart: Chart, width: int) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    bars = chart["bars"]
    for row, bar in enumerate(bars):
        colour = COLOURS[bar["colour"]]
        # a logarithmic axis has no zero
        values = [max(value, 1e-6) for value in bar["values"]]
        p50, p95, p99 = values[-3:] if len(values) == 3 else values[1:4]
        axes.hlines(row, values[0], values[-1], color=colour, linewidth=1.2)
        axes.hlines(row, p50, p95, color=colour, linewidth=7, alpha=0.45)
        axes.plot([p50], [row], marker="o", markersize=8, color=colour, linestyle="none")
        axes.plot(
            [p95],
            [row],
            marker="|",
            markersize=13,
            markeredgewidth=2.2,
            color=colour,
            linestyle="none",
        )
        axes.plot([p99], [row], marker="D", markersize=5, color=colour, linestyle="none")
    axes.set_yticks(
        range(len(bars)), [_short(bar["label"], 28 if width > 400 else 19) for bar in bars]
    )
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xscale("log")
    low = min(min(bar["values"]) for bar in bars)
    high = max(max(bar["values"]) for bar in bars)
    axes.set_xlim(max(low, 1e-6) * 0.7, max(high, 1e-6) * 1.5)
    subs = _ticks_in_a_decade(max(high, 1e-6) / max(low, 1e-6), is_wide=width >= 400)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8 if width > 400 else 5))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick_duration))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)


def _ticks_in_a_decade(ratio: float, *, is_wide: bool) -> tuple[float, ...]:
    """Return the multiples of a power of ten that are labelled, by the ratio of the axis' ends."""
    if ratio > (1000 if is_wide else 100):
        return (1.0,)
    return (1.0, 2.0, 5.0) if ratio < 10 else (1.0, 3.0)


_DRAWERS = {"lines": _draw_lines, "timeline": _draw_timeline, "ranges": _draw_ranges}
_MINUTE = 60
_HOUR = 3600
_TIME_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 4, 8, 12, 24)),
)
"""Seconds between two labels of a time axis."""


def _time_locator(end: float, most: int) -> Any:
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    step = next((step for step in _TIME_STEPS if end / step <= most), None)
    return MultipleLocator(step) if step and end >= 2 else MaxNLocator(most - 1)


def _are_whole(lines: Sequence[Line]) -> bool:
    return all(value is None or float(value).is_integer() for line in lines for value in line["y"])


def _tick_time(seconds: float, _: Any) -> str:
    """Return a moment in the largest unit in which it is whole: `45 s`, `1:30 min`, `2 h`."""
    if seconds < 60:
        return f"{seconds:g} s"
    if seconds % 60:
        return f"{int(seconds // 60)}:{int(seconds % 60):02} min"
    if seconds < 3600:
        return f"{seconds / 60:g} min"
    if seconds % 3600:
        return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02} h"
    return f"{seconds / 3600:g} h"


def _tick_duration(seconds: float, _: Any) -> str:
    if seconds < 0.999e-3:
        return f"{seconds * 1e6:.3g} µs"
    if seconds < 0.999:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 999 else f"{seconds:.0f} s"


def _tick_number(value: float, _: Any) -> str:
    return f"{value:,.0f}" if value >= 10 or float(value).is_integer() else f"{value:.2g}"


def _tick_percent(value: float, _: Any) -> str:
    return f"{100 * value:.0f} %"


def _short(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _inline(svg: str, prefix: str) -> str:
    """Return a drawing fit for a page: no header, ids of its own, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\n\s*", " ", svg)
    # the page's style sets the size, and the viewBox keeps the proportions
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # all drawings are in one page, where an id must be unique
    svg = re.sub(r'(?<=[ "])id="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    svg = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{prefix}-\1"', svg)
    svg = re.sub(r"font-family: [^;\"]+;?", "", svg)
    svg = re.sub(r"(font: [\d.]+px) [^;\"]+", r"\1 var(--font)", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1).strip()


if __name__ == "__main__":
    _main()
