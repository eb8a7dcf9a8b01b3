"""A server's own metrics over time: sampled by one thread, in constant memory, without a parser of the whole page.

Rendering a page of metrics costs the server time on its event loop (about 30 ms for 366 KiB,
ROCm/ATOM#2186), so it is asked once in five seconds, however many read the samples. Here, only the
wanted families are looked at, which takes 0.2 ms for vLLM's page; a full parse of 40 kB with
`prometheus_client` takes 39 ms, and holds up the task's own threads.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..address import ServerAddress

__all__ = ["INTERVAL_SECONDS", "Page", "Sampler", "sampler_of", "sampling", "scan"]

INTERVAL_SECONDS = 5.0
MAX_PAGE_BYTES = 8 * 2**20
"""A page of a server with eight engines has 0.4 MiB."""
MAX_CELLS = 512
"""43 minutes of single samples; then two become one, and so on."""
FULL_CACHE = 0.9
MAX_ENDED = 16
"""Samplers that are kept after their end: on one machine, each run of a server has a port of its
own."""

GAUGES = ("requests_running", "requests_waiting")
RATIOS = ("kv_cache_usage",)
COUNTERS = ("prompt_tokens", "generation_tokens", "preemptions")
HISTOGRAMS = ("time_to_first_token", "inter_token_latency", "request_latency", "queue_time")
"""Of seconds."""

_logger = logging.getLogger(__name__)
_LE = re.compile(r'[{,]le="([^"]*)"')


@dataclass(slots=True)
class Page:
    """What one page says; a quantity that it does not have is missing, which is not zero."""

    values: dict[str, float] = field(default_factory=dict)
    """Gauges and counters summed over all labels (models, ranks), ratios averaged."""
    buckets: dict[str, dict[float, float]] = field(default_factory=dict)
    """Of each histogram: upper bound in seconds → how many were not above it."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of each histogram: the sum of its seconds."""


def scan(text: str, names: Mapping[str, str]) -> Page:
    """Return the wanted quantities of a page in Prometheus' text format.

    Args:
        text: The page.
        names: The server's name for each quantity, as in `Server.metric_names`; unknown quantities
            are passed over.
    """
    wanted = _wanted(names)
    page, ratios = Page(), dict[str, list[float]]()
    for line in text.splitlines():
        end = line.find("{")
        name = line[:end] if end > 0 else line.partition(" ")[0]
        if name not in wanted or (value := _value(line, end)) is None:
            continue
        quantity, part = wanted[name]
        if part == "bucket":
            bound = _LE.search(line)
            if bound and (upper := _number(bound[1])) is not None:
                bounds = page.buckets.setdefault(quantity, {})
                bounds[upper] = bounds.get(upper, 0.0) + value
        elif part == "sum":
            page.sums[quantity] = page.sums.get(quantity, 0.0) + value
        elif quantity in RATIOS:
            ratios.setdefault(quantity, []).append(value)
        else:
            page.values[quantity] = page.values.get(quantity, 0.0) + value
    page.values.update({quantity: sum(values) / len(values) for quantity, values in ratios.items()})
    return page


def _wanted(names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the quantity, and which part of it, behind each name that a line may begin with."""
    wanted = {
        name: (quantity, "")
        for quantity, name in names.items()
        if quantity in (*GAUGES, *RATIOS, *COUNTERS)
    }
    for quantity in HISTOGRAMS:
        if name := names.get(quantity):
            wanted[f"{name}_bucket"] = (quantity, "bucket")
            wanted[f"{name}_sum"] = (quantity, "sum")
    return wanted


def _value(line: str, labels: int) -> float | None:
    """Return a sample's value: after the labels, before a time stamp. A label may hold blanks and braces."""
    rest = line[line.rfind("}") + 1 :] if labels > 0 else line.partition(" ")[2]
    words = rest.split(None, 1)
    value = _number(words[0]) if words else None
    return value if value is not None and math.isfinite(value) else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


@dataclass(slots=True)
class _Cell:
    """A stretch of time: one sample, or several that became one."""

    at: float
    """Seconds since the first sample, at its end."""
    seconds: float
    levels: dict[str, float]
    """Gauges and ratios: their mean."""
    increases: dict[str, float]
    """Counters: by how much they grew."""

    def joined(self, later: _Cell) -> _Cell:
        names = {*self.levels, *later.levels}
        return _Cell(
            at=later.at,
            seconds=self.seconds + later.seconds,
            levels={name: _mean(self, later, name) for name in names},
            increases={
                name: self.increases.get(name, 0.0) + later.increases.get(name, 0.0)
                for name in {*self.increases, *later.increases}
            },
        )


def _mean(one: _Cell, other: _Cell, name: str) -> float:
    known = [
        (cell.levels[name], cell.seconds or 1.0) for cell in (one, other) if name in cell.levels
    ]
    return sum(value * weight for value, weight in known) / sum(weight for _, weight in known)


class Sampler:
    """Samples one server's metrics, from `start` to `stop`.

    Nothing that the server does ends it or is raised: what could not be had is unknown.

    Args:
        url: The page of metrics.
        names: The server's name for each quantity.
        api_key: Sent as a bearer token.
        clock: Seconds that never go back.
        wall_clock: Seconds since the epoch, for the times that a report shows.
    """

    def __init__(
        self,
        url: str,
        names: Mapping[str, str],
        *,
        api_key: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._names = dict(names)
        self._api_key = api_key
        self._clock, self._wall_clock = clock, wall_clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ended: threading.Event | None = None
        """Of the thread that samples."""
        self._began: float | None = None
        self._epoch = 0.0
        self._last_at = 0.0
        self._last: Page | None = None
        self._cells: list[_Cell] = []
        self._answered = self._unanswered = self._restarts = 0
        self._totals: dict[str, float] = {}
        self._most: dict[str, float] = {}
        self._times = {"seen": 0.0, "idle": 0.0, "waiting": 0.0, "cache_full": 0.0}
        self._buckets: dict[str, dict[float, float]] = {}
        self._sums: dict[str, float] = {}

    # The thread

    def start(self) -> None:
        """Begin to sample, at once and then every five seconds."""
        self._stop.clear()
        self._ended = threading.Event()
        threading.Thread(
            target=self._run, args=(self._ended,), name="inference-metrics", daemon=True
        ).start()

    def stop(self) -> None:
        """Take a last sample, unless the server is slow to answer, and end."""
        self._stop.set()
        if self._ended is not None:
            self._ended.wait(1.0)
            self._ended = None

    def _run(self, ended: threading.Event) -> None:
        try:
            self.sample()
            while not self._stop.wait(INTERVAL_SECONDS):
                self.sample()
            self.sample()
        finally:
            ended.set()

    def sample(self) -> None:
        """Ask the server once."""
        try:
            page: Page | None = scan(_fetch(self._url, self._api_key), self._names)
        except (OSError, HTTPException, ValueError) as error:
            _logger.debug("no metrics from %s: %s", self._url, type(error).__name__)
            page = None
        self.add(page, self._clock())

    # The samples

    def add(self, page: Page | None, now: float) -> None:
        """Take in a page, or that there was none."""
        with self._lock:
            if self._began is None:
                self._began, self._last_at, self._epoch = now, now, self._wall_clock()
            seconds, self._last_at = now - self._last_at, now
            if page is None:
                self._unanswered += 1
                self._append(_Cell(now - self._began, seconds, {}, {}))
                return
            self._answered += 1
            increases = self._increases(page)
            levels = {name: page.values[name] for name in (*GAUGES, *RATIOS) if name in page.values}
            self._append(_Cell(now - self._began, seconds, levels, increases))
            self._account(levels, increases, seconds)
            self._last = page

    def _increases(self, page: Page) -> dict[str, float]:
        """Return how much each counter grew, and add up the histograms; a counter that fell was one of a new server."""
        last = self._last
        is_new = last is not None and any(
            page.values.get(name, 0) < last.values.get(name, 0) for name in COUNTERS
        )
        if is_new:
            self._restarts += 1
        before = Page() if is_new else page if last is None else last
        for quantity, bounds in page.buckets.items():
            own = self._buckets.setdefault(quantity, {})
            old = before.buckets.get(quantity, {})
            for upper, count in bounds.items():
                own[upper] = own.get(upper, 0.0) + max(count - old.get(upper, 0.0), 0.0)
            grown = page.sums.get(quantity, 0.0) - before.sums.get(quantity, 0.0)
            self._sums[quantity] = self._sums.get(quantity, 0.0) + max(grown, 0.0)
        return {
            name: max(page.values[name] - before.values.get(name, 0.0), 0.0)
            for name in COUNTERS
            if name in page.values
        }

    def _account(
        self, levels: dict[str, float], increases: dict[str, float], seconds: float
    ) -> None:
        for name, value in increases.items():
            self._totals[name] = self._totals.get(name, 0.0) + value
        for name, value in levels.items():
            self._most[name] = max(self._most.get(name, 0.0), value)
        if "requests_running" in levels:
            self._times["seen"] += seconds
            # between two looks it may have worked: then it has written or read tokens
            is_idle = (
                not levels["requests_running"]
                and not levels.get("requests_waiting")
                and not any(increases.values())
            )
            self._times["idle"] += seconds if is_idle else 0.0
        self._times["waiting"] += seconds if levels.get("requests_waiting") else 0.0
        self._times["cache_full"] += (
            seconds if levels.get("kv_cache_usage", 0.0) > FULL_CACHE else 0.0
        )

    def _append(self, cell: _Cell) -> None:
        self._cells.append(cell)
        if len(self._cells) > MAX_CELLS:
            pairs = zip(self._cells[::2], self._cells[1::2], strict=False)
            odd = self._cells[-1:] if len(self._cells) % 2 else []
            self._cells = [one.joined(other) for one, other in pairs] + odd

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain JSON.

        Returns:
            `series` has a list for each quantity that the server told, `None` where it did not:
                gauges and ratios as
            their mean over `seconds`, counters as the increase within. `totals` are increases since
            the first sample, so that what a server did before does not count. `times` are seconds:
            `seen` (in which the number of running requests was known), and of these `idle`,
            `waiting` (a queue), `cache_full` (above 90 %).
        """
        with self._lock:
            told = {name for cell in self._cells for name in (*cell.levels, *cell.increases)}
            series: dict[str, list[float | None]] = {
                "at": [round(cell.at, 3) for cell in self._cells],
                "seconds": [round(cell.seconds, 3) for cell in self._cells],
            }
            for name in (*GAUGES, *RATIOS, *COUNTERS):
                if name in told:
                    series[name] = [
                        {**cell.levels, **cell.increases}.get(name) for cell in self._cells
                    ]
            return {
                "began": self._epoch,
                "seconds": self._cells[-1].at if self._cells else 0.0,
                "answered": self._answered,
                "unanswered": self._unanswered,
                "restarts": self._restarts,
                "totals": dict(self._totals),
                "most": dict(self._most),
                "times": dict(self._times),
                "histograms": {
                    name: summary
                    for name, bounds in self._buckets.items()
                    if (summary := _summary(bounds, self._sums.get(name, 0.0)))
                },
                "series": series,
            }


def _summary(bounds: Mapping[float, float], total: float) -> dict[str, Any] | None:
    """Return count, mean and quantiles of a histogram, in seconds; `None` of an empty one."""
    count = bounds.get(math.inf, 0.0)
    if not count:
        return None
    return {
        "count": int(count),
        "mean": total / count,
        **{f"p{percent}": _quantile(bounds, percent / 100) for percent in (50, 95, 99)},
    }


def _quantile(bounds: Mapping[float, float], share: float) -> float:
    """Return what `share` of all do not exceed, evenly spread within a bucket (as Prometheus' histogram_quantile)."""
    wanted = share * bounds[math.inf]
    lower = below = 0.0
    for upper in sorted(bounds):
        if bounds[upper] >= wanted:
            if math.isinf(upper):
                return lower
            within = bounds[upper] - below
            return upper if not within else lower + (upper - lower) * (wanted - below) / within
        lower, below = upper, bounds[upper]
    return lower


def _fetch(url: str, api_key: str) -> str:
    """Return a page; directly, since a proxy has no business between a task and its server."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=INTERVAL_SECONDS)
    headers = {
        "Accept": "text/plain",
        **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
    }
    try:
        connection.request("GET", parts.path or "/", headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        return response.read(MAX_PAGE_BYTES).decode("utf-8", errors="replace")
    finally:
        connection.close()


_SAMPLERS: dict[str, tuple[Sampler, int]] = {}
"""By address, with how many wanted it."""
_ENDED: dict[str, Sampler] = {}
"""The last one of each address, for a report that is made after it ended."""
_LOCK = threading.Lock()


@contextlib.contextmanager
def sampling(endpoint: ServerAddress) -> Iterator[Sampler | None]:
    """Sample a server's metrics as long as the block lasts; all blocks of one address share one sampler.

    Yields:
        The sampler, or `None` for a server whose metrics are not known.
    """
    names = endpoint.about.metric_names if endpoint.about else {}
    url = endpoint.metrics_url
    if url is None or not names:
        yield None
        return
    sampler = _joined(url, names, endpoint.api_key)
    try:
        yield sampler
    finally:
        _left(url)


def sampler_of(url: str | None) -> Sampler | None:
    """Return the sampler of an address, also one that has ended."""
    with _LOCK:
        running = _SAMPLERS.get(url or "")
        return running[0] if running else _ENDED.get(url or "")


def _joined(url: str, names: Mapping[str, str], api_key: str) -> Sampler:
    with _LOCK:
        sampler, users = _SAMPLERS.get(url, (None, 0))
        if sampler is None:
            sampler = Sampler(url, names, api_key=api_key)
            sampler.start()
        _SAMPLERS[url] = (sampler, users + 1)
        return sampler


def _left(url: str) -> None:
    with _LOCK:
        sampler, users = _SAMPLERS[url]
        if users > 1:
            _SAMPLERS[url] = (sampler, users - 1)
            return
        del _SAMPLERS[url]
        _ENDED.pop(url, None)
        _ENDED[url] = sampler
        while len(_ENDED) > MAX_ENDED:
            del _ENDED[next(iter(_ENDED))]
    sampler.stop()
