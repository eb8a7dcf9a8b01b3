"""Reads a server's page of metrics: Prometheus' text format, or OpenMetrics.

A page comes from outside, so no content raises an error or causes unbounded work: unreadable
samples are ignored. Only the requested samples are read, which takes 1 ms for vLLM's page of 55 kB;
a full parse with `prometheus_client` takes 39 ms and blocks the other threads.

Formats: github.com/prometheus/docs, `exposition_formats.md`; github.com/prometheus/OpenMetrics,
`specification/OpenMetrics.md`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .metric_names import (
    HISTOGRAMS,
    INFOS,
    QUANTITIES,
    RATIOS,
    MetricNames,
    names_of,
    scale_of,
)

__all__ = [
    "MAX_PAGE_BYTES",
    "MetricFamily",
    "MetricsPage",
    "current_labels",
    "metric_families",
    "quantile",
    "queue_length",
    "scan",
    "summed",
]

MAX_PAGE_BYTES = 8 * 2**20
"""A page of a server with eight data-parallel ranks has 0.4 MiB."""
MAX_SERIES = 50_000
"""Maximum number of requested samples; the same page has 4,000."""
MAX_VALUE = 1e18
"""Tokens of years on any server are fewer; sums of such values stay finite."""

# no nested repetition of the same characters, so the time is linear in the page's length. A label
# may contain blanks, braces and escaped quotes, but no line break.
_LABELS = r'\{[^"}\n]*(?:"[^"\\\n]*(?:\\.[^"\\\n]*)*"[^"}\n]*)*\}'
_SAMPLE = r"^({names})(?:[ \t]*({labels})[ \t]*|[ \t]+)(\S{{1,64}})(?!\S)"
_LABEL = re.compile(r'(\w+)[ \t]*=[ \t]*"([^"\\]*(?:\\.[^"\\]*)*)"')

Series = Mapping[str, float]
"""The samples of one name: labels, as they are written → value."""


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """The quantities on one page; an absent quantity is missing here, which differs from zero."""

    values: dict[str, float] = field(default_factory=dict)
    """Gauges and counters summed over all labels (models, ranks), ratios averaged."""
    buckets: dict[str, dict[float, float]] = field(default_factory=dict)
    """The cumulative buckets of each histogram: upper bound in seconds → count."""
    sums: dict[str, float] = field(default_factory=dict)
    """The sum of each histogram in seconds."""


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """The samples of one quantity, as the server labels them."""

    name: str
    """The server's name, of which the values and bounds have the unit (`scale_of`)."""
    samples: dict[str, Series]
    """Suffix (`_bucket`, `_sum`, `_count` for a histogram, else none) → samples."""


def scan(text: str, names: MetricNames) -> MetricsPage:
    """Return the requested quantities of a page.

    Args:
        text: The page. A page beyond the limits has no quantities, because a sum over a part of it
            would be wrong.
        names: The server's names for each quantity, as in `Server.metric_names`; unknown quantities
            are ignored.
    """
    return summed(metric_families(text, names))


def metric_families(text: str, names: MetricNames) -> dict[str, MetricFamily]:
    """Return the samples of each requested quantity; the arguments are those of `scan`."""
    samples = _samples(text, names)
    families: dict[str, MetricFamily] = {}
    for quantity in filter(QUANTITIES.__contains__, names):
        suffixes = _suffixes(quantity)
        for name in names_of(names, quantity):
            if name + suffixes[0] in samples:
                families[quantity] = MetricFamily(
                    name, {suffix: samples.get(name + suffix, {}) for suffix in suffixes}
                )
                break
    return families


def summed(families: Mapping[str, MetricFamily]) -> MetricsPage:
    """Return the quantities without their labels, in base units."""
    page = MetricsPage()
    for quantity, family in families.items():
        scale = scale_of(family.name)
        if quantity in HISTOGRAMS:
            page.buckets[quantity] = _buckets(family.samples["_bucket"], scale)
            page.sums[quantity] = scale * sum(family.samples["_sum"].values())
        elif quantity not in INFOS:
            series = family.samples[""]
            share = len(series) if quantity in RATIOS else 1
            page.values[quantity] = scale * sum(series.values()) / share
    return page


def current_labels(family: MetricFamily) -> dict[str, str]:
    """Return the labels of the current row of a metric that says something by its labels."""
    series = family.samples[""]
    return dict(_LABEL.findall(max(series, key=series.__getitem__, default="")))


def queue_length(text: str, names: MetricNames) -> int | None:
    """Return the number of requests that wait inside a server, or `None` if it is not reported."""
    quantity = "requests_waiting"
    page = scan(text, {quantity: names_of(names, quantity)})
    return round(page.values[quantity]) if quantity in page.values else None


def quantile(buckets: Mapping[float, float], share: float) -> float:
    """Return the seconds that `share` (0 to 1) of all observations do not exceed.

    Interpolates linearly within a bucket, as Prometheus' `histogram_quantile` does, so the highest
    finite bound is the maximum.

    Args:
        buckets: Cumulative buckets: upper bound in seconds → count.
        share: The share of the observations.
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
    """Return the requested samples by name; a repeated sample counts once."""
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
    """Yield the names at the beginning of the requested lines."""
    for quantity in filter(QUANTITIES.__contains__, names):
        for name in names_of(names, quantity):
            yield from (name + suffix for suffix in _suffixes(quantity))


def _suffixes(quantity: str) -> tuple[str, ...]:
    """Return the suffixes of a metric's name in the samples of its quantity."""
    return ("_bucket", "_sum", "_count") if quantity in HISTOGRAMS else ("",)


def _buckets(series: Series, scale: float) -> dict[float, float]:
    """Return the buckets of a histogram, summed over all labels but the bound."""
    buckets: dict[float, float] = {}
    for labels, count in series.items():
        upper = _bound(dict(_LABEL.findall(labels)).get("le", ""))
        if upper is not None:
            upper *= scale
            buckets[upper] = buckets.get(upper, 0.0) + count
    return buckets


def _bound(text: str) -> float | None:
    return math.inf if text in ("+Inf", "Inf") else _number(text)


def _number(text: str) -> float | None:
    """Return a valid value of a quantity, or None for NaN, infinity and negative numbers."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= MAX_VALUE else None
