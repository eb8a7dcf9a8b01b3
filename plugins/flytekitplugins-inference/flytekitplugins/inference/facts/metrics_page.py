"""Reads a server's page of metrics: Prometheus' text format, or OpenMetrics.

A page comes from outside, so whatever it holds, nothing is raised and no work grows without bound:
what cannot be read is not told. Only the wanted samples are looked at: that takes 1 ms for vLLM's
page of 55 kB, where a full parse with `prometheus_client` takes 39 ms and holds up the other
threads.

Formats: github.com/prometheus/docs, `exposition_formats.md`; github.com/prometheus/OpenMetrics,
`specification/OpenMetrics.md`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .metric_names import HISTOGRAMS, QUANTITIES, RATIOS, MetricNames, names_of

__all__ = ["MAX_PAGE_BYTES", "MetricsPage", "quantile", "queue_length", "scan"]

MAX_PAGE_BYTES = 8 * 2**20
"""A page of a server with eight data-parallel ranks has 0.4 MiB."""
MAX_SERIES = 50_000
"""Of the wanted samples; the same page has 4,000."""
MAX_VALUE = 1e18
"""Tokens of years on any server are fewer; sums of such values stay finite."""

# Without a nested repetition of the same characters, so that the time grows with the page's length
# only. A label may hold blanks, braces and escaped quotes, but no line break.
_LABELS = r'\{[^"}\n]*(?:"[^"\\\n]*(?:\\.[^"\\\n]*)*"[^"}\n]*)*\}'
_SAMPLE = r"^({names})(?:[ \t]*({labels})[ \t]*|[ \t]+)(\S{{1,64}})(?!\S)"
_LABEL = re.compile(r'(\w+)[ \t]*=[ \t]*"([^"\\]*(?:\\.[^"\\]*)*)"')

Series = Mapping[str, float]
"""The samples of one name: labels, as they are written → value."""


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """What one page says; a quantity that it does not have is missing, which is not zero."""

    values: dict[str, float] = field(default_factory=dict)
    """Gauges and counters summed over all labels (models, ranks), ratios averaged."""
    buckets: dict[str, dict[float, float]] = field(default_factory=dict)
    """Of each histogram: upper bound in seconds → how many were not above it."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of each histogram: the sum of its seconds."""


def scan(text: str, names: MetricNames) -> MetricsPage:
    """Return the wanted quantities of a page.

    Args:
        text: The page. One beyond the bounds tells nothing, since a sum over a part of it would be
            wrong.
        names: The server's names for each quantity, as in `Server.metric_names`; unknown quantities
            are passed over.
    """
    page = MetricsPage()
    samples = _samples(text, names)
    for quantity in filter(QUANTITIES.__contains__, names):
        for name in names_of(names, quantity):
            series = samples.get(name + _part(quantity))
            if series is None:
                continue
            if quantity in HISTOGRAMS:
                page.buckets[quantity] = _buckets(series)
                page.sums[quantity] = sum(samples.get(f"{name}_sum", {}).values())
            else:
                share = len(series) if quantity in RATIOS else 1
                page.values[quantity] = sum(series.values()) / share
            break
    return page


def queue_length(text: str, names: MetricNames) -> int | None:
    """Return how many requests wait inside a server, or `None` when its page does not say."""
    quantity = "requests_waiting"
    page = scan(text, {quantity: names_of(names, quantity)})
    return round(page.values[quantity]) if quantity in page.values else None


def quantile(buckets: Mapping[float, float], share: float) -> float:
    """Return the seconds that `share` (0 to 1) of all do not exceed.

    Evenly spread within a bucket, as Prometheus' `histogram_quantile` has it; so the highest finite
    bound is the most that can be returned.

    Args:
        buckets: Upper bound in seconds → how many were not above it.
        share: Of the observations.
    """
    rank = share * buckets.get(math.inf, 0.0)
    lower = below = 0.0
    for upper in sorted(buckets):
        if math.isinf(upper):
            break
        if buckets[upper] >= rank:
            within = buckets[upper] - below
            return lower + (upper - lower) * (rank - below) / within if within > 0 else upper
        lower, below = upper, buckets[upper]
    return lower


def _samples(text: str, names: MetricNames) -> dict[str, dict[str, float]]:
    """Return the wanted samples by name; a sample that stands twice counts once."""
    alternatives = "|".join(re.escape(name) for name in _sample_names(names))
    if not alternatives or len(text) > MAX_PAGE_BYTES:
        return {}
    pattern = re.compile(_SAMPLE.format(names=alternatives, labels=_LABELS), re.MULTILINE)
    samples: dict[str, dict[str, float]] = {}
    for index, match in enumerate(pattern.finditer(text)):
        if index >= MAX_SERIES:
            return {}
        name, labels, text_of_value = match.groups(default="")
        value = _number(text_of_value)
        if value is not None:
            samples.setdefault(name, {})[labels] = value
    return samples


def _sample_names(names: MetricNames) -> Iterator[str]:
    """Yield the names with which the lines of wanted samples begin."""
    for quantity in filter(QUANTITIES.__contains__, names):
        for name in names_of(names, quantity):
            yield name + _part(quantity)
            if quantity in HISTOGRAMS:
                yield f"{name}_sum"


def _part(quantity: str) -> str:
    """Return what stands behind a metric's name in the samples that tell its quantity."""
    return "_bucket" if quantity in HISTOGRAMS else ""


def _buckets(series: Series) -> dict[float, float]:
    """Return the buckets of a histogram, summed over all labels but the bound."""
    buckets: dict[float, float] = {}
    for labels, count in series.items():
        upper = _bound(dict(_LABEL.findall(labels)).get("le", ""))
        if upper is not None:
            buckets[upper] = buckets.get(upper, 0.0) + count
    return buckets


def _bound(text: str) -> float | None:
    return math.inf if text in ("+Inf", "Inf") else _number(text)


def _number(text: str) -> float | None:
    """Return a value that a quantity can have, which NaN, infinity and less than zero are not."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= MAX_VALUE else None
