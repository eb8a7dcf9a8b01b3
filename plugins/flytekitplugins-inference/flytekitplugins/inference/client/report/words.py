"""Numbers as people write them."""

from __future__ import annotations

from datetime import datetime, timezone

__all__ = ["clock", "count", "duration", "number", "share", "times"]


def duration(seconds: float) -> str:
    """Return a time: `850 µs`, `42 ms`, `3.1 s`, `4 min 5 s`, `2 h 3 min`."""
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} µs" if seconds > 0 else "0 s"
    if seconds < 0.9995:
        milliseconds = seconds * 1e3
        return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


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
