"""Whether a model server that answers still works: the rule behind a liveness that is true.

A wedged server looks healthy. In vllm-project/vllm#39863 and #46811 `/health` answered 200 for
hours, while the number of running requests was 0 and that of waiting ones did not fall. So the rule
asks for a proof of life instead: the server has nothing to do, or something that only work moves
has moved. Without one for a bound of time, the server is dead.

The rule knows neither network nor clock, so that an exporter and a client can both apply it. Times
are seconds on any clock that never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BOUND_SECONDS", "MAX_REFUSALS", "Liveness", "LivenessRule"]

BOUND_SECONDS = 120.0
"""Seconds without progress after which a busy server counts as dead. One step of a prompt of a
million tokens may take longer where prefill is not chunked."""
MAX_REFUSALS = 3
"""Refused connections in a row after which a server that was up counts as dead."""
COUNTERS_OF_WORK = (
    "heartbeat",
    "requests_finished",
    "request_errors",
    "rejections",
    "generation_tokens",
)
"""What only a working server moves. Without prompt tokens, which some servers count on arrival."""
LEVELS_OF_WORK = ("kv_cache_usage",)
"""What moves while a request is generated, for servers that count tokens at a request's end."""


@dataclass(frozen=True, slots=True)
class Liveness:
    """Whether a server is alive, and why not."""

    is_live: bool
    reason: str
    """A sentence."""


class LivenessRule:
    """Judges one server by what its pages of metrics say.

    Args:
        bound_seconds: How long a busy server may do nothing.
    """

    def __init__(self, bound_seconds: float = BOUND_SECONDS) -> None:
        self._bound = bound_seconds
        self.restarts = 0
        """How often the server was seen to start anew."""
        self._is_up = False
        self._has_answered = False
        """Whether any start of the server was seen to answer."""
        self._refusals = 0
        self._proof = 0.0
        """When the server last proved that it lives."""
        self._arrival: float | None = None
        """When the number of received requests last moved."""
        self._unready_since: float | None = None
        """Since when a server that was ready answers that it is not."""
        self._was_ready = False
        self._is_restarting = False
        self._counters: dict[str, float] = {}
        self._levels: dict[str, float] = {}
        self._received: float | None = None
        self._is_busy = False

    @property
    def is_up(self) -> bool:
        """Whether the server has answered since it started."""
        return self._is_up

    @property
    def is_restarting(self) -> bool:
        """Whether the server has not answered since `begin_restart`."""
        return self._is_restarting

    def add_page(self, values: Mapping[str, float], now: float, *, in_flight: int = 0) -> None:
        """Note a page of metrics.

        Args:
            values: The quantities on it (`MetricsPage.values`).
            now: When it arrived.
            in_flight: Requests that the server's clients wait for.
        """
        counters = {name: values[name] for name in COUNTERS_OF_WORK if name in values}
        levels = {name: values[name] for name in LEVELS_OF_WORK if name in values}
        has_fallen = any(value < self._counters.get(name, 0.0) for name, value in counters.items())
        is_new = not self._is_up
        if has_fallen or self._refusals or self._is_restarting:
            self.restarts += self._has_answered
            is_new = True
        has_moved = counters != self._counters or levels != self._levels
        self._note_arrivals(values.get("requests_received"), now, is_new=is_new)
        self._is_busy = bool(
            in_flight
            or values.get("requests_running", 0) + values.get("requests_waiting", 0)
            or self._has_arrivals(now)
        )
        self._counters, self._levels = counters, levels
        self._is_up, self._is_restarting, self._refusals = True, False, 0
        self._has_answered = True
        # a page without any counter of work cannot show that a busy server does nothing
        if is_new or has_moved or not self._is_busy or not counters:
            self._prove(now)
        if has_moved and self._unready_since is not None:
            self._unready_since = now

    def add_refusal(self) -> None:
        """Note that nothing listened on the server's port.

        A page that does not arrive in time is not noted at all: a saturated server is late too, and
        one that is dead gives no further proof of life.
        """
        self._refusals += 1

    def add_readiness(self, is_ready: bool, now: float) -> None:
        """Note what the server answered when it was asked whether it is ready with its model."""
        self._was_ready |= is_ready
        if is_ready:
            self._unready_since = None
        elif self._was_ready and self._unready_since is None:
            self._unready_since = now

    def begin_restart(self) -> None:
        """Note that the server was started anew, so it may be silent until it answers again."""
        self._is_restarting, self._is_up = True, False
        self._was_ready, self._unready_since, self._refusals = False, None, 0

    def seconds_since_proof(self, now: float) -> float:
        """Return the seconds since the server last proved that it lives; 0 before it is up."""
        return max(now - self._proof, 0.0) if self._is_up else 0.0

    def verdict(self, now: float) -> Liveness:
        """Return whether the server is alive."""
        if not self._is_up:
            return Liveness(True, "The server has not answered since it started.")
        if self._refusals >= MAX_REFUSALS:
            return Liveness(
                False, f"The server's port refused {self._refusals} connections in a row."
            )
        silent = self.seconds_since_proof(now)
        if silent > self._bound:
            what = "Requests wait, and nothing has moved" if self._is_busy else "There is no answer"
            return Liveness(False, f"{what} for {silent:.0f} s.")
        if self._unready_since is not None and now - self._unready_since > self._bound:
            return Liveness(
                False,
                "The server answers, but has not been ready for "
                f"{now - self._unready_since:.0f} s.",
            )
        return Liveness(True, f"The last proof of life is {silent:.0f} s old.")

    def _prove(self, now: float) -> None:
        self._proof = now

    def _note_arrivals(self, received: float | None, now: float, *, is_new: bool) -> None:
        if received is not None and self._received is not None and not is_new:
            if received > self._received:
                self._arrival = now
        elif is_new:
            self._arrival = None
        self._received = received

    def _has_arrivals(self, now: float) -> bool:
        # Only for a while: a request whose client goes away may never be counted as ended, and must
        # not make an idle server look busy for ever.
        return self._arrival is not None and now - self._arrival <= self._bound / 2
