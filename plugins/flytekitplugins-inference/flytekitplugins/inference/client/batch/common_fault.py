"""Finds the fault that all rows have in common, so that a run ends early with one sentence.

A wrong key, a wrong path or a column that no row has fails the first rows as it would fail the last
one. It uses neither network nor clock.
"""

from __future__ import annotations

from .faults import Fault

FEWEST_MISCONFIGURED = 16
"""So many rows in succession that fail for the key, path or address end a run at any time: a key
may expire."""
FEWEST_ALIKE = 64
"""So many first rows that fail in one way, before any row has an answer, end a run."""


class CommonFault:
    """Counts the rows that fail in the same way, one after another."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        """The last one."""
        self.alike = 0
        """The rows that failed so, without an answer in between."""
        self._any_answered = False

    @property
    def is_everyones(self) -> bool:
        """Whether further rows would fail in the same way."""
        if self.fault is None:
            return False
        if self.fault.kind in ("misconfigured", "not_json"):
            return self.alike >= FEWEST_MISCONFIGURED
        return self.alike >= FEWEST_ALIKE and not self._any_answered

    def succeeded(self) -> None:
        """Note a row that has an answer."""
        self.fault = None
        self.alike = 0
        self._any_answered = True

    def failed(self, fault: Fault) -> None:
        """Note a row that has failed."""
        is_alike = self.fault is not None and _kind(self.fault) == _kind(fault)
        self.alike = self.alike + 1 if is_alike else 1
        self.fault = fault


def _kind(fault: Fault) -> tuple[str, int | None]:
    return fault.kind, fault.status
