"""Watches one server: asks it, and answers all readers from memory."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...facts.liveness import Liveness, LivenessRule
from .history import ServerHistory
from .upstream import PAGE_FAULTS, PageFaultError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .upstream import ServerPage, Upstream

__all__ = ["CHECK_SECONDS", "HEALTH_BOUNDS", "SCRAPE_SECONDS", "MonitorReading", "ServerMonitor"]

SCRAPE_SECONDS = 5.0
"""Seconds between two requests for the server's page, which it renders between two steps of its
work (30 ms for 366 KiB, ROCm/ATOM#2186)."""
CHECK_SECONDS = 10.0
"""Seconds between two questions whether the server is ready."""
HEALTH_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 21.0)
"""Upper bounds of the histogram of these answers' times, in seconds."""


@dataclass(kw_only=True, slots=True)
class MonitorReading:
    """What the monitor knows at one moment."""

    page: ServerPage | None
    """The last good page."""
    age: float
    """Its age in seconds."""
    is_stale: bool
    """Whether a later page was not good."""
    good_pages: int
    bad_pages: dict[str, int]
    """Reason → number of pages."""
    health_buckets: tuple[int, ...]
    """How many readiness answers took as long as each of `HEALTH_BOUNDS`, and longer."""
    health_seconds: float
    is_ready: bool
    restarts: int
    seconds_since_proof: float
    verdict: Liveness


class ServerMonitor:
    """The state of one server; every method may be called from any thread.

    Args:
        upstream: Its page of metrics; `None` for a server without one.
        ask_readiness: Asks it whether it is ready with its model; answers `None` if it did not
            answer at all.
        rule: The rule of its liveness.
        clock: Returns seconds that never go back.
    """

    def __init__(
        self,
        upstream: Upstream | None,
        ask_readiness: Callable[[], bool | None],
        rule: LivenessRule,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._ask_readiness = ask_readiness
        self._rule = rule
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._history = ServerHistory()
        self._page: ServerPage | None = None
        self._page_at = self._began
        self._is_stale = False
        self._good_pages = 0
        self._bad_pages = dict.fromkeys(PAGE_FAULTS, 0)
        self._is_ready = False
        self._health_buckets = [0] * (len(HEALTH_BOUNDS) + 1)
        self._health_seconds = 0.0
        self._starts = 0
        """How often the server was started anew; what was asked before a start is void."""
        self._was_told_of_start = False
        """Whether the kubelet has heard that the server started."""
        self._is_held_back = False
        """Whether the kubelet waits for a server that was started anew."""
        self._loops: dict[str, float] = {}
        """When each thread last came round."""

    # The threads

    def start(self) -> None:
        """Watch, until the process ends."""
        if self._upstream:
            self._repeat("scrape", self.scrape, SCRAPE_SECONDS)
        self._repeat("check", self.check, CHECK_SECONDS)

    def _repeat(self, name: str, action: Callable[[], None], seconds: float) -> None:
        def run() -> None:
            while True:
                began = time.monotonic()
                action()
                self._loops[name] = self._clock()
                time.sleep(max(seconds - (time.monotonic() - began), 0.0))

        self._loops[name] = self._clock()
        threading.Thread(target=run, name=f"exporter-{name}", daemon=True).start()

    def is_watching(self, bound_seconds: float = 60.0) -> bool:
        """Return whether all threads still come round."""
        now = self._clock()
        return all(now - at <= bound_seconds for at in self._loops.values())

    def scrape(self) -> None:
        """Ask for the page once."""
        if self._upstream is None:
            return
        starts = self._starts
        page, fault = None, ""
        try:
            page = self._upstream.ask(SCRAPE_SECONDS)
        except PageFaultError as error:
            fault = error.reason
        now = self._clock()
        with self._lock:
            if starts == self._starts:
                self._note(page, fault, now)

    def _note(self, page: ServerPage | None, fault: str, now: float) -> None:
        if page is None:
            self._is_stale = self._page is not None
            self._bad_pages[fault] += 1
            if fault == "refused":
                self._rule.add_refusal()
            return
        self._page, self._page_at, self._is_stale = page, now, False
        self._good_pages += 1
        self._rule.add_page(page.totals.values, now)
        self._history.add(page.totals, now - self._began)

    def check(self) -> None:
        """Ask once whether the server is ready."""
        starts = self._starts
        began = self._clock()
        answer = self._ask_readiness()
        now = self._clock()
        seconds = now - began
        with self._lock:
            if starts != self._starts:
                return
            self._is_ready = bool(answer)
            slot = next(
                (index for index, bound in enumerate(HEALTH_BOUNDS) if seconds <= bound),
                len(HEALTH_BOUNDS),
            )
            self._health_buckets[slot] += 1
            self._health_seconds += seconds
            if answer is not None:
                self._rule.add_readiness(answer, now)

    # The readers

    def verdict(self) -> Liveness:
        """Return whether the server is alive."""
        with self._lock:
            return self._rule.verdict(self._clock())

    def has_started(self) -> bool:
        """Answer the kubelet's startup probe of the server.

        It asks until it hears yes, and then again only after it has started the container anew. The
        first start is none of its business: there the server must not hold back the containers
        after it. After every later start the kubelet has to wait, or the liveness probe would end a
        server that loads its model.
        """
        with self._lock:
            if self._rule.is_restarting:
                return False
            is_again = self._was_told_of_start and not self._is_held_back
            if is_again and self._rule.is_up:
                self._rule.begin_restart()
                self._is_held_back = True
                self._starts += 1
                return False
            self._is_held_back, self._was_told_of_start = False, True
            return True

    def reading(self) -> MonitorReading:
        """Return what is known now."""
        with self._lock:
            now = self._clock()
            return MonitorReading(
                page=self._page,
                age=now - self._page_at,
                is_stale=self._is_stale,
                good_pages=self._good_pages,
                bad_pages=dict(self._bad_pages),
                health_buckets=tuple(self._health_buckets),
                health_seconds=self._health_seconds,
                is_ready=self._is_ready,
                restarts=self._rule.restarts,
                seconds_since_proof=self._rule.seconds_since_proof(now),
                verdict=self._rule.verdict(now),
            )

    def summary(self) -> dict[str, Any]:
        """Return totals, peaks, latencies and a series of what was seen, as JSON values."""
        with self._lock:
            return {
                "observed_seconds": round(self._clock() - self._began, 3),
                "pages": self._good_pages,
                "page_errors": {name: n for name, n in self._bad_pages.items() if n},
                "restarts": self._rule.restarts,
                **self._history.summary(),
            }
