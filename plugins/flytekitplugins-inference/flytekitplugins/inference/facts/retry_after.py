"""`Retry-After`: how long a server or a store asks clients to wait."""

from __future__ import annotations

import math
import re
import time
from datetime import timezone
from email.utils import parsedate_to_datetime

__all__ = ["MAX_SECONDS", "parse_retry_after"]

MAX_SECONDS = 86400.0
"""Longer times are reduced to this one, which already exceeds what every caller waits."""

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")


def parse_retry_after(value: str | None, *, now: float | None = None) -> float | None:
    """Return the seconds of a header, or `None` if it is absent or invalid.

    RFC 9110, 10.2.3, has whole seconds or a date. Servers send fractions too, and dates without
    a zone, which are GMT like every date of HTTP (5.6.7).

    Args:
        value: The header's value, or `None`.
        now: Seconds since the epoch, in place of the clock's.
    """
    text = (value or "").strip()
    if _NUMBER.fullmatch(text):
        return min(float(text), MAX_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    # the standard library's parser raises all of these for malformed dates
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    seconds = moment.timestamp() - (time.time() if now is None else now)
    return min(max(seconds, 0.0), MAX_SECONDS) if math.isfinite(seconds) else None
