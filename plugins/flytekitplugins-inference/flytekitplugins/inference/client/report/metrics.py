"""Samples a server's own metrics over time, with one thread and in constant memory.

Rendering a page of metrics costs the server time on its event loop (about 30 ms for 366 KiB,
ROCm/ATOM#2186), so it is asked once in five seconds, however many read the samples.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...facts.address import parse_address
from ...facts.http_exchange import NoAnswerError, ask
from ...facts.metric_names import COUNTERS, GAUGES, RATIOS
from ...facts.metrics_page import MAX_PAGE_BYTES, MetricsPage, quantile, scan
from .snapshots import LatencySummary, MetricsTimes, MetricsWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ...facts.metric_names import MetricNames
    from ..server_address import ServerAddress

__all__ = ["INTERVAL_SECONDS", "Sampler", "sampler_of", "sampling"]

INTERVAL_SECONDS = 5.0
MAX_CELLS = 512
"""Holds 43 minutes of single samples; then every two samples are merged, and so on."""
FULL_CACHE = 0.9
MAX_ENDED = 16
"""Samplers that are kept after their end: on one machine, each run of a server has its own port,
and so its own sampler."""

_logger = logging.getLogger(__name__)


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

    def value(self, name: str) -> float | None:
        """Return a quantity, or `None` if the server did not report it."""
        return self.levels.get(name, self.increases.get(name))

    def merged(self, later: _Cell) -> _Cell:
        """Return this stretch merged with the following one."""
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
    """Return the mean level of two stretches, of which one at least has it."""
    cells = [cell for cell in (one, other) if name in cell.levels]
    # the first sample has no length, as nothing precedes it
    weights = [cell.seconds or 1.0 for cell in cells]
    pairs = zip(cells, weights, strict=True)
    return sum(cell.levels[name] * weight for cell, weight in pairs) / sum(weights)


class Sampler:
    """Samples one server's metrics, from `start` to `stop`.

    No fault of the server ends or fails the sampling: missing quantities are unknown.

    Args:
        url: The address of the metrics page.
        names: The server's names for each quantity.
        api_key: Sent as a bearer token.
        clock: Returns seconds that never go back.
        wall_clock: Returns seconds since the epoch, for the times that a report shows.
    """

    def __init__(
        self,
        url: str,
        names: MetricNames,
        *,
        api_key: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._names = dict(names)
        self._api_key = api_key
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._end: threading.Event | None = None
        """Set when the sampling thread ends."""
        self._began: float | None = None
        self._epoch = 0.0
        self._last_at = 0.0
        self._last: MetricsPage | None = None
        """The last value of each quantity since the server's last restart."""
        self._cells: list[_Cell] = []
        self._answered = 0
        self._unanswered = 0
        self._restarts = 0
        self._totals: dict[str, float] = {}
        self._most: dict[str, float] = {}
        self._times = {"seen": 0.0, "idle": 0.0, "unsure": 0.0, "waiting": 0.0, "cache_full": 0.0}
        self._buckets: dict[str, dict[float, float]] = {}
        self._sums: dict[str, float] = {}

    # The thread

    def start(self) -> None:
        """Start to sample, at once and then every five seconds."""
        self._stop.clear()
        self._end = threading.Event()
        threading.Thread(
            target=self._run, args=(self._end,), name="inference-metrics", daemon=True
        ).start()

    def stop(self) -> None:
        """Take a last sample, unless the server is slow to answer, and end."""
        self._stop.set()
        if self._end is not None:
            # not `Thread.join`: a signal handler that raises out of it marks the thread as ended
            self._end.wait(1.0)
            self._end = None

    def _run(self, end: threading.Event) -> None:
        try:
            self.sample()
            while not self._stop.wait(INTERVAL_SECONDS):
                self.sample()
            self.sample()
        finally:
            end.set()

    def sample(self) -> None:
        """Take one sample."""
        try:
            page: MetricsPage | None = scan(_fetch(self._url, self._api_key), self._names)
        except (NoAnswerError, ValueError) as error:
            _logger.debug("no metrics from %s: %s", self._url, type(error).__name__)
            page = None
        self.add(page, self._clock())

    # The samples

    def add(self, page: MetricsPage | None, now: float) -> None:
        """Add a page, or note its absence."""
        with self._lock:
            if self._began is None:
                self._began = now
                self._last_at = now
                self._epoch = self._wall_clock()
            seconds = now - self._last_at
            self._last_at = now
            if page is None:
                self._unanswered += 1
                self._append(_Cell(now - self._began, seconds, {}, {}))
                return
            self._answered += 1
            increases = self._increases(page)
            levels = {name: page.values[name] for name in (*GAUGES, *RATIOS) if name in page.values}
            self._append(_Cell(now - self._began, seconds, levels, increases))
            self._account(levels, increases, seconds)

    def _increases(self, page: MetricsPage) -> dict[str, float]:
        """Return how much each counter grew, and add up the histograms.

        A counter that fell belongs to a restarted server. A missing one does not: the next page may
        contain it again.
        """
        before = page if self._last is None else self._last
        if any(page.values[name] < before.values.get(name, 0.0) for name in self._counters(page)):
            self._restarts += 1
            before = MetricsPage()
        self._last = MetricsPage(
            values={**before.values, **page.values},
            buckets={**before.buckets, **page.buckets},
            sums={**before.sums, **page.sums},
        )
        for quantity, bounds in page.buckets.items():
            own = self._buckets.setdefault(quantity, {})
            old = before.buckets.get(quantity, {})
            for upper, count in bounds.items():
                # only counters tell of a restart, and a server's page may have none
                own[upper] = own.get(upper, 0.0) + max(count - old.get(upper, 0.0), 0.0)
            seconds = page.sums.get(quantity, 0.0) - before.sums.get(quantity, 0.0)
            self._sums[quantity] = self._sums.get(quantity, 0.0) + max(seconds, 0.0)
        return {
            name: page.values[name] - before.values.get(name, 0.0) for name in self._counters(page)
        }

    @staticmethod
    def _counters(page: MetricsPage) -> list[str]:
        return [name for name in COUNTERS if name in page.values]

    def _account(
        self, levels: dict[str, float], increases: dict[str, float], seconds: float
    ) -> None:
        for name, value in increases.items():
            self._totals[name] = self._totals.get(name, 0.0) + value
        for name, value in levels.items():
            self._most[name] = max(self._most.get(name, 0.0), value)
        if "requests_running" in levels:
            self._times["seen"] += seconds
            is_running = levels["requests_running"] or levels.get("requests_waiting")
            # the server may have worked between two samples, for a moment or nearly all the time
            has_moved = any(increases.values())
            self._times["idle"] += 0.0 if is_running or has_moved else seconds
            self._times["unsure"] += seconds if has_moved and not is_running else 0.0
        self._times["waiting"] += seconds if levels.get("requests_waiting") else 0.0
        self._times["cache_full"] += (
            seconds if levels.get("kv_cache_usage", 0.0) > FULL_CACHE else 0.0
        )

    def _append(self, cell: _Cell) -> None:
        self._cells.append(cell)
        if len(self._cells) > MAX_CELLS:
            pairs = zip(self._cells[::2], self._cells[1::2], strict=False)
            odd = self._cells[-1:] if len(self._cells) % 2 else []
            self._cells = [one.merged(other) for one, other in pairs] + odd

    def snapshot(self) -> MetricsWindow:
        """Return everything since the first sample."""
        with self._lock:
            return MetricsWindow(
                began=self._epoch,
                seconds=self._cells[-1].at if self._cells else 0.0,
                answered=self._answered,
                unanswered=self._unanswered,
                restarts=self._restarts,
                totals=dict(self._totals),
                most=dict(self._most),
                times=MetricsTimes(**self._times),
                histograms={
                    name: _summary(bounds, self._sums.get(name, 0.0))
                    for name, bounds in self._buckets.items()
                    if bounds.get(math.inf, 0.0) >= 1
                },
                series=self._series(),
            )

    def _series(self) -> dict[str, tuple[float | None, ...]]:
        series: dict[str, tuple[float | None, ...]] = {
            "at": tuple(round(cell.at, 3) for cell in self._cells),
            "seconds": tuple(round(cell.seconds, 3) for cell in self._cells),
        }
        for name in (*GAUGES, *RATIOS, *COUNTERS):
            values = tuple(cell.value(name) for cell in self._cells)
            if any(value is not None for value in values):
                series[name] = values
        return series


def _summary(buckets: Mapping[float, float], total_seconds: float) -> LatencySummary:
    """Return count, mean and quantiles of a histogram that is not empty."""
    count = buckets[math.inf]
    return LatencySummary(
        count=int(count),
        mean=total_seconds / count,
        p50=quantile(buckets, 0.5),
        p95=quantile(buckets, 0.95),
        p99=quantile(buckets, 0.99),
    )


def _fetch(url: str, api_key: str) -> str:
    """Return a metrics page; the request takes the same route as those of the clients.

    Raises:
        NoAnswerError: There is no complete answer.
        ValueError: The answer is not a page, or is too large.
    """
    headers = {"Accept": "text/plain"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    with ask(parse_address(url), seconds=INTERVAL_SECONDS, headers=headers, proxied=True) as answer:
        if answer.status != 200:
            raise ValueError(f"status {answer.status}")
        body = answer.read(MAX_PAGE_BYTES + 1)
    if len(body) > MAX_PAGE_BYTES:  # a cut last line would hold a wrong number
        raise ValueError(f"more than {MAX_PAGE_BYTES} bytes")
    return body.decode("utf-8", errors="replace")


_SAMPLERS: dict[str, tuple[Sampler, int]] = {}
"""The running samplers by address, with their number of users."""
_ENDED: dict[str, Sampler] = {}
"""The last sampler of each address, for a report that is created after its end."""
_LOCK = threading.Lock()


@contextlib.contextmanager
def sampling(endpoint: ServerAddress) -> Iterator[Sampler | None]:
    """Sample a server's metrics for the duration of the block.

    All blocks of one address share one sampler.

    Yields:
        The sampler, or `None` for a server without known metrics.
    """
    names = endpoint.metric_names
    url = endpoint.metrics_url
    if url is None or not names:
        yield None
        return
    sampler = _acquire(url, names, endpoint.api_key)
    try:
        yield sampler
    finally:
        _release(url)


def sampler_of(url: str | None) -> Sampler | None:
    """Return the sampler of an address, even one that has ended."""
    with _LOCK:
        running = _SAMPLERS.get(url or "")
        return running[0] if running else _ENDED.get(url or "")


def _acquire(url: str, names: MetricNames, api_key: str) -> Sampler:
    with _LOCK:
        sampler, users = _SAMPLERS.get(url, (None, 0))
        if sampler is None:
            sampler = Sampler(url, names, api_key=api_key)
            sampler.start()
        _SAMPLERS[url] = (sampler, users + 1)
        return sampler


def _release(url: str) -> None:
    with _LOCK:
        sampler, users = _SAMPLERS[url]
        if users > 1:
            _SAMPLERS[url] = (sampler, users - 1)
            return
        del _SAMPLERS[url]
        # so that it becomes the newest: a dict keeps the place of a key that it has
        _ENDED.pop(url, None)
        _ENDED[url] = sampler
        while len(_ENDED) > MAX_ENDED:
            del _ENDED[next(iter(_ENDED))]
    # outside the lock: the last sample may take a second, and other servers' blocks must not wait
    sampler.stop()
