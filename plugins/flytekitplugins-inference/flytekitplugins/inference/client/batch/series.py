"""Samples a run over time with a bounded number of points."""

from __future__ import annotations

from dataclasses import dataclass

MOST_POINTS = 240
"""If there are more, every second point is dropped."""


@dataclass(frozen=True, slots=True)
class Point:
    """The state of a run at one moment."""

    seconds: float
    """Since the run began."""
    finished: int
    """Rows."""
    limit: int
    in_flight: int
    rows_per_second: float


class Series:
    """Points at equal intervals, which double whenever there are too many points."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._distance = 1
        """One in this many offered points is kept."""
        self._offered = 0

    def offer(self, point: Point) -> None:
        """Keep a point if it is far enough from the last."""
        if self._offered % self._distance == 0:
            self.points.append(point)
        self._offered += 1
        if len(self.points) > MOST_POINTS:
            self.points = self.points[::2]
            self._distance *= 2
