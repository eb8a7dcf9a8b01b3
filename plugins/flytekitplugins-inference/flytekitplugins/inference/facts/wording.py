"""Quotes of foreign texts and durations, for messages."""

from __future__ import annotations

__all__ = ["MAX_EXCERPT", "duration", "excerpt"]

MAX_EXCERPT = 200
"""Characters of a foreign text that a message quotes."""


def excerpt(text: bytes | str, *, limit: int = MAX_EXCERPT) -> str:
    """Return the beginning of a foreign text on one line, in quotes; "nothing" for an empty one.

    The quotes are those of `repr`, so control characters do not reach a terminal.

    Args:
        text: The foreign text; bytes are decoded as UTF-8.
        limit: Maximum number of characters.
    """
    # cut before it is decoded and split: a body may have megabytes
    start = text[: 4 * limit]
    if isinstance(start, bytes):
        start = start.decode("utf-8", errors="replace")
    line = " ".join(start.split())
    if not line:
        return "nothing"
    return repr(line if len(line) <= limit else f"{line[:limit]}…")


def duration(seconds: float) -> str:
    """Return a time as people write it: `850 µs`, `42 ms`, `3.1 s`, `4 min 5 s`, `2 h 3 min`."""
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} µs" if seconds > 0 else "0 s"
    if seconds < 0.9995:
        milliseconds = seconds * 1e3
        return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:.0f} ms"
    if seconds < 59.5:
        # a whole number stays whole: a limit of 5 reads "5 s", as the user wrote it
        is_short = seconds < 9.95 and seconds != round(seconds)
        return f"{seconds:.1f} s" if is_short else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
