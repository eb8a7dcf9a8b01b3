"""Numbers as people write them."""

from __future__ import annotations

from datetime import datetime, timezone

__all__ = ["clock", "count", "number", "share", "times"]


def number(value: float) -> str:
    """Return a quantity with as many digits as matter: `0.25`, `3.1`, `42`, `12,300`."""
    if value == 0:
        return "0"
    if abs(value) < 1:
        return f"{value:.2g}"
    return f"{value:.1f}".removesuffix(".0") if abs(value) < 10 else f"{value:,.0f}"


def share(part: float, whole: float) -> str:
    """Return a percentage; one that is neither nothing nor all is not rounded to either."""
    if not whole:
        return "0 %"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "below 0.1 %"
    if 99.9 < percent < 100:
        return "above 99.9 %"
    return f"{percent:.1f} %" if 0 < percent < 1 or 99 < percent < 100 else f"{percent:.0f} %"


def count(many: int, what: str) -> str:
    """Return `1 request`, `2,000 requests`."""
    return f"{many:,} {what}" if many == 1 else f"{many:,} {what}s"


def times(many: int) -> str:
    """Return `once`, `twice`, `3 times`."""
    return {1: "once", 2: "twice"}.get(many, f"{many:,} times")


def clock(seconds: float) -> str:
    """Return a moment, given in seconds since the epoch: `14:03:20 UTC`."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M:%S UTC")
