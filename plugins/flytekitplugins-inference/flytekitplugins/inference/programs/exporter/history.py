"""What a server did since the exporter began: totals and a series, in constant memory.

A task's pod may live for five minutes and be scraped twice, so this is what remains of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...facts.metric_names import COUNTERS, EVENTS, GAUGES, RATIOS
from ...facts.metrics_page import quantile

if TYPE_CHECKING:
    from ...facts.metrics_page import MetricsPage

__all__ = ["MAX_POINTS", "ServerHistory"]

MAX_POINTS = 512
"""Points of the series; beyond them every second one is dropped, and so on."""
MAX_BOUNDS = 1000
"""Bounds of one histogram, over all pages; a known server's have 30 at most."""
_ALWAYS_RISING = (*COUNTERS, *EVENTS)
_LEVELS = (*GAUGES, *RATIOS)
_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class ServerHistory:
    """Adds up pages of one server."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._totals: dict[str, float] = {}
        self._peaks: dict[str, float] = {}
        self._buckets: dict[str, dict[float, float]] = {}
        self._sums: dict[str, float] = {}
        self._last_buckets: dict[str, dict[float, float]] = {}
        self._last_sums: dict[str, float] = {}
        self._points: list[dict[str, float]] = []
        self._stride = 1
        self._seen = 0

    def add(self, page: MetricsPage, seconds: float) -> None:
        """Add a page that arrived `seconds` after the exporter began."""
        for name in (*_ALWAYS_RISING, *_LEVELS):
            if name not in page.values:
                continue
            value = page.values[name]
            if name in _LEVELS:
                self._peaks[name] = max(value, self._peaks.get(name, 0.0))
            else:
                self._totals[name] = self._totals.get(name, 0.0) + _rise(
                    value, self._last.get(name, 0.0)
                )
                self._last[name] = value
        for name, bounds in page.buckets.items():
            self._add_buckets(name, bounds, page.sums.get(name, 0.0))
        self._add_point(page, seconds)

    def summary(self) -> dict[str, Any]:
        """Return totals, peaks, latencies and series as JSON values."""
        names = [name for name in (*_LEVELS, *_ALWAYS_RISING) if name in self._known]
        return {
            "totals": dict(self._totals),
            "peaks": dict(self._peaks),
            "latencies": {
                name: latency
                for name, bounds in self._buckets.items()
                if (latency := _latency(bounds, self._sums[name]))
            },
            "series": {
                "seconds": [point["seconds"] for point in self._points],
                **{name: [point.get(name) for point in self._points] for name in names},
            },
        }

    @property
    def _known(self) -> set[str]:
        return {*self._totals, *self._peaks}

    def _add_buckets(self, name: str, bounds: dict[float, float], total: float) -> None:
        own, last = self._buckets.get(name, {}), self._last_buckets.get(name, {})
        if len({*own, *bounds}) > MAX_BOUNDS:
            return
        self._buckets[name] = own
        # all bounds of a histogram belong to one start of the server
        is_new = any(count < last.get(upper, 0.0) for upper, count in bounds.items())
        for upper, count in bounds.items():
            own[upper] = own.get(upper, 0.0) + count - (0.0 if is_new else last.get(upper, 0.0))
        rise = total - (0.0 if is_new else self._last_sums.get(name, 0.0))
        self._sums[name] = self._sums.get(name, 0.0) + max(rise, 0.0)
        self._last_buckets[name], self._last_sums[name] = bounds, total

    def _add_point(self, page: MetricsPage, seconds: float) -> None:
        self._seen += 1
        if self._seen % self._stride:
            return
        levels = {name: page.values[name] for name in _LEVELS if name in page.values}
        self._points.append({"seconds": round(seconds, 1), **levels, **self._totals})
        if len(self._points) > MAX_POINTS:
            self._points = self._points[1::2]
            self._stride *= 2


def _rise(value: float, last: float) -> float:
    """Return how much a counter rose; one that fell began anew at zero."""
    return value - last if value >= last else value


def _latency(bounds: dict[float, float], total: float) -> dict[str, float] | None:
    count = bounds.get(float("inf"), 0.0)
    if count < 1:
        return None
    quantiles = {name: quantile(bounds, share) for name, share in _SHARES.items()}
    return {"count": count, "mean": total / count, **quantiles}
